"""`reconciler check`: everything that is wrong, at once."""

from __future__ import annotations

from cli.conftest import Call, Repo


def test_errors_of_all_stages_are_told_in_one_run(call: Call, repo: Repo) -> None:
    repo.write(
        "site.yml",
        "- hosts: all\n"
        "  resources:\n"
        "    - servce: {name: nginx}\n"
        "    - template: {src: nope.j2, dest: /etc/a}\n"
        "    - copy: {dest: /etc/b, content: '{{ facts.os_famly }}'}\n"
        "    - file: {path: /etc/c, mode: '0600'}\n"
        "    - copy: {dest: /etc/c, content: x}\n",
    )
    done = call("check", "-C", repo.path)
    assert done.code == 3
    for line, said in [
        (3, "did you mean 'service'"),
        (4, "there is no 'nope.j2'"),
        (5, "did you mean 'os_family'"),
        (7, "is declared at site.yml:6:"),
    ]:
        assert f"site.yml:{line}:" in done.err
        assert said in done.err
    assert "4 errors" in done.err


def test_one_host_and_one_resource_are_said_as_one(call: Call, repo: Repo) -> None:
    repo.write("site.yml", "- hosts: all\n  resources:\n    - file: {path: /a, state: directory}\n")
    done = call("check", "-C", repo.path, "-i", "web1,")
    assert "web1  1 resource  facts: sample\n" in done.out
    assert "check: 1 host compiled, 0 errors (facts from sample: 1)\n" in done.out
    two = call("check", "-C", repo.path, "-i", "web1,web2")
    assert "check: 2 hosts compiled, 0 errors (facts from sample: 2)\n" in two.out
