"""Handlers, requirements, duplicates; and `--tags`, which keeps what belongs together."""

from __future__ import annotations

import pytest

from compile.repo import compiled, errors, only_error, resources, site
from reconciler.catalog import Catalog
from reconciler.compile import select
from reconciler.errors import ClaimConflict, CycleError, Mark, UsageError

HANDLERS = """
  handlers:
    - name: reload web
      service: {name: web, state: reloaded}
      listen: [config, anything]
    - name: restart {{ what }}
      service: {name: web, state: restarted}
      vars: {what: web}
      listen: config
      notify: reload web
"""


def with_handlers(text: str) -> dict[str, str | bytes]:
    files = site(text)
    files["site.yml"] = str(files["site.yml"]) + HANDLERS
    return files


# -- handlers --------------------------------------------------------------------------------


def test_a_notification_names_a_handler_or_what_several_listen_to() -> None:
    found = resources(
        with_handlers("""
            - copy: {dest: /a, content: a}
              notify: reload web
            - copy: {dest: /b, content: b}
              notify: [config, "restart {{ 'web' }}"]
        """)
    )
    assert found["file:/a"].notify == ("handler:reload web",)
    assert found["file:/b"].notify == ("handler:reload web", "handler:restart web")
    assert found["handler:restart web"].handler
    assert found["handler:restart web"].notify == ("handler:reload web",)
    assert list(found)[-2:] == ["handler:reload web", "handler:restart web"]


def test_an_unknown_handler_names_the_nearest_one() -> None:
    error = only_error(with_handlers("- copy: {dest: /a, content: a}\n  notify: reload wbe\n"))
    assert error.message == "there is no handler 'reload wbe'"
    assert error.mark == Mark("site.yml", 4, 15)
    assert "did you mean 'reload web'" in error.hint


def test_a_handler_that_does_not_apply_to_this_host_may_be_notified() -> None:
    files = site("- copy: {dest: /a, content: a}\n  notify: [go, topic]\n")
    files["site.yml"] = (
        f"{files['site.yml']}  handlers:\n    - name: go\n      listen: topic\n      command: /bin/true\n      when: false\n"
    )
    assert resources(files)["file:/a"].notify == ()


def test_handlers_of_all_roles_share_their_names() -> None:
    files: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  roles: [web, app]\n",
        "roles/web/handlers.yml": "- name: reload\n  service: {name: '{{ unit }}', state: reloaded}\n",
        "roles/web/defaults.yml": "unit: nginx\n",
        "roles/app/main.yml": "- copy: {dest: /a, content: a}\n  notify: reload\n",
    }
    found = resources(files)
    assert found["file:/a"].notify == ("handler:reload",)
    assert found["handler:reload"].params == {"name": "nginx", "state": "reloaded"}
    files["roles/app/handlers.yml"] = "- name: reload\n  service: {name: app, state: reloaded}\n"
    assert (
        "handler:reload is declared at roles/web/handlers.yml:2:3 already"
        in only_error(files).message
    )


def test_a_handler_needs_a_name_and_no_guard() -> None:
    files = site("- group: x\n")
    files["site.yml"] = f"{files['site.yml']}  handlers:\n    - command: /bin/true\n"
    assert "a handler needs a name" in only_error(files).message
    files["site.yml"] = str(files["site.yml"]).replace("- command", "- name: go\n      command")
    assert resources(files)["handler:go"].params == {"cmd": "/bin/true"}


# -- requirements ----------------------------------------------------------------------------


def test_a_requirement_is_an_id_or_a_name_and_may_stand_for_several() -> None:
    found = resources(
        site("""
            - name: the packages
              package: {name: [a, b]}
            - template: {src: t, dest: /t}
            - group: ops
              requires: [the packages, "template:/t", "file:/t"]
        """)
        | {"templates/t": "x"}
    )
    assert found["group:ops"].requires == ("package:a", "package:b", "file:/t")


def test_an_unknown_requirement_names_the_nearest_one() -> None:
    error = only_error(site("- package: nginx\n- group: ops\n  requires: package:ngnix\n"))
    assert error.message == "there is no resource 'package:ngnix'"
    assert "did you mean 'package:nginx'" in error.hint


def test_a_resource_that_does_not_apply_to_this_host_may_be_required_by_name() -> None:
    found = resources(
        site("- name: theirs\n  package: httpd\n  when: false\n- group: ops\n  requires: theirs\n")
    )
    assert found["group:ops"].requires == ()


