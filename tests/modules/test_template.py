"""template: a file of the state repo is rendered and becomes a file on the host."""

from __future__ import annotations

import pytest

from compile.repo import content, only_error, resources, site
from reconciler.errors import Mark


def test_a_template_becomes_a_file_of_root_that_all_can_read() -> None:
    repo = site("- template: {src: t.j2, dest: /etc/t}\n  vars: {port: 80}\n") | {
        "templates/t.j2": "port {{ port }}\n"
    }
    found = resources(repo)["file:/etc/t"]
    assert (found.type, found.declared_as) == ("file", "template")
    assert (found.params["owner"], found.params["group"], found.params["mode"]) == (
        "root",
        "root",
        "0644",
    )
    assert content(repo, "/etc/t") == "port 80\n"


def test_a_directory_as_destination_takes_the_name_without_j2() -> None:
    repo = site("- template: {src: sub/t.conf.j2, dest: /etc/}\n") | {
        "templates/sub/t.conf.j2": "x"
    }
    assert list(resources(repo)) == ["file:/etc/t.conf"]


def test_mode_preserve_takes_the_executable_bit_of_git() -> None:
    repo = site(
        "- template: {src: '{{ item }}', dest: '/{{ item }}', mode: preserve}\n  loop: [a, b]\n"
    )
    found = resources(repo | {"templates/a": "x", "templates/b*": "x"})
    assert [one.params["mode"] for one in found.values()] == ["0644", "0755"]


def test_the_name_of_the_template_can_be_a_template() -> None:
    repo = site("- template: {src: '{{ facts.os_family }}.j2', dest: /x}\n") | {
        "templates/Debian.j2": "deb"
    }
    assert content(repo, "/x") == "deb"


def test_line_ends_are_as_declared_and_text_is_utf_8() -> None:
    repo = site('- template: {src: t, dest: /x, newline_sequence: "\\r\\n"}\n') | {
        "templates/t": "ä\nb\n"
    }
    assert content(repo, "/x") == "ä\r\nb\r\n"


@pytest.mark.parametrize(
    "params,message",
    [
        ("{src: t}", "template needs dest"),
        ("{dest: /x}", "template needs src"),
        ("{src: u, dest: /x}", "there is no 'u' in templates/"),
        ("{src: sub, dest: /x}", "templates/sub is a directory, not a template"),
        ("{src: ../site.yml, dest: /x}", "is outside of the state repo"),
        ("{src: /etc/hostname, dest: /x}", "is outside of the state repo"),
        ("{src: link, dest: /x}", "is a link, which is never followed"),
        ("{src: binary, dest: /x}", "byte 0xff is not UTF-8"),
        ("{src: t, dest: /x, newline_sequence: '\\n'}", "expected one of"),
    ],
)
def test_what_cannot_be_rendered_is_one_error(params: str, message: str) -> None:
    error = only_error(
        site(f"- template: {params}\n")
        | {
            "templates/t": "x",
            "templates/sub/t": "x",
            "templates/link": "-> /etc/shadow",
            "templates/binary": b"\xff",
        }
    )
    assert message in error.message
    assert error.mark is not None


def test_a_broken_template_is_placed_in_its_file() -> None:
    error = only_error(
        site("- template: {src: t, dest: /x}\n") | {"templates/t": "a\n{% if x %}\nb\n"}
    )
    assert error.mark is not None
    assert error.mark.file == "templates/t"
    assert error.mark.line >= 2
    error = only_error(
        site("- template: {src: t, dest: /x}\n") | {"templates/t": "a\nb {{ 'x' | uper }}\n"}
    )
    assert error.mark == Mark("templates/t", 2, 12)
