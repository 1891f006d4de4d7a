"""Keep a service running or stopped, and enabled, disabled or masked; restart it when notified.

    - name: nginx runs, also after a boot
      service: {name: nginx, state: started, enabled: true}
    - name: nobody starts this, whatever asks for it
      service: {name: rpcbind.socket, state: stopped, masked: true}

`restarted` and `reloaded` belong into handlers: `service: {name: nginx, state: restarted}`.
systemd is told to read changed unit files before any of this: that needs no declaration. A
service that ends right after its start is a failure, with its last log lines. One that runs once
and ends counts as started if it has run to a good end since the machine started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from reconciler.errors import NotYet, ResourceError, SchemaError, Unsupported
from reconciler.host import Host
from reconciler.modules import _systemd
from reconciler.modules._systemd import Unit, Watch
from reconciler.resource import Diff, Refresh, Resource, State, Value

#: Of several notifications to one unit only the strongest is carried out.
STRENGTH = {"started": 0, "reloaded": 1, "restarted": 2, "stopped": 3}
VERBS = {"reloaded": "reload-or-restart", "restarted": "restart"}


@dataclass(frozen=True)
class Service(Resource):
    name: str  #: Name of the unit; `.service` is added where it has no type: `nginx`, `fstrim.timer`, `getty@tty2`. `*` is systemd itself, with daemon_reload.
    state: Literal["started", "stopped", "restarted", "reloaded"] | None = (
        None  #: `restarted` and `reloaded` only in handlers.
    )
    enabled: bool | None = None  #: Whether it starts with the machine.
    masked: bool | None = None  #: Whether nothing at all can start it.
    scope: Literal["system", "user", "global"] = (
        "system"  #: `global` enables a unit for all users' own service managers; `user` is not supported.
    )
    daemon_reload: bool = False  #: With name `*`: systemd has read all unit files as they are. Else accepted, and not needed.
    no_block: bool = (
        False  #: Do not wait until the service is up; then nobody notices that it failed.
    )
    force: bool = False  #: Replace links that another unit has put in the way of enabling this one.

    aliases: ClassVar[Mapping[str, str]] = {"service": "name", "unit": "name"}
    batched: ClassVar[str] = "adjacent"
    handler_only: ClassVar[Mapping[str, tuple[object, ...]]] = {"state": ("restarted", "reloaded")}

    def __post_init__(self) -> None:
        if self.name == "*" and (self.state, self.enabled, self.masked) != (None, None, None):
            raise SchemaError("state, enabled and masked are about one unit", hint="give its name")
        if self.masked and (self.enabled or self.state == "started"):
            other = "enabled" if self.enabled else "started"
            raise SchemaError(
                f"service '{self.name}' cannot be both masked and {other}",
                hint="a masked unit can be neither started nor enabled",
            )
        if self.scope == "global" and self.state is not None:
            raise SchemaError(
                "a unit in scope 'global' runs in each user's own manager and has no state here",
                hint="leave out state",
            )

    @property
    def _unit(self) -> str:
        return _systemd.unit_name(self.name)

    def claims(self) -> set[str]:
        scope = "" if self.scope == "system" else f"{self.scope}/"
        return {f"unit:{scope}{_lenient(self.name)}"}

    def undone(self) -> dict[str, Value] | None:
        undone: dict[str, Value] = {}
        if self.state == "started":
            undone["state"] = "stopped"
        for name in ("enabled", "masked"):
            if getattr(self, name):
                undone[name] = False
        return {"name": self.name, "scope": self.scope, **undone} if undone else None

    def needs(self) -> set[str]:
        if self.name == "*":
            return {"path:/etc/systemd/**"}
        unit = _lenient(self.name)
        stem = unit.rpartition(".")[0]
        base = stem.partition("@")[0]
        needs = {f"path:{path}" for path in _systemd.unit_paths(unit)}
        if not unit.endswith(".service"):
            needs |= {f"path:{path}" for path in _systemd.unit_paths(f"{stem}.service")}
        return needs | {f"path:/etc/init.d/{base}", f"path:/etc/default/{base}", f"package:{base}"}

    def desired(self) -> State:
        wish: State = {}
        if self.name == "*":
            return {"unit_files": "as they are"} if self.daemon_reload else wish
        if self.masked is not None:
            wish["masked"] = self.masked
        if self.enabled is not None:
            wish["enabled"] = self.enabled
        if self.state in ("started", "stopped"):
            wish["running"] = self.state == "started"
        return wish

    # -- looking -------------------------------------------------------------------------

    @classmethod
    def actual_many(cls, resources: Sequence[Resource], host: Host) -> None:
        names = []
        for resource in resources:
            if (
                isinstance(resource, Service)
                and resource.scope == "system"
                and not _is_template(_lenient(resource.name))
            ):
                try:
                    names.append(_systemd.unit_name(resource.name))
                except ResourceError:
                    continue  # it meets the same error when it is looked at
        _systemd.read_ahead(host, names)

    def actual(self, host: Host) -> State:
        if self.name == "*":
            changed = _systemd.live(host) and _systemd.changed_files(host)
            return {"unit_files": "changed since they were read" if changed else "as they are"}
        name = self._unit
        if self.scope == "user":
            raise Unsupported(
                "scope 'user' is not supported: users' service managers come and go with their sessions",
                hint="use scope: global, or a system service with User=",
            )
        _systemd.require_systemctl(host)
        if self.scope == "global" or _is_template(name) or not _systemd.live(host):
            return self._on_disk(host, name)
        unit = _systemd.unit(host, name)
        self._refuse(host, unit)
        if not unit.exists and unit.ActiveState in ("inactive", "failed", ""):
            return self._nowhere(host, name)
        return {
            "masked": _masked(unit.UnitFileState or unit.LoadState),
            "enabled": self._enabled(host, unit),
            "running": unit.up if self.state == "stopped" else unit.started,
        }

    def _on_disk(self, host: Host, name: str) -> State:
        """Where no manager can be asked: only the links that enable a unit."""
        if self.state is not None:
            where = (
                "a template has no state; name an instance"
                if _is_template(name)
                else "no systemd runs here; only enabled and masked can be managed"
            )
            raise Unsupported(f"{name} cannot be {self.state}: {where}")
        options = ["--global"] if self.scope == "global" else []
        state = _systemd.file_state(host, name, options)
        unit = Unit(name, {"Id": name, "UnitFileState": state, "LoadState": "loaded"})
        return {"masked": _masked(state), "enabled": self._enabled(host, unit)}

    def _nowhere(self, host: Host, name: str) -> State:
        """What is not there runs as little as it is enabled; anything more is not possible yet."""
        coming: set[str] = host.memo("package", "coming", set)
        brings = any(
            claim.startswith("package:") and claim[len("package:") :] in coming
            for claim in self.needs()
        )
        if self.state == "started" or self.enabled or brings:
            raise NotYet(
                f"unit {name} does not exist",
                hint="declare the package or the unit file that brings it",
            )
        return {"masked": False, "enabled": False, "running": False}

    def _refuse(self, host: Host, unit: Unit) -> None:
        """A plan must fail where apply would."""
        if unit.LoadState in ("error", "bad-setting"):
            raise ResourceError(
                f"{unit.id} cannot be loaded: {unit.LoadError or unit.LoadState}",
                hint=f"`systemd-analyze verify {unit.id}` says more",
            )
        # What the files say now: systemd may not have read yet that a mask is gone.
        masked = _masked(unit.UnitFileState or unit.LoadState)
        if masked and self.masked is None and (self.state == "started" or self.enabled):
            raise ResourceError(f"{unit.id} is masked", hint="declare masked: false, or let it be")
        if self.masked and unit.LoadState != "masked":
            path = _systemd.masking_obstacle(host, unit.name)
            if path is not None:
                raise Unsupported(
                    f"{unit.name} cannot be masked: {path} is its unit file, where the mask would be",
                    hint="declare that file absent, or the service stopped and not enabled",
                )
        lost = unit.ends and not unit.started and not unit.remembered and not self.enabled
        if self.state == "started" and lost and unit.ActiveState == "inactive":
            raise Unsupported(
                f"{unit.id} runs once and ends, and nothing remembers that it ran, so it cannot be kept started",
                hint="declare enabled: true, put RemainAfterExit=yes into the unit, or run it from a handler",
            )

    def _enabled(self, host: Host, unit: Unit) -> Value:
        """True or False; the wish itself where it makes no difference; else why it is neither."""
        word = _systemd.enabled(host, unit)
        if word in ("yes", "no"):
            return word == "yes"
        if word in ("masked", "masked-runtime"):
            return False
        if word == "static" and self.enabled is not None:
            if self.enabled:
                host.warnings.append(
                    f"{unit.id} is static: it starts when another unit wants it, and enabling it changes nothing"
                )
            return self.enabled
        if word in ("generated", "transient", "bad", "") and self.enabled is not None:
            if not self.enabled and word != "bad":
                return False
            raise Unsupported(
                f"{unit.id} cannot be enabled: its unit file is {word or 'not there'}"
            )
        return {"enabled-runtime": "until the next boot"}.get(word, word)

    # -- acting --------------------------------------------------------------------------

    def apply(self, host: Host, diff: Diff) -> None:
        _systemd.settle(host, self.begin(host, diff))

    @classmethod
    def apply_many(
        cls, host: Host, work: Sequence[tuple[Resource, Diff]]
    ) -> list[ResourceError | None]:
        """Start one after the other, then watch all of them through the same seconds."""
        outcomes: list[ResourceError | None] = [None] * len(work)
        watches: dict[int, Watch | None] = {}
        for index, (resource, diff) in enumerate(work):
            try:
                watches[index] = cast("Service", resource).begin(host, diff)
            except ResourceError as error:
                outcomes[index] = error
        for index, watch in watches.items():
            try:
                _systemd.settle(host, watch)
            except ResourceError as error:
                outcomes[index] = error
        return outcomes

    def begin(self, host: Host, diff: Diff) -> Watch | None:
        """Do all that the difference asks for; what was started must still be watched."""
        wish = diff.after or {}
        if self.name == "*":
            _systemd.act(host, ["daemon-reload"])
            return None
        if self.scope == "global" or _is_template(self._unit) or not _systemd.live(host):
            options = ["--global"] if self.scope == "global" else []
            self._set_links(host, options, self._unit, diff)
            return None
        unit = self._fresh(host)
        if "running" in diff.changed and not wish["running"]:
            self._job(host, "stop", unit)
            self._warn_of_triggers(host, unit)
        name = unit.name if "masked" in diff.changed else unit.id
        self._set_links(host, [], name, diff, unit)
        if "running" in diff.changed and wish["running"]:
            return self._job(host, "start", _systemd.show(host, [self._unit])[0])
        return None

    def _set_links(
        self, host: Host, options: list[str], name: str, diff: Diff, unit: Unit | None = None
    ) -> None:
        wish = diff.after or {}
        force = ["--force"] if self.force else []
        if "masked" in diff.changed:
            if not wish["masked"]:
                _systemd.act(host, [*options, "unmask", "--runtime", "--", name])
            _systemd.act(host, [*options, "mask" if wish["masked"] else "unmask", "--", name])
        if "enabled" in diff.changed:
            linked = unit is not None and unit.UnitFileState.startswith("linked")
            target = unit.FragmentPath if unit is not None and linked and wish["enabled"] else name
            if not wish["enabled"] and unit is not None and unit.UnitFileState == "enabled-runtime":
                _systemd.act(host, [*options, "disable", "--runtime", "--", target])
            _systemd.act(
                host, [*options, *force, "enable" if wish["enabled"] else "disable", "--", target]
            )

    def _fresh(self, host: Host) -> Unit:
        """The unit as its files have it now."""
        unit = _systemd.show(host, [self._unit])[0]
        if unit.needs_reload or not unit.exists:
            _systemd.act(host, ["daemon-reload"])
            unit = _systemd.show(host, [self._unit])[0]
        return unit

    def _job(self, host: Host, verb: str, unit: Unit) -> Watch | None:
        return _systemd.job(host, verb, unit, no_block=self.no_block)

    def _warn_of_triggers(self, host: Host, unit: Unit) -> None:
        """A stopped service comes back when somebody knocks at its socket."""
        triggers = unit.TriggeredBy.split()
        active = (
            [one.name for one in _systemd.show(host, triggers) if one.ActiveState == "active"]
            if triggers
            else []
        )
        if active:
            host.warnings.append(
                f"{unit.id} is stopped, but {', '.join(active)} can start it again; declare that stopped too"
            )

    # -- notifications -------------------------------------------------------------------

    def refresh(self) -> Refresh | None:
        if self.name == "*":
            return Refresh("unit:*", 0)
        if self.state is None:
            return None
        return Refresh(next(iter(self.claims())), STRENGTH[self.state])

    def on_notify(self, host: Host) -> None:
        if self.name == "*":
            _systemd.act(host, ["daemon-reload"])
            return
        if not _systemd.live(host):
            host.warnings.append(
                f"{self._unit} is not {self.state}: no systemd runs here, so it does not run either"
            )
            return
        self._fresh(host)
        host.forget(opaque=False)
        gap = Diff(self.actual(host), self.desired())
        if gap:
            self.apply(host, gap)
        if self.state in VERBS:
            unit = self._fresh(host)
            if not unit.exists:
                raise NotYet(
                    f"unit {unit.name} does not exist",
                    hint="declare the package or the unit file that brings it",
                )
            _systemd.settle(host, self._job(host, VERBS[self.state], unit))

    def absorbs(self, diff: Diff) -> bool:
        return "running" in diff.changed and bool((diff.after or {}).get("running"))


def _lenient(name: str) -> str:
    """The unit's name for claims and needs, which must not fail."""
    try:
        return _systemd.unit_name(name)
    except ResourceError:
        return name


def _is_template(name: str) -> bool:
    return name.rpartition(".")[0].endswith("@")


def _masked(state: str) -> Value:
    return {"masked": True, "masked-runtime": "until the next boot"}.get(state, False)
