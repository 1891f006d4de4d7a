"""`--tags` and `--skip-tags`: a part of a catalog that still makes sense."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from reconciler.catalog import Catalog, Declaration
from reconciler.errors import UsageError
from reconciler.words import did_you_mean

ALWAYS, NEVER = "always", "never"
SPECIAL = {"all", "tagged", "untagged", ALWAYS, NEVER}


def select(catalog: Catalog, tags: Sequence[str], skip_tags: Sequence[str]) -> Catalog:
    """What the tags select, with what that requires and the handlers that it notifies.

    As in Ansible: `all` (also without tags) is everything but `never`; `always` is selected
    whatever the tags; `tagged` and `untagged` are what they say. What is skipped stays out.
    Raises UsageError for a tag that nothing has.
    """
    known = {tag for one in catalog.resources for tag in one.tags} | SPECIAL
    for tag in (*tags, *skip_tags):
        if tag not in known:
            raise UsageError(
                f"nothing on {catalog.host} has the tag '{tag}'",
                hint=did_you_mean(tag, known)
                or f"there are {', '.join(sorted(known - SPECIAL)) or 'no tags'}",
            )
    wanted = set(tags) or {"all"}
    by_id = {one.id: one for one in catalog.resources}
    chosen = [
        one
        for one in catalog.resources
        if not one.handler and _chosen(one, wanted) and not _skipped(one, skip_tags)
    ]
    kept = _closure(chosen, by_id, skip_tags)
    return replace(
        catalog.only(one for one in catalog.resources if one.id in kept),
        partial=any(one.id not in kept and not one.handler for one in catalog.resources),
    )


def _chosen(one: Declaration, wanted: set[str]) -> bool:
    tags = set(one.tags)
    if tags & wanted:
        return True
    if NEVER in tags:
        return False
    if ALWAYS in tags or "all" in wanted:
        return True
    return ("tagged" if tags else "untagged") in wanted


def _skipped(one: Declaration, skip_tags: Sequence[str]) -> bool:
    special = {"all", "tagged" if one.tags else "untagged"}
    return bool(set(skip_tags) & {*one.tags, *special})


def _closure(
    chosen: Iterable[Declaration], by_id: dict[str, Declaration], skip_tags: Sequence[str]
) -> set[str]:
    kept: set[str] = set()
    todo = list(chosen)
    while todo:
        one = todo.pop()
        if one.id in kept:
            continue
        kept.add(one.id)
        others = [by_id[name] for name in (*one.requires, *one.notify) if name in by_id]
        todo += [other for other in others if other.handler or not _skipped(other, skip_tags)]
    return kept
