"""Names of what is declared and could not be read: others may name it with good reason.

So a name that nobody has is certainly wrong only if nothing that was lost can have had it.
"""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.compile.scope import is_template


class Lost:
    """Resources and handlers have names of their own kind."""

    def __init__(self) -> None:
        # By kind, handlers (True) or resources: the names; whether there are any; whether any name
        # is possible.
        self._names: dict[bool, set[str]] = {False: set(), True: set()}
        self._some: set[bool] = set()
        self._any: set[bool] = set()

    def add(self, names: Iterable[object], *, handler: bool) -> None:
        """One item with these names, as written: a template can be any name."""
        for name in names:
            if isinstance(name, str) and not is_template(name):
                self._names[handler].add(name)
            elif name is not None:
                self._any.add(handler)
        self._some.add(handler)

    def add_anything(self) -> None:
        """Something with whatever in it: a file, a role, a play."""
        self._any |= {False, True}

    def may_be(self, name: str, *, handler: bool) -> bool:
        """Whether something that was lost may have had this name."""
        if handler in self._any or name in self._names[handler]:
            return True
        # Which type and key it would have got, nobody knows.
        return handler in self._some and ":" in name
