"""Polls of real repositories: what a glance settles, and what the provider is asked for."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.agent import glance, poll
from reconciler.agent.config import Config
from reconciler.agent.link import Provider
from reconciler.agent.places import Places
from reconciler.agent.poll import Poller
from reconciler.source.mark import Marks
from source.conftest import Repo


class Asked:
    """How often the provider was asked."""

    def __init__(self) -> None:
        self.times = 0


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    made, really = Asked(), Poller._ask

    def ask(poller: Poller, now: float) -> None:
        made.times += 1
        really(poller, now)

    monkeypatch.setattr(Poller, "_ask", ask)
    return made


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "state")
    made.commit({"site.yml": "- name: web\n"})
    return made


@pytest.fixture
def poller(tmp_path: Path, repo: Repo, asked: Asked) -> Iterator[Poller]:
    """Has polled once."""
    made = Poller(Places(str(tmp_path / "host")), settings(str(repo.path)))
    brought(made)
    assert asked.times == 1
    yield made
    assert not made.busy


def head(repo: Repo) -> str:
    """The newest commit."""
    return repo.git("rev-parse", "HEAD")


def settings(url: str, **said: Any) -> Config:
    return Config(remotes=({"url": url, "name": "origin"},), **said)


def brought(poller: Poller, *, patience: float = 30.0, **how: bool) -> dict[str, Any]:
    """What one poll brings."""
    poller.start(**{"thorough": False, **how})
    return waited(poller, patience)


def waited(poller: Poller, patience: float = 30.0) -> dict[str, Any]:
    """What the poll at work brings."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found = poller.take()
        if found is not None:
            return found
        select.select([poller.pipe], [], [], 0.1)
    raise AssertionError("the poll did not end")


def test_the_same_word_is_seen_without_the_provider(
    poller: Poller, repo: Repo, asked: Asked
) -> None:
    before = dict(poller.offer or {})
    found = brought(poller)
    assert asked.times == 1
    assert found["received_at"] > before["received_at"]
    assert {**found, "received_at": 0} == {**before, "received_at": 0, "rebuilt": "", "tried": {}}
    assert found["commit"] == head(repo)


def test_another_word_is_the_providers_to_read(poller: Poller, repo: Repo, asked: Asked) -> None:
    newer = repo.commit({"site.yml": "- name: new\n"})
    assert brought(poller)["commit"] == newer
    assert asked.times == 2
    assert brought(poller)["commit"] == newer
    assert asked.times == 2


def test_a_tag_is_compared_by_the_object_that_it_is(
    tmp_path: Path, repo: Repo, asked: Asked
) -> None:
    repo.git("tag", "-a", "-m", "first", "v1")
    config = settings(str(repo.path), branch="refs/tags/v1")
    poller = Poller(Places(str(tmp_path / "tagged")), config)
    assert [brought(poller)["commit"] for _ in range(2)] == [head(repo)] * 2
    assert asked.times == 1
    repo.commit({"site.yml": "- name: new\n"})
    repo.git("tag", "-f", "-a", "-m", "second", "v1")
    assert brought(poller)["commit"] == head(repo)
    assert asked.times == 2


def test_whoever_asks_for_a_thorough_poll_gets_the_provider(poller: Poller, asked: Asked) -> None:
    brought(poller, thorough=True)
    assert asked.times == 2


def test_after_an_hour_of_glances_the_provider_is_asked(
    poller: Poller, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll, "THOROUGH", 0.0)
    brought(poller)
    assert asked.times == 2


def test_other_settings_are_asked_of_the_provider(poller: Poller, repo: Repo, asked: Asked) -> None:
    poller.follow(settings(str(repo.path)))
    brought(poller)
    assert asked.times == 2


def test_what_was_asked_by_other_settings_counts_no_more(
    poller: Poller, repo: Repo, asked: Asked
) -> None:
    repo.git("branch", "next")
    repo.git("checkout", "--quiet", "next")
    newer = repo.commit({"site.yml": "- name: next\n"})
    poller.start(thorough=True)
    poller.follow(settings(str(repo.path), branch="next"))
    found = waited(poller)
    assert (found["ref"], found["commit"]) == ("refs/heads/next", newer)
    assert poller.offer == found
    assert asked.times == 3


def test_a_poll_beside_a_run_says_whether_its_offer_may_be_used(
    poller: Poller, repo: Repo, tmp_path: Path
) -> None:
    """Or who can push and not sign would have runs make way for nothing."""
    places = Places(str(tmp_path / "host"))
    Marks(places.trust).enrol()
    Marks(places.trust).reset(head(repo), "to begin with", "alice")
    assert "usable" not in brought(poller, thorough=True, judging=True)
    repo.commit({"site.yml": "- name: new\n"})
    assert brought(poller, thorough=True, judging=True)["usable"] is True
    strict = {"trust": "head", "allowed_signers": str(tmp_path / "nobody")}
    poller.follow(settings(str(repo.path), **strict))
    assert brought(poller, judging=True)["usable"] is False


