"""agent.yml: what it takes, and what is said of what it does not."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import pytest

from reconciler import yamldoc
from reconciler.agent.config import LIMITS, Config, duration, load, parse
from reconciler.errors import ConfigError
from reconciler.source.network import Limits, command
from reconciler.source.remote import Remote


def test_an_address_is_all_that_is_needed() -> None:
    config = parse({"repo": "https://git.example.org/state.git"}, "agent.yml")
    assert config.remotes == ({"url": "https://git.example.org/state.git"},)
    assert config.interval == 60
    assert config.trust == "none"


@pytest.mark.parametrize(
    "document",
    [
        {"remotes": [{"url": "https://h/x", "credentials": "ci:hunter2"}]},
        {"remotes": [{"url": "ssh://git@h/x", "deploy_key": "hunter2"}]},
        {"repo": "/x", "notify": {"webhook": "https://h/x", "secret_file": "hunter2"}},
    ],
)
def test_a_secret_in_the_place_of_its_file_is_not_repeated(document: dict[str, object]) -> None:
    """What is wrong with the settings is in the journal, and in the status that all can read."""
    with pytest.raises(ConfigError, match="absolute path") as caught:
        parse(document, "agent.yml")
    assert "hunter2" not in str(caught.value)


def test_what_is_left_empty_is_not_said() -> None:
    remote = {"url": "https://git.example.org/x", "proxy": None, "deploy_key": None}
    config = parse({"remotes": [remote], "branch": None}, "agent.yml")
    assert config == parse({"repo": "https://git.example.org/x"}, "agent.yml")


def test_settings_survive_the_way_to_the_supervisor() -> None:
    config = parse(
        {
            "remotes": [{"url": "ssh://git@a/x", "name": "a"}, "https://b/x"],
            "interval": "90s",
            "drift": {"default": "warn", "db": "heal"},
            "prune": "restore",
            "notify": [{"webhook": "https://hook", "secret_file": "/etc/s"}],
        },
        "agent.yml",
    )
    assert Config.from_json(config.to_json()) == config
    assert config.prune == {"default": "restore"}
    assert config.interval == 90
    assert [one.get("name", "") for one in config.remotes] == ["a", "origin-2"]


def test_what_is_asked_of_a_commit_is_what_the_settings_say() -> None:
    config = parse(
        {
            "remotes": [{"url": "https://b/x", "credentials": "/etc/reconciler/credentials"}],
            "trust": "every",
            "revoked": "/etc/reconciler/revoked",
            "fingerprints": "A" * 40,
            "protected": ["secrets/", "trust/"],
            "approvals": 3,
            "max_quiet": "7d",
        },
        "agent.yml",
    )
    policy = Config.from_json(config.to_json()).policy()
    assert (policy.mode, policy.protected, policy.approvals) == ("every", ("secrets/", "trust/"), 3)
    assert policy.keys.revoked == "/etc/reconciler/revoked"
    assert policy.keys.fingerprints == ("A" * 40,)
    assert policy.max_quiet == 7 * 86400
    assert config.secret_files() == ["/etc/reconciler/credentials"]


@pytest.mark.parametrize(
    "document",
    [
        {"https://ada:s3cret@h/x": None, "repo": "https://ada:s3cret@h/x"},
        {"https://ada:s3cret@h/x": "y"},
        {"repo": ["https://ada:s3cret@h/x"]},
        {"repo": "/x", "remotes": "https://ada:s3cret@h/x"},
        {"repo": "/x", "interval": "https://ada:s3cret@h/x"},
    ],
)
def test_a_password_in_the_wrong_place_is_in_no_message(document: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as error:
        parse(document, "agent.yml")
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("setting", ["allowed_signers", "revoked", "keyring"])
def test_who_says_who_may_sign_asks_for_signatures(setting: str) -> None:
    said = {"repo": "/x", setting: "/etc/reconciler/keys"}
    assert parse(said, "agent.yml").trust == "head"
    assert parse({**said, "trust": "none"}, "agent.yml").trust == "none"
    assert parse({"repo": "/x"}, "agent.yml").trust == "none"


@pytest.mark.parametrize(
    "document, said",
    [
        ({}, "which state repo"),
        ([], "a mapping"),
        ({"repo": "x", "brnch": "main"}, "there is no setting 'brnch'"),
        ({"repo": "x", "trust": "some"}, "'some' is none of"),
        ({"repo": "x", "interval": "soon"}, "is no time"),
        ({"repo": "x", "interval": "1s"}, "less than 5 s"),
        ({"repo": "x", "drift": {"db": "fix"}}, "'fix' is none of"),
        ({"repo": "x", "remotes": ["y"]}, "not both"),
        ({"remotes": [{"name": "x"}]}, "with `url`"),
        ({"remotes": [{"url": "x", "key": "y"}]}, "no 'key'"),
        ({"repo": "x", "notify": [{"mail": "y"}]}, "one of apprise"),
        ({"repo": "x", "interval": 0}, "less than 5 s"),
        ({"repo": "x", "drift": "restore"}, "'restore' is none of"),
        ({"repo": "x", "drift": {"warn": "heal"}}, "'warn' is what is done, and no tag"),
        ({"repo": "/x", "max_age": "1m"}, "60 s, and the remotes are asked every 60 s"),
        ({"repo": "/x", "max_quiet": "1h", "interval": "50m"}, "max_quiet is 3600 s"),
        ({"repo": "x", "allowed_signers": "signers"}, "expected an absolute path"),
        ({"repo": "x", "revoked": "./revoked"}, "expected an absolute path"),
        ({"repo": "x", "keyring": "~/keyring"}, "expected an absolute path"),
        ({"repo": "x", "notify": {"webhook": "ftp://x"}}, "an https:// or http:// address"),
        ({"repo": "x", "notify": {"webhook": "https://"}}, "an https:// or http:// address"),
        ({"repo": "x", "notify": {"apprise": "mail"}}, "apprise takes an address"),
        ({"repo": "x", "notify": {"command": []}}, "a command is a list of words"),
        ({"repo": "x", "notify": {"command": "page"}}, "a command is a list of words"),
        (
            {"repo": "x", "notify": {"webhook": "https://x", "secret_file": "hook"}},
            "expected an absolute path",
        ),
        (
            {"repo": "x", "notify": {"command": ["page"], "secret_file": "/etc/s"}},
            "by command has no 'secret_file'",
        ),
        (
            {"repo": "x", "notify": {"apprise": "mailto://x", "secret_file": "/etc/s"}},
            "by apprise has no 'secret_file'",
        ),
        (
            {"remotes": [{"url": "ssh://git@h/x", "proxy": "http://proxy:3128"}]},
            "the proxy of origin is for https",
        ),
        ({"remotes": [{"url": "/x", "ca_file": "ca.pem"}]}, "'ca.pem' cannot be the file"),
        ({"repo": "x", "approvals": 0}, "a number from 1 on"),
        ({"repo": "x", "prune_percent": 500}, "a number from 0 to 100"),
        ({"repo": "x", "prune_max": -1}, "a number from 0 on"),
        ({"repo": "x", "prune": {"file": "restor"}}, "'restor' is none of"),
        ({"repo": "x", "prune": {"fiel": "keep"}}, "no resource type 'fiel'; did you mean 'file'?"),
        ({"repo": "x", "prune": {"defualt": "keep"}}, "did you mean 'default'?"),
        ({"repo": "x", "prune": {"file:/etc/a": "keep"}}, "no resource type 'file:/etc/a'"),
        ({"repo": "x", "limits": {"disk": "1G"}}, "with fetch, poll, connect, stall, mirror"),
        ({"repo": "x", "limits": {"connect": "0s"}}, "connect is from 1s to 1m, and '0s' is not"),
        ({"repo": "x", "limits": {"poll": "6m"}}, "poll is from 5s to 5m"),
        ({"repo": "x", "limits": {"stall": "1s"}}, "stall is from 5s to 5m"),
        ({"repo": "x", "limits": {"memory": "64M"}}, "memory is from 128M to 64G"),
        ({"repo": "x", "limits": {"objects": 5}}, "objects is from 1000 to"),
        ({"repo": "x", "limits": {"objects": True}}, "expected a number"),
        ({"repo": "x", "limits": {"mirror": "much"}}, "is no size"),
        ({"repo": "x", "limits": {"fetch": "1h"}}, "fetch is from 10s to 10m"),
    ],
)
def test_what_is_wrong_is_said(document: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(document, "agent.yml")
    assert said in caught.value.message


@pytest.mark.parametrize(
    "line",
    [
        "prune_percent: 500",
        "branch: a b",
        "max_age: 1s",
        "notify: {webhook: 'ftp://x'}",
        "drift: {ignore: heal}",
        "windows: [{allow: {from: '09:00'}}]",
    ],
)
def test_what_is_wrong_is_said_with_its_place(line: str) -> None:
    text = f"# what this host follows\nrepo: /srv/state.git\ninterval: 60s\n{line}\n"
    with pytest.raises(ConfigError) as caught:
        parse(yamldoc.load(text.encode(), "agent.yml"), "agent.yml")
    assert str(caught.value.mark) == "agent.yml:4:1"
    address = yamldoc.load(b"repo: ftp://x/y\n", "agent.yml")
    with pytest.raises(ConfigError, match="no address of a state repo") as caught:
        parse(address, "agent.yml")
    assert str(caught.value.mark) == "agent.yml:1:1"


def test_an_age_that_is_longer_than_two_intervals_is_fine() -> None:
    said = {"repo": "/x", "interval": "30m", "max_age": "1h", "max_quiet": 0}
    assert parse(said, "agent.yml").max_age == 3600


@pytest.mark.skipif(os.geteuid() != 0, reason="files change hands")
def test_settings_that_somebody_else_could_have_written_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.yml"
    path.write_text("repo: /srv/state.git\n")
    for owner, mode in ((1, 0o600), (0, 0o620), (0, 0o602)):
        os.chown(path, owner, 0)
        path.chmod(mode)
        with pytest.raises(ConfigError, match="can be changed by others than root") as caught:
            load(str(path))
        assert f"chown root:root {path}; chmod 0600 {path}" in caught.value.hint
    path.chmod(0o644)
    assert load(str(path)).branch == "main"


def test_a_type_may_be_one_that_compile_makes_another_of_or_the_state_repos_own() -> None:
    words = {"default": "keep", "copy": "restore", "systemd_service": "delete", "vhost": "delete"}
    assert parse({"repo": "/x", "prune": words}, "agent.yml").prune == words


def test_what_a_fetch_may_cost_is_what_the_settings_say() -> None:
    address = "https://git.example.org/state.git"
    said = {"repo": address, "limits": {"fetch": "8m", "mirror": "4G", "objects": 5_000_000}}
    limits = Config.from_json(parse(said, "agent.yml").to_json()).fetch_limits()
    assert (limits.total, limits.mirror, limits.objects) == (480, 4 << 30, 5_000_000)
    assert limits.poll == parse({"repo": address}, "agent.yml").fetch_limits().poll
    more = {"connect": "5s", "poll": "20s", "stall": "1m", "memory": "512M"}
    limits = parse({"repo": address, "limits": more}, "agent.yml").fetch_limits()
    assert (limits.connect, limits.poll, limits.stall, limits.memory) == (5, 20, 60, 512 << 20)
    argv, _ = command(Remote(address), ["fetch"], limits, 1 << 20, 0)
    assert "http.lowSpeedTime=60" in argv
    assert f"--data={512 << 20}" in argv


def test_what_a_fetch_may_cost_unless_something_is_said_may_be_said() -> None:
    usual = asdict(Limits())
    assert {limit.field for limit in LIMITS.values()} == usual.keys()
    for name, limit in LIMITS.items():
        said = f"{usual[limit.field]:g}" if limit.kind == "time" else usual[limit.field]
        assert (
            parse({"repo": "/x", "limits": {name: said}}, "agent.yml").limits[name]
            == usual[limit.field]
        )


def test_durations() -> None:
    assert [duration(text) for text in ("90", 90, "90s", "5m", "2h", "1d")] == [
        90,
        90,
        90,
        300,
        7200,
        86400,
    ]
