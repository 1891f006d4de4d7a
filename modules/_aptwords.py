"""What apt and dpkg say when something goes wrong, and what it means for one package."""

from __future__ import annotations

import re

from reconciler.modules._aptget import complaints
from reconciler.modules._aptlook import Wish

#: apt's words for a name, version or release that its lists do not have: newer lists may.
UNKNOWN = (
    "Unable to locate package {name}",
    "Package '{name}' has no installation candidate",
    "Version '{version}' for '{name}' was not found",
    "Release '{release}' for '{name}' was not found",
    "Couldn't find any package by glob '{name}'",
)
SHOWN = 3


def is_unknown(asked: Wish, output: str) -> bool:
    """Whether apt said that it knows no such name, version or release."""
    phrases = (
        phrase.format(name=asked.name, version=asked.version, release=asked.release)
        for phrase in UNKNOWN
    )
    # Whole lines: `foo` is not unknown because `foo-dev` is.
    lines = {
        line.replace(f":{asked.architecture}", "") if asked.architecture else line
        for line in complaints(output)
    }
    return any(phrase in lines for phrase in phrases)


def reason(output: str, about: str) -> str:
    """What apt or dpkg said about one package; all of its complaints where it named none."""
    lines = output.splitlines()
    name = re.escape(about)
    blamed = re.compile(rf"^( {name} : |dpkg: error processing (package|archive) \S*{name}\b)")
    for number, line in enumerate(lines):
        if blamed.match(line):
            more = [
                one.strip()
                for one in lines[number + 1 : number + 4]
                if one.startswith(("  ", " installed"))
            ]
            return "; ".join([line.strip(), *more])
    essential = re.search(
        r"following essential packages will be removed[^\n]*\n(.*)\n  (.*)", output
    )
    if essential is not None:
        return f"essential packages would be removed: {essential[2].strip()}"
    said = complaints(output)
    return "; ".join(said[:SHOWN]) or "apt-get failed without saying why"


def advice(output: str) -> str:
    """What to do next, where apt's words tell."""
    hints = {
        "Failed to fetch": "is the repository reachable from the host?",
        "cannot be authenticated": "the repository's key is missing or wrong; declare it with the repository",
        "Held packages were changed": "`apt-mark unhold` it, or declare allow_change_held_packages: true",
        "Packages were downgraded": "declare allow_downgrade: true",
        "No space left on device": "free some space; the next run goes on from here",
        "held broken packages": "see `apt-cache policy` on the host for what its repositories offer",
        "installation script subprocess returned": "the package's own script failed; `journalctl -e` on the host may say why",
    }
    return next((hint for phrase, hint in hints.items() if phrase in output), "")
