"""Ways to the two other processes of a run: the provider, and the engine."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from typing import Any, BinaryIO, Self, cast

from reconciler.agent import keys
from reconciler.agent.fork import Forked
from reconciler.agent.places import HANDED, USER, Places, credential
from reconciler.engine.wire import Message, Wire, error_from_json
from reconciler.errors import ProtocolError, ReconcilerError, SourceError, TransportError
from reconciler.transport.process import Process

#: Seconds that the provider may be silent, unless it fetches: compiling has shorter limits.
PATIENCE = 900.0
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "LANG": "C.UTF-8",
}


def python(module: str, *args: str) -> list[str]:
    """The argv that runs a module of ours, isolated, unless a checkout is what runs."""
    isolated = [] if "PYTHONPATH" in os.environ else ["-I"]
    return [sys.executable, *isolated, "-B", "-m", module, *args]


class Gone(SourceError):
    """The provider has ended: by its own fault, or because its time was over."""


class Provider:
    """A conversation with the part without privileges. Raises ReconcilerError where it failed."""

    def __init__(self, wire: Wire, close: contextlib.ExitStack, patience: float) -> None:
        self._wire = wire
        self._close = close
        self._patience = patience

    @classmethod
    def start(cls, places: Places, secrets: Sequence[str] = (), patience: float = PATIENCE) -> Self:
        """By systemd's socket where there is one, else a child that gives up root's rights.

        secrets: files of root's that the child needs; systemd's units have them. patience: seconds
        that it may be silent.
        """
        with contextlib.ExitStack() as stack:
            if os.path.exists(places.socket):
                link = stack.enter_context(socket.socket(socket.AF_UNIX))
                link.settimeout(patience)
                try:
                    link.connect(places.socket)
                except OSError as error:
                    raise SourceError(
                        f"cannot reach the provider at {places.socket}: {error.strerror}",
                        hint="systemctl status reconciler-provider.socket",
                    ) from error
                incoming = stack.enter_context(link.makefile("rb"))
                outgoing = stack.enter_context(link.makefile("wb"))
            else:
                process = stack.enter_context(_child(places, secrets))
                incoming, outgoing = process.stdout, process.stdin
            wire = Wire(cast("BufferedReader", incoming), cast("BinaryIO", outgoing))
            return cls(wire, stack.pop_all(), patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._close.close()

    def fetch(self, config: Mapping[str, Any], resting: Sequence[str] = ()) -> dict[str, Any]:
        """What the remotes offer, fetched and not judged. resting: names of those to try last."""
        return self._ask({"op": "fetch", "config": config, "resting": list(resting)}, "fetched")

    def judge(
        self, config: Mapping[str, Any], mark: Mapping[str, Any], offer: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Whether what `fetch` gave may be used, after what `mark` says; asks no remote."""
        return self._ask({"op": "judge", "config": config, "mark": mark, "offer": offer}, "judged")

    def describe(self, config: Mapping[str, Any], commit: str) -> dict[str, str]:
        """Who made a commit, and what it says: `tree`, `author`, `date`, `subject`."""
        found = self._ask({"op": "describe", "config": config, "commit": commit}, "described")
        return {str(name): str(value) for name, value in found.items()}

    def compile(
        self, config: Mapping[str, Any], commit: str, facts: Mapping[str, object]
    ) -> tuple[str, dict[str, Any]]:
        """The host's name and its catalog, as JSON would have it."""
        request = {"op": "compile", "config": config, "commit": commit, "facts": facts}
        compiled = self._ask(request, "compiled")
        return str(compiled.get("host")), self._receive()

    def point(self, config: Mapping[str, Any], pointers: Mapping[str, str]) -> None:
        """Keep these commits in the mirror, whatever becomes of the branch; "" for none."""
        self._ask({"op": "point", "config": config, "pointers": dict(pointers)}, "pointed")

    def content(self, sha256: str) -> Iterator[bytes]:
        """The bytes of a content, of what was compiled last."""
        with self._talking():
            yield from self._wire.ask_content(sha256, 0)

    def secrets(self) -> dict[str, str]:
        """The values behind the handles of what was compiled last."""
        found = self._ask({"op": "secrets"}, "secrets")
        return {str(name): str(value) for name, value in found.items()}

    def _ask(self, request: Mapping[str, object], name: str) -> dict[str, Any]:
        with self._talking():
            self._wire.send(request)
        answer = self._receive()
        if "error" in answer:
            raise error_from_json(answer["error"])
        found = answer.get(name)
        if not isinstance(found, dict):
            raise ProtocolError(f"the provider answered without {name}")
        return found

    def _receive(self) -> Message:
        with self._talking():
            return self._wire.receive()

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise SourceError(
                f"fetching or compiling did not end within {self._patience:.0f} s"
            ) from error
        except (EOFError, OSError) as error:
            raise Gone(
                "the part that fetches and compiles has ended before it had answered",
                hint="journalctl -u 'reconciler-provider@*' tells why",
            ) from error


