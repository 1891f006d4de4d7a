"""The state repo near a worker: a directory that its operator keeps, or a mirror that it keeps itself.

A worker takes a commit from nowhere else than its own settings say, whatever it is asked for, and with
its own keys. What it is asked for is the id of a commit, so where the bytes come from does not matter.
"""

from __future__ import annotations

import os

from reconciler.compile.cache import cache_home
from reconciler.errors import ConfigError, SourceError
from reconciler.push.order import Settings
from reconciler.source.fetch import fetch
from reconciler.source.mirror import Mirror, mirror_path
from reconciler.source.remote import Remote
from reconciler.words import did_you_mean

#: What a worker may be told about its state repo and the hosts near it.
KNOWN = ("repo", "branch", "deploy_key", "known_hosts", "credentials", "ca_file", "ssh_config")
HINT = "DASK_RECONCILER__REPO=/path/to/state or its address, in the environment of the worker"
#: Seconds to wait for a fetch by another worker on this machine.
PATIENCE = 300.0


def check_settings(settings: Settings) -> None:
    """Raises ConfigError for a setting that does not exist, and for a repo that was not named."""
    for name in settings:
        if name not in KNOWN:
            raise ConfigError(
                f"a worker has no setting reconciler.{name}",
                hint=did_you_mean(name, KNOWN) or f"known: {', '.join(KNOWN)}",
            )
    if not settings.get("repo"):
        raise ConfigError("the worker does not know where the state repo is", hint=HINT)


def repo_with(settings: Settings, commit: str) -> str:
    """The directory of a repository that has the commit, fetched if need be.

    Raises ConfigError, SourceError, TrustError.
    """
    repo = settings["repo"]
    if not repo.startswith("/"):
        return _mirrored(settings, commit)
    if not Mirror(repo).has(commit):
        raise SourceError(
            f"commit {commit[:12]} is not in the worker's {repo}",
            hint=f"git -C {repo} fetch on the worker; with an address as reconciler.repo it "
            "fetches by itself",
        )
    return repo


def _mirrored(settings: Settings, commit: str) -> str:
    """The directory of a mirror that has the commit."""
    branch = settings.get("branch", "main")
    home = os.path.join(cache_home(), "mirrors")
    os.makedirs(home, mode=0o700, exist_ok=True)
    mirror = Mirror(mirror_path(home, settings["repo"], branch))
    if not (mirror.exists and mirror.has(commit)):
        _fetch(mirror, settings, branch)
        if not mirror.has(commit):
            raise SourceError(
                f"commit {commit[:12]} is not on {branch} of {settings['repo']}",
                hint=f"push it to {branch}; workers apply nothing else",
            )
    return mirror.path


def _fetch(mirror: Mirror, settings: Settings, branch: str) -> None:
    names = ("deploy_key", "known_hosts", "credentials", "ca_file")
    given = {name: settings[name] for name in names if settings.get(name)}
    if "known_hosts" not in given:
        given["known_hosts"] = os.path.expanduser("~/.ssh/known_hosts")
    fetch(mirror, [Remote(settings["repo"], **given)], branch, patience=PATIENCE)
