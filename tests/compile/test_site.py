"""site.yml and roles: what they may say, and what is said about the rest."""

from __future__ import annotations

import pytest

from compile.repo import FACTS, compiled, errors, only_error, project, resources, site, tree
from reconciler.compile import Project
from reconciler.errors import ConfigErrors, Mark

WEB = "all: {children: {web: {hosts: {web1: {}, web2: {}}}, db: {hosts: {db1: {}}}}}"


# -- plays and roles -------------------------------------------------------------------------


def test_roles_come_first_then_the_resources_of_the_play() -> None:
    found = resources(
        {
            "site.yml": """
                - hosts: all
                  resources:
                    - package: {name: curl}
                  roles: [base, {role: nginx, tags: [web]}]
            """,
            "roles/base/main.yml": "- group: {name: ops}\n",
            "roles/nginx/main.yml": "- package: {name: nginx}\n",
        }
    )
    assert list(found) == ["group:ops", "package:nginx", "package:curl"]
    assert found["package:nginx"].role == "nginx"
    assert found["package:nginx"].mark == Mark("roles/nginx/main.yml", 1, 3)
    assert found["package:curl"].role == ""


def test_a_resource_is_placed_at_the_line_of_its_type() -> None:
    found = resources(site("- name: curl is there\n  when: true\n  package:\n    name: curl\n"))
    assert found["package:curl"].mark == Mark("site.yml", 5, 7)
    assert found["package:curl"].title == "curl is there"


def test_hosts_are_chosen_by_pattern_and_listed_in_inventory_order() -> None:
    files: dict[str, str | bytes] = {
        "site.yml": """
            - hosts: db
              resources: [{package: {name: postgresql}}]
            - hosts: [web, "!web2"]
              resources: [{package: {name: nginx}}]
        """
    }
    assert project(files, WEB).hosts() == ["web1", "db1"]
    assert list(resources(files, "db1", inventory=WEB)) == ["package:postgresql"]
    assert list(resources(files, "web1", inventory=WEB)) == ["package:nginx"]


def test_a_host_that_no_play_selects_is_an_error_and_not_an_empty_catalog() -> None:
    error = only_error({"site.yml": "- hosts: db\n  resources: []\n"}, "web1", inventory=WEB)
    assert "no play of site.yml is for web1" in error.message
    assert "web" in error.hint


def test_without_an_inventory_a_host_is_in_all_under_the_name_that_it_is_given() -> None:
    files = site("- group: {name: '{{ inventory_hostname }}'}\n")
    assert list(resources(files, "anything")) == ["group:anything"]
    assert project(files).hosts() == ["localhost"]


def test_a_role_twice_with_the_same_outcome_is_one_and_with_another_an_error() -> None:
    files: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  roles: [{role: r, tags: a}, {role: r, tags: b}]\n",
        "roles/r/main.yml": "- file: {path: /srv/x, state: directory, mode: '{{ m }}'}\n",
        "roles/r/defaults.yml": "m: '0755'\n",
    }
    found = resources(files)
    assert list(found) == ["file:/srv/x"]
    assert found["file:/srv/x"].tags == ("a", "b")
    files["site.yml"] = "- hosts: all\n  roles: [{role: r}, {role: r, vars: {m: '0700'}}]\n"
    error = only_error(files)
    assert "is declared at roles/r/main.yml:1:3 already with another mode" in error.message


def test_a_role_that_does_not_apply_brings_nothing_and_its_handlers_may_still_be_named() -> None:
    found = resources(
        {
            "site.yml": """
                - hosts: all
                  roles: [{role: r, when: facts.os_family == "RedHat"}]
                  resources:
                    - copy: {content: x, dest: /etc/x}
                      notify: reload r
            """,
            "roles/r/main.yml": "- package: {name: httpd}\n",
            "roles/r/handlers.yml": "- name: reload r\n  service: {name: httpd, state: reloaded}\n",
        }
    )
    assert list(found) == ["file:/etc/x"]
    assert found["file:/etc/x"].notify == ()


def test_a_role_without_main_may_bring_handlers_only() -> None:
    files: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  roles: [r]\n",
        "roles/r/handlers.yml": "- name: go\n  command: {cmd: /bin/true}\n",
    }
    assert list(resources(files)) == ["handler:go"]


