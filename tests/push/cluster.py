"""A dask scheduler and workers as processes of their own on loopback, and certificates for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from reconciler.push.workers import Keys
from source.servers import make_certificate

TESTS = Path(__file__).parents[1]


class Cluster:
    """A scheduler and workers w0, w1, ...; all of them are gone at its end.

    keys: TLS for all of them. settings: environment of the workers. paths: kind -> where it finds
    modules before anywhere else.
    """

    def __init__(
        self,
        path: Path,
        workers: int = 2,
        threads: int = 4,
        *,
        keys: Keys | None = None,
        settings: Mapping[str, str] | None = None,
        paths: Mapping[str, Path] | None = None,
    ) -> None:
        self._path = path
        self._file = path / "scheduler.json"
        self._threads = threads
        self._tls = _words(keys)
        self._settings = dict(settings or {})
        self._paths = dict(paths or {})
        protocol = ["--protocol", "tls"] if keys else []
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0",
            "--scheduler-file", str(self._file), *protocol,
        )  # fmt: skip
        self.workers: list[subprocess.Popen[bytes]] = []
        try:
            place = str(self._wait_for_file()["address"])
            self.address = place.replace("tcp://", "dask://")
            for _ in range(workers):
                self._add()
            for number in range(workers):
                self._wait_for_worker(number)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self) -> None:
        """One more worker; it is ready."""
        self._add()
        self._wait_for_worker(len(self.workers) - 1)

    def _add(self) -> None:
        name = f"w{len(self.workers)}"
        scratch = ["--local-directory", str(self._path / name)]
        self.workers.append(
            self._start(
                "worker",
                "--scheduler-file",
                str(self._file),
                "--nthreads",
                str(self._threads),
                "--no-nanny",
                "--host",
                "127.0.0.1",
                "--name",
                name,
                *scratch,
                log=name,
            )
        )

    def kill(self, number: int) -> None:
        """A worker is gone in an instant."""
        self.workers[number].send_signal(signal.SIGKILL)
        self.workers[number].wait()

    def log(self, name: str) -> str:
        """What a process has said so far."""
        return (self._path / f"{name}.log").read_text()

    def close(self) -> None:
        """End all processes."""
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait()

    def _start(self, kind: str, *words: str, log: str = "scheduler") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", f"distributed.cli.dask_{kind}", "--no-dashboard"]
        paths = [str(self._paths.get(kind, "")), str(TESTS), os.environ.get("PYTHONPATH", "")]
        with open(self._path / f"{log}.log", "wb") as file:
            return subprocess.Popen(
                [*command, *words, *self._tls],
                env={**os.environ, **self._settings, "PYTHONPATH": ":".join(filter(None, paths))},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    def _wait_for_file(self) -> dict[str, object]:
        for _ in range(1200):
            if self._file.exists() and (text := self._file.read_text()):
                found: dict[str, object] = json.loads(text)
                return found
            assert self.scheduler.poll() is None, self.log("scheduler")
            time.sleep(0.05)
        raise TimeoutError("the scheduler does not start")

    def _wait_for_worker(self, number: int) -> None:
        name = f"w{number}"
        for _ in range(1200):
            if "Starting established connection" in self.log(name):
                return
            assert self.workers[number].poll() is None, self.log(name)
            time.sleep(0.05)
        raise TimeoutError(f"the worker {name} does not start")


def _words(keys: Keys | None) -> list[str]:
    if keys is None:
        return []
    return ["--tls-ca-file", keys.ca_file, "--tls-cert", keys.cert, "--tls-key", keys.key]


def certificates(directory: Path) -> Keys:
    """A new authority and one certificate by it, good for two days."""
    directory.mkdir()
    authority = make_certificate(directory, "authority")
    return Keys(authority[0], *make_certificate(directory, "member", authority=authority))