def test_a_cycle_is_an_error_that_names_all_of_it() -> None:
    error = only_error(
        site(
            "- group: a\n  requires: group:b\n- group: b\n  requires: group:c\n- group: c\n  requires: group:a\n"
        )
    )
    assert isinstance(error, CycleError)
    assert "group:a" in error.message
    assert "group:b" in error.message
    assert "group:c" in error.message


def test_a_chain_of_ten_thousand_requirements_is_no_problem() -> None:
    text = "- group: g0\n" + "".join(
        f"- group: g{n}\n  requires: group:g{n - 1}\n" for n in range(1, 10_000)
    )
    assert len(resources(site(text))) == 10_000


# -- duplicates and claims -------------------------------------------------------------------


def test_the_same_twice_is_one_with_the_tags_and_notifications_of_both() -> None:
    found = resources(
        with_handlers("""
            - name: one
              package: vim
              tags: a
              notify: reload web
            - package: {name: vim}
              tags: b
              notify: restart web
        """)
    )
    assert found["package:vim"].tags == ("a", "b")
    assert found["package:vim"].notify == ("handler:reload web", "handler:restart web")
    assert found["package:vim"].title == "one"


def test_one_thing_wanted_twice_in_different_ways_names_both_lines() -> None:
    error = only_error(
        site("- file: {path: /x, state: touch}\n- file: {path: /x, state: absent}\n")
    )
    assert error.message == "file:/x is declared at site.yml:3:7 already with another state"
    assert error.mark == Mark("site.yml", 4, 7)


def test_two_resources_that_claim_one_path_name_both_lines() -> None:
    error = only_error(site("- copy: {dest: /x, content: a}\n- lineinfile: {path: /x, line: b}\n"))
    assert isinstance(error, ClaimConflict)
    assert "site.yml:3:7 and site.yml:4:7" in error.message


# -- paths -----------------------------------------------------------------------------------

#: What one place may be written as.
SPELLINGS = ("/etc//x", "//etc/x", "/etc/./x", "/./etc/x", "/etc/x/", "/etc/x/.", "/etc/x//")
#: Types that are about a place, and what their keys are.
PLACED = {
    "file: {path: %s, state: touch}": "file:/etc/x",
    "file: {dest: %s, state: directory}": "file:/etc/x",
    "file: %s": "file:/etc/x",
    "xattr: {path: %s, name: user.a, value: b}": "xattr:/etc/x#user.a",
    "lineinfile: {path: %s, line: a//b/}": "lineinfile:/etc/x#a//b/",
    "cron: {name: a, job: b, cron_file: %s}": "cron:a#/etc/x",
    "command: {cmd: a //b/, chdir: %s, creates: /c}": "command:a //b/#/etc/x",
}


@pytest.mark.parametrize("written", PLACED)
def test_one_place_is_one_key_however_it_is_written(written: str) -> None:
    plain = resources(site(f"- {written % '/etc/x'}\n"))
    assert list(plain) == [PLACED[written]]
    for spelling in SPELLINGS:
        for text in (spelling, f"\"{{{{ '{spelling}' }}}}\""):
            found = resources(site(f"- {written % text}\n"))
            assert [one.to_json() for one in found.values()] == [
                one.to_json() for one in plain.values()
            ], text


@pytest.mark.parametrize("spelling", ["/etc//x", "//etc/x", "/etc/./x"])
def test_one_place_is_one_key_for_content_too(spelling: str) -> None:
    for kind, source in (("copy", "content: a"), ("template", "src: a.j2")):
        files: dict[str, str | bytes] = {
            **site(f"- {kind}: {{dest: {spelling}, {source}}}\n"),
            "templates/a.j2": "a",
        }
        assert list(resources(files)) == ["file:/etc/x"]
        (found,) = resources(files).values()
        assert found.params["path"] == "/etc/x"


def test_a_directory_for_the_file_and_all_that_is_copied_are_written_plainly() -> None:
    files: dict[str, str | bytes] = {
        **site("- copy: {src: a.txt, dest: /etc//x/}\n- copy: {src: tree/, dest: /srv/./y/}\n"),
        "files/a.txt": "a",
        "files/tree/b/c": "c",
    }
    assert set(resources(files)) == {
        "file:/etc/x/a.txt", "file:/srv/y", "file:/srv/y/b", "file:/srv/y/b/c",
    }  # fmt: skip


