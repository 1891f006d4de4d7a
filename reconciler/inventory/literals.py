"""The types of values in INI files, as Ansible has them: a Python literal where it is one.

`5` is an integer, `True` a boolean, `[1, 2]` a list; `yes`, `0777` and `FALSE` are text.
"""

from __future__ import annotations

import ast
import math
import re
import warnings

#: Text that starts like a word is no literal, except for these three.
_WORD = re.compile(r"[A-Za-z_/~][\w./~:@+-]*")
_CONSTANTS: dict[str, object] = {"True": True, "False": False, "None": None}


def ini_value(text: str) -> object:
    """The value that `text` stands for: plain data, or the text itself."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if not text or _WORD.fullmatch(text):
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _plain(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _plain(value: object) -> object:
    """Only what JSON can carry, with the same text on every run. Raises ValueError."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [_plain(item) for item in sorted(value, key=repr)]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    raise ValueError(f"{type(value).__name__} is not data")
