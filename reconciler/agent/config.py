"""`/etc/reconciler/agent.yml`: what the agent follows, and how it behaves.

The file is YAML and is read by short-lived processes only; the supervisor gets it as JSON:
`python -m reconciler.agent.config FILE`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from reconciler.errors import ConfigError, Mark, ReconcilerError
from reconciler.words import did_you_mean

if TYPE_CHECKING:
    from reconciler.source.network import Limits
    from reconciler.source.trust import Policy as TrustPolicy

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
SIZES = {"": 0, "K": 10, "M": 20, "G": 30}
TRUST = ("none", "head", "every")
DRIFT = ("heal", "warn", "ignore")
PRUNE = ("keep", "restore", "delete")
REMOTE = ("url", "name", "deploy_key", "known_hosts", "credentials", "ca_file", "proxy")
#: How like a built-in type a name must be to be a slip, and no type of a state repo's own.
SLIP = 0.75
#: Of a remote, what nobody but root may read.
SECRETS = ("deploy_key", "credentials")
#: Seconds that making one pack of many may take.
PACKING = 300.0
HELP = "docs/guide/agent.md has all of them"

Policy = dict[str, str]


class Limit(NamedTuple):
    """What `limits` may say of one. field: of `source.network.Limits`; kind: how it is written.

    least, most: as people write them. Less would keep good repos away; more would not be a limit,
    and the provider is not waited for much longer than the longest fetch.
    """

    field: str
    kind: Literal["time", "size", "number"]
    least: str | int
    most: str | int


LIMITS = {
    "fetch": Limit("total", "time", "10s", "10m"),
    "poll": Limit("poll", "time", "5s", "5m"),
    "connect": Limit("connect", "time", "1s", "1m"),
    "stall": Limit("stall", "time", "5s", "5m"),
    "mirror": Limit("mirror", "size", "16M", "1024G"),
    "memory": Limit("memory", "size", "128M", "64G"),
    "objects": Limit("objects", "number", 1000, 1_000_000_000),
}

#: Settings that say who may sign.
SIGNERS = ("allowed_signers", "revoked", "keyring", "fingerprints")


@dataclass(frozen=True)
class Config:
    """The settings. Times are in seconds.

    remotes: what `source.Remote` takes; tried in this order. host: the name in the inventory,
    "" to go by the host name. inventory: a path in the state repo or on this machine, "" for a
    host that stands alone. trust, allowed_signers, revoked, keyring, fingerprints, repository,
    protected, approvals: what `source.trust.Policy` and its keys are made of. max_age: how old the
    last word of a remote may be, max_quiet: how old the newest commit may be; 0 for any age.
    drift, prune: a word for `default`, for tags (`drift`) or types (`prune`).
    prune_max, prune_percent: more than the larger of both is held back.
    notify: where changes of a condition are sent. windows: when new commits may be applied.
    limits: what a fetch may cost at most, by the names of `LIMITS`, in seconds, bytes or numbers.
    """

    remotes: tuple[dict[str, str], ...]
    branch: str = "main"
    host: str = ""
    inventory: str = ""
    trust: str = "none"
    allowed_signers: str = "/etc/reconciler/allowed_signers"
    revoked: str = ""
    keyring: str = ""
    fingerprints: tuple[str, ...] = ()
    repository: str = ""
    protected: tuple[str, ...] = ()
    approvals: int = 2
    max_age: float = 0.0
    max_quiet: float = 0.0
    interval: float = 60.0
    sweep: float = 1800.0
    run_limit: float = 1800.0
    drift: Policy = field(default_factory=dict)
    prune: Policy = field(default_factory=dict)
    prune_max: int = 5
    prune_percent: int = 10
    notify: tuple[dict[str, Any], ...] = ()
    windows: tuple[dict[str, Any], ...] = ()
    limits: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Config:
        """The inverse of `to_json`."""
        values = dict(document)
        for name in ("remotes", "notify", "windows", "fingerprints", "protected"):
            values[name] = tuple(values[name])
        return cls(**values)

    def policy(self) -> TrustPolicy:
        """What this host asks of a commit."""
        from reconciler.source.signature import Keys
        from reconciler.source.trust import Policy

        return Policy(
            mode=self.trust,  # type: ignore[arg-type]  # checked by parse
            keys=Keys(self.allowed_signers, self.revoked, self.keyring, self.fingerprints),
            repository=self.repository,
            max_age=self.max_age,
            max_quiet=self.max_quiet,
            protected=self.protected,
            approvals=self.approvals,
        )

    def fetch_limits(self) -> Limits:
        """What a fetch may cost."""
        from reconciler.source.network import Limits

        usual = asdict(Limits())
        wanted = {LIMITS[name].field: value for name, value in self.limits.items()}
        return Limits(**{name: type(usual[name])(value) for name, value in wanted.items()})

    @property
    def fetch_patience(self) -> float:
        """Seconds after which a fetch has certainly ended: each remote has its time, a mirror that is
        suspected is read for as long, and packs are made one."""
        return (1 + len(self.remotes)) * self.fetch_limits().total + PACKING

    @property
    def ages(self) -> dict[str, float]:
        """How old what is known may be, as `status.compose` takes it."""
        return {"max_age": self.max_age, "max_quiet": self.max_quiet}

    def secret_files(self) -> list[str]:
        """The keys and passwords that the remotes name: files that only root can read."""
        named = (one.get(name, "") for one in self.remotes for name in SECRETS)
        return list(dict.fromkeys(path for path in named if path))


def parse(document: object, file: str) -> Config:
    """The settings that a YAML document holds. Raises ConfigError, which says where."""
    place = Mark(file)

    def wrong(message: str, key: str = "", hint: str = HELP) -> ConfigError:
        from reconciler.source.remote import redact

        at = getattr(document, "key_place", None)
        return ConfigError(redact(message), mark=at(key) if at and key else place, hint=hint)

    if not isinstance(document, Mapping):
        raise wrong("the agent's settings are a mapping", hint="at least: repo: URL")
    values = {key: value for key, value in document.items() if value is not None}
    for key, value in values.items():
        _check_name(key, wrong)
        try:
            values[key] = _fit(key, value)
        except ValueError as error:
            raise wrong(f"{key}: {error}", key) from None
    if "repo" in values:
        if "remotes" in values:
            raise wrong("give 'repo' or 'remotes', not both", "repo")
        values["remotes"] = ({"url": values.pop("repo")},)
    if not values.get("remotes"):
        raise wrong("which state repo is to be followed?", hint="add repo: URL")
    values.setdefault("trust", _usual_trust(values))
    config = Config(**values)
    for key, check in _CHECKS.items():
        try:
            check(config)
        except ConfigError as error:
            raise wrong(error.message, key if key in document else "repo", error.hint) from None
    return config


def _check_name(key: object, wrong: Callable[..., ConfigError]) -> None:
    known = sorted({one.name for one in fields(Config)} | {"repo"})
    if key not in known:
        raise wrong(f"there is no setting '{key}'", key, did_you_mean(str(key), known) or HELP)


def _usual_trust(values: Mapping[str, object]) -> str:
    """Who says whose signatures count does not mean that none are asked for."""
    return "none" if values.keys().isdisjoint(SIGNERS) else "head"


def _check_branch(config: Config) -> None:
    """Refuse a name that Git must never see. Raises ConfigError."""
    from reconciler.source.refs import full_ref

    full_ref(config.branch)


def _check_remotes(config: Config) -> None:
    """The same for addresses, for names that could be taken for each other, and for a proxy that
    would not be used."""
    from reconciler.source.remote import Remote

    remotes = [Remote(**one) for one in config.remotes]
    for one in remotes:
        if one.proxy and one.place.protocol != "https":
            raise ConfigError(
                f"the proxy of {one.name} is for https, and its address is none",
                hint="an https:// address, or no proxy",
            )
    names = [one.name for one in remotes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"two remotes are named {twice}", hint="give each a name of its own")


def _check_age(key: str) -> Callable[[Config], None]:
    """Refuse an age at which what is known would be old before it is asked for again."""

    def check(config: Config) -> None:
        age, interval = getattr(config, key), config.interval
        if 0 < age < 2 * interval:
            raise ConfigError(
                f"{key} is {age:g} s, and the remotes are asked every {interval:g} s: "
                "what is known would be too old between two fetches",
                hint=f"at least twice the interval, {2 * interval:g}s; 0 for any age",
            )

    return check


#: What settings must be together; errors are where the key is.
_CHECKS: Mapping[str, Callable[[Config], None]] = {
    "branch": _check_branch,
    "remotes": _check_remotes,
    "max_age": _check_age("max_age"),
    "max_quiet": _check_age("max_quiet"),
}


def _fit(key: str, value: Any) -> Any:
    """A value as `Config` holds it. Raises ValueError with what was expected."""
    return _FITS.get(key, _text)(value)


def _remotes(value: Any) -> tuple[dict[str, str], ...]:
    """The remotes, each under a name of its own."""
    found = [_remote(one) for one in listed(value)]
    for number, one in enumerate(found[1:], start=2):
        one.setdefault("name", f"origin-{number}")
    return tuple(found)


def _policy(value: Any, words: tuple[str, ...]) -> Policy:
    if isinstance(value, Mapping):
        return {str(name): _word(word, words) for name, word in value.items()}
    return {"default": _word(value, words)}


def _drift(value: Any) -> Policy:
    for name in value if isinstance(value, Mapping) else ():
        if name in DRIFT:
            raise ValueError(f"'{name}' is what is done, and no tag: write TAG: {name}")
    return _policy(value, DRIFT)


def _prune(value: Any) -> Policy:
    """Words for types. Those of the state repo's own are not known here, and another host of the
    same settings may have none of them; so what is refused is what must be a slip."""
    policy = _policy(value, PRUNE)
    if policy.keys() == {"default"}:
        return policy
    from reconciler.compile.types import builtin_names

    known = builtin_names() | {"default"}
    for name in sorted(policy.keys() - known):
        meant = did_you_mean(name, sorted(known), likeness=SLIP)
        if meant or not name.isidentifier():
            raise ValueError(
                f"there is no resource type {name!r}" + (f"; {meant}" if meant else "")
            )
    return policy


def _number(value: Any, least: int = 0, most: float = float("inf")) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        to = f"to {most:g}" if most < float("inf") else "on"
        raise ValueError(f"expected a number from {least} {to}")
    return value


def _path(value: Any) -> str:
    """An absolute path: whoever reads these settings is in a directory of its own."""
    if _text(value) and not value.startswith("/"):
        raise ValueError(f"expected an absolute path, found {value!r}")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, found {value!r}")
    return value


def listed(value: Any) -> list[Any]:
    """A list, or the one thing that was written in its place."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _remote(value: Any) -> dict[str, str]:
    value = {"url": value} if isinstance(value, str) else value
    if not isinstance(value, Mapping) or value.get("url") is None:
        raise ValueError("a remote is an address, or a mapping with `url`")
    for key in value:
        if key not in REMOTE:
            raise ValueError(f"a remote has no '{key}'; it has {', '.join(REMOTE)}")
    return {str(key): str(text) for key, text in value.items() if text is not None}


