"""A strict reader of the text format of Prometheus."""

from __future__ import annotations

import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (-?[0-9]+(?:\.[0-9]+)?|\+Inf)")


def parse(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """The text format, read as strictly as Prometheus does: sample name -> labels -> value."""
    assert text.endswith("\n")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    kinds: dict[str, str] = {}
    helped: set[str] = set()
    family = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split(" ", 3)[2]
            assert family not in helped, f"{family} has two blocks"
            helped.add(family)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family
            kinds[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            name = match[1]
            ends = ("_bucket", "_sum", "_count") if kinds[family] == "histogram" else ("",)
            assert name in {family + end for end in ends}, line
            assert kinds[family] != "counter" or name.endswith("_total")
            labels = tuple(re.findall(LABEL, match[2] or ""))
            assert labels not in found.setdefault(name, {}), f"twice: {line}"
            found[name][labels] = float(match[7])
    return found
