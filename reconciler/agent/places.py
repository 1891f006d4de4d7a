"""Where the agent keeps things. `root` is another directory than / in tests only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

#: The user that fetches, verifies and compiles.
USER = "reconciler"
UNIT = "reconciler-agent.service"
#: The variable that tells a provider without systemd which descriptors hold which credentials.
HANDED = "RECONCILER_CREDENTIALS"


@dataclass(frozen=True)
class Places:
    """The files of one agent."""

    root: str = "/"

    def at(self, path: str) -> str:
        """A path below the root."""
        return os.path.join(self.root, path)

    @property
    def config(self) -> str:
        return self.at("etc/reconciler/agent.yml")

    @property
    def deploy_key(self) -> str:
        return self.at("etc/reconciler/deploy_key")

    @property
    def credentials(self) -> str:
        """`user:password` for an https address."""
        return self.at("etc/reconciler/credentials")

    @property
    def ca_file(self) -> str:
        """Certificates that are trusted for an https address."""
        return self.at("etc/reconciler/ca.pem")

    @property
    def state(self) -> str:
        return self.at("var/lib/reconciler/agent.json")

    @property
    def catalog(self) -> str:
        """The catalog that healing goes by."""
        return self.at("var/lib/reconciler/applied.json")

    @property
    def facts(self) -> str:
        """The facts that the catalog was compiled with."""
        return self.at("var/lib/reconciler/facts.json")

    @property
    def contents(self) -> str:
        """Contents that the catalog names, by digest: healing needs nobody for these."""
        return self.at("var/lib/reconciler/contents")

    @property
    def once(self) -> str:
        """What a run by the timer leaves for the next one."""
        return self.at("var/lib/reconciler/once.json")

    @property
    def suspension(self) -> str:
        return self.at("var/lib/reconciler/suspension.json")

    @property
    def override(self) -> str:
        """The commit that a person lets through a window, until the next boot."""
        return self.at("run/reconciler/override.json")

    @property
    def settings(self) -> str:
        """The last settings that could be used."""
        return self.at("var/lib/reconciler/settings.json")

    @property
    def notices(self) -> str:
        """What people were told."""
        return self.at("var/lib/reconciler/notices.json")

    def spare(self, path: str) -> str:
        """Where what has no room on the disk is kept until the next boot."""
        return self.at(f"run/reconciler/{os.path.basename(path)}")

    @property
    def outbox(self) -> str:
        """What they are to be told, and were not."""
        return self.at("var/lib/reconciler/outbox.json")

    @property
    def deadman_outbox(self) -> str:
        return self.at("var/lib/reconciler/deadman-outbox.json")

    @property
    def deadman(self) -> str:
        """The same for what is told of a dead agent."""
        return self.at("var/lib/reconciler/deadman.json")

    @property
    def trust(self) -> str:
        """Where the last trusted commit is remembered, twice."""
        return self.at("var/lib/reconciler")

    @property
    def mirrors(self) -> str:
        """Belongs to the user that fetches."""
        return self.at("var/lib/reconciler-fetch")

    @property
    def status(self) -> str:
        return self.at("run/reconciler/status.json")

    @property
    def metrics(self) -> str:
        return self.at("run/reconciler/metrics.prom")

    @property
    def motd(self) -> str:
        """What those who log in are told."""
        return self.at("run/motd.d/reconciler")

    @property
    def installing(self) -> str:
        """There while `agent install` is at work, and after one that was killed."""
        return self.at("run/reconciler/installing")

    @property
    def lock(self) -> str:
        """Held by the one agent that there may be."""
        return self.at("run/reconciler/agent.lock")

    @property
    def socket(self) -> str:
        """Where systemd starts the provider; not there without its units."""
        return self.at("run/reconciler/provider.sock")


def credential(path: str) -> str:
    """The name under which a file of root's is handed to the provider."""
    return f"{os.path.basename(path)}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def write(path: str, content: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Put a file in place, whole or not at all. Raises OSError."""
    make_directory(os.path.dirname(path), 0o755 if mode & 0o044 else 0o700)
    temp = f"{path}.{os.getpid()}.new"
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(content)
            file.flush()
            if durable:
                os.fsync(fd)
        os.rename(temp, path)
    except OSError as error:
        os.unlink(temp)
        error.filename = path  # a full disk tells only that it is full
        raise
    except BaseException:
        os.unlink(temp)
        raise
    if durable:
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def make_directory(path: str, mode: int) -> None:
    """A directory, and those that it is in, of this mode, whatever the umask; what is there stays
    as it is. Raises OSError."""
    if not path or os.path.isdir(path):
        return
    make_directory(os.path.dirname(path), mode)
    with contextlib.suppress(FileExistsError):  # somebody else was faster
        os.mkdir(path, mode)
        os.chmod(path, mode)


def sweep(places: Places) -> None:
    """Remove what was written by processes that were killed before they had renamed it."""
    for directory in {os.path.dirname(path) for path in (places.state, places.status)}:
        with contextlib.suppress(OSError):
            for name in os.listdir(directory):
                pid = name.rpartition(".new")[0].rpartition(".")[2]
                if name.endswith(".new") and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                    os.unlink(os.path.join(directory, name))


def read_json(path: str) -> dict[str, Any] | None:
    """The object in a file; None if there is none that is whole."""
    try:
        with open(path, "rb") as file:
            document = json.load(file)
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def boot_id() -> str:
    """What no other boot of this machine shares; "" where the kernel does not say."""
    return _line("/proc/sys/kernel/random/boot_id")


def machine_id() -> str:
    """What no other machine shares; "" where none was given. It is not to be shown to others."""
    return _line("/etc/machine-id")


def _line(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(1024).strip()
    except (OSError, UnicodeDecodeError):
        return ""
