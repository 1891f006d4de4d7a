"""What is done about drift: for a resource, else for its tags, else for the host."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.catalog import Declaration

#: The stricter word wins where a resource has several tags.
STRICT = ("ignore", "warn", "heal")


def drift_policy(declaration: Declaration, host: Mapping[str, str]) -> str:
    """`heal`, `warn` or `ignore`. host: a word for each tag, and for `default`."""
    if declaration.drift:
        return declaration.drift
    tagged = [host[tag] for tag in declaration.tags if tag in host and tag != "default"]
    return max(tagged, key=STRICT.index) if tagged else host.get("default", "heal")
