"""Put the agent on this machine, or take it away; both can be repeated, and leave no half."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import reconciler
from reconciler import yamldoc
from reconciler.agent import bycron
from reconciler.agent.config import Config, parse
from reconciler.agent.places import UNIT, USER, Places, machine_id, write
from reconciler.agent.trial import try_out
from reconciler.agent.units import (
    DEADMAN,
    DEADMAN_TIMER,
    PROVIDER,
    PROVIDER_SOCKET,
    RUN,
    TIMER,
    units,
)
from reconciler.agent.wish import KEYRING, KNOWN_HOSTS, Wish, remotes_of
from reconciler.errors import ConfigError, ReconcilerError, UsageError
from reconciler.source.remote import redact

SYSTEMD = "/etc/systemd/system"
#: What is started, and so stopped; and every unit that there may be.
STARTED = (DEADMAN_TIMER, TIMER, UNIT, PROVIDER_SOCKET)
ALL = (*STARTED, DEADMAN, PROVIDER, RUN)
HEAD = "# What the agent of reconciler follows on this host; `reconciler agent install` wrote it.\n"


@dataclass
class Installer:
    """Does it, and says each step that changed something. say: takes a line."""

    say: Callable[[str], None]
    changed: bool = False
    places: Places = field(default_factory=Places)

    def install(self, wish: Wish) -> bool:
        """Whether anything was changed. Raises ReconcilerError; nothing was changed then, unless
        it is what the agent itself meets: a remote that brings nothing, a commit that may not be
        used or does not compile. It goes on trying."""
        self._check()
        if wish.timer and not has_systemd():
            raise UsageError(
                "a timer takes systemd, which does not run here",
                hint="without --timer, install says how cron runs it",
            )
        for path in (sys.prefix, os.path.realpath(sys.executable), reconciler.__file__):
            _check_owner(path)
        kept = self._kept()
        settings = wish.merged(kept, self.places)
        if not settings.get("remotes"):
            raise UsageError("which state repo is to be followed?", hint="--repo URL")
        config = parse(settings, self.places.config if kept else "the options")
        wish.check(config, self.places)
        # Who was killed half-way has changed what the agent that runs does not know of.
        self.changed = os.path.exists(self.places.installing)
        write(self.places.installing, b"", 0o644, durable=False)
        self._user()
        self._directory("/etc/reconciler", 0o755)
        self._directory(self.places.trust, 0o700)
        self._directory(self.places.mirrors, 0o700, USER)
        self._copy(wish.allowed_signers, "/etc/reconciler/allowed_signers", 0o644)
        self._copy(wish.keyring, KEYRING, 0o644)
        self._copy(wish.deploy_key, self.places.deploy_key, 0o600)
        self._copy(wish.known_hosts, KNOWN_HOSTS, 0o644)
        self._copy(wish.credentials, self.places.credentials, 0o600)
        self._copy(wish.ca_file, self.places.ca_file, 0o644)
        self._trust(config)
        if settings != kept:
            self._say_remotes(wish, kept, settings)
            text = HEAD + yamldoc.dump(settings, sort_keys=False)
            self._put(self.places.config, text.encode(), 0o600)
        self._close(self.places.config)
        if has_systemd():
            self._put_units(wish, config)
        trouble = self._try(config) if self.changed else None
        if has_systemd():
            self._start(wish)
        elif self.changed:
            when = bycron.line(config.interval, machine_id() or socket.gethostname())
            self.say("nothing starts it: this machine does not run systemd")
            self.say(f"cron does with this line in /etc/cron.d/reconciler: {when}")
        os.unlink(self.places.installing)
        if trouble is not None:
            self.say("the agent is installed and goes on trying, but now:")
            raise trouble
        return self.changed

    def uninstall(self, *, purge: bool) -> bool:
        """Stop and remove the agent; what it manages stays as it is. purge: its memory too."""
        self._check()
        self._remove_units()
        # Or it would go on saying that the host is in sync.
        places = self.places
        for path in (places.status, places.metrics, places.motd, places.socket):
            self._remove(path)
        if purge:
            self._purge()
        return self.changed

    # -- steps ---------------------------------------------------------------------------

    def _check(self) -> None:
        if os.geteuid() != 0:
            raise UsageError("this takes root", hint="sudo reconciler agent ...")

    def _kept(self) -> dict[str, Any]:
        """The settings of an earlier time. Raises ConfigError if they cannot be read."""
        try:
            with open(self.places.config, "rb") as file:
                content = file.read(1 << 20)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError(f"cannot read {self.places.config}: {error.strerror}") from error
        kept = yamldoc.load(content, self.places.config)
        if kept is not None and not isinstance(kept, dict):
            raise ConfigError(
                f"{self.places.config} holds no settings, and what it holds would be lost",
                hint="settings are lines of `name: value`; mend it, or move it away",
            )
        # Without its marks, which nobody could write out again.
        return json.loads(json.dumps(kept or {}))

    def _user(self) -> None:
        if _user() is None:
            _run([
                "useradd", "--system", "--user-group", "--no-create-home", "--shell",
                "/usr/sbin/nologin", "--home-dir", self.places.mirrors, USER,
            ])  # fmt: skip
            self._said(f"made the user {USER}")

    def _directory(self, path: str, mode: int, owner: str = "root") -> None:
        found = pwd.getpwnam(owner)
        if not os.path.isdir(path):
            os.makedirs(path, mode=mode)
            self._said(f"made {path}")
        os.chown(path, found.pw_uid, found.pw_gid)
        os.chmod(path, mode)

    def _copy(self, source: str, target: str, mode: int) -> None:
        if not source:
            return
        try:
            with open(source, "rb") as file:
                content = file.read(1 << 20)
        except OSError as error:
            raise ConfigError(f"cannot read {source}: {error.strerror}") from error
        self._put(target, content, mode)

    def _trust(self, config: Config) -> None:
        from reconciler.source.mark import NAMES, Marks

        if not any(os.path.lexists(os.path.join(self.places.trust, name)) for name in NAMES):
            if os.path.exists(self.places.state):
                return  # it is lost, not new: a person must say what was trusted
            Marks(self.places.trust).enrol()
            self._said("nothing is trusted yet: the first commit that is offered will be the first")
            if config.trust == "none":
                self.say("no signature is asked for (--trust none): who can push is root here")

    def _say_remotes(
        self, wish: Wish, kept: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> None:
        """Whom an address that was given replaces, and who is still asked besides."""
        if not wish.addresses:
            return
        before, now = (
            [redact(str(one.get("url"))) for one in remotes_of(said)] for said in (kept, settings)
        )
        for url in before:
            if url not in now:
                self.say(f"no longer followed: {url}")
        for url in now[len(wish.addresses) :]:
            self.say(f"asked if those before it do not answer: {url}")

    def _put_units(self, wish: Wish, config: Config) -> None:
        secrets = [path for path in config.secret_files() if os.path.exists(path)]
        memory = config.fetch_limits().memory
        wanted = units(
            timer=wish.timer,
            interval=config.interval,
            memory=memory,
            secrets=secrets,
            systemd=systemd_version(),
        )
        for name, text in wanted.items():
            self._put(os.path.join(SYSTEMD, name), text.encode(), 0o644)
        if not wish.timer:
            if os.path.exists(os.path.join(SYSTEMD, TIMER)):
                _systemctl("disable", "--now", TIMER)
            self._remove(os.path.join(SYSTEMD, TIMER))
        _systemctl("daemon-reload")
        _systemctl("enable", "--now", PROVIDER_SOCKET)

    def _remove_units(self) -> None:
        there = [one for one in STARTED if os.path.exists(os.path.join(SYSTEMD, one))]
        if there and has_systemd():
            _systemctl("disable", "--now", *there)
            _systemctl("stop", "reconciler-provider@*.service")
        for name in ALL:
            self._remove(os.path.join(SYSTEMD, name))
        with contextlib.suppress(OSError):  # an operator may have put more in it
            os.rmdir(os.path.join(SYSTEMD, os.path.dirname(RUN)))
        if there and has_systemd():
            _systemctl("daemon-reload")

    def _purge(self) -> None:
        places = self.places
        for path in (places.mirrors, places.trust, "/etc/reconciler", "/run/reconciler"):
            if os.path.isdir(path):
                shutil.rmtree(path)
                self._said(f"removed {path}")
        if _user() is not None:
            _run(["userdel", USER])
            self._said(f"removed the user {USER}")

    def _try(self, config: Config) -> ReconcilerError | None:
        """Why the agent will not converge this host, tried the way that it will take."""
        try:
            try_out(self.places, config)
        except ReconcilerError as error:
            return error
        return None

    def _start(self, wish: Wish) -> None:
        main = TIMER if wish.timer else UNIT
        if wish.timer and self.changed:
            # A process that was resident, and would stay.
            _run(["systemctl", "disable", "--now", UNIT], check=False)
        _systemctl("enable", main)
        running = _run(["systemctl", "is-active", "--quiet", main], check=False) == 0
        if not running or self.changed:
            _systemctl("restart", main)
            self._said(f"started {main}")
        _systemctl("enable", "--now", DEADMAN_TIMER)

    # -- how -----------------------------------------------------------------------------

    def _put(self, path: str, content: bytes, mode: int) -> None:
        try:
            with open(path, "rb") as file:
                found = os.fstat(file.fileno())
                same = (stat.S_IMODE(found.st_mode), found.st_uid) == (mode, 0)
                same = same and file.read() == content
        except OSError:
            same = False
        if not same:
            write(path, content, mode)
            self._said(f"wrote {path}")

    def _close(self, path: str) -> None:
        """A file of secrets that somebody else wrote belongs to root alone from now on."""
        found = os.stat(path)
        if found.st_uid or found.st_mode & 0o077:
            os.chown(path, 0, 0)
            os.chmod(path, 0o600)
            self._said(f"closed {path} to others")

    def _remove(self, path: str) -> None:
        if os.path.lexists(path):
            os.unlink(path)
            self._said(f"removed {path}")

    def _said(self, text: str) -> None:
        self.changed = True
        self.say(text)


def _check_owner(path: str) -> None:
    """Refuse to run as root what somebody else can change. Raises UsageError."""
    while True:
        found = os.stat(path)
        open_to_all = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
        if found.st_uid != 0 or open_to_all:
            raise UsageError(
                f"{path} can be changed by others than root, and the agent would run it as root",
                hint="install reconciler in a place of root's: python3 -m venv /opt/reconciler",
            )
        if path == "/":
            return
        path = os.path.dirname(path)


def _user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


def has_systemd() -> bool:
    """Whether this machine was booted with it."""
    return os.path.isdir("/run/systemd/system")


def systemd_version() -> int:
    """Of the one that is installed; 0 if it does not say."""
    found = re.match(r"systemd (\d+)", _done(["systemctl", "--version"]).stdout)
    return int(found[1]) if found else 0


def _systemctl(*words: str) -> None:
    _run(["systemctl", "--quiet", *words])


def _run(argv: Sequence[str], *, check: bool = True) -> int:
    """The exit code of a program. Raises ReconcilerError, without `check` only if it cannot run."""
    done = _done(argv)
    if check and done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise ReconcilerError(f"{' '.join(argv)} failed: {said}")
    return done.returncode


def _done(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """What a program came to. Raises ReconcilerError if it cannot run."""
    command = " ".join(argv)
    try:
        return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=180)
    except FileNotFoundError as error:
        raise ReconcilerError(
            f"{argv[0]} is not installed", hint=f"by hand, or as it is done here: {command}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ReconcilerError(f"{command} did not end within 180 s") from error
