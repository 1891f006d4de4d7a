"""The whole way, from a state repo to a directory root: check, plan, apply, again, drift, history, why."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.conftest import Call, Repo
from reconciler.catalog import Plan, Report

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="files of root's need root")

SITE = """\
- hosts: all
  vars:
    greeting: hello
  resources:
    - name: the greeting
      copy: {dest: /etc/motd, content: "{{ greeting }} from {{ facts.hostname }}\\n", mode: "0644"}
      tags: [text]
    - file: {path: /srv/app, state: directory, mode: "0750"}
    - copy: {dest: /srv/app/blob, src: blob}
"""


@pytest.fixture
def site(repo: Repo) -> Repo:
    repo.write("site.yml", SITE)
    repo.write("files/blob", "x" * 5000 + "\n")
    return repo


@pytest.fixture
def here(site: Repo, root: Path) -> list[str]:
    """Where: the options that every call of this file has."""
    return ["-C", str(site.path), "--root", str(root)]


def snapshot(root: Path) -> Iterator[tuple[str, int, int, bytes]]:
    for path in sorted(root.rglob("*")):
        found = path.lstat()
        yield (
            str(path),
            found.st_mode,
            found.st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )


# -- the story -------------------------------------------------------------------------------


def test_a_new_state_repo_checks_plans_and_applies_as_it_is(
    call: Call, tmp_path: Path, root: Path
) -> None:
    fleet = tmp_path / "fleet"
    assert call("init", fleet).code == 0
    assert "check: 1 host compiled, 0 errors" in call("check", "-C", fleet).out
    assert "plan: 1 to change, 0 in sync, 0 failed" in call("plan", "-C", fleet, "--root", root).out
    assert "apply: 1 changed, 0 in sync, 0 failed" in call("apply", "-C", fleet, "--root", root).out
    assert (root / "etc/motd").read_text().startswith("web1 is declared in Git")
    assert "apply: 0 changes, 1 in sync, 0 failed" in call("apply", "-C", fleet, "--root", root).out
    assert "0 changes" in call("plan", "-C", fleet, "--root", root).out


def test_the_example_inventory_of_a_new_state_repo_overrides_a_default(
    call: Call, tmp_path: Path, root: Path
) -> None:
    fleet = tmp_path / "fleet"
    call("init", fleet)
    where = ["-C", fleet, "--root", root, "-i", "inventories/example", "--host", "localhost"]
    assert "the operators of the example" in call("plan", *where).out


def test_a_plan_leaves_everything_as_it_was(call: Call, here: list[str], root: Path) -> None:
    before = list(snapshot(root))
    assert call("plan", *here).code == 0
    assert list(snapshot(root)) == before


def test_drift_is_named_healed_and_remembered(call: Call, here: list[str], root: Path) -> None:
    call("apply", *here)
    (root / "etc/motd").write_text("hacked\n")
    plan = call("plan", *here)
    assert "~ file:/etc/motd  the greeting  drift  site.yml:6:7\n" in plan.out
    assert "    -hacked\n    +hello from web1\n" in plan.out
    assert "plan: 1 to change, 2 in sync" in plan.out
    assert "apply: 1 changed, 2 in sync" in call("apply", *here).out
    changes = call("history", "--root", root, "--cause", "corrective", "--json").json()["changes"]
    assert [one["resource"] for one in changes] == ["file:/etc/motd"]
    assert "\n-hacked\n+hello from web1\n" in changes[0]["diff"]
    text = call("history", "--root", root, "file:/etc/motd").out
    assert "file:/etc/motd  change  drift  no commit  site.yml:6" in text
    assert "    -hacked\n    +hello from web1\n" in text
    assert "hacked" not in call("history", "--root", root, "--no-diff").out
    runs = call("history", "--root", root, "--runs").out
    assert "1 changed" in runs
    assert runs.count("\n") == 2


def test_the_exit_code_tells_changes_from_none(call: Call, here: list[str]) -> None:
    assert call("plan", *here, "--detailed-exitcode").code == 2
    assert call("apply", *here, "--detailed-exitcode").code == 2
    assert call("apply", *here, "--detailed-exitcode").code == 0
    assert call("plan", *here, "--detailed-exitcode").code == 0


def test_json_is_a_plan_and_a_report(call: Call, here: list[str]) -> None:
    plan = Plan.from_json(call("plan", *here, "--json").json())
    assert [result.status for result in plan.results] == ["pending"] * 3
    report = Report.from_json(call("apply", *here, "--json").json())
    assert [result.id for result in report.results] == [
        "file:/etc/motd",
        "file:/srv/app",
        "file:/srv/app/blob",
    ]
    assert report.changed
    assert not Plan.from_json(call("plan", *here, "--json").json()).differs


def test_no_diff_shows_no_text(call: Call, here: list[str]) -> None:
    assert "+hello from web1" in call("plan", *here).out
    assert "+hello from web1" not in call("plan", *here, "--no-diff").out


def test_one_failure_blocks_what_needs_it_and_nothing_else(
    call: Call, here: list[str], site: Repo, root: Path
) -> None:
    site.write(
        "site.yml",
        "- hosts: all\n"
        "  resources:\n"
        "    - file: {path: /srv/bad, state: directory, owner: nobody-here}\n"
        "    - copy: {dest: /srv/bad/x, content: x}\n"
        "    - copy: {dest: /srv/good, content: x}\n",
    )
    done = call("apply", *here, "--detailed-exitcode")
    assert done.code == 4
    assert "! file:/srv/bad  site.yml:3:7\n" in done.out
    assert (
        "x file:/srv/bad/x  site.yml:4:7\n    waits for file:/srv/bad, which failed\n" in done.out
    )
    assert "apply: 1 changed, 0 in sync, 1 failed, 1 blocked" in done.out
    assert (root / "srv/good").read_text() == "x"


def test_a_commit_is_read_whatever_the_files_are(
    call: Call, here: list[str], site: Repo, root: Path
) -> None:
    first = site.commit("hello")
    site.write("site.yml", SITE.replace("hello", "goodbye"))
    assert "goodbye from web1" in call("plan", *here).out
    assert "work tree: its files may differ" in call("plan", *here).out
    done = call("apply", *here, "--ref", "main")
    assert done.out.startswith(f"apply for web1, commit {first[:12]}\n")
    assert (root / "etc/motd").read_text() == "hello from web1\n"


def test_tags_choose_and_skip(call: Call, here: list[str]) -> None:
    assert "plan: 1 to change, 0 in sync" in call("plan", *here, "--tags", "text").out
    assert "plan: 2 to change, 0 in sync" in call("plan", *here, "--skip-tags", "text").out


def test_hostile_content_is_shown_and_not_obeyed(call: Call, here: list[str], root: Path) -> None:
    (root / "etc/motd").write_bytes(b"\x1b[2J\x1b]0;owned\x07\xff\xe2\x80\xae\n")
    done = call("plan", *here)
    assert "\\x1b[2J\\x1b]0;owned\\x07\\xff\\u202e" in done.out
    assert all(c.isprintable() for c in done.out.replace("\n", ""))


# -- refusals --------------------------------------------------------------------------------


def test_every_mistake_is_shown_at_once_and_nothing_is_touched(
    call: Call, here: list[str], site: Repo, root: Path
) -> None:
    site.write(
        "site.yml",
        "- hosts: all\n  resources:\n    - file: {path: /a, moed: '0644'}\n    - fil: {path: /b}\n",
    )
    before = list(snapshot(root))
    done = call("apply", *here)
    assert done.code == 3
    assert done.out == ""
    assert "error: site.yml:3:24: " in done.err
    assert (
        "     3 |     - file: {path: /a, moed: '0644'}\n" + " " * 7 + "| " + " " * 23 + "^\n"
        in done.err
    )
    assert "'mode'" in done.err
    assert "error: site.yml:4:" in done.err
    assert done.err.endswith("2 errors\n")
    assert list(snapshot(root)) == before
    errors = call("apply", *here, "--json").json()["errors"]
    assert [error["source"][:2] for error in errors] == [["site.yml", 3], ["site.yml", 4]]


@pytest.mark.parametrize(
    "options, said",
    [
        ([], "which machine is meant?"),
        (["--root", "/nonexistent"], "is not a directory"),
        (["-i", "hosts", "--local", "--host", "web9"], "the inventory has no host web9"),
        (["-i", "hosts", "--host", "web1", "--limit", "web2"], "--limit web2 leaves out web1"),
        (["-i", "hosts", "--limit", "both"], "are this one machine: here, there"),
        (["-i", "hosts", "--limit", "web9"], "no host matches 'web9'"),
        (["-i", "nowhere", "--local", "--host", "web1"], "nowhere"),
        (["--local", "--limit", "web9"], "--limit web9 leaves nothing"),
        (["--local", "--tags", "nonsense"], "has the tag 'nonsense'"),
        (["--local", "--skip-tags", "all"], "nothing is selected"),
        (["--local", "--ref", "nonsense"], "nonsense"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_3(
    call: Call, site: Repo, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    site.write(
        "hosts",
        "web1\nweb2\n[both]\nhere ansible_connection=local\nthere ansible_connection=local\n",
    )
    site.commit("hosts")
    monkeypatch.chdir(site.path)
    done = call("plan", *options)
    assert done.code == 3
    assert said in done.err
    assert done.out == ""


@pytest.mark.parametrize("verb", ["plan", "apply", "check", "why"])
def test_a_directory_that_is_no_state_repo_is_not_read(
    call: Call, tmp_path: Path, verb: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "unreadable").symlink_to("/dev/zero")
    os.mkfifo(home / "pipe")
    words = [
        *(["file:/x"] if verb == "why" else []),
        *(["--local"] if verb in ("plan", "apply") else []),
    ]
    done = call(verb, *words, "-C", home)
    assert done.code == 3
    assert done.err.startswith(f"error: {home} is no state repo: it has no site.yml\n")


def test_a_host_with_a_local_connection_needs_no_local(
    call: Call, repo: Repo, tmp_path: Path
) -> None:
    place = tmp_path / "not there yet"
    repo.write(
        "site.yml",
        f"- hosts: here\n  resources:\n    - file: {{path: {place}, state: directory}}\n",
    )
    repo.write("hosts", "here ansible_connection=local\nweb2\n")
    done = call("plan", "-C", repo.path, "-i", "hosts", "--limit", "here")
    assert done.code == 0
    assert f"+ file:{place}" in done.out


def test_a_selection_of_nothing_is_no_error_if_it_is_meant(
    call: Call, here: list[str], site: Repo
) -> None:
    assert call("plan", *here, "--skip-tags", "all", "--allow-empty").code == 0
    site.write("site.yml", "- hosts: web9\n  resources: []\n")
    assert call("plan", *here).code == 3
    done = call("plan", *here, "--allow-empty")
    assert done.code == 0
    assert "plan: 0 changes, 0 in sync, 0 failed" in done.out


def test_another_run_is_not_disturbed(call: Call, here: list[str], root: Path) -> None:
    call("apply", *here)
    with open(root / "run/reconciler/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = call("apply", *here)
        assert done.code == 9
        assert "another run holds the lock" in done.err
        assert call("plan", *here).code == 0
        assert call("doctor", *here, "--json").json()["checks"][4]["status"] == "warn"
    assert call("apply", *here).code == 0


# -- the cache -------------------------------------------------------------------------------


def imported(*words: str) -> set[str]:
    """Which heavy packages a call of the program imports."""
    code = (
        "import sys; from reconciler.cli.main import main; code = main(sys.argv[1:]);"
        "print(*{'yaml', 'jinja2', 'git', 'paramiko', 'rich', 'sqlite3'} & set(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("options", [[], ["--tags", "text"], ["-i", "hosts"]], ids=str)
def test_a_run_without_news_imports_neither_yaml_nor_jinja2(
    here: list[str], site: Repo, options: list[str]
) -> None:
    site.write("hosts", "web1\n")
    assert imported("apply", *here, *options) >= {"yaml", "jinja2"}
    assert imported("plan", *here, *options) == set()
    assert imported("apply", *here, *options) == set()


def test_content_is_served_though_the_catalog_was_kept(
    call: Call, here: list[str], root: Path
) -> None:
    call("apply", *here)
    (root / "srv/app/blob").unlink()
    assert "apply: 1 changed, 2 in sync" in call("apply", *here).out
    assert (root / "srv/app/blob").read_text() == "x" * 5000 + "\n"


def test_a_changed_state_repo_is_compiled_again(call: Call, here: list[str], site: Repo) -> None:
    call("apply", *here)
    site.write("site.yml", SITE.replace("hello", "good morning"))
    assert "+good morning from web1" in call("plan", *here).out


def test_variables_of_an_inventory_outside_of_the_state_repo_are_seen_to_change(
    call: Call, here: list[str], tmp_path: Path
) -> None:
    hosts = tmp_path / "inventory" / "hosts"
    variables = tmp_path / "inventory" / "host_vars" / "web1.yml"
    variables.parent.mkdir(parents=True)
    hosts.write_text("web1\n")
    variables.write_text("who: ada\n")
    site = Path(here[1]) / "site.yml"
    site.write_text(
        "- hosts: all\n  resources:\n    - copy: {dest: /etc/who, content: '{{ who }}'}\n"
    )
    here += ["-i", str(hosts)]
    assert "+ada" in call("plan", *here).out
    variables.write_text("who: grace\n")
    assert "+grace" in call("plan", *here).out


def test_a_catalog_is_kept_and_content_is_not(call: Call, here: list[str], cache: Path) -> None:
    call("apply", *here)
    kept = list((cache / "catalogs").iterdir())
    assert len(kept) == 1
    assert b"hello from web1" not in kept[0].read_bytes()


def test_a_cache_that_others_can_write_to_is_named_and_not_used(
    call: Call, here: list[str], cache: Path
) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    done = call("plan", *here)
    assert done.code == 0
    assert done.err.startswith("warning: ")
    assert list(cache.iterdir()) == []


# -- asking ----------------------------------------------------------------------------------


def test_why_names_the_value_its_layers_the_line_and_the_commit(call: Call, site: Repo) -> None:
    site.write("hosts", "web1 greeting=loser\n")
    commit = site.commit("a greeting \x1b[31m for all")
    where = ["-C", site.path, "-i", "hosts"]
    text = call("why", "file:/etc/motd", *where).out
    assert "declared at site.yml:6:7, written as copy" in text
    assert (
        f"{commit[:12]}  2026-03-02  Ada <ada@example.test>  a greeting \\x1b[31m for all" in text
    )
    assert "    wins  hello  " in text
    assert "    loses loser  " in text
    assert "hosts:1" in text
    document = call("why", "/etc/motd", *where, "--json").json()
    assert document["resource"] == "file:/etc/motd"
    assert document["touched"]["commit"] == commit
    (greeting,) = (one for one in document["variables"] if one["name"] == "greeting")
    assert [layer["value"] for layer in greeting["layers"]] == ["loser", "hello"]


def test_why_of_a_line_that_is_not_committed_says_so(call: Call, site: Repo) -> None:
    site.commit("first")
    site.write("site.yml", SITE + "    - copy: {dest: /etc/new, content: x}\n")
    text = call("why", "file:/etc/new", "-C", site.path, "--host", "web1").out
    assert "not committed yet" in text


def test_why_of_something_unknown_suggests(call: Call, site: Repo) -> None:
    done = call("why", "file:/etc/mtd", "-C", site.path)
    assert done.code == 3
    assert "did you mean 'file:/etc/motd'?" in done.err


def test_check_says_where_the_facts_are_from(
    call: Call, here: list[str], site: Repo, root: Path, tmp_path: Path
) -> None:
    where = ["-C", site.path, "-i", "hosts"]
    site.write("hosts", "web1\nweb2\n")
    call("apply", *here)
    checked = call("check", *where, "--json").json()
    assert {one["host"]: one["facts"] for one in checked["hosts"]} == {
        "web1": "last contact",
        "web2": "sample",
    }
    facts = tmp_path / "facts.json"
    facts.write_text(call("facts", "--root", root, "--json").out)
    checked = call("check", *where, "--facts", facts, "--json").json()
    assert {one["facts"] for one in checked["hosts"]} == {"file"}


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000], ids=repr)
def test_facts_that_are_none_are_refused(
    call: Call, site: Repo, tmp_path: Path, content: bytes
) -> None:
    facts = tmp_path / "facts.json"
    facts.write_bytes(content)
    done = call("check", "-C", site.path, "--facts", facts)
    assert done.code == 3
    assert str(facts) in done.err


def test_check_lists_an_error_of_many_hosts_once(call: Call, site: Repo) -> None:
    site.write("hosts", "web[1:20]\n")
    site.write("site.yml", SITE.replace("{{ greeting }}", "{{ greting }}"))
    done = call("check", "-C", site.path, "-i", "hosts", "--json")
    assert done.code == 3
    (error,) = done.json()["errors"]
    assert len(error["hosts"]) == 20
    assert "greeting" in error["hint"]


def test_check_warns_of_a_host_without_a_play_and_fails_if_there_are_only_such(
    call: Call, site: Repo
) -> None:
    site.write("hosts", "web1\nweb2\n")
    site.write("site.yml", SITE.replace("hosts: all", "hosts: web1"))
    done = call("check", "-C", site.path, "-i", "hosts")
    assert done.code == 0
    assert "warning: no play of site.yml is for host web2" in done.out
    assert call("check", "-C", site.path, "-i", "hosts", "--limit", "web2").code == 3


def test_what_an_inventory_probably_did_not_mean_is_said(
    call: Call, here: list[str], site: Repo
) -> None:
    site.write("hosts", "[a]\nweb1\n[b]\nweb1\n[a:vars]\nx=1\n[b:vars]\nx=2\n")
    said = "groups a and b both set x"
    assert said in call("check", *here[:2], "-i", "hosts").out
    assert said in call("plan", *here, "-i", "hosts").err


def test_doctor_finds_a_damaged_ledger_and_a_leftover(
    call: Call, here: list[str], root: Path
) -> None:
    call("apply", *here)
    (root / "etc" / ".motd.rec-0123").write_text("")
    found = {one["check"]: one for one in call("doctor", *here, "--json").json()["checks"]}
    assert found["ledger"]["status"] == "ok"
    assert found["leftovers"]["status"] == "warn"
    assert "/etc/.motd.rec-0123" in found["leftovers"]["message"]
    (root / "var/lib/reconciler/ledger.db").write_bytes(b"no ledger" * 1000)
    done = call("doctor", *here)
    assert done.code == 3
    assert "fail  ledger" in done.out


def test_a_machine_that_nothing_was_applied_to_has_no_history(call: Call, root: Path) -> None:
    done = call("history", "--root", root)
    assert done.code == 0
    assert done.out == "nothing: no run has changed anything here\n"


def test_the_head_of_a_long_plan_is_no_error(site: Repo, root: Path) -> None:
    site.write(
        "site.yml",
        "- hosts: all\n  resources:\n    - copy: {dest: '/etc/{{ item }}', content: x}\n      loop: '{{ range(3000) | list }}'\n",
    )
    code = "import sys; from reconciler.cli.main import main; sys.exit(main())"
    words = ["plan", "-C", str(site.path), "--root", str(root), "--detailed-exitcode"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"plan for web1")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 2


def with_programs(root: Path, *names: str) -> None:
    """Programs of this machine, with the libraries that they need."""
    for name in names:
        program = shutil.which(name)
        assert program is not None
        said = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
        for file in [program, *re.findall(r"/\S+", said)]:
            place = root / file.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)


def test_ctrl_c_stops_at_a_boundary_and_the_next_run_goes_on_from_there(
    call: Call, here: list[str], site: Repo, root: Path
) -> None:
    with_programs(root, "sh", "sleep")
    site.write(
        "site.yml",
        "- hosts: all\n"
        "  resources:\n"
        "    - command: {argv: [sh, -c, ': > /begun; sleep 1; : > /done'], creates: /done}\n"
        "    - copy: {dest: /after, content: x}\n",
    )
    code = "import sys; from reconciler.cli.main import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, "apply", *here, "--json"], stdout=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 60
        while not (root / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["interrupted"] is True
    assert not (root / "after").exists()
    assert call("apply", *here).code == 0
    assert (root / "done").exists()
    assert (root / "after").exists()
