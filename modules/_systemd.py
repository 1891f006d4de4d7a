"""systemd: what it says about units, read once for all of them, and how it is told to act."""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reconciler.errors import CommandFailed, NotYet, ResourceError, Unsupported
from reconciler.host import Host

PROPERTIES = (
    "Id,Names,LoadState,LoadError,ActiveState,SubState,Result,UnitFileState,NeedDaemonReload,"
    "FragmentPath,SourcePath,Type,RemainAfterExit,TriggeredBy,WantedBy,RequiredBy,Job,NRestarts,"
    "ExecMainStatus,ExecMainStartTimestampMonotonic,InactiveEnterTimestampMonotonic,"
    "ConditionResult,ConditionTimestampMonotonic,InvocationID"
)
KINDS = (
    "service",
    "socket",
    "timer",
    "target",
    "path",
    "mount",
    "automount",
    "swap",
    "slice",
    "scope",
    "device",
)
#: `systemd-escape` leaves these, and writes everything else as \xNN.
NAME = re.compile(rf"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\.({'|'.join(KINDS)})")
DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
LONGEST = 255
#: Seconds for which a service must stay up after its start, by when its type says "ready".
SETTLE = {"simple": 2.0, "exec": 2.0, "idle": 2.0}
SETTLE_READY = 0.5
PAUSE = 0.1
LOG_LINES = 10


class Unit(NamedTuple):
    """One unit, by the properties that `systemctl show` gave."""

    name: str
    properties: dict[str, str]

    def __getattr__(self, name: str) -> str:
        return self.properties.get(name, "")

    @property
    def exists(self) -> bool:
        return self.LoadState not in ("not-found", "")

    @property
    def id(self) -> str:
        """Its own name, where it was asked for by an alias."""
        return self.Id or self.name

    @property
    def needs_reload(self) -> bool:
        """Whether its files have changed since systemd read them."""
        return self.NeedDaemonReload == "yes"

    @property
    def ends(self) -> bool:
        """Whether it runs once and is done, and systemd then calls it inactive."""
        return self.Type == "oneshot" and self.RemainAfterExit != "yes"

    @property
    def ran(self) -> bool:
        """Whether a unit that runs once did so, to a good end, since the machine started."""
        return (
            self.ends
            and self.ActiveState == "inactive"
            and self.Result == "success"
            and self.ExecMainStartTimestampMonotonic not in ("", "0")
        )

    @property
    def unmet(self) -> bool:
        """Whether systemd did not start it because of a condition in its unit file."""
        checked = self.ConditionTimestampMonotonic not in ("", "0")
        return checked and self.ActiveState == "inactive" and self.ConditionResult == "no"

    @property
    def remembered(self) -> bool:
        """Whether systemd keeps an inactive unit, and with it when it ran: something refers to it."""
        return any((self.TriggeredBy, self.WantedBy, self.RequiredBy))

    @property
    def up(self) -> bool:
        """Whether it runs or is about to."""
        return self.ActiveState in ("active", "reloading", "refreshing", "activating")

    @property
    def crashing(self) -> bool:
        """Whether it ended, and systemd is about to start it again."""
        return self.SubState == "auto-restart"

    @property
    def started(self) -> bool:
        """Whether a wish to have it started is fulfilled."""
        return (self.up and not self.crashing) or self.ran


def unit_name(name: str) -> str:
    """The full name of a unit. Raises ResourceError for what cannot be one."""
    full = name if name.rpartition(".")[2] in KINDS and "." in name else f"{name}.service"
    if (
        len(full) > LONGEST
        or not NAME.fullmatch(full)
        or full.startswith((".", "-"))
        or ".." in full
    ):
        raise ResourceError(f"{name!r} cannot be the name of a unit", hint="see `systemd-escape`")
    return full


def live(host: Host) -> bool:
    """Whether systemd runs there; in a directory root it does not."""
    return host.root == "/" and host.lstat("/run/systemd/system") is not None


