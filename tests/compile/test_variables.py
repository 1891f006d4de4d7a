"""What a name means: precedence, late rendering, facts that stay data, magic variables."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from compile.repo import (
    FACTS,
    compiled,
    content,
    errors,
    only_error,
    project,
    resources,
    site,
    text_of,
)
from reconciler.catalog import Json
from reconciler.errors import Mark

WEB = "all: {hosts: {web1: {place: host line}}, vars: {everywhere: inventory all}}"


def shown(
    text: str,
    files: Mapping[str, str] = {},
    *,
    facts: Mapping[str, object] = FACTS,
    inventory: str = "",
) -> str:
    """What a text becomes as the content of a file."""
    repo = {**site(f"- copy: {{dest: /t, content: {text!r}}}\n"), **files}
    return content(repo, "/t", facts=facts, inventory=inventory)


# -- precedence ------------------------------------------------------------------------------


def test_each_layer_wins_over_the_ones_below_it() -> None:
    names = ["default", "inventory", "group_vars", "host_vars", "play", "role", "resource", "loop"]
    layers = {
        name: "{" + ", ".join(f"{n}: {name}" for n in names[at:]) + "}"
        for at, name in enumerate(names)
    }
    text = " ".join(f"{{{{ {n} }}}}" for n in names if n != "loop") + " {{ item }}"
    found = content(
        {
            "site.yml": f"- hosts: all\n  vars: {layers['play']}\n  roles: [{{role: r, vars: {layers['role']}}}]\n",
            "roles/r/defaults.yml": layers["default"],
            "roles/r/main.yml": f"- copy: {{dest: /t, content: '{text}'}}\n  vars: {layers['resource']}\n  loop: [loop]\n",
            "group_vars/all.yml": layers["group_vars"],
            "host_vars/web1.yml": layers["host_vars"],
        },
        "/t",
        inventory=f"all: {{hosts: {{web1: {{}}}}, vars: {layers['inventory']}}}",
    )
    assert found == "default inventory group_vars host_vars play role resource loop"


def test_a_variable_of_a_loop_wins_over_one_of_the_resource() -> None:
    assert list(
        resources(site("- group: {name: '{{ item }}'}\n  vars: {item: low}\n  loop: [high]\n"))
    ) == ["group:high"]


def test_defaults_of_a_role_are_seen_in_that_role_only() -> None:
    files: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  roles: [one, two]\n",
        "roles/one/defaults.yml": "mine: 1\n",
        "roles/one/main.yml": "- group: {name: 'g{{ mine }}'}\n",
        "roles/two/main.yml": "- group: {name: 'h{{ mine }}'}\n",
    }
    error = only_error(files)
    assert error.mark == Mark("roles/two/main.yml", 1, 22)


# -- late rendering --------------------------------------------------------------------------


def test_a_variable_is_rendered_where_it_is_used() -> None:
    found = resources(
        site("""
            - group: {name: "{{ whole }}"}
              loop: [a, b]
            - group: {name: "{{ whole }}"}
              vars: {item: c, prefix: q}
        """) | {"group_vars/all.yml": "whole: '{{ prefix }}-{{ item }}'\nprefix: p\n"}
    )  # fmt: skip
    assert list(found) == ["group:p-a", "group:p-b", "group:q-c"]


def test_lists_and_mappings_stay_what_they_are() -> None:
    found = resources(
        site('- user: {name: ada, groups: "{{ teams }}", uid: "{{ numbers.uid }}"}\n')
        | {
            "group_vars/all.yml": "teams: ['{{ one }}', two]\none: ops\nnumbers: {uid: '{{ 1000 + 1 }}'}\n"
        }
    )
    assert found["user:ada"].params == {"name": "ada", "groups": ["ops", "two"], "uid": 1001}


def test_a_variable_that_needs_itself_is_an_error_that_shows_the_way_round() -> None:
    error = only_error(
        site("- group: {name: '{{ a }}'}\n")
        | {"group_vars/all.yml": "a: '{{ b }}'\nb: 'x{{ a }}'\n"}
    )
    assert "a -> b -> a" in error.message
    assert error.mark is not None
    assert error.mark.file == "group_vars/all.yml"


def test_the_error_of_a_variable_points_at_the_variable() -> None:
    error = only_error(
        site("- group: {name: '{{ a.x[1] }}'}\n")
        | {"group_vars/all.yml": "name: web\na:\n  x:\n    - 1\n    - '{{ nmae }}'\n"}
    )
    assert error.mark == Mark("group_vars/all.yml", 5, 11)
    assert "did you mean 'name'?" in error.hint


def test_a_default_catches_a_variable_whose_own_value_needs_another() -> None:
    assert shown("{{ a | default('d') }}", {"group_vars/all.yml": "a: '{{ nobody }}'\n"}) == "d"


def test_unsafe_text_is_not_a_template() -> None:
    assert shown("{{ a }}", {"group_vars/all.yml": "a: !unsafe '{{ 7 * 7 }}'\n"}) == "{{ 7 * 7 }}"


# -- facts are data --------------------------------------------------------------------------

HOSTILE = ["{{ 7 * 7 }}", "{% for x in y %}", "#}{{ lookup('file', 'x') }}", "{{ '{{' }}", "}}{{ x"]


@pytest.mark.parametrize("fact", HOSTILE)
def test_a_fact_is_never_a_template_however_it_travels(fact: str) -> None:
    facts: Json = {**FACTS, "evil": fact, "list": [fact], "map": {"key": fact}}
    found = compiled(
        site("""
            - copy: {dest: /direct, content: "{{ facts.evil }}"}
            - copy: {dest: /variable, content: "{{ one }}"}
            - copy: {dest: /variables, content: "{{ three }}"}
            - copy: {dest: /alias, content: "{{ ansible_facts['evil'] }}"}
            - copy: {dest: "/loop{{ index }}", content: "{{ item }}"}
              loop: "{{ facts.list }}"
              index_var: index
            - copy: {dest: /dict, content: "{{ (facts.map | dict2items)[0].value }}"}
            - copy: {dest: /lookup, content: "{{ lookup('vars', 'two') }}"}
            - copy: {dest: /hostvars, content: "{{ hostvars[inventory_hostname].facts.evil }}"}
            - copy: {dest: /own, content: "{{ mine }}"}
              vars: {mine: "{{ two }}"}
            - template: {dest: /template, src: t.j2}
        """)
        | {
            "group_vars/all.yml": "one: '{{ facts.evil }}'\ntwo: '{{ one }}'\nthree: '{{ [two] | first }}'\n",
            "templates/t.j2": "{{ facts.evil }}",
        },
        facts=facts,
    )
    texts = {one.key: text_of(found, one) for one in found.catalog.resources}
    assert texts == dict.fromkeys(texts, fact)
    assert len(texts) == 10


def test_a_fact_in_a_name_or_condition_is_not_evaluated_either() -> None:
    facts: Json = {**FACTS, "evil": "{{ 7 * 7 }}", "expression": "1 == 1"}
    files = site(
        "- name: 't {{ facts.evil }}'\n  file: {path: '/x{{ facts.evil }}', state: touch}\n"
    )
    found = compiled(files, facts=facts).catalog.resources[0]
    assert (found.id, found.title) == ("file:/x{{ 7 * 7 }}", "t {{ 7 * 7 }}")
    assert (
        "not true or false"
        in only_error(site("- group: x\n  when: facts.expression\n"), facts=facts).message
    )


def test_facts_cannot_take_the_place_of_variables() -> None:
    facts: Json = {
        "facts": "evil",
        "inventory_hostname": "evil",
        "become": "evil",
        "mine": "evil",
        "omit": "evil",
    }
    assert (
        shown(
            "{{ inventory_hostname }} {{ mine }}",
            {"group_vars/all.yml": "mine: good\n"},
            facts=facts,
        )
        == "web1 good"
    )
    assert (
        "'become' is not defined"
        in errors(site("- group: '{{ become }}'\n"), facts=facts)[0].message
    )


def test_variables_cannot_take_the_place_of_facts() -> None:
    files: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  vars: {facts: {}}\n  roles: [r]\n",
        "roles/r/main.yml": "[]",
        "roles/r/defaults.yml": "ansible_facts: {}\n",
    }
    assert [error.message for error in errors(files)] == [
        "the variable 'ansible_facts' is built in",
        "the variable 'facts' is built in",
    ]
    assert (
        shown("{{ facts.os_family }}", {"group_vars/all.yml": "facts: {os_family: evil}\n"})
        == "Debian"
    )


# -- unknown names ---------------------------------------------------------------------------


def test_an_unknown_variable_shows_the_expression_the_nearest_name_and_the_host() -> None:
    error = only_error(
        site('- copy: {dest: /x, content: "port {{ prot }}"}\n')
        | {"group_vars/all.yml": "port: 80\n"}
    )
    assert error.message == "'prot' is not defined, in {{ prot }}"
    assert "did you mean 'port'?" in error.hint
    assert error.host == "web1"
    assert error.mark == Mark("site.yml", 3, 42)


def test_an_unknown_fact_names_the_nearest_one() -> None:
    error = only_error(site("- group: '{{ facts.os_familly }}'\n"))
    assert "facts have no 'os_familly'" in error.message
    assert "did you mean 'os_family'?" in error.hint


def test_a_fact_with_ansibles_old_name_says_where_it_is() -> None:
    error = only_error(site("- group: g\n  when: ansible_os_family == 'Debian'\n"))
    assert "write facts.os_family" in error.hint
    assert error.mark == Mark("site.yml", 4, 13)


@pytest.mark.parametrize(
    "name",
    ["now()", "ansible_date_time.date", "role_path", "playbook_dir", "ansible_check_mode", "item"],
)
def test_variables_of_ansible_that_we_do_not_have_say_what_to_do(name: str) -> None:
    assert only_error(site(f"- group: '{{{{ {name} }}}}'\n")).hint


def test_an_unknown_name_in_a_template_file_points_into_the_file() -> None:
    error = only_error(
        site("- template: {src: t.j2, dest: /t}\n")
        | {"templates/t.j2": "a\n{% if true %}\n  b {{ c.d }}\n{% endif %}\n"}
    )
    assert error.mark == Mark("templates/t.j2", 3, 8)
    assert "in {{ c.d }}" in error.message


def test_an_unknown_name_in_an_included_template_points_into_that_one() -> None:
    error = only_error(
        site("- template: {src: t.j2, dest: /t}\n")
        | {"templates/t.j2": "a\n{% include 'u.j2' %}\n", "templates/u.j2": "\n\n{{ zz }}\n"}
    )
    assert error.mark == Mark("templates/u.j2", 3, 4)


# -- magic -----------------------------------------------------------------------------------

TWO = "all: {children: {web: {hosts: {a.example: {port: 80, up: '{{ port + 1 }}'}, b: {}}}, db: {hosts: {b: {port: 90}}}}}"


def test_magic_variables_tell_about_the_host_and_the_inventory() -> None:
    text = "{{ inventory_hostname }} {{ inventory_hostname_short }} {{ group_names }} {{ groups.web }} {{ groups['all'] }}"
    repo = site(f'- copy: {{dest: /t, content: "{text}"}}\n')
    assert (
        content(repo, "/t", host="a.example", inventory=TWO)
        == "a.example a ['web'] ['a.example', 'b'] ['a.example', 'b']"
    )


def test_hostvars_gives_the_inventory_of_other_hosts_and_renders_it_for_them() -> None:
    repo = site(
        "- copy: {dest: /t, content: \"{{ hostvars['a.example'].up }} {{ hostvars.b.port }} {{ hostvars['b'].nix | default('-') }}\"}\n"
    )
    assert content(repo, "/t", host="b", inventory=TWO) == "81 90 -"


def test_a_table_of_all_hosts_on_all_hosts_does_not_grow_with_the_cube() -> None:
    text = "{% for h in groups['all'] %}{{ hostvars[h].ip }} {{ h }}\\n{% endfor %}"
    hosts = ", ".join(f"h{n}: {{n: {n}}}" for n in range(300))
    inventory = f"all: {{hosts: {{{hosts}}}, vars: {{ip: '10.0.0.{{{{ n }}}}'}}}}"
    whole = project(site(f'- copy: {{dest: /etc/hosts, content: "{text}"}}\n'), inventory)
    started = time.perf_counter()
    found = list(whole.compile_many(whole.hosts(), lambda _: FACTS))
    assert text_of(found[7], found[7].catalog.resources[0]).splitlines()[5] == "10.0.0.5 h5"
    assert time.perf_counter() - started < 15


def test_facts_of_other_hosts_are_unknown() -> None:
    repo = site("- copy: {dest: /t, content: \"{{ hostvars['a.example'].facts.os_family }}\"}\n")
    assert "has no 'facts'" in only_error(repo, "b", inventory=TWO).message


def test_role_name_is_the_role_at_hand() -> None:
    files: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  roles: [web]\n",
        "roles/web/main.yml": "- group: '{{ role_name }}'\n",
    }
    assert list(resources(files)) == ["group:web"]


def test_variables_of_the_inventory_reach_templates() -> None:
    assert shown("{{ place }}, {{ everywhere }}", inventory=WEB) == "host line, inventory all"


def test_a_number_that_yaml_changed_is_refused_even_through_variables() -> None:
    files = site(
        '- file: {path: /x, mode: "{{ item.mode | default(\'0644\') }}"}\n  loop: "{{ files }}"\n'
    )
    error = only_error(files | {"group_vars/all.yml": "files:\n  - mode: 0640\n"})
    assert error.message == "mode: 0640 is the number 416"
    assert error.hint == 'write mode: "0640"'


# -- where values come from ------------------------------------------------------------------


def test_provenance_tells_the_layers_of_every_variable_low_to_high() -> None:
    whole = project(
        {
            "site.yml": "- hosts: all\n  vars: {port: 81}\n  roles: [r]\n",
            "roles/r/defaults.yml": "port: 80\nurl: 'http://x:{{ port }}/'\n",
            "roles/r/main.yml": "- copy:\n    dest: /t\n    content: '{{ url }}'\n",
            "group_vars/all.yml": "port: 8080\n",
        }
    ).compile("web1", FACTS)
    origin = whole.provenance.params("file:/t")["content"]
    assert origin.raw == "{{ url }}"
    assert origin.mark == Mark("roles/r/main.yml", 3, 14)
    assert origin.names == {"url", "port"}
    assert [(one.layer, one.value, str(one.mark)) for one in origin.variables["port"]] == [
        ("role r defaults", 80, "roles/r/defaults.yml:1:7"),
        ("group_vars/all", 8080, "group_vars/all.yml:1:7"),
        ("play vars", 81, "site.yml:2:16"),
    ]
    assert whole.provenance.params("file:/nothing") == {}


def test_provenance_of_a_template_names_the_variables_inside_of_it() -> None:
    whole = compiled(
        site("- template: {src: t.j2, dest: /t}\n  vars: {a: '{{ b }}', b: 1}\n")
        | {"templates/t.j2": "{{ a }}{{ facts.hostname }}"}
    )
    origin = whole.provenance.params("file:/t")["content"]
    assert (origin.raw, origin.names) == ("t.j2", {"a", "b", "facts"})
    assert origin.variables["a"][0].layer == "resource vars"


def test_provenance_hides_what_secrets_are_made_of() -> None:
    whole = compiled(site("- user: {name: ada, password: '{{ pw }}'}\n  vars: {pw: hunter2}\n"))
    assert "hunter2" not in repr(whole.provenance.params("user:ada")["password"].variables)


def test_a_loop_item_is_a_layer_of_its_own() -> None:
    whole = compiled(site("- group: '{{ item }}'\n  loop: [a, b]\n"))
    layers = whole.provenance.params("group:b")["name"].variables["item"]
    assert [(one.layer, one.value, one.mark) for one in layers] == [
        ("loop", "b", Mark("site.yml", 4, 17))
    ]
