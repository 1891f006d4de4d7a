"""The `rollout:` of a state repo's reconciler.yml, with an error for everything that is wrong.

rollout:
  batches: [1, 10%, 50%, 100%]
  canary: web1
  max_failed: 5%
  verify:
    - http: {url: "https://{host}/health"}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.errors import ConfigError, ConfigErrors, SchemaError
from reconciler.identity import FILE
from reconciler.push.fleet import PARALLEL
from reconciler.push.rollout import ORDERS, WHOLE, Rollout, Size
from reconciler.push.verify import Check, CheckReader
from reconciler.tree import Tree
from reconciler.words import did_you_mean
from reconciler.yamldoc import Map, Seq, load

#: What reconciler.yml may hold beside the rollout; each is read by whom it concerns.
TOP = ("rollout", "name", "epoch")
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([smh]?)")
MOST_PARALLEL = 1000
MOST_RETRIES = 10


@dataclass(frozen=True)
class Settings:
    """How fleet runs of a state repo go, where flags do not say otherwise.

    host_timeout: seconds for one host. connect_retries: attempts after the first.
    """

    rollout: Rollout = field(default_factory=Rollout)
    parallel: int = PARALLEL
    host_timeout: float = 3600.0
    connect_retries: int = 2
    verify: tuple[Check, ...] = ()


def read_settings(tree: Tree) -> Settings:
    """The settings of a state repo; the defaults where it has none. Raises ConfigErrors."""
    entry = tree.entry(FILE)
    if entry is None or entry.kind != "file":
        return Settings()
    document = load(tree.read(FILE), FILE)
    if document is None:
        return Settings()
    if not isinstance(document, Map):
        raise SchemaError(f"{FILE} must be a mapping", hint="rollout: {batches: [1, 10%, 100%]}")
    _check_top(document)
    node = document.get("rollout")
    if node is None:
        return Settings()
    if not isinstance(node, Map):
        raise SchemaError(
            f"rollout is {_shown(node)}, expected a mapping",
            mark=document.place("rollout"),
            hint="rollout: {batches: [1, 10%, 100%]}",
        )
    return _Reader(node).settings()


def parse_time(value: object) -> float:
    """Seconds: `90`, `90s`, `5m`, `1h`. Raises ValueError."""
    found = None if isinstance(value, bool) else _TIME.fullmatch(str(value).strip())
    if found is None:
        raise ValueError(f"expected a time such as 90s, 5m or 1h, found {value!r}")
    return float(found[1]) * UNITS[found[2]]


def parse_batches(text: str) -> tuple[Size, ...]:
    """`1,10%,50%,100%`. Raises ValueError."""
    return tuple(_batch(part.strip()) for part in text.split(","))


def parse_number(value: object, least: int, most: int) -> int:
    """A whole number from `least` to `most`, also as text. Raises ValueError."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:12])
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"expected a number from {least} to {most}, found {_shown(value)}")
    return int(value)


def _batch(value: object) -> Size:
    size = Size.parse(value)
    if not size.amount:
        raise ValueError(f"a batch of {size} is none: expected a number of hosts from 1, or 10%")
    return size


def _check_top(document: Map) -> None:
    """A word that is nearly `rollout` would otherwise be a rollout that nobody carries out."""
    for key in document:
        close = did_you_mean(str(key), TOP)
        if key not in TOP and "'rollout'" in close:
            raise SchemaError(
                f"{FILE} has no key {_shown(key)}", mark=document.key_place(key), hint=close
            )


class _Reader:
    """Reads one mapping; all that is wrong is collected."""

    def __init__(self, node: Map) -> None:
        self._node = node
        self._errors: list[ConfigError] = []

    def settings(self) -> Settings:
        checks = CheckReader(parse_time)
        readers: Mapping[str, Callable[[Any], object]] = {
            "batches": _batches,
            "canary": _pattern,
            "max_failed": Size.parse,
            "max_unreachable": Size.parse,
            "order": parse_order,
            "seed": lambda value: parse_number(value, 0, 1 << 32),
            "pause": parse_time,
            "on_failure": _on_failure,
            "parallel": lambda value: parse_number(value, 1, MOST_PARALLEL),
            "host_timeout": parse_time,
            "connect_retries": lambda value: parse_number(value, 0, MOST_RETRIES),
        }
        found: dict[str, Any] = {}
        for key, value in self._node.items():
            if key == "verify":
                found[key] = checks.read(value, self._node.place(key))
            elif key in readers:
                self._take(found, str(key), readers[key], value)
            else:
                self._errors.append(
                    SchemaError(
                        f"a rollout has no key {_shown(key)}",
                        mark=self._node.key_place(key),
                        hint=did_you_mean(str(key), [*readers, "verify"])
                        or f"known: {', '.join([*readers, 'verify'])}",
                    )
                )
        self._errors += checks.errors
        if self._errors:
            raise ConfigErrors(self._errors)
        return _made(found)

    def _take(
        self, found: dict[str, Any], key: str, read: Callable[[Any], object], value: object
    ) -> None:
        try:
            found[key] = read(value)
        except ValueError as error:
            mark = self._node.place(key)
            self._errors.append(SchemaError(f"{key}: {error}", mark=mark))


def _made(found: Mapping[str, Any]) -> Settings:
    defaults = Settings()
    return Settings(
        Rollout(
            batches=found.get("batches", (WHOLE,)),
            canary=found.get("canary", ""),
            max_failed=found.get("max_failed"),
            max_unreachable=found.get("max_unreachable"),
            order=found.get("order", "inventory"),
            seed=found.get("seed", 0),
            pause=found.get("pause", 0.0),
        ),
        parallel=found.get("parallel", defaults.parallel),
        host_timeout=found.get("host_timeout", defaults.host_timeout),
        connect_retries=found.get("connect_retries", defaults.connect_retries),
        verify=found.get("verify", ()),
    )


def _batches(value: object) -> tuple[Size, ...]:
    sizes = list(value) if isinstance(value, Seq) else [value]
    if not sizes:
        raise ValueError("expected at least one size: [1, 10%, 100%]")
    return tuple(_batch(one) for one in sizes)


def _pattern(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected a pattern of hosts, found {_shown(value)}")
    return value


def parse_order(value: object) -> str:
    """One of `ORDERS`. Raises ValueError."""
    if value not in ORDERS:
        close = did_you_mean(str(value), ORDERS)
        raise ValueError(
            f"expected one of {', '.join(ORDERS)}, found {_shown(value)}"
            + (f"; {close}" if close else "")
        )
    return str(value)


def _on_failure(value: object) -> str:
    if value != "stop":
        raise ValueError(f"expected stop, found {_shown(value)}; max_failed: 100% never stops")
    return "stop"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