def require_systemctl(host: Host) -> None:
    """Raise Unsupported where there is no systemd at all."""
    if not any(host.lstat(path) for path in ("/usr/bin/systemctl", "/bin/systemctl")):
        raise Unsupported("this host has no systemd; services cannot be managed")


# -- looking -----------------------------------------------------------------------------


def show(host: Host, names: Sequence[str]) -> list[Unit]:
    """The units, in the order of `names`, by one call. Raises ResourceError."""
    out = host.probe(["systemctl", "show", "--no-pager", "-p", PROPERTIES, "--", *names]).out
    return [Unit(name, properties) for name, properties in zip(names, parse_show(out))]


def parse_show(text: str) -> list[dict[str, str]]:
    """Read the output of `systemctl show`: a paragraph per unit."""
    return [
        dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
        for paragraph in text.strip("\n").split("\n\n")
    ]


def read_ahead(host: Host, names: Iterable[str]) -> None:
    """Ask about many units at once."""
    wanted = sorted(set(names))
    if wanted and live(host):
        units: dict[str, Unit] = host.memo("unit", "all", dict)
        units.update((unit.name, unit) for unit in show(host, wanted))


def unit(host: Host, name: str) -> Unit:
    """What systemd says about one unit."""
    units: dict[str, Unit] = host.memo("unit", "all", dict)
    if name not in units:
        units[name] = show(host, [name])[0]
    return units[name]


def changed_files(host: Host) -> bool:
    """Whether any unit's files have changed since systemd read them."""
    show_all = ["systemctl", "show", "--no-pager", "-p", "NeedDaemonReload", "--", "*"]
    return "NeedDaemonReload=yes" in host.memo("unit", "changed", lambda: host.probe(show_all).out)


def file_state(host: Host, name: str, options: Sequence[str] = ()) -> str:
    """`systemctl is-enabled`: for templates, other scopes and roots where no systemd runs."""
    done = host.probe(
        ["systemctl", *options, "is-enabled", "--", name],
        check=False,
        env=OFFLINE if not live(host) else None,
    )
    words = done.out.split()
    if words:
        return words[0]
    if (
        "No such file or directory" in done.err
        or "does not exist" in done.err
        or "not found" in done.err.lower()
    ):
        raise NotYet(
            f"unit {name} does not exist",
            hint="declare the package or the unit file that brings it",
        )
    raise CommandFailed(done.argv, done.code, done.err)


OFFLINE = {"SYSTEMD_OFFLINE": "1"}


def enabled(host: Host, one: Unit) -> str:
    """`yes`, `no`, `static`, or another word for why it is neither."""
    state = one.UnitFileState
    if state == "generated" and one.SourcePath.startswith("/etc/init.d/"):
        return "yes" if _script_enabled(host, one.SourcePath) else "no"
    if state == "indirect":
        return "yes" if _others_enabled(host, one.FragmentPath) else "no"
    return {
        "enabled": "yes",
        "disabled": "no",
        "linked": "no",
        "linked-runtime": "no",
        "alias": "yes",
    }.get(state, state)


def _script_enabled(host: Host, path: str) -> bool:
    """Whether a SysV script is started in any runlevel that is a normal one."""
    script = re.compile(r"S\d\d" + re.escape(path.rpartition("/")[2]))
    return any(
        script.fullmatch(name) for level in "2345" for name in host.listdir(f"/etc/rc{level}.d")
    )


def _others_enabled(host: Host, path: str) -> bool:
    """An indirect unit is as enabled as the units that its file names with `Also=`."""
    if not path:
        return False
    text = host.read(path).decode("utf-8", "replace")
    also = [
        word for line in text.splitlines() if line.startswith("Also=") for word in line[5:].split()
    ]
    return bool(also) and all(
        file_state(host, name) in ("enabled", "static", "indirect") for name in also
    )


# -- acting ------------------------------------------------------------------------------


def act(host: Host, words: Sequence[str]) -> None:
    """Run systemctl. Raises ResourceError."""
    host.run(["systemctl", "--no-ask-password", *words], env=None if live(host) else OFFLINE)


