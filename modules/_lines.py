"""Lines of a file as bytes: each with its own end, found and replaced by `lineinfile`'s rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Callable, NamedTuple

from reconciler import patience
from reconciler.errors import ResourceError, SchemaError, TimedOut

#: Seconds of processor time that the search of one edit may take.
SEARCH_LIMIT = 5.0

Matcher = Callable[[bytes], "re.Match[bytes] | bool | None"]


class Anchor(NamedTuple):
    """Where a new line goes: after or before the last (or first) line that matches; None: at
    the end of the file or, with `before`, at its beginning."""

    match: Matcher | None = None
    before: bool = False


class Wish(NamedTuple):
    """A line that must be there. match: the line that it replaces. firstmatch: of several, the
    first and not the last. backrefs: `line` is a template for the match, and nothing without one."""

    line: bytes
    match: Matcher | None
    anchor: Anchor
    firstmatch: bool = False
    backrefs: bool = False


def split(content: bytes) -> list[bytes]:
    """The lines, each with its newline; the last one as it is."""
    lines = content.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


def body(line: bytes) -> bytes:
    """A line without its end."""
    return line.rstrip(b"\r\n")


def shown(line: bytes) -> str:
    """A line for a person, without its end."""
    return body(line).decode("utf-8", "backslashreplace")


def searcher(pattern: str) -> Matcher:
    """Searches a line by a regular expression. Raises SchemaError for one that is none."""
    try:
        return re.compile(encoded(pattern)).search
    except re.error as error:
        raise SchemaError(f"{pattern!r} is not a regular expression: {error}") from error


def encoded(text: str) -> bytes:
    """The bytes of a parameter."""
    return text.encode("utf-8", "surrogateescape")


def present(lines: list[bytes], wish: Wish) -> list[bytes]:
    """The lines once the wish holds: the same list if it does already."""
    hit = _hit(lines, wish.match, first=wish.firstmatch)
    if hit is not None:
        return _replaced(lines, wish, *hit)
    block = _block(wish.line)
    bodies = [body(line) for line in lines]
    if wish.backrefs or (block[0] in bodies and any(_blocks(bodies, block))):
        return lines
    return _inserted(lines, _place(lines, wish), block)


def absent(lines: list[bytes], line: bytes, match: Matcher | None) -> list[bytes]:
    """The lines without all those that match; without a matcher, without `line` itself."""
    if match is not None:
        return [one for one in lines if not match(_text(one))]
    block = _block(line)
    bodies = [body(one) for one in lines]
    gone = {index + more for index, _ in _blocks(bodies, block) for more in range(len(block))}
    return [one for index, one in enumerate(lines) if index not in gone]


def bounded(pattern: str) -> AbstractContextManager[None]:
    """Within this, a search may take SEARCH_LIMIT. Raises TimedOut."""
    return patience.bounded(
        SEARCH_LIMIT,
        lambda: TimedOut(
            f"the search for {pattern!r} took more than {SEARCH_LIMIT:g} s", hint=patience.HINT
        ),
    )


def _text(line: bytes) -> bytes:
    """What patterns are searched in: CRLF counts as a newline, so that `$` finds the end."""
    return line[:-2] + b"\n" if line.endswith(b"\r\n") else line


def _block(line: bytes) -> list[bytes]:
    """A wish may have several lines."""
    return [body(one) for one in (line[:-1] if line.endswith(b"\n") else line).split(b"\n")]


def _blocks(bodies: list[bytes], block: list[bytes]) -> Iterator[tuple[int, bool]]:
    """Where a block of lines stands."""
    for index, one in enumerate(bodies):
        if one == block[0] and bodies[index : index + len(block)] == block:
            yield index, True


def _hit(
    lines: list[bytes], match: Matcher | None, *, first: bool
) -> tuple[int, re.Match[bytes] | bool] | None:
    found = None
    for index, line in enumerate(lines) if match is not None else ():
        result = match(_text(line))  # type: ignore[misc]  # the loop is empty without a matcher
        if result:
            found = (index, result)
            if first:
                break
    return found


def _replaced(
    lines: list[bytes], wish: Wish, index: int, match: re.Match[bytes] | bool
) -> list[bytes]:
    line = wish.line
    if wish.backrefs and isinstance(match, re.Match):
        try:
            line = match.expand(line)
        except (re.error, IndexError) as error:
            raise ResourceError(f"backrefs: {line!r} is not a template: {error}") from error
    block = _block(line)
    bodies = [body(one) for one in lines[max(index - len(block) + 1, 0) : index + len(block)]]
    if any(_blocks(bodies, block)):
        return lines
    end = b"\r\n" if lines[index].endswith(b"\r\n") else b"\n"
    return [*lines[:index], *(one + end for one in block), *lines[index + 1 :]]


def _place(lines: list[bytes], wish: Wish) -> int:
    anchor = wish.anchor
    if anchor.match is None:
        return 0 if anchor.before else len(lines)
    hit = _hit(lines, anchor.match, first=wish.firstmatch)
    if hit is None:
        return len(lines)
    return hit[0] if anchor.before else hit[0] + 1


def _inserted(lines: list[bytes], place: int, block: list[bytes]) -> list[bytes]:
    end = b"\r\n" if lines and lines[0].endswith(b"\r\n") else b"\n"
    head = lines[:place]
    if head and not head[-1].endswith(b"\n"):
        head[-1] += end
    return [*head, *(one + end for one in block), *lines[place:]]
