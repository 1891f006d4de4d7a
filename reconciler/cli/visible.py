"""Text from elsewhere, made safe for a terminal: what cannot be seen is written out.

File names, diffs, program output, commit subjects and facts come from machines and from Git. A
terminal obeys some of what they may hold: escape sequences move the cursor and rewrite lines,
bidirectional marks show a line in another order than it is read by the machine. So everything
that Python does not call printable is shown as its escape: `\x1b`, `\u202e`, `\xff`. That
includes a no-break space, which is the reason why many a configuration file does not work.
"""

from __future__ import annotations


def visible(text: str) -> str:
    """One line of text without anything that a terminal would act on; a tab stays a tab."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character == "\t" else _escape(character)
        for character in text
    )


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # an undecodable byte, as `surrogateescape` keeps it
        return f"\\x{code - 0xDC00:02x}"
    if character in "\n\r":
        return {"\n": "\\n", "\r": "\\r"}[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