def test_the_root_is_a_place_too() -> None:
    for spelling in ("/", "//", "/."):
        (found,) = resources(site(f"- file: {{path: {spelling}, state: directory}}\n"))
        assert found == "file:/"


@pytest.mark.parametrize("path", ["etc//x", "/etc/../x", "/etc//../x", "."])
def test_a_path_that_is_relative_or_leads_upwards_is_refused_as_before(path: str) -> None:
    assert "is not an absolute path" in only_error(site(f"- file: {{path: {path}}}\n")).message


def test_two_wishes_for_one_place_in_two_spellings_are_an_error() -> None:
    error = only_error(
        site("- copy: {dest: /x, content: a}\n- lineinfile: {path: //x/, line: b}\n")
    )
    assert isinstance(error, ClaimConflict)
    assert error.message.startswith("copy:/x and lineinfile:/x#b both manage /x: ")
    error = only_error(site("- file: {path: /x/, state: touch}\n- copy: {dest: /x, content: a}\n"))
    assert error.message.startswith("file:/x is declared at site.yml:3:7 already with another ")
    twice = "- file: {path: /x/, state: directory}\n- file: {path: /x, state: directory}\n"
    assert list(resources(site(twice))) == ["file:/x"]


def test_a_resource_is_required_by_its_path_however_it_is_written() -> None:
    found = resources(
        site("""
            - file: {path: /srv/app/, state: directory}
            - lineinfile: {path: /srv//conf, line: a//b, create: true}
            - group: ops
              requires: ["file:/srv/app/", "file:/srv//app", "lineinfile:/srv/conf#a//b", "lineinfile:/srv/./conf#a//b"]
        """)
    )
    assert found["group:ops"].requires == ("file:/srv/app", "lineinfile:/srv/conf#a//b")


def test_a_type_that_refuses_its_parameters_is_placed_at_the_resource() -> None:
    found = errors(
        site(
            "- service: {name: a, masked: true, state: started}\n- service: {name: b, masked: true, enabled: true}\n"
        )
    )
    assert [error.mark for error in found] == [Mark("site.yml", 3, 7), Mark("site.yml", 4, 7)]


# -- tags ------------------------------------------------------------------------------------

TAGGED = """
    - package: nginx
      tags: web
    - group: ops
    - copy: {dest: /etc/web, content: x}
      tags: [web, config]
      requires: group:ops
      notify: restart web
    - copy: {dest: /etc/other, content: x}
      tags: config
    - copy: {dest: /etc/always, content: x}
      tags: always
    - copy: {dest: /etc/never, content: x}
      tags: [never, danger]
"""


def selected(tags: list[str], skip: list[str] | None = None) -> list[str]:
    catalog = compiled(with_handlers(TAGGED)).catalog
    return [one.id.rpartition("/")[2] for one in select(catalog, tags, skip or []).resources]


def test_without_tags_everything_is_selected_but_never() -> None:
    both = ["handler:reload web", "handler:restart web"]
    assert selected([]) == ["package:nginx", "group:ops", "web", "other", "always", *both]
    assert "never" not in selected(["all"])


def test_tags_bring_what_is_required_and_the_handlers_that_are_notified() -> None:
    assert selected(["web"]) == [
        "package:nginx",
        "group:ops",
        "web",
        "always",
        "handler:reload web",
        "handler:restart web",
    ]
    assert selected(["config"], ["web"]) == ["other", "always"]


def test_a_catalog_that_tags_have_left_something_out_of_says_so() -> None:
    site = with_handlers(TAGGED.replace("tags: [never, danger]", "tags: danger"))
    whole = compiled(site).catalog
    assert not select(whole, [], []).partial
    for tags, skipped in ((["web"], []), ([], ["web"]), (["untagged"], [])):
        part = select(whole, tags, skipped)
        assert part.partial
        assert Catalog.from_json(part.to_json()).partial


def test_never_is_selected_by_its_other_tags_only() -> None:
    assert selected(["danger"]) == ["always", "never"]
    assert selected(["never"]) == ["always", "never"]


def test_always_can_be_skipped_and_what_is_skipped_is_not_brought_back() -> None:
    assert selected(["danger"], ["always"]) == ["never"]
    assert selected(["web"], ["untagged"]) == [
        "package:nginx",
        "web",
        "always",
        "handler:reload web",
        "handler:restart web",
    ]