def _word(value: Any, words: tuple[str, ...]) -> str:
    if value not in words:
        raise ValueError(f"{value!r} is none of {', '.join(words)}")
    return str(value)


def duration(value: object, least: float = 0) -> float:
    """`90`, `90s`, `5m`, `2h`, `1d` in seconds. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(value))
    if found is None or isinstance(value, bool):
        raise ValueError(f"{value!r} is no time: write 90s, 5m, 2h or 1d")
    seconds = float(found[1]) * UNITS[found[2]]
    if seconds < least:
        raise ValueError(f"{value!r} is less than {least:g} s")
    return seconds


def _limits(value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping) or not value.keys() <= LIMITS.keys():
        raise ValueError(f"limits are a mapping with {', '.join(LIMITS)}")
    return {name: _limit(name, one) for name, one in value.items()}


def _limit(name: str, value: object) -> float:
    kinds: Mapping[str, Callable[[Any], float]] = {
        "time": duration,
        "size": size,
        "number": _number,
    }
    _, kind, least, most = LIMITS[name]
    read = kinds[kind]
    found = read(value)
    if not read(least) <= found <= read(most):
        raise ValueError(f"{name} is from {least} to {most}, and {value!r} is not")
    return found


def size(value: object) -> int:
    """`4096`, `64K`, `512M`, `4G` in bytes. Raises ValueError."""
    found = re.fullmatch(r"(\d+)\s*([KMG]?)", str(value))
    if found is None or isinstance(value, bool):
        raise ValueError(f"{value!r} is no size: write 512M or 4G")
    return int(found[1]) << SIZES[found[2]]


def _notify(value: Any) -> tuple[dict[str, Any], ...]:
    from reconciler.agent.sinks import sink

    return tuple(sink(one, _path) for one in listed(value))


def _windows(value: Any) -> tuple[dict[str, Any], ...]:
    from reconciler.agent.windows import window

    return tuple(window(one, duration) for one in listed(value))


_FITS: Mapping[str, Callable[[Any], Any]] = {
    "remotes": _remotes,
    "notify": _notify,
    "windows": _windows,
    "limits": _limits,
    "trust": lambda value: _word(value, TRUST),
    "drift": _drift,
    "prune": _prune,
    **dict.fromkeys(("fingerprints", "protected"), lambda value: tuple(map(_text, listed(value)))),
    **dict.fromkeys(("allowed_signers", "revoked", "keyring"), _path),
    "prune_max": _number,
    "prune_percent": lambda value: _number(value, most=100),
    "approvals": lambda value: _number(value, least=1),
    **dict.fromkeys(("interval", "sweep", "run_limit"), lambda value: duration(value, 5)),
    **dict.fromkeys(("max_age", "max_quiet"), duration),
}


def load(path: str) -> Config:
    """The settings in a file. Raises ConfigError."""
    from reconciler import yamldoc

    try:
        with open(path, "rb") as file:
            _require_own(path, os.fstat(file.fileno()))
            content = file.read(1 << 20)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", hint="reconciler agent install --repo URL"
        ) from error
    return parse(yamldoc.load(content, path), path)


def _require_own(path: str, found: os.stat_result) -> None:
    """Refuse what somebody else could have written: as root, we would do what it says."""
    if os.geteuid() == 0 and (found.st_uid != 0 or found.st_mode & 0o022):
        raise ConfigError(
            f"{path} can be changed by others than root (uid {found.st_uid}, "
            f"mode {found.st_mode & 0o7777:04o}), and what it says is done as root",
            hint=f"look through it; then: chown root:root {path}; chmod 0600 {path}",
        )


def main() -> int:
    """Print the settings as JSON; 3 and words on stderr if they cannot be used."""
    try:
        print(json.dumps(load(sys.argv[1]).to_json()))  # noqa: T201  # for the supervisor
    except ReconcilerError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