def test_documents_may_start_with_three_dashes_and_types_with_ansible_builtin() -> None:
    found = resources(
        {
            "site.yml": "---\n- hosts: all\n  resources:\n    - ansible.builtin.package: {name: vim}\n"
        }
    )
    assert list(found) == ["package:vim"]


# -- keywords --------------------------------------------------------------------------------


def test_tags_of_play_role_and_resource_add_up() -> None:
    found = resources(
        {
            "site.yml": "- hosts: all\n  tags: play\n  roles: [{role: r, tags: [one, two]}]\n",
            "roles/r/main.yml": "- package: {name: vim}\n  tags: mine, two\n",
        }
    )
    assert found["package:vim"].tags == ("play", "one", "two", "mine")


@pytest.mark.parametrize(
    "written,seconds", [("90", 90.0), ("90s", 90.0), ("'5m'", 300.0), ("1.5h", 5400.0)]
)
def test_a_time_limit_has_a_unit_or_is_in_seconds(written: str, seconds: float) -> None:
    found = resources(site(f"- package: {{name: vim}}\n  timeout: {written}\n"))
    assert found["package:vim"].timeout == seconds


@pytest.mark.parametrize("written", ["0", "soon", "-5", "true", "[1]"])
def test_a_time_limit_that_is_none_is_an_error(written: str) -> None:
    error = only_error(site(f"- package: {{name: vim}}\n  timeout: {written}\n"))
    assert "is no time limit" in error.message
    assert error.mark == Mark("site.yml", 4, 16)


def test_a_loop_makes_one_resource_of_each_item_and_keeps_the_line() -> None:
    found = resources(
        site("""
            - name: user {{ item.name }} ({{ n }})
              user: {name: "{{ item.name }}", uid: "{{ item.uid }}"}
              loop: [{name: ada, uid: 1001}, {name: bob, uid: 1002}]
              loop_control: {index_var: n, label: "{{ item.name }}"}
        """)
    )
    assert [one.title for one in found.values()] == ["user ada (0)", "user bob (1)"]
    assert [one.params["uid"] for one in found.values()] == [1001, 1002]
    assert {one.mark.line for one in found.values()} == {5}


def test_the_loop_variable_can_have_another_name_at_the_top_level_too() -> None:
    found = resources(
        site(
            "- group: {name: 'g{{ n }}-{{ who }}'}\n  loop: [a, b]\n  loop_var: who\n  index_var: n\n"
        )
    )
    assert list(found) == ["group:g0-a", "group:g1-b"]


def test_a_condition_sees_the_loop_and_can_be_text_list_or_truth_value() -> None:
    found = resources(
        site("""
            - group: {name: "{{ item }}"}
              loop: [a, b, c]
              when:
                - item != "b"
                - facts.memtotal_mb >= 1024
            - group: {name: never}
              when: false
            - group: {name: ever}
              when: "{{ true }}"
        """)
    )
    assert list(found) == ["group:a", "group:c", "group:ever"]


def test_a_loop_over_nothing_defined_is_no_error_where_the_condition_does_not_hold() -> None:
    assert (
        resources(
            site(
                '- group: {name: "{{ item }}"}\n  loop: "{{ nobody }}"\n  when: facts.os_family == "RedHat"\n'
            )
        )
        == {}
    )
    assert (
        "'nobody' is not defined"
        in only_error(site('- group: {name: "{{ item }}"}\n  loop: "{{ nobody }}"\n')).message
    )


@pytest.mark.parametrize(
    "condition,shown",
    [("'no'", "the text 'no'"), ("facts.interfaces", "a list"), ("none", "nothing"), ("1", "1")],
)
def test_a_condition_that_is_neither_true_nor_false_is_an_error(condition: str, shown: str) -> None:
    error = only_error(site(f'- group: {{name: x}}\n  when: "{condition}"\n'))
    assert f"gives {shown}, not true or false" in error.message
    assert "| bool" in error.hint


def test_a_bare_text_is_the_key_of_the_type() -> None:
    assert list(resources(site("- package: nginx\n- group: ops\n"))) == [
        "package:nginx",
        "group:ops",
    ]


def test_become_is_accepted_because_everything_runs_as_root() -> None:
    assert resources(site("- package: vim\n  become: true\n"))
    error = only_error(site("- package: vim\n  become: true\n  become_user: postgres\n"))
    assert "everything runs as root, not as 'postgres'" in error.message


