"""`reconciler diff REF1 REF2`: what a change touches, without a host."""

from __future__ import annotations

from typing import Any

import pytest

SITE = """\
- hosts: all
  resources:
    - copy: {dest: /etc/motd, content: "%s\\n", mode: "0644"}
    - copy: {dest: /etc/os, content: "{{ facts.os_family }}\\n", mode: "0644"}
- hosts: web
  resources:
    - file: {path: /srv/www, state: directory, mode: "%s"}
"""
HOSTS = "web1\nweb2\n[web]\nweb1\nweb2\n[db]\ndb1\n"


@pytest.fixture
def changed(repo: Any) -> tuple[Any, str, str]:
    """A state repo with two commits: a mode of web hosts differs."""
    repo.write("site.yml", SITE % ("hello", "0755"))
    repo.write("hosts", HOSTS)
    before = repo.commit("first")
    repo.write("site.yml", "# a comment moves all lines\n" + SITE % ("hello", "0700"))
    return repo, before, repo.commit("second")


def test_only_what_is_touched_is_shown_and_equal_hosts_together(changed: Any, call: Any) -> None:
    repo, before, after = changed
    done = call("diff", "-C", repo.path, "-i", "hosts", before, after)
    assert done.code == 0, done.err
    assert (
        "2 hosts: web1, web2\n~ file:/srv/www  site.yml:8:7\n    mode: 0755 -> 0700\n" in done.out
    )
    assert "/etc/motd" not in done.out
    assert "diff: 2 of 3 hosts touched, 1 resource (facts from sample: 3)" in done.out


def test_the_exit_code_tells_whether_anything_is_touched(changed: Any, call: Any) -> None:
    repo, before, after = changed
    words = ("-C", repo.path, "-i", "hosts", "--detailed-exitcode")
    assert call("diff", *words, before, after).code == 2
    assert call("diff", *words, after, after).code == 0
    assert call("diff", *words, "--limit", "db", before, after).code == 0
    assert call("diff", *words, "--limit", "nosuch", before, after).code == 3
    assert call("diff", *words, before, "nosuch").code == 3


def test_an_inventory_that_is_not_there_is_no_error_where_that_is_allowed(
    changed: Any, call: Any
) -> None:
    repo, before, after = changed
    words = ("diff", "-C", repo.path, "-i", "nowhere", before, after)
    assert call(*words).code == 3
    done = call(*words, "--allow-empty")
    assert done.code == 0, done.err
    assert done.out.endswith("\ndiff: 0 of 0 hosts touched, 0 resources\n")
    assert call(*words, "--allow-empty", "--json").json()["hosts"] == []


def test_an_inventory_that_comes_with_a_change_brings_all_its_hosts(repo: Any, call: Any) -> None:
    repo.write("site.yml", SITE % ("hello", "0755"))
    before = repo.commit("first")
    repo.write("hosts", HOSTS)
    after = repo.commit("second")
    words = ("diff", "-C", repo.path, "-i", "hosts", before, after, "--allow-empty", "--json")
    hosts = call(*words).json()["hosts"]
    assert [one["host"] for one in hosts] == ["web1", "web2", "db1"]
    assert {res["action"] for one in hosts for res in one["resources"]} == {"create"}


def test_content_is_compared_by_digest(changed: Any, call: Any) -> None:
    repo, _, before = changed
    repo.write("site.yml", SITE % ("good bye", "0700"))
    after = repo.commit("third")
    document = call("diff", "-C", repo.path, "-i", "hosts", before, after, "--json").json()
    assert document["schema"] == ["reconciler/diff", 1]
    assert (document["from"]["commit"], document["to"]["commit"]) == (before, after)
    assert document["touched"] == 3
    (resource,) = document["hosts"][0]["resources"]
    assert (resource["id"], resource["action"]) == ("file:/etc/motd", "change")
    (change,) = resource["changes"]
    assert change["attribute"] == "content"
    assert change["before"]["$content"][1] == 6
    assert change["after"]["$content"][1] == 9


def test_facts_of_the_last_contact_are_used_and_it_is_said(
    changed: Any, call: Any, root: Any
) -> None:
    repo, before, after = changed
    assert call("facts", "--root", root, "--host", "web1").code == 0
    document = call("diff", "-C", repo.path, "-i", "hosts", before, after, "--json").json()
    assert {one["host"]: one["facts"] for one in document["hosts"]} == {
        "web1": "last contact",
        "web2": "sample",
        "db1": "sample",
    }


def test_hosts_and_resources_that_come_and_go_are_touched(changed: Any, call: Any) -> None:
    repo, _, before = changed
    repo.write("hosts", "web1\nnew\n[web]\nweb1\n")
    repo.write("site.yml", SITE.split("- hosts: web", maxsplit=1)[0] % "hello")
    after = repo.commit("third")
    found = call("diff", "-C", repo.path, "-i", "hosts", before, after, "--json").json()
    actions = {
        one["host"]: {(res["id"], res["action"]) for res in one["resources"]}
        for one in found["hosts"]
    }
    motd, os_, www = "file:/etc/motd", "file:/etc/os", "file:/srv/www"
    assert actions == {
        "web1": {(www, "remove")},
        "web2": {(motd, "remove"), (os_, "remove"), (www, "remove")},
        "db1": {(motd, "remove"), (os_, "remove")},
        "new": {(motd, "create"), (os_, "create")},
    }


def test_secrets_are_never_shown_and_it_is_said_that_they_differ(repo: Any, call: Any) -> None:
    site = "- hosts: all\n  resources:\n    - user: {name: deploy, password: %s}\n"
    hidden = '    - copy: {dest: /etc/key, content: "%s", mode: "0600"}\n      no_log: true\n'
    repo.write("site.yml", site % "'$6$aaaaaaaa$first'" + hidden % "key one")
    before = repo.commit("first")
    repo.write("site.yml", site % "'$6$aaaaaaaa$second'" + hidden % "key two")
    after = repo.commit("second")
    for way in ((), ("--json",), ("--markdown",)):
        done = call("diff", "-C", repo.path, "--host", "web1", before, after, *way)
        assert done.code == 0, done.err
        assert "user:deploy" in done.out
        assert "file:/etc/key" in done.out
        assert "<secret>" in done.out
        assert not any(
            word in done.out for word in ("$6$", "first", "second", "key one", "$content")
        )


def test_markdown_is_not_markup_from_git(repo: Any, call: Any) -> None:
    site = '- hosts: all\n  resources:\n    - name: "%s"\n      copy: {dest: /etc/x, content: "%s", mode: "0644"}\n'
    hostile = "</code> ```` @everyone <b>"
    repo.write("site.yml", site % (hostile, 1))
    before = repo.commit("first")
    repo.write("site.yml", site % (hostile, 2))
    after = repo.commit("second")
    done = call("diff", "-C", repo.path, "--host", "web1", before, after, "--markdown")
    head, fence, rest = done.out.partition("`````diff\n")
    assert fence
    inside, end, after_ = rest.partition("\n`````\n")
    assert end
    assert hostile in inside
    assert "@everyone" not in head + after_
    assert "! file:/etc/x" in inside


def test_what_does_not_compile_is_an_error(changed: Any, call: Any) -> None:
    repo, _, before = changed
    repo.write("site.yml", SITE % ("{{ nosuch }}", "0700"))
    after = repo.commit("third")
    done = call("diff", "-C", repo.path, "-i", "hosts", before, after)
    assert done.code == 3
    assert "nosuch" in done.err
