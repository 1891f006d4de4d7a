"""`make demo`: one host, converged from Git, broken by hand, healed.

Boots a throwaway systemd host where that can be done. Elsewhere the same story is told on a
directory that holds a root file system, with files alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT / "tests"))  # the lab is a tool of the tests

from hosts.booted import BootedHost  # noqa: E402
from hosts.lab import Lab, obstacle  # noqa: E402

EXAMPLE = CHECKOUT / "examples/webserver"
RECONCILER = f"{sys.prefix}/bin/reconciler"
#: The first plan is long; all of it is in this file.
FIRST_PLAN = CHECKOUT / "build/demo-plan.txt"
SHOWN_LINES = 24


class Commit(NamedTuple):
    """A step of the state repo's history."""

    author: str
    date: str
    subject: str
    paths: list[str]


HISTORY = [
    Commit("Ada", "2026-03-02T09:15:00", "base: what every host has", ["roles/base", "*.yml"]),
    Commit("Grace", "2026-03-09T14:40:00", "accounts: teams and people", ["roles/accounts"]),
    Commit("Ada", "2026-04-13T11:05:00", "nginx: two sites", ["roles/nginx"]),
    Commit("Edsger", "2026-04-20T16:30:00", "site: pages and assets", ["roles/site", "README.md"]),
    Commit("Grace", "2026-06-01T10:00:00", "as many workers as the load test asks for", ["."]),
]


class Damage(NamedTuple):
    """Something broken by hand, and the resource that the plan must name for it."""

    what: str
    command: list[str]
    resource: str


ON_HOST = [
    Damage("a file is edited", ["sed", "-i", "1s/^/Hacked. /", "/etc/motd"], "file:/etc/motd"),
    Damage("a service is stopped", ["systemctl", "stop", "nginx"], "service:nginx"),
    Damage("a package is removed", ["apt-get", "remove", "--yes", "tree"], "package:tree"),
]
ON_DIRECTORY = [
    Damage("a file is edited", ["sed", "-i", "1s/^/Hacked. /", "etc/motd"], "file:/etc/motd"),
    Damage("a file is removed", ["rm", "etc/issue.net"], "file:/etc/issue.net"),
    Damage(
        "a file is opened to all",
        ["chmod", "0666", "srv/www/main/robots.txt"],
        "file:/srv/www/main/robots.txt",
    ),
]


#: What a Debian root has before we come.
SKELETON = (
    "etc/logrotate.d etc/profile.d etc/security/limits.d etc/sysctl.d etc/systemd/system"
    " etc/nginx/sites-available etc/nginx/sites-enabled etc/nginx/snippets srv usr/local/lib"
)


class Stage(Protocol):
    """Where the story is told."""

    damages: Sequence[Damage]

    def command(self, argv: Sequence[str], *, terminal: bool = False) -> list[str]:
        """What to run on our side so that `argv` runs there; `terminal`: it may use ours."""
        ...

    def reconciler(self, verb: str) -> list[str]:
        """The call of a verb for this stage's state repo."""
        ...

    def look(self) -> str:
        """The proof that what was applied works."""
        ...


@dataclass
class OnHost:
    """A booted host, which has a copy of the state repo."""

    host: BootedHost
    damages: Sequence[Damage] = tuple(ON_HOST)

    def command(self, argv: Sequence[str], *, terminal: bool = False) -> list[str]:
        ssh = ["ssh", *(["-t"] if terminal else []), "-F", str(self.host.access.config)]
        return [*ssh, self.host.name, "--", shlex.join(argv)]

    def reconciler(self, verb: str) -> list[str]:
        return [RECONCILER, verb, "-C", "/srv/state", "--local"]

    def look(self) -> str:
        url = f"http://{self.host.address}/"
        with urllib.request.urlopen(url, timeout=10) as answer:
            title = re.search(r"<title>(.*?)</title>", answer.read().decode())
            server = answer.headers["Server"]
        return f"GET {url}: {answer.status}, {server} serves {title[1] if title else '?'!r}"


@dataclass
class OnDirectory:
    """A directory with as much of a root file system as files need."""

    root: Path
    repo: Path
    damages: Sequence[Damage] = tuple(ON_DIRECTORY)

    def __post_init__(self) -> None:
        for path in SKELETON.split():
            (self.root / path).mkdir(parents=True)
        for name in ("passwd", "group", "os-release"):
            shutil.copy(f"/etc/{name}", self.root / "etc" / name)

    def command(self, argv: Sequence[str], *, terminal: bool = False) -> list[str]:
        as_root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
        return [*as_root, "env", f"--chdir={self.root}", *argv]

    def reconciler(self, verb: str) -> list[str]:
        where = ["-C", str(self.repo), "--local", "--root", str(self.root), "--tags", "files"]
        return [RECONCILER, verb, *where]

    def look(self) -> str:
        files = sum(path.is_file() for path in self.root.rglob("*"))
        motd = (self.root / "etc/motd").read_text().strip().splitlines()[0]
        return f"{files} files below {self.root}; etc/motd begins {motd!r}"