def test_tagged_and_untagged_are_what_they_say() -> None:
    assert selected(["untagged"]) == ["group:ops", "always"]
    assert selected(["tagged"]) == [
        "package:nginx",
        "group:ops",
        "web",
        "other",
        "always",
        "handler:reload web",
        "handler:restart web",
    ]


def test_a_tag_that_nothing_has_is_an_error_that_names_the_nearest_one() -> None:
    with pytest.raises(UsageError) as caught:
        selected(["confg"])
    assert "did you mean 'config'" in caught.value.hint


# -- beside other errors -----------------------------------------------------------------------

WRONG = "- copy: {dest: /a, content: a}\n  notify: nobody\n  requires: nothing\n"
BOTH = ["there is no handler 'nobody'", "there is no resource 'nothing'"]


def unknown(text: str) -> list[str]:
    """Which names are said to be unknown, where there is another error as well."""
    found = [error.message for error in errors(site(text))]
    names = [message for message in found if message in BOTH]
    assert len(found) > len(names)
    return sorted(names)


@pytest.mark.parametrize(
    "other",
    [
        "- copy: {dest: /b, contend: b}",
        "- copy: {dest: /b, content: '{{ nosuch }}'}",
        "- name: another\n  copy: {dest: /b, content: '{{ nosuch }}'}",
        "- copy: {dest: /b, content: b}\n  loop: '{{ nosuch }}'",
        "- copy: {dest: /b, content: b}\n  when: nosuch",
        "- nosuchtype: {x: 1}",
    ],
)
def test_unknown_names_are_told_beside_an_error_that_has_nothing_to_do_with_them(
    other: str,
) -> None:
    assert unknown(WRONG + other) == BOTH


@pytest.mark.parametrize(
    "other, certain",
    [
        ("- name: nothing\n  copy: {dest: /b, contend: b}", BOTH[:1]),
        ("- name: nothing\n  copy: {dest: /b, content: '{{ nosuch }}'}", BOTH[:1]),
        ("- name: '{{ nosuch }}'\n  copy: {dest: /b, content: b}", BOTH[:1]),
        ("- name: '{{ 1 }}'\n  copy: {dest: /b, contend: b}", BOTH[:1]),
        ("- block: [{name: nothing, group: x}]", []),
        ("- import_tasks: more.yml", []),
        ("- 5", []),
    ],
)
def test_a_name_that_something_with_an_error_may_have_is_not_called_unknown(
    other: str, certain: list[str]
) -> None:
    assert unknown(WRONG + other) == certain


@pytest.mark.parametrize(
    "handler, certain",
    [
        ("name: nobody, copy: {dest: /b, contend: b}", BOTH[1:]),
        ("name: other, listen: nobody, copy: {dest: /b, contend: b}", BOTH[1:]),
        ("name: other, listen: [nobody], command: '{{ nosuch }}'", BOTH[1:]),
        ("name: other, command: '{{ nosuch }}'", BOTH),
    ],
)
def test_the_same_holds_for_handlers(handler: str, certain: list[str]) -> None:
    files = site(WRONG)
    files["site.yml"] = f"{files['site.yml']}  handlers:\n    - {{{handler}}}\n"
    found = [error.message for error in errors(files)]
    assert sorted(one for one in found if one in BOTH) == certain


@pytest.mark.parametrize(
    "text",
    [
        "- hosts: all\n  roles: [nosuch]\n",
        "- hosts: all\n  handler: []\n",
        "- hosts: all\n  roles: [{role: app, when: nosuch}]\n",
        "- resources: []\n",
        "- hosts: all\n  roles: [broken]\n",
    ],
)
def test_in_what_could_not_be_read_at_all_there_may_be_any_name(text: str) -> None:
    files: dict[str, str | bytes] = {
        "site.yml": str(site(WRONG)["site.yml"]) + text,
        "roles/app/main.yml": "- name: nothing\n  group: x\n",
        "roles/app/handlers.yml": "- name: nobody\n  command: /bin/true\n",
        "roles/broken/main.yml": "- name: [\n",
    }
    found = [error.message for error in errors(files)]
    assert found
    assert not set(found) & set(BOTH)


def test_an_id_is_not_called_unknown_beside_a_resource_whose_id_is_not_known() -> None:
    both = "- group: x\n  requires: 'file:/b'\n- copy: {dest: '{{ nosuch }}', content: b}"
    (error,) = errors(site(both))
    assert "nosuch" in error.message