def reload_if_needed(host: Host, one: Unit) -> None:
    """Let systemd read unit files that are new or changed: once, before anything is done."""
    if one.needs_reload or not one.exists:
        act(host, ["daemon-reload"])


class Watch(NamedTuple):
    """A unit that was told to be up, since when, and how often systemd had restarted it before."""

    name: str
    restarts: str
    since: float
    begun: float


def job(
    host: Host, verb: str, one: Unit, *, no_block: bool = False, force: bool = False
) -> Watch | None:
    """Start, stop, restart or reload. What is to be up must still be watched by `settle`.

    Raises ResourceError.
    """
    if verb != "stop" and (one.ActiveState == "failed" or one.crashing):
        act(host, ["reset-failed", "--", one.id])
    options = (["--no-block"] if no_block else []) + (["--force"] if force else [])
    since = time.time()
    before = one.NRestarts
    done = host.run(["systemctl", "--no-ask-password", *options, verb, "--", one.id], check=False)
    if not done.ok:
        told = done.err.strip().splitlines()
        raise ResourceError(
            f"{one.id} could not be {_done(verb)}: {told[0] if told else f'code {done.code}'}{journal(host, one.id, since)}"
        )
    if verb == "stop" or no_block:
        return None
    return Watch(one.id, before if verb.startswith("reload") else "0", since, time.monotonic())


def _done(verb: str) -> str:
    return {"stop": "stopped", "start": "started", "restart": "restarted"}.get(verb, "reloaded")


def settle(host: Host, watch: Watch | None) -> None:
    """Watch a unit that was just started, until it has been up for a while.

    Raises ResourceError if it goes down.
    """
    if watch is None:
        return
    name, restarts, since, begun = watch
    while True:
        one = show(host, [name])[0]
        up = time.monotonic() - begun
        if one.unmet:
            raise ResourceError(
                f"{name} was not started: a condition in its unit file is not met",
                hint=f"`systemctl status {name}` says which",
            )
        if _is_down(one, restarts):
            code = f" {one.ExecMainStatus}" if one.Result == "exit-code" else ""
            raise ResourceError(
                f"{name} was started and did not stay up: {one.ActiveState} "
                f"({one.Result or one.SubState}{code}){journal(host, name, since)}",
                hint=f"`systemctl status {name}` and `journalctl -u {name}` on the host say more",
            )
        if not one.name.endswith(".service") or one.ran or one.ends:
            return
        if one.ActiveState == "active" and up >= SETTLE.get(one.Type, SETTLE_READY):
            return
        if host.remaining() <= PAUSE:
            return
        time.sleep(PAUSE)


def _is_down(one: Unit, restarts: str) -> bool:
    if one.ActiveState == "failed" or one.crashing:
        return True
    if one.NRestarts not in ("", "0", restarts):
        return True
    return one.ActiveState == "inactive" and one.name.endswith(".service") and not one.ends


def journal(host: Host, name: str, since: float) -> str:
    """The last lines that a unit wrote, behind a line break; "" if there are none."""
    argv = ["journalctl", "--no-pager", "-q", "-o", "cat", "-n", str(LOG_LINES)]
    argv += [f"--since=@{int(since)}", "-u", name]
    try:
        lines = host.probe(argv, check=False, timeout=10).out.strip()
    except ResourceError:
        return ""
    return f"\n{lines}" if lines else ""


def unit_paths(name: str) -> list[str]:
    """Where the files of a unit may lie, drop-ins and templates included."""
    stem, _, kind = name.rpartition(".")
    names = [name, f"{stem.partition('@')[0]}@.{kind}"] if "@" in stem else [name]
    paths = [f"{directory}/{one}" for directory in DIRECTORIES for one in names]
    return paths + [f"{path}.d/**" for path in paths]


def masking_obstacle(host: Host, name: str) -> str | None:
    """A unit file that lies where the mask would be; None if masking is possible."""
    path = f"/etc/systemd/system/{name}"
    found = host.lstat(path)
    return path if found is not None and not stat.S_ISLNK(found.st_mode) else None
