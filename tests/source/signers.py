"""People with keys, repositories that they sign, and a host that trusts some of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reconciler.source.fetch import Fetched, fetch
from reconciler.source.mark import Marks
from reconciler.source.mirror import Mirror
from reconciler.source.remote import Remote
from reconciler.source.signature import Keys
from reconciler.source.trust import Policy, Verdict, accept

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def git_environment(**more: str) -> dict[str, str]:
    date = more.pop("date", NOW.isoformat())
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "Ada",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_DATE": date,
        **more,
    }


class People:
    """SSH keys by name, made when they are first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def key(self, name: str) -> Path:
        path = self.directory / name
        if not path.exists():
            self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path))
        return path

    def public(self, name: str) -> str:
        return " ".join((self.key(name).with_suffix(".pub")).read_text().split()[:2])

    def line(self, name: str, options: str = 'namespaces="git"') -> str:
        return f"{name}@example.org {options} {self.public(name)}\n"

    def run(self, *argv: str, stdin: bytes = b"", **env: str) -> bytes:
        return subprocess.run(
            argv, input=stdin, env={**os.environ, **env}, check=True, capture_output=True
        ).stdout


class StateRepo:
    """A state repo whose commits are signed by whom the test says."""

    def __init__(self, path: Path, people: People, *init: str) -> None:
        self.path, self.people = path, people
        if path.exists():
            return
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", *init)

    def git(self, *args: str, stdin: bytes = b"", **env: str) -> str:
        done = subprocess.run(
            ["git", *args],
            cwd=self.path,
            env=git_environment(**env),
            input=stdin,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def signing(self, by: str | None) -> list[str]:
        if by is None:
            return ["-c", "commit.gpgSign=false"]
        key = f"user.signingKey={self.people.key(by)}"
        return ["-c", "gpg.format=ssh", "-c", key, "-c", "commit.gpgSign=true"]

    def commit(
        self,
        by: str | None = "ada",
        files: Mapping[str, str] | None = None,
        message: str = "a change",
        date: str = NOW.isoformat(),
    ) -> str:
        for name, text in (files or {}).items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(text)
        self.git("add", "--all")
        self.git(*self.signing(by), "commit", "--quiet", "--allow-empty", "-m", message, date=date)
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def object(self, raw: bytes, kind: str = "commit") -> str:
        """An object of these bytes, whatever git thinks of them."""
        return self.git("hash-object", "--literally", "-t", kind, "-w", "--stdin", stdin=raw)

    def raw(self, id_: str = "HEAD", kind: str = "commit") -> bytes:
        return subprocess.run(
            ["git", "cat-file", kind, id_], cwd=self.path, check=True, capture_output=True
        ).stdout


class World:
    """A state repo, and one host that pulls it."""

    def __init__(self, directory: Path, people: People, *init: str) -> None:
        self.directory, self.people = directory, people
        self.mirror = Mirror(str(directory / "host" / "mirror.git"))
        self.marks = Marks(str(directory / "host"))
        self.signers = directory / "etc" / "allowed_signers"
        self.repo = StateRepo(directory / "state", people, *init)
        if not self.signers.exists():
            self.marks.enrol()
            self.signers.parent.mkdir()
            self.allow(people.line("ada"))
        self.policy = Policy("head", Keys(allowed_signers=str(self.signers)))
        self.ref = "main"

    def copy(self, directory: Path) -> World:
        """The same world in another place."""
        shutil.copytree(self.directory, directory, symlinks=True)
        return World(directory, self.people)

    def allow(self, *lines: str) -> None:
        self.signers.write_text("".join(lines))

    def fetch(self, at: datetime = NOW) -> Fetched:
        return fetch(self.mirror, [Remote(str(self.repo.path))], self.ref, clock=at.timestamp)

    def pull(self, at: datetime = NOW) -> Verdict:
        """Fetch, judge and accept, as the agent does."""
        return accept(self.marks, self.mirror, self.fetch(at), self.policy)

    def change(self, **policy: object) -> None:
        self.policy = replace(self.policy, **policy)

    @property
    def trusted(self) -> str:
        """What the host is held to; both memories of it must agree."""
        mark = self.marks.load()
        assert self.mirror.pointer("trusted") == mark.commit
        return mark.commit


def later(**time: float) -> datetime:
    return NOW + timedelta(**time)
