"""Which paths the supervisor is to watch after a run, and how it knows that somebody was there since.

Each path has a stamp. As it is now, where we changed it or did not know it. What was only looked
at may have been changed since: then the stamp from before the look. What was not looked at stays
suspect if it was.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from reconciler.agent.hints import Stamp, Watch, stamp, watch_list
from reconciler.engine.ledger import Ledger

#: No file has this stamp: who is watched with it is looked at again.
MOVED: Stamp = (0, 0)


class Watched:
    """The watches of one run, to be made before its first look.

    watches: what was watched until now. ids: of a heal, what it is about. root: of the machine.
    """

    def __init__(self, watches: Mapping[str, Watch], ids: Collection[str], root: str) -> None:
        self._watches = watches
        self._ids = set(ids)
        self._root = root
        self._before = {path: stamp(path) for path in self._mine() or self._owned()}

    def after(
        self, observed: Collection[str], looked: Collection[str], touched: Collection[str]
    ) -> dict[str, Watch]:
        """What is to be watched now; after a heal, of what it was about.

        observed: ids whose drift anybody wants to know of. looked: those that were seen to the
        end. touched: those that we have changed, or may have: what failed is tried again ever
        more slowly, whatever it left.
        """
        looked, touched = set(looked), set(touched)
        if self._ids:
            return {
                path: self._left(path, one, looked, touched) for path, one in self._mine().items()
            }
        wanted = set(observed)
        found = {
            path: self._left(path, one._replace(ids=tuple(filter(wanted.__contains__, one.ids))),
                             looked, touched)
            for path, one in self._owned().items()
            if not wanted.isdisjoint(one.ids)
        }  # fmt: skip
        # A link that is gone is found by no search; whom it was about must be looked at first.
        for path, one in self._watches.items():
            if path not in found and wanted & set(one.ids) - looked:
                found[path] = one
        return found

    def fresh(self, found: Mapping[str, Watch]) -> set[str]:
        """The ids behind paths that were not watched before: who was there since, only a look tells."""
        return {id_ for path, one in found.items() if path not in self._before for id_ in one.ids}

    def _mine(self) -> Mapping[str, Watch]:
        if not self._ids:
            return self._watches
        return {
            path: one for path, one in self._watches.items() if not self._ids.isdisjoint(one.ids)
        }

    def _owned(self) -> Mapping[str, Watch]:
        """What is to be watched of all that the ledger knows."""
        with Ledger.open_readonly(self._root) as ledger:
            return watch_list(ledger.claims() if ledger is not None else {}, self._root)

    def _left(self, path: str, watch: Watch, looked: set[str], touched: set[str]) -> Watch:
        if path not in self._before or not touched.isdisjoint(watch.ids):
            return watch._replace(stamp=stamp(path))
        before = self._watches.get(path)
        if before is not None and not looked.issuperset(watch.ids):
            return watch._replace(stamp=before.stamp)
        return watch._replace(stamp=self._before[path])


def suspected(found: Mapping[str, Watch], moved: Collection[str]) -> dict[str, Watch]:
    """The same, with all paths of these ids to be looked at again."""
    ids = set(moved)
    return {
        path: one if ids.isdisjoint(one.ids) else one._replace(stamp=MOVED)
        for path, one in found.items()
    }