class Story:
    """Tells what is done before doing it, and how long it took from the start."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def tell(self, text: str) -> None:
        print(f"\n▸ [{time.monotonic() - self.start:3.0f} s] {text}", flush=True)


def become_root() -> None:
    """Start again through sudo, where that is needed and possible."""
    if os.geteuid() != 0 and shutil.which("sudo"):
        print("▸ booting a host takes root: asking sudo (without, a directory will do)", flush=True)
        if subprocess.run(["sudo", "--validate"], check=False).returncode == 0:
            # -B: no compiled files of root's in the checkout
            os.execvp("sudo", ["sudo", sys.executable, "-B", "-P", *sys.argv])


def main() -> int:
    """Tell the story once; 0 if every promise was kept."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--directory", action="store_true", help="boot no host, even if possible")
    args = parser.parse_args()
    if not args.directory:
        become_root()
    story = Story()
    with tempfile.TemporaryDirectory(prefix="reconciler-demo-") as scratch:
        story.tell("a state repo with a history, out of examples/webserver")
        repo = Path(scratch, "state")
        make_repo(repo)
        run(["git", "-C", str(repo), "log", "--format=    %h %as %an: %s"])
        reason = "--directory was given" if args.directory else obstacle()
        if reason:
            story.tell(f"no host can be booted ({reason}): a directory will do, with files alone")
            act(OnDirectory(Path(scratch, "root"), repo), story)
            return 0
        story.tell("a Debian host boots (the first time its image is built: half a minute)")
        with Lab() as lab:
            host = lab.boot("web")
            host.copy(repo, "/srv/state")
            print(f"    {host.name} is up at {host.address}, pid 1 is systemd")
            act(OnHost(host), story)
    return 0


def act(stage: Stage, story: Story) -> None:
    """Plan, apply, look, break, plan, heal, and nothing more to do."""
    story.tell("plan: what would change? (nothing is touched)")
    show_first_plan(stage)
    story.tell("apply")
    show(stage, "apply")
    print(f"    {stage.look()}")
    story.tell("three things are broken by hand")
    for damage in stage.damages:
        print(f"    {damage.what}: {shlex.join(damage.command)}", flush=True)
        run(stage.command(damage.command), quiet=True)
    story.tell("plan names exactly those")
    show(stage, "plan")
    expect(pending(stage), {damage.resource for damage in stage.damages})
    story.tell("apply heals them")
    show(stage, "apply")
    print(f"    {stage.look()}")
    story.tell("apply again: twice is once")
    show(stage, "apply")
    expect(pending(stage), set())
    story.tell("done; nothing of it stays on this machine")


def show(stage: Stage, verb: str) -> None:
    """Run a verb, and let everybody watch."""
    run(stage.command(stage.reconciler(verb), terminal=sys.stdout.isatty()))


def make_repo(repo: Path) -> None:
    """Copy the example into a new repository, commit by commit."""
    run(["git", "init", "--quiet", "--initial-branch=main", str(repo)])
    for commit in HISTORY:
        for pattern in commit.paths:
            for source in EXAMPLE.glob(pattern) if pattern != "." else EXAMPLE.iterdir():
                _copy(source, repo / source.relative_to(EXAMPLE))
        if commit is HISTORY[0]:  # the last commit brings the number back
            site = repo / "site.yml"
            site.write_text(re.sub(r"workers: \d+", "workers: 1", site.read_text()))
        email = f"{commit.author.lower()}@example.test"
        identity = {
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in [("NAME", commit.author), ("EMAIL", email), ("DATE", commit.date)]
        }
        git = ["git", "-C", str(repo), "-c", "commit.gpgSign=false"]
        run([*git, "add", "--all"])
        run([*git, "commit", "--quiet", "-m", commit.subject], env={**os.environ, **identity})


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def show_first_plan(stage: Stage) -> None:
    """The head and the end of it; a new host differs in everything."""
    lines = run(stage.command(stage.reconciler("plan")), quiet=True).splitlines()
    FIRST_PLAN.parent.mkdir(exist_ok=True)
    FIRST_PLAN.write_text("\n".join(lines) + "\n")
    print(*lines[:SHOWN_LINES], sep="\n")
    if len(lines) > SHOWN_LINES:
        print(f"    ... {len(lines) - SHOWN_LINES} more lines: {FIRST_PLAN.relative_to(CHECKOUT)}")
        print(lines[-1])


def pending(stage: Stage) -> set[str]:
    """The ids of the resources that differ, as `plan --json` has them."""
    plan = json.loads(run(stage.command([*stage.reconciler("plan"), "--json"]), quiet=True))
    return {result["id"] for result in plan["results"] if result["status"] != "ok"}


def expect(found: set[str], expected: set[str]) -> None:
    """A demo that shows the wrong thing must not end well."""
    if found != expected:
        raise SystemExit(
            f"demo: the plan should name {sorted(expected)}, and names {sorted(found)}"
        )


def run(argv: Sequence[str], *, quiet: bool = False, env: dict[str, str] | None = None) -> str:
    """Run to the end; `quiet` keeps the output, which is told only if it fails."""
    pipe = subprocess.PIPE if quiet else None
    done = subprocess.run(
        argv, check=False, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=env
    )
    if done.returncode:
        told = f"{done.stdout or ''}{done.stderr or ''}".rstrip()
        raise SystemExit(f"demo: {shlex.join(argv)} ended with {done.returncode}\n{told}")
    return done.stdout or ""


def guarded(tell: Callable[[], int]) -> int:
    """Ctrl-C ends the story in a line; what was set up is gone by then."""
    try:
        return tell()
    except KeyboardInterrupt:
        print("\ndemo: interrupted; everything that it had set up is gone", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(guarded(main))