def test_a_list_of_packages_is_one_resource_each() -> None:
    found = resources(
        site(
            "- package: {name: [nginx, 'curl=8.*'], state: latest}\n- package: {name: 'vim,less'}\n- package: [tree]\n"
        )
    )
    assert list(found) == [
        "package:nginx",
        "package:curl=8.*",
        "package:vim",
        "package:less",
        "package:tree",
    ]
    assert found["package:curl=8.*"].params == {"name": "curl=8.*", "state": "latest"}


def test_a_list_of_packages_can_be_a_variable() -> None:
    found = resources(site('- package: {name: "{{ wanted }}"}\n  vars: {wanted: [a, b]}\n'))
    assert list(found) == ["package:a", "package:b"]


def test_apt_and_systemd_become_what_they_are_forms_of() -> None:
    found = resources(site("- apt: {name: nginx}\n- systemd: {name: nginx, state: started}\n"))
    assert list(found) == ["package:nginx", "service:nginx"]
    assert found["package:nginx"].declared_as == "apt"
    assert found["package:nginx"].params == {"name": "nginx", "use": "apt"}


def test_omit_leaves_a_parameter_out() -> None:
    found = resources(
        site('- user: {name: ada, uid: "{{ uid | default(omit) }}", shell: "{{ none }}"}\n')
    )
    assert found["user:ada"].params == {"name": "ada"}
    assert "cannot be omitted" in only_error(site('- user: {name: "{{ omit }}"}\n')).message


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line,hint",
    [
        ("register: x", "a catalog is data"),
        ("changed_when: false", "comparing"),
        ("failed_when: false", "success_codes"),
        ("ignore_errors: true", "one failure"),
        ("delegate_to: other", "a play for the other host"),
        ("run_once: true", "whose `hosts` is one host"),
        ("until: x", "looks again"),
        ("with_items: [a]", "loop:"),
        ("with_dict: {}", "dict2items"),
        ("with_fileglob: x", "directory as src"),
        ("with_strange: x", "loop:"),
        ("environment: {}", "parameter `environment`"),
        ("args: {}", "all in one mapping"),
    ],
)
def test_keywords_of_ansible_that_we_do_not_have_say_what_to_write(line: str, hint: str) -> None:
    error = only_error(site(f"- package: vim\n  {line}\n"))
    assert f"'{line.split(':', maxsplit=1)[0]}' is not supported" in error.message
    assert hint in error.hint
    assert error.mark == Mark("site.yml", 4, 7)


@pytest.mark.parametrize(
    "name",
    [
        "shell",
        "raw",
        "set_fact",
        "include_tasks",
        "import_role",
        "block",
        "debug",
        "stat",
        "ansible.builtin.shell",
    ],
)
def test_modules_of_ansible_that_we_do_not_have_say_what_to_write(name: str) -> None:
    error = only_error(site(f"- {name}: x\n"))
    assert "is not supported" in error.message
    assert error.hint


@pytest.mark.parametrize(
    "name", ["tasks", "pre_tasks", "post_tasks", "vars_files", "serial", "strategy"]
)
def test_keys_of_a_play_that_we_do_not_have_say_what_to_write(name: str) -> None:
    error = only_error({"site.yml": f"- hosts: all\n  {name}: []\n"})
    assert f"'{name}' is not supported" in error.message
    assert error.hint


def test_an_unknown_type_names_the_nearest_one() -> None:
    error = only_error(site("- packge: vim\n"))
    assert error.mark == Mark("site.yml", 3, 7)
    assert "did you mean 'package'?" in error.hint


def test_an_unknown_parameter_names_the_nearest_one() -> None:
    error = only_error(site("- file: {path: /x, onwer: root}\n"))
    assert error.mark == Mark("site.yml", 3, 24)
    assert error.message == "file has no parameter 'onwer'"
    assert "did you mean 'owner'?" in error.hint


def test_an_unknown_role_names_the_nearest_one() -> None:
    files: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  roles: [ngnix]\n",
        "roles/nginx/main.yml": "[]",
    }
    error = only_error(files)
    assert error.mark == Mark("site.yml", 2, 11)
    assert "did you mean 'nginx'?" in error.hint


