"""The settings of a resident agent: read by a child that has YAML, and remembered while they work.

A file that cannot be used must not keep a host from being healed. The last settings that could be
used hold in its place, after a restart, too, until it is mended.
"""

from __future__ import annotations

import json
import os
import subprocess

from reconciler.agent import journal
from reconciler.agent.config import Config
from reconciler.agent.hints import stamp
from reconciler.agent.link import python
from reconciler.agent.places import Places, read_json, write
from reconciler.errors import ConfigError

#: Seconds that reading a small file may take on a busy machine.
PATIENCE = 60.0


def load(places: Places) -> Config:
    """What the file says now. Raises ConfigError."""
    argv = python("reconciler.agent.config", places.config)
    try:
        done = subprocess.run(argv, check=False, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"reading {places.config} took longer than {PATIENCE:.0f} s",
            hint="systemctl reload reconciler-agent reads it again",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot start what reads {places.config}: {error.strerror}",
            hint="systemctl reload reconciler-agent reads it again",
        ) from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[:2000]
        raise ConfigError(said or f"reading {places.config} ended with code {done.returncode}")
    try:
        config = Config.from_json(json.loads(done.stdout))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"what reads {places.config} is of another version than this agent",
            hint="systemctl restart reconciler-agent",
        ) from error
    _remember(places, config)
    return config


def usable(places: Places) -> tuple[Config, str]:
    """The settings that hold, and why they are not what the file says; "" if they are.

    Raises ConfigError where there never were any, or the file was taken away.
    """
    try:
        return load(places), ""
    except ConfigError as error:
        kept = _recall(places) if os.path.exists(places.config) else None
        if kept is None:
            raise
        return kept, str(error)


def key_stamps(config: Config) -> list[list[int] | None]:
    """What changes with any change of the files by which commits are judged; as JSON has it."""
    named = filter(None, (config.allowed_signers, config.revoked, config.keyring))
    stamps = (stamp(os.path.realpath(path)) for path in named)
    return [list(one) if one else None for one in stamps]


def _remember(places: Places, config: Config) -> None:
    document = json.loads(json.dumps(config.to_json()))
    try:
        if read_json(places.settings) != document:
            write(places.settings, json.dumps(document).encode())
    except OSError as error:
        journal.log("warning", f"cannot remember the settings: {error.strerror}")


def _recall(places: Places) -> Config | None:
    try:
        return Config.from_json(read_json(places.settings) or {})
    except (TypeError, KeyError):
        return None
