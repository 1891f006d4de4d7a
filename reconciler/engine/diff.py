"""Differences for people: unified diffs under a cap, hostile bytes made harmless."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from reconciler.catalog import HIDDEN, Result
from reconciler.resource import Change, Diff, Secret, Value
from reconciler.words import counted

#: difflib takes quadratic time in the worst case.
MAX_LINES = 5000
CONTEXT = 3
#: Characters of a value: a line of a file may be of any length.
LONGEST = 16 << 10
_CONTROLS: dict[int, str] = {
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
        return f"binary content: {counted(len(before), 'byte')} before, {len(after)} after\n"
    old, new = _lines(before), _lines(after)
    if len(old) > MAX_LINES or len(new) > MAX_LINES:
        return f"{len(old)} lines before, {len(new)} after: too many to compare\n"
    import difflib  # only where something differs

    lines = difflib.unified_diff(old, new, f"{name} (actual)", f"{name} (desired)", n=CONTEXT)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ no newline at the end\n" for line in lines
    )


def _lines(content: bytes) -> list[str]:
    """Lines end at a newline and nothing else: a lone CR or a form feed is shown, not obeyed."""
    lines = content.decode("utf-8", "backslashreplace").split("\n")
    last = lines.pop()
    return [f"{harmless(line)}\n" for line in lines] + ([harmless(last)] if last else [])


def shown(diff: Diff, no_log: bool) -> tuple[Change, ...]:
    """The changes as they may be shown: a secret is never in them, before or after."""
    return tuple(
        Change(name, HIDDEN, HIDDEN)._replace(**_absent(before, after))
        if no_log or isinstance(before, Secret) or isinstance(after, Secret)
        else Change(name, _harmless(before), _harmless(after))
        for name, before, after in diff.changes
    )


class Veil:
    """Hides the values of secrets wherever else they turn up: in what a program said, in a text.

    A value of less than four characters is not looked for: it would be found everywhere.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        parts = {part for secret in secrets for part in (secret, *secret.split("\n"))}
        longest_first = sorted((part for part in parts if len(part) >= 4), key=len, reverse=True)
        self._pattern = (
            re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        )

    def over(self, result: Result) -> Result:
        """The result without secrets."""
        if self._pattern is None:
            return result
        changes = tuple(
            Change(one.attribute, self._value(one.before), self._value(one.after))
            for one in result.changes
        )
        texts = {name: self.text(getattr(result, name)) for name in ("reason", "hint", "diff")}
        return replace(result, changes=changes, **texts)

    def text(self, text: str) -> str:
        """The text without secrets."""
        return self._pattern.sub(HIDDEN, text) if self._pattern is not None else text

    def _value(self, value: Value) -> Value:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._value(one) for one in value]
        if isinstance(value, dict):
            return {name: self._value(one) for name, one in value.items()}
        return value


def _absent(before: Value, after: Value) -> dict[str, None]:
    """That there was nothing, or will be nothing, is no secret."""
    return {name: None for name, value in (("before", before), ("after", after)) if value is None}


def _harmless(value: Value) -> Value:
    if isinstance(value, str):
        return harmless(value[:LONGEST]) + "..." * (len(value) > LONGEST)
    if isinstance(value, list):
        return [_harmless(one) for one in value]
    if isinstance(value, dict):
        return {name: _harmless(one) for name, one in value.items()}
    return value
