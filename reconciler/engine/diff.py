"""Differences for people: unified diffs under a cap, hostile bytes made harmless."""

from __future__ import annotations

import difflib
from typing import Dict, List, Tuple

from reconciler.catalog import HIDDEN
from reconciler.resource import Change, Diff, Secret, Value

#: difflib takes quadratic time in the worst case.
MAX_LINES = 5000
CONTEXT = 3
_CONTROLS: Dict[int, str] = {
    code: f"\\x{code:02x}"
    for code in [*range(0x20), *range(0x7F, 0xA0)]
    if code not in (0x09, 0x0A)
}
#: Characters that reorder or hide text: bidirectional controls, zero width, line separators.
_CONTROLS.update(
    {
        code: f"\\u{code:04x}"
        for code in [
            *range(0x200B, 0x2010),
            *range(0x2028, 0x202F),
            *range(0x2060, 0x206A),
            0xFEFF,
            0x61C,
        ]
    }
)


def harmless(text: str) -> str:
    """`text` without terminal escapes, direction marks and undecodable bytes: all shown as codes."""
    return text.encode("utf-8", "backslashreplace").decode().translate(_CONTROLS)


def unified(before: bytes, after: bytes, name: str) -> str:
    """A unified diff of two texts; one line that says why not, for what is no text."""
    if b"\0" in before or b"\0" in after:
        return f"binary content: {len(before)} bytes before, {len(after)} after\n"
    old, new = _lines(before), _lines(after)
    if len(old) > MAX_LINES or len(new) > MAX_LINES:
        return f"{len(old)} lines before, {len(new)} after: too many to compare\n"
    lines = difflib.unified_diff(old, new, f"{name} (actual)", f"{name} (desired)", n=CONTEXT)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ no newline at the end\n" for line in lines
    )


def _lines(content: bytes) -> List[str]:
    """Lines end at a newline and nothing else: a lone CR or a form feed is shown, not obeyed."""
    lines = content.decode("utf-8", "backslashreplace").split("\n")
    last = lines.pop()
    return [f"{harmless(line)}\n" for line in lines] + ([harmless(last)] if last else [])


def shown(diff: Diff, no_log: bool) -> Tuple[Change, ...]:
    """The changes as they may be shown: a secret is never in them, before or after."""
    return tuple(
        Change(
            name,
            _hide(before, after, no_log),
            HIDDEN if no_log or isinstance(after, Secret) else after,
        )
        for name, before, after in diff.changes
    )


def _hide(before: Value, after: Value, no_log: bool) -> Value:
    if before is None or not (no_log or isinstance(after, Secret)):
        return before
    return HIDDEN
