"""What becomes of a path that nobody declares any more: what of it was ours is taken back.

A resource says by its claims what that is:

    content:PATH          what is in the file
    entry:PATH#KIND       that something of this kind is there
    attribute:PATH#NAME   its owner, group or mode

With none of them it was to be absent, and what is there by now is somebody else's. So is what is
of another kind by now, and the content of a file that we only made or changed the mode of.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from reconciler.engine.ledger import Ledger, paths_of
from reconciler.errors import ResourceError
from reconciler.host import Host
from reconciler.safewrite import Attributes

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
#: First images of files: whole, or of their attributes only.
FILES = ("file", "attributes")
#: Which number of a first image each attribute is.
NUMBERS = {"owner": "uid", "group": "gid", "mode": "mode"}


class Share(NamedTuple):
    """What of a path is ours. entry: the kind of what we put there, or ""; attributes: by name."""

    path: str
    content: bool
    entry: str
    attributes: frozenset[str]

    @classmethod
    def of(cls, claims: Iterable[str]) -> Share:
        """The share that these claims are about. An older ledger knows of paths and content only."""
        claims = list(claims)
        (path, *_) = [*paths_of(claims), ""]
        parts = [claim.partition(f":{path}#") for claim in claims]
        named = [(kind, name) for kind, _, name in parts]
        return cls(
            path,
            f"content:{path}" in claims,
            next((name for kind, name in named if kind == "entry"), ""),
            frozenset(name for kind, name in named if kind == "attribute" and name in NUMBERS),
        )

    @property
    def whole(self) -> bool:
        """Whether it is there by us, so that it may go."""
        return self.content or bool(self.entry)


def decide(share: Share, policy: str, image: Mapping[str, object] | None) -> tuple[str, str]:
    """What is to be done, `delete`, `restore` or "", and why. image: what was there before us."""
    if not share.whole and not share.attributes:
        return "", "nothing that is there was declared"
    if policy == "delete":
        return ("delete", "") if share.whole else ("", "only its attributes were declared")
    if image is None:
        return "", "it was never changed by us"
    kind = image["kind"]
    if kind == "unknown":
        return "", "the ledger was lost, and with it what was there before us"
    if not share.whole:
        return "restore" if kind in FILES else "", "only its attributes were declared"
    if kind == "attributes":
        return "restore" if share.attributes else "", "its content was never changed by us"
    if kind == "absent":
        return "delete", "it was not there before us"
    if kind == "file" and not image["stored"]:
        return "", "its first content was too large, or secret, and is not kept"
    return ("restore", "") if kind in ("file", "link") else ("", f"there was a {kind} before us")


def undo(host: Host, ledger: Ledger, share: Share, act: str) -> str:
    """Do it, and say what was done. Raises ResourceError."""
    host.readonly = False
    host.before_change = lambda path: None
    found = host.lstat(share.path)
    now = _kind(found)
    if act == "delete":
        return _delete(host, share, now)
    image = ledger.images()[share.path]
    changed = share.whole and image["kind"] != "attributes"
    if now == "file" and not (changed and share.content):
        return _put_back_attributes(host, share, image)
    if not changed:
        return f"kept, because it is a {now} now" if now else "was gone already"
    if now == "directory":
        raise ResourceError(
            f"{share.path} is a directory now; what was there before is not put back"
        )
    if now in ("link", "special") and share.entry != "link":
        return f"kept, because it is a {now} now"
    if image["kind"] == "link":
        host.symlink(share.path, str(image["link"]))
        return "restored, as a link"
    content = ledger.image_content(str(image["stored"]))
    host.write(share.path, content, _attributes(image, NUMBERS))
    return "restored"


def _delete(host: Host, share: Share, now: str) -> str:
    if not now:
        return "was gone already"
    if share.entry and now != share.entry:
        return f"kept, because it is a {now} now"
    # Not what is in a directory: that is not ours.
    if now == "directory" and host.listdir(share.path):
        return "kept, because it is not empty"
    host.remove(share.path)
    return "deleted"


def _put_back_attributes(host: Host, share: Share, image: Mapping[str, object]) -> str:
    names = sorted(share.attributes)
    if image["kind"] not in FILES or not names:
        return "kept, because its content is not ours"
    host.set_attributes(share.path, _attributes(image, names))
    return f"restored, its {' and '.join(names)} only"


def _attributes(image: Mapping[str, object], names: Iterable[str]) -> Attributes:
    numbers = {NUMBERS[name]: int(str(image[NUMBERS[name]])) for name in names}
    return Attributes(**numbers)


def _kind(found: os.stat_result | None) -> str:
    """What something is, as claims have it; "" for nothing."""
    return KINDS.get(stat.S_IFMT(found.st_mode), "special") if found is not None else ""
