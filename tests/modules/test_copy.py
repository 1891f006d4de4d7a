"""copy: files, texts and directories of the state repo become files on the host."""

from __future__ import annotations

import pytest

from compile.repo import compiled, content, only_error, resources, site
from reconciler.errors import Mark


def test_a_text_becomes_a_file_of_root_that_all_can_read() -> None:
    found = resources(site("- copy: {dest: /etc/x, content: 'hi'}\n"))["file:/etc/x"]
    assert (found.type, found.declared_as) == ("file", "copy")
    assert {name: value for name, value in found.params.items() if name != "content"} == {
        "path": "/etc/x", "owner": "root", "group": "root", "mode": "0644",
    }  # fmt: skip
    assert content(site("- copy: {dest: /etc/x, content: 'hi'}\n"), "/etc/x") == "hi"


def test_a_list_or_mapping_as_content_becomes_json() -> None:
    repo = site(
        "- copy: {dest: /etc/x, content: '{{ data }}'}\n  vars: {data: {b: [1, 'é'], a: null}}\n"
    )
    assert content(repo, "/etc/x") == '{"b": [1, "\\u00e9"], "a": null}'


def test_a_file_is_taken_from_the_role_first_and_keeps_its_bytes() -> None:
    whole = compiled(
        {
            "site.yml": "- hosts: all\n  roles: [r]\n  resources: [{copy: {src: a, dest: /site}}]\n",
            "roles/r/main.yml": "- copy: {src: a, dest: /role}\n- copy: {src: sub/b, dest: /etc/}\n",
            "roles/r/files/a": b"\x00\xff{{ x }}",
            "files/a": "site",
            "files/sub/b": "b",
        }
    )
    assert list(whole.contents.values()).count(b"\x00\xff{{ x }}") == 1
    assert [one.key for one in whole.catalog.resources] == ["/role", "/etc/b", "/site"]


def test_a_directory_brings_everything_below_it() -> None:
    repo = site(
        "- copy: {src: tree/, dest: /srv/t, owner: www, mode: preserve, directory_mode: '0750'}\n"
    ) | {
        "files/tree/a": "a",
        "files/tree/bin/run*": "#!/bin/sh\n",
        "files/tree/bin/.hidden": "h",
    }
    found = {one.key: one.params for one in resources(repo).values()}
    assert list(found) == [
        "/srv/t",
        "/srv/t/a",
        "/srv/t/bin",
        "/srv/t/bin/.hidden",
        "/srv/t/bin/run",
    ]
    assert found["/srv/t/bin"] == {
        "path": "/srv/t/bin", "state": "directory", "owner": "www", "group": "root", "mode": "0750",
    }  # fmt: skip
    assert [found[f"/srv/t/{name}"]["mode"] for name in ("a", "bin/run")] == ["0644", "0755"]


def test_a_directory_without_a_slash_is_copied_as_a_whole() -> None:
    repo = site("- copy: {src: tree, dest: /srv/}\n") | {"files/tree/a": "a"}
    assert list(resources(repo)) == ["file:/srv/tree", "file:/srv/tree/a"]


def test_a_directory_that_is_declared_as_well_looks_as_declared() -> None:
    copied = "- copy: {src: tree/, dest: /srv/t}\n"
    declared = "- file: {path: /srv/t, state: directory, owner: www}\n"
    for text in (copied + declared, declared + copied):
        found = resources(site(text) | {"files/tree/a": "a"})
        assert found["file:/srv/t"].params == {
            "path": "/srv/t",
            "state": "directory",
            "owner": "www",
        }
        assert "file:/srv/t/a" in found


def test_parameters_of_file_are_passed_on() -> None:
    found = resources(
        site("- copy: {dest: /x, content: a, validate: 'sh -n %s', backup: true, mode: u=rw}\n")
    )["file:/x"]
    assert (found.params["validate"], found.params["backup"], found.params["mode"]) == (
        "sh -n %s",
        True,
        "u=rw",
    )


@pytest.mark.parametrize(
    "params,message",
    [
        ("{dest: /x}", "copy needs src or content, and not both"),
        ("{dest: /x, src: a, content: b}", "copy needs src or content, and not both"),
        ("{dest: /x/, content: b}", "a content needs the path of a file"),
        ("{dest: /x, src: nothing}", "there is no 'nothing' in files/"),
        ("{dest: /x, src: a, remote_src: true}", "'remote_src' is not supported"),
        ("{dest: /x, src: a, mode: 0644}", "mode: 0644 is the number 420"),
        ("{dest: /x, src: ../site.yml}", "is outside of the state repo"),
        ("{dest: /x, src: /etc/passwd}", "is outside of the state repo"),
        ("{dest: /x, src: '/etc/no such file'}", "is outside of the state repo"),
        ("{dest: /x, src: ~/x}", "is outside of the state repo"),
        ("{dest: /x, src: a/../../../etc/passwd}", "is outside of the state repo"),
        ('{dest: /x, src: "a\\0b"}', "is outside of the state repo"),
        ("{dest: /x, src: link}", "files/link is a link, which is never followed"),
        ("{dest: /x, src: with-link/}", "files/with-link/l is a link, which is never followed"),
    ],
)
def test_what_cannot_be_copied_is_one_error_with_its_place(params: str, message: str) -> None:
    repo = site(f"- copy: {params}\n") | {
        "files/a": "a",
        "files/link": "-> /etc/shadow",
        "files/with-link/l": "-> ../../site.yml",
    }
    error = only_error(repo)
    assert message in error.message
    assert error.mark is not None
    assert (error.mark.file, error.mark.line) == ("site.yml", 3)


def test_a_misspelt_file_names_the_nearest_one() -> None:
    error = only_error(site("- copy: {src: moddt, dest: /etc/motd}\n") | {"files/motd": "x"})
    assert "did you mean 'motd'" in error.hint
    assert error.mark == Mark("site.yml", 3, 19)
