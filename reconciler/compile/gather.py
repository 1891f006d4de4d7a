"""All the errors of all hosts, each once."""

from __future__ import annotations

import copy

from reconciler.errors import ConfigError, ConfigErrors, Mark, SchemaError

#: Hosts that are named before the rest is counted.
NAMED = 3


class Complaints(list[ConfigError]):
    """What is wrong with the state repo, in the order in which it was found."""

    def add(self, message: str, mark: Mark, hint: str = "") -> None:
        """Something that the schema does not allow."""
        self.append(SchemaError(message, mark=mark, hint=hint))


class Gathered:
    """Collects errors; the same error on many hosts is one, with the hosts."""

    def __init__(self) -> None:
        self._errors: dict[tuple[str, str, Mark | None, str], tuple[ConfigError, list[str]]] = {}

    def add(self, error: ConfigError, host: str = "") -> None:
        """Keep an error. host: "" for one that does not depend on it."""
        if isinstance(error, ConfigErrors):
            for one in error.errors:
                self.add(one, host)
            return
        key = (type(error).__name__, error.message, error.mark, error.hint)
        hosts = self._errors.setdefault(key, (error, []))[1]
        if host and host not in hosts:
            hosts.append(host)

    def finish(self) -> None:
        """Raises ConfigErrors if there are any, in the order of files and lines."""
        if not self._errors:
            return
        found: list[ConfigError] = []
        for error, hosts in self._errors.values():
            one = copy.copy(error)
            one.host = _named(hosts) or error.host
            one.message, one.hint = _visible(error.message), _visible(error.hint)
            found.append(one)
        found.sort(key=_place)
        raise ConfigErrors(found)


def _visible(text: str) -> str:
    """What comes from the state repo may hold what a terminal would act on."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _place(error: ConfigError) -> tuple[str, int, int]:
    mark = error.mark or Mark("")
    return mark.file, mark.line, mark.column


def _named(hosts: list[str]) -> str | None:
    if not hosts:
        return None
    more = len(hosts) - NAMED
    return ", ".join(hosts[:NAMED]) + (f" and {more} more" if more > 0 else "")