def test_a_spare_remote_that_lags_behind_has_nothing_to_say(
    tmp_path: Path, repo: Repo, asked: Asked
) -> None:
    spare = tmp_path / "spare.git"
    repo.git("clone", "--quiet", "--bare", str(repo.path), str(spare))
    newer = repo.commit({"site.yml": "- name: new\n"})
    remotes = ({"url": str(repo.path), "name": "one"}, {"url": str(spare), "name": "two"})
    places = Places(str(tmp_path / "host"))
    poller = Poller(places, Config(remotes=remotes))
    assert brought(poller)["commit"] == newer
    Marks(places.trust).enrol()
    Marks(places.trust).reset(newer, "to begin with", "alice")
    repo.path.rename(f"{repo.path}.gone")
    error = brought(poller)["error"]
    assert error["type"] == "SourceError"
    one, two = error["message"].splitlines()
    assert one.startswith("one (")
    assert two.startswith("two lags behind: it offers ")
    Path(f"{repo.path}.gone").rename(repo.path)
    repo.git("push", "--quiet", str(spare), "main")
    repo.path.rename(f"{repo.path}.gone")
    found = brought(poller)
    assert (found["remote"], found["commit"]) == ("two", newer)
    # Of the first remote, the same is history that was set back, and is to be judged.
    subprocess.run(["git", "update-ref", "refs/heads/main", f"{newer}~1"], cwd=spare, check=True)
    Path(f"{repo.path}.gone").rename(repo.path)
    repo.git("reset", "--quiet", "--hard", "HEAD~1")
    assert brought(poller, thorough=True)["commit"] == head(repo)


@pytest.mark.parametrize("lacks", ["commit", "remote", "tried", "received_at"])
def test_a_provider_that_does_not_say_all_is_an_error_and_no_end(
    poller: Poller, repo: Repo, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    fetch = Provider.fetch

    def half(*about: Any) -> dict[str, Any]:
        return {name: said for name, said in fetch(*about).items() if name != lacks}

    monkeypatch.setattr(Provider, "fetch", half)
    error = brought(poller, thorough=True)["error"]
    assert error["message"] == f"the provider does not say what it has fetched: '{lacks}'"


def test_a_glance_that_cannot_be_started_is_the_providers_to_explain(
    poller: Poller, repo: Repo, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without setpriv, or a key that was taken away meanwhile."""

    def missing(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", "setpriv")

    monkeypatch.setattr(glance, "start", missing)
    for times in (2, 3):
        assert brought(poller)["commit"] == head(repo)
        assert asked.times == times


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let time pass."""
    passed, really = [0.0], time.monotonic
    clock = SimpleNamespace(monotonic=lambda: really() + passed[0], time=time.time)
    monkeypatch.setattr(poll, "time", clock)

    def wait(seconds: float) -> None:
        passed[0] += seconds

    return wait


def test_a_remote_that_does_not_answer_is_tried_last_for_ever_longer_until_it_does(
    tmp_path: Path, repo: Repo, asked: Asked, hours: Callable[[float], None]
) -> None:
    gone = tmp_path / "gone"
    remotes = ({"url": str(gone), "name": "one"}, {"url": str(repo.path), "name": "two"})
    poller = Poller(Places(str(tmp_path / "other")), Config(remotes=remotes))
    times = 0
    for rest in (60, 120, 240, 480, 900, 900):
        found = brought(poller)
        assert (found["remote"], list(found["tried"])) == ("two", ["one"])
        times += 1
        # Meanwhile the other one is glanced at, and costs nobody a wait for the first.
        for _ in range(2):
            found = brought(poller)
            assert (found["remote"], found["tried"]) == ("two", {})
        hours(rest - 30)
        assert brought(poller)["tried"] == {}
        assert asked.times == times
        hours(30)
    repo.git("clone", "--quiet", "--bare", str(repo.path), str(gone))
    found = brought(poller)
    assert (found["remote"], found["tried"]) == ("one", {})
    assert brought(poller)["remote"] == "one"
    assert asked.times == times + 1


def test_a_remote_that_rests_is_tried_when_no_other_one_answers(
    tmp_path: Path, repo: Repo, asked: Asked
) -> None:
    other = tmp_path / "other.git"
    repo.git("clone", "--quiet", "--bare", str(repo.path), str(other))
    remotes = ({"url": str(other), "name": "one"}, {"url": str(repo.path), "name": "two"})
    poller = Poller(Places(str(tmp_path / "host")), Config(remotes=remotes))
    other.rename(f"{other}.gone")
    assert brought(poller)["remote"] == "two"
    Path(f"{other}.gone").rename(other)
    repo.path.rename(f"{repo.path}.gone")
    found = brought(poller)
    assert (found["remote"], list(found["tried"])) == ("one", ["two"])


def test_a_repository_that_is_gone_is_an_error_of_the_provider(
    poller: Poller, repo: Repo, asked: Asked
) -> None:
    repo.path.rename(f"{repo.path}.gone")
    error = brought(poller)["error"]
    assert "there is no repository at that address" in error["message"]
    assert asked.times == 2


@pytest.mark.parametrize(
    "does", ["sleep 60 & sleep 60", "yes", "kill -9 $$", "printf '%s\\n' hallo", "exit 128"]
)
def test_whatever_a_glance_comes_to_the_provider_answers_instead(
    poller: Poller,
    repo: Repo,
    asked: Asked,
    does: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(*args: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sh", "-c", does], stdout=args[-1], start_new_session=True)

    monkeypatch.setattr(glance, "start", start)
    hasty = settings(str(repo.path))
    monkeypatch.setattr(Config, "fetch_limits", lambda _: glance.Limits(poll=0.5))
    before = poller.offer
    poller.follow(hasty)
    poller.offer, poller._asked_at = before, time.monotonic()
    assert brought(poller)["commit"] == head(repo)
    assert asked.times == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_a_glance_is_made_by_a_user_who_can_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance, "USER", "nobody")
    drop, _ = glance._as_user()
    tells = "grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb)|NoNew)' /proc/self/status"
    said = subprocess.run([*drop, "sh", "-c", tells], capture_output=True, text=True, check=True)
    found = {line.split()[0]: set(line.split()[1:]) for line in said.stdout.splitlines()}
    assert found.pop("Uid:") == found.pop("Gid:") == {"65534"}
    assert found.pop("Groups:") == set()
    assert found.pop("NoNewPrivs:") == {"1"}
    assert set.union(*found.values()) == {"0" * 16}
