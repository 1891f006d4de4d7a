"""Filters of lists and mappings. Results are in the order of the input."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2.exceptions import TemplateRuntimeError
from jinja2.utils import pass_environment

from reconciler.compile import sandbox


def _listed(value: Any, name: str) -> list[Any]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise TemplateRuntimeError(f"{name} needs a list, not {type(value).__name__}")
    return list(value)


def _distinct(values: Iterable[Any]) -> list[Any]:
    seen: set[Any] = set()
    kept: list[Any] = []
    for value in values:
        try:
            if value in seen:
                continue
            seen.add(value)
        except TypeError:
            if value in kept:
                continue
        kept.append(value)
    return kept


def union(one: Any, other: Any) -> list[Any]:
    return _distinct([*_listed(one, "union"), *_listed(other, "union")])


def intersect(one: Any, other: Any) -> list[Any]:
    others = _listed(other, "intersect")
    return _distinct(value for value in _listed(one, "intersect") if value in others)


def difference(one: Any, other: Any) -> list[Any]:
    others = _listed(other, "difference")
    return _distinct(value for value in _listed(one, "difference") if value not in others)


def symmetric_difference(one: Any, other: Any) -> list[Any]:
    return [*difference(one, other), *difference(other, one)]


def flatten(value: Any, levels: int | None = None, skip_nulls: bool = True) -> list[Any]:
    flat: list[Any] = []
    for one in _listed(value, "flatten"):
        if one is None and skip_nulls:
            continue
        if isinstance(one, (list, tuple)) and levels != 0:
            flat += flatten(one, None if levels is None else levels - 1, skip_nulls)
        else:
            flat.append(one)
    return flat


def zip_filter(one: Any, *others: Any) -> list[list[Any]]:
    return [list(group) for group in zip(one, *others, strict=False)]


def zip_longest(one: Any, *others: Any, fillvalue: Any = None) -> list[list[Any]]:
    return [list(group) for group in itertools.zip_longest(one, *others, fillvalue=fillvalue)]


@pass_environment
def product(environment: sandbox.Sandbox, *lists: Any, repeat: int = 1) -> list[list[Any]]:
    parts = [list(one) for one in lists] * repeat
    size = 1
    for part in parts:
        size *= len(part)
    environment.spend(size)
    return [list(group) for group in itertools.product(*parts)]


def subelements(
    value: Any, subelements: str | list[str], skip_missing: bool = False
) -> list[list[Any]]:
    path = subelements.split(".") if isinstance(subelements, str) else subelements
    pairs: list[list[Any]] = []
    for element in value.values() if isinstance(value, Mapping) else _listed(value, "subelements"):
        inner: Any = element
        for step in path:
            if not isinstance(inner, Mapping) or step not in inner:
                if skip_missing:
                    inner = []
                    break
                raise TemplateRuntimeError(
                    f"an element has no '{step}': write skip_missing=true where that is right"
                )
            inner = inner[step]
        pairs += [[element, one] for one in _listed(inner, "subelements")]
    return pairs


def combine(*values: Any, recursive: bool = False, list_merge: str = "replace") -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for value in flatten(list(values)):
        if not isinstance(value, Mapping):
            raise TemplateRuntimeError(f"combine needs mappings, not {type(value).__name__}")
        result = _merged(result, value, recursive, list_merge)
    return result


def _merged(
    one: Mapping[Any, Any], other: Mapping[Any, Any], recursive: bool, lists: str
) -> dict[Any, Any]:
    result = dict(one)
    for key, value in other.items():
        old = result.get(key)
        if recursive and isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = _merged(old, value, recursive, lists)
        elif isinstance(old, list) and isinstance(value, list):
            result[key] = _merged_lists(old, value, lists)
        else:
            result[key] = value
    return result


def _merged_lists(old: list[Any], new: list[Any], how: str) -> list[Any]:
    ways: dict[str, Callable[[], list[Any]]] = {
        "replace": lambda: new,
        "keep": lambda: old,
        "append": lambda: old + new,
        "prepend": lambda: new + old,
        "append_rp": lambda: [one for one in old if one not in new] + new,
        "prepend_rp": lambda: new + [one for one in old if one not in new],
    }
    if how not in ways:
        raise TemplateRuntimeError(f"there is no list_merge '{how}': {', '.join(ways)}")
    return ways[how]()


def dict2items(
    value: Any, key_name: str = "key", value_name: str = "value"
) -> list[dict[str, Any]]:
    if not isinstance(value, Mapping):
        raise TemplateRuntimeError(f"dict2items needs a mapping, not {type(value).__name__}")
    return [{key_name: key, value_name: one} for key, one in value.items()]


def items2dict(value: Any, key_name: str = "key", value_name: str = "value") -> dict[Any, Any]:
    return {one[key_name]: one[value_name] for one in _listed(value, "items2dict")}


def rekey_on_member(value: Any, key: str, duplicates: str = "error") -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for one in value.values() if isinstance(value, Mapping) else value:
        if one[key] in result and duplicates == "error":
            raise TemplateRuntimeError(f"two elements have the {key} {one[key]!r}")
        result[one[key]] = one
    return result


@pass_environment
def extract(environment: Any, item: Any, container: Any, morekeys: Any = None) -> Any:
    for key in [
        item,
        *([] if morekeys is None else morekeys if isinstance(morekeys, list) else [morekeys]),
    ]:
        container = environment.getitem(container, key)
    return container


def seeded_random(value: Any, start: int = 0, step: int = 1, *, seed: object = None) -> Any:
    chance = _chance(seed, "random")
    if isinstance(value, int):
        return chance.randrange(start, value, step)
    return chance.choice(_listed(value, "random"))


def shuffle(value: Any, seed: object = None) -> list[Any]:
    values = _listed(value, "shuffle")
    _chance(seed, "shuffle").shuffle(values)
    return values


def _chance(seed: object, name: str) -> random.Random:
    if seed is None:
        raise TemplateRuntimeError(
            f"{name} needs a seed, or no two catalogs would be equal: {name}(seed=inventory_hostname)"
        )
    return random.Random(str(seed))  # noqa: S311  # it spreads things evenly, it keeps no secret


FILTERS: dict[str, Any] = {
    "union": union,
    "intersect": intersect,
    "difference": difference,
    "symmetric_difference": symmetric_difference,
    "flatten": flatten,
    "zip": zip_filter,
    "zip_longest": zip_longest,
    "product": product,
    "subelements": subelements,
    "combine": combine,
    "dict2items": dict2items,
    "items2dict": items2dict,
    "rekey_on_member": rekey_on_member,
    "extract": extract,
    "random": seeded_random,
    "shuffle": shuffle,
}