@pytest.mark.parametrize(
    "name", ["tasks/main.yml", "defaults/main.yml", "meta/main.yml", "vars/main.yml", "vars.yml"]
)
def test_a_role_in_the_layout_of_ansible_says_where_things_go(name: str) -> None:
    files: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  roles: [r]\n",
        "roles/r/main.yml": "[]",
        f"roles/r/{name}": "x: 1",
    }
    error = only_error(files)
    assert "is not part of a role here" in error.message
    assert error.hint


@pytest.mark.parametrize(
    "text,message",
    [
        ("- package: vim\n  group: x\n", "two types in one resource"),
        ("- name: nothing\n", "a resource needs a type"),
        ("- just a text\n", "expected a resource"),
        ("- package: [[x]]\n", "expected text"),
        ("- package: 5\n", "are a mapping"),
        ("- file: path=/etc/x state=directory\n", "not name=value"),
        ("- file: {state: touch}\n", "file needs path"),
        ("- file: {path: /x, dest: /y}\n", "another name of 'path'"),
        ("- package: vim\n  loop: {a: 1}\n", "a loop goes over a list"),
        ("- package: vim\n  loop: names\n", "this is a text"),
        ("- package: vim\n  loop: 5\n", "a loop goes over a list"),
        ("- package: vim\n  loop_var: x\n", "without a loop"),
        ("- package: vim\n  loop: [a]\n  loop_control: {lop_var: x}\n", "has no 'lop_var'"),
        ("- package: vim\n  loop: [a]\n  loop_var: 1x\n", "cannot be the name"),
        ("- package: vim\n  loop: [a]\n  loop_var: facts\n", "cannot be the name"),
        ("- package: vim\n  when: [5]\n", "a condition is an expression"),
        ("- package: vim\n  notify: {a: b}\n", "is a text or a list of texts"),
        ("- package: vim\n  tags: '{{ x }}'\n", "tags cannot be templates"),
        ("- package: vim\n  no_log: maybe\n", "'no_log' is true or false"),
        ("- package: vim\n  vars: [a]\n", "'vars' is a mapping"),
        ("- package: vim\n  vars: {facts: 1}\n", "'facts' is built in"),
        ("- package: vim\n  vars: {a-b: 1}\n", "cannot be the name of a variable"),
        ("- package: vim\n  listen: x\n", "only handlers listen"),
        ("- command: {cmd: /bin/true}\n", "nothing says when this command is to be done"),
        ("- service: {name: x, state: restarted}\n", "is not a state, it is something to do"),
        ("- service: {name: x, state: '{{ s }}'}\n  vars: {s: reloaded}\n", "is not a state"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_error_with_its_place(text: str, message: str) -> None:
    error = only_error(site(text))
    assert message in error.message
    assert error.mark is not None
    assert error.mark.file == "site.yml"
    assert error.mark.line >= 3


def test_old_style_parameters_are_shown_as_a_mapping() -> None:
    error = only_error(site("- file: path=/etc/x state=directory\n"))
    assert error.hint == "write file: {path: /etc/x, state: directory}"


def test_a_command_may_hold_equal_signs() -> None:
    found = resources(site("- command: {cmd: dd if=/dev/zero of=/x, creates: /x}\n"))
    assert list(found) == ["command:dd if=/dev/zero of=/x"]


def test_an_unguarded_command_is_an_error_that_names_the_guards() -> None:
    error = only_error(site("- command: make install\n"))
    assert "creates, removes, unless, onlyif" in error.hint
    assert "handler" in error.hint


@pytest.mark.parametrize(
    "text,message",
    [
        ("", "there are no plays"),
        ("hosts: all\n", "is a list of plays"),
        ("- all\n", "expected a play"),
        ("- resources: []\n", "a play needs `hosts`"),
        ("- hosts: '{{ x }}'\n", "cannot be a template"),
        ("- hosts: all\n  roles: base\n", "`roles` is a list"),
        ("- hosts: all\n  roles: [5]\n", "expected the name of a role"),
        ("- hosts: all\n  roles: [{vars: {}}]\n", "which role?"),
        ("- hosts: all\n  resources: {package: vim}\n", "expected a list of resources"),
        ("- hosts: all\n  resorces: []\n", "a play has no 'resorces'"),
        ("- hosts: all\n  vars: [1]\n", "'vars' is a mapping"),
    ],
)
def test_a_site_that_cannot_be_meant_is_one_error(text: str, message: str) -> None:
    assert message in only_error({"site.yml": text}).message


def test_parameters_of_a_role_belong_under_vars() -> None:
    files: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  roles: [{role: r, port: 80}]\n",
        "roles/r/main.yml": "[]",
    }
    assert "under vars: {port: ...}" in only_error(files).hint


def test_a_repo_without_site_says_how_to_start() -> None:
    error = only_error({"README.md": "x"})
    assert "there is no site.yml" in error.message
    assert "init" in error.hint


# -- all errors at once ----------------------------------------------------------------------


def test_all_errors_of_all_files_are_reported_together_in_order() -> None:
    found = errors(
        {
            "site.yml": """
                - hosts: all
                  roles: [one, two, nine]
                  resources:
                    - packge: vim
                    - file: {path: /x, mode: 0644, onwer: root}
                    - group: {name: "{{ nobody }}"}
                      notify: nothing
            """,
            "roles/one/main.yml": "a: [\n",
            "roles/two/main.yml": "- user: {}\n",
        }
    )
    assert [(error.mark.file, error.mark.line) for error in found if error.mark] == [
        ("roles/one/main.yml", 2),
        ("roles/two/main.yml", 1),
        ("site.yml", 3),
        ("site.yml", 5),
        ("site.yml", 6),
        ("site.yml", 6),
        ("site.yml", 7),
    ]


def test_what_seems_unknown_because_a_file_is_broken_is_not_reported_too() -> None:
    files: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  roles: [r]\n",
        "roles/r/main.yml": "- package: vim\n  notify: reload\n",
        "roles/r/handlers.yml": "- name: reload\n  service: {nme: x, state: reloaded}\n",
    }
    found = errors(files)
    assert {error.mark.file for error in found if error.mark} == {"roles/r/handlers.yml"}


def test_the_same_error_on_many_hosts_is_reported_once_with_the_hosts() -> None:
    inventory = "all: {hosts: {h1: {}, h2: {}, h3: {}, h4: {}, h5: {port: 80}}}"
    files = site('- group: {name: "g{{ port }}"}\n')
    whole = project(files, inventory)
    done: list[str] = []
    with pytest.raises(ConfigErrors) as caught:
        done.extend(one.catalog.host for one in whole.compile_many(whole.hosts(), lambda _: FACTS))
    assert len(caught.value.errors) == 1
    assert caught.value.errors[0].host == "h1, h2, h3 and 1 more"
    assert done == ["h5"]


def test_a_catalog_knows_its_commit_and_its_facts() -> None:
    whole = compiled(site("- group: ops\n"))
    assert whole.catalog.commit == "c0ffee"
    assert len(whole.catalog.facts) == 64


# -- hostile files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["site.yml", "roles/r/main.yml", "roles/r/defaults.yml", "roles/r/handlers.yml"]
)
def test_a_link_in_the_place_of_a_file_is_never_followed(path: str) -> None:
    files: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  roles: [r]\n",
        "roles/r/main.yml": "[]",
        path: "-> /etc/shadow",
    }
    error = only_error(files)
    assert error.mark == Mark(path)


def test_a_file_that_is_too_large_is_not_even_read() -> None:
    huge = tree({"site.yml": "- hosts: all\n  roles: [r]\n", "roles/r/main.yml": "#" * (3 << 20)})
    with pytest.raises(ConfigErrors) as caught:
        Project(huge).compile("web1", FACTS)
    assert "more than the limit" in caught.value.errors[0].message
    assert huge.reads == 1


def test_a_text_for_a_template_has_a_limit_and_a_file_to_copy_has_none() -> None:
    huge = {"templates/t": "x" * (9 << 20), "files/t": "x" * (9 << 20)}
    assert (
        "more than the limit" in only_error(site("- template: {src: t, dest: /t}\n") | huge).message
    )
    assert resources(site("- copy: {src: t, dest: /t}\n") | huge)


def test_aliases_that_explode_are_refused_in_a_play_too() -> None:
    lines = ["- hosts: all", "  vars:", "    l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"    l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
    error = only_error({"site.yml": "\n".join(lines)})
    assert "aliases" in error.message