@contextlib.contextmanager
def _child(places: Places, secrets: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The provider as a child: root's becomes the user `reconciler`, anybody else's stays."""
    user: int | None = None
    group: int | None = None
    groups: list[int] | None = None
    if os.geteuid() == 0 and places.root == "/":
        try:
            found = pwd.getpwnam(USER)
        except KeyError:
            raise SourceError(
                f"there is no user {USER}, as whom the state repo is fetched",
                hint="reconciler agent install makes it",
            ) from None
        user, group, groups = found.pw_uid, found.pw_gid, []
    with keys.copies(secrets if user is not None else (), user or 0) as handed:
        words = [f"{credential(path)}={fd}" for path, fd in handed.items()]
        process = subprocess.Popen(
            python("reconciler.agent.provider", places.mirrors),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env={**ENVIRONMENT, **_checkout(), HANDED: " ".join(words)},
            start_new_session=True,
            umask=0o077,
            user=user,
            group=group,
            extra_groups=groups,
            pass_fds=tuple(handed.values()),
        )
    try:
        yield process
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _checkout() -> dict[str, str]:
    """For a checkout that is not installed, the way to it."""
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": path} if path else {}


class ForkedEngine(Process):
    """An engine that is a fork of ours: it has imported what we have."""

    def __init__(self) -> None:
        """Raises TransportError."""
        pipes: list[int] = []
        try:
            pipes += os.pipe()
            pipes += os.pipe()
            requests, outgoing, incoming, answers = pipes
            child = Forked(lambda: _serve(requests, answers), keep=[requests, answers])
        except OSError as error:
            for fd in pipes:
                os.close(fd)
            raise TransportError(f"cannot start the engine: {error}") from error
        os.close(requests)
        os.close(answers)
        self._process = cast("subprocess.Popen[bytes]", child)
        self.incoming = os.fdopen(incoming, "rb")
        self.outgoing = cast("BinaryIO", os.fdopen(outgoing, "wb"))


def _serve(requests: int, answers: int) -> None:
    from reconciler.engine.__main__ import main

    for fd, place in ((requests, 0), (answers, 1)):
        os.dup2(fd, place)
        os.close(fd)
    main()


class TransientUnit(Process):
    """An engine in a systemd unit of its own: whoever stops the agent does not stop dpkg."""

    def __init__(self, argv: Sequence[str], unit: str) -> None:
        run = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--unit={unit}"]
        run += ["--property=KillMode=mixed", "--property=TimeoutStopSec=20min"]
        run += ["--property=LogLevelMax=notice", "--property=SyslogLevel=warning"]
        run += [f"--description=a run of reconciler ({unit})", "--", *argv]
        super().__init__(run)

    def stop(self) -> None:
        """Tell the engine, in its own words, to stop at the next boundary.

        In a thread: a signal handler may be in the middle of a message, which comes first.
        """
        threading.Thread(target=self._tell_to_stop, name="stop", daemon=True).start()

    def _tell_to_stop(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # it is gone, or was hung up on
            Wire(self.incoming, self.outgoing).send({"op": "stop"})

    def gone(self) -> ReconcilerError:
        """Why the engine has hung up."""
        return TransportError(
            "the engine ended before it had answered", hint="journalctl -u 'reconciler-run-*'"
        )

    def close(self, patience: float) -> None:
        """Hang up; the engine ends at its next boundary, whether or not we wait for that."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)

    def kill(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._hang_up()
