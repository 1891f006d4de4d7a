"""Names of branches and tags, checked before git sees them."""

from __future__ import annotations

import re

from reconciler.errors import ConfigError

#: Where the agent keeps its own pointers in a mirror.
OWN = "refs/agent/"
#: The pointers: verified, waiting to be applied, applied, applied and healthy.
POINTERS = ("trusted", "candidate", "applied", "good")

_COMPONENT = re.compile(r"\w[\w.+@#=,-]*")
_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def full_ref(ref: str) -> str:
    """`main` as `refs/heads/main`; `refs/heads/...` and `refs/tags/...` as they are.

    Narrower than `git check-ref-format`, never wider. Raises ConfigError.
    """
    full = ref if ref.startswith("refs/") else f"refs/heads/{ref}"
    kind, _, name = full.removeprefix("refs/").partition("/")
    if kind not in ("heads", "tags") or len(full) > 255 or not all(map(_fine, name.split("/"))):
        raise ConfigError(
            f"{ref[:60]!r} is no name of a branch or tag",
            hint="name a branch, like main, or a tag, like refs/tags/v1.2",
        )
    return full


def is_tag(full: str) -> bool:
    """Whether a full ref names a tag."""
    return full.startswith("refs/tags/")


def is_id(text: str) -> bool:
    """Whether this is the full id of a Git object, SHA-1 or SHA-256."""
    return _ID.fullmatch(text) is not None


def _fine(part: str) -> bool:
    return (
        _COMPONENT.fullmatch(part) is not None
        and ".." not in part
        and not part.endswith((".", ".lock"))
    )
