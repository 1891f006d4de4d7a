"""Jinja2: native values, Ansible's white space, the sandbox and its caps."""

from __future__ import annotations

import time

import pytest

from compile.repo import FACTS, MemoryTree, content, only_error, site
from reconciler.compile.scope import Layer, Scope, Tracker
from reconciler.compile.template import Renderer
from reconciler.errors import Mark, TemplateError
from reconciler.yamldoc import Map, load

VARIABLES = b"""
name: web
users: [ada, bob]
ports: {http: 80, https: 443}
nothing:
"""

#: A template can make what YAML cannot say.
ODD = '{{ "\\udcff" }}'


def render(text: str) -> object:
    renderer = Renderer(lambda name, role: (name, ""), lambda *given: [], lambda path: None)
    values = load(VARIABLES, "v.yml")
    assert isinstance(values, Map)
    layers = [Layer("vars", values, values.mark)]
    scope = Scope(Tracker(renderer.value), layers=layers, final={"facts": FACTS})
    return renderer.text(text, Mark("x.yml", 1, 1), scope)


def refused(text: str) -> TemplateError:
    with pytest.raises(TemplateError) as caught:
        render(text)
    return caught.value


@pytest.mark.parametrize(
    "text,value",
    [
        ("{{ ports.http }}", 80),
        ("{{ users }}", ["ada", "bob"]),
        ("{{ ports }}", {"http": 80, "https": 443}),
        ("{{ nothing }}", None),
        ("{{ name == 'web' }}", True),
        ("{{ users | map('upper') }}", ["ADA", "BOB"]),
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ {'b': 1}.keys() | list }}", ["b"]),
        ("{{ name }}", "web"),
        (" {{ ports.http }}", " 80"),
        ("{{ ports.http }}\n", "80\n"),
        ("{{ name }}{{ name }}", "webweb"),
        ("{{ nothing }}x", "x"),
        ("{% if true %}{{ ports.http }}{% endif %}", "80"),
        ("a {# comment #}b", "a b"),
        ("{{ '}}' }}", "}}"),
    ],
)
def test_one_expression_gives_its_value_and_everything_else_gives_text(
    text: str, value: object
) -> None:
    assert render(text) == value


def test_white_space_is_as_in_ansible() -> None:
    repo = site("- template: {src: t.j2, dest: /t}\n")
    text = "a\n  {% if true %}\nb\n  {% endif %}\n{% for u in ['x', 'y'] %}\n- {{ u }}\n{% endfor %}\nend\n"
    assert content(repo | {"templates/t.j2": text}, "/t") == "a\n  b\n  - x\n- y\nend\n"
    assert content(repo | {"templates/t.j2": "no end"}, "/t") == "no end"


def test_options_of_a_template_can_be_set_in_the_task_and_on_its_first_line() -> None:
    text = "a\n  {% if true %}\nb\n  {% endif %}\n"
    repo = site("- template: {src: t.j2, dest: /t, lstrip_blocks: true}\n")
    assert content(repo | {"templates/t.j2": text}, "/t") == "a\nb\n"
    repo = site("- template: {src: t.j2, dest: /t}\n")
    assert (
        content(repo | {"templates/t.j2": "#jinja2: lstrip_blocks: True\n" + text}, "/t")
        == "a\nb\n"
    )
    repo = site(
        "- template: {src: t.j2, dest: /t, variable_start_string: '[%', variable_end_string: '%]'}\n"
    )
    assert (
        content(repo | {"templates/t.j2": "[% facts.hostname %] {{ x }}"}, "/t") == "web1 {{ x }}"
    )
    error = only_error(repo | {"templates/t.j2": "#jinja2: lstrip_blok: True\n"})
    assert "did you mean 'lstrip_blocks'" in error.hint


def test_templates_include_extend_and_import_each_other_with_variables() -> None:
    repo = site("- template: {src: main.j2, dest: /t}\n  vars: {who: world}\n") | {
        "templates/main.j2": "{% extends 'base.j2' %}{% block body %}{% include 'part.j2' %}{% endblock %}",
        "templates/base.j2": "<{% block body %}{% endblock %}>",
        "templates/part.j2": "{% from 'macros.j2' import hi %}{{ hi(who) }}{% for n in [1] %}{% include 'inner.j2' %}{% endfor %}",
        "templates/macros.j2": "{% macro hi(x) %}hi {{ x }}{% endmacro %}",
        "templates/inner.j2": "-{{ n }} {{ who }}",
    }
    assert content(repo, "/t") == "<hi world-1 world>"


def test_a_role_includes_its_own_templates_first() -> None:
    repo: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  roles: [r]\n",
        "roles/r/main.yml": "- template: {src: t.j2, dest: /t}\n",
        "roles/r/templates/t.j2": "{% include 'a.j2' %} {% include 'b.j2' %}",
        "roles/r/templates/a.j2": "role",
        "templates/a.j2": "repo",
        "templates/b.j2": "repo",
    }
    assert content(repo, "/t") == "role repo"


# -- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''|attr('__class__') }}",
        "{{ 'x{0.__class__}'.format(1) }}",
        "{{ ''.format.__self__ }}",
        "{{ ''.format_map({'a': 1}).__class__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ joiner.__init__ }}",
        "{{ lookup.__globals__ }}",
        "{{ self.__init__ }}",
        "{{ users.append('x') }}",
        "{{ users.clear() }}",
        "{{ ports.update({'x': 1}) }}",
        "{% do ports.pop('http') %}",
        "{{ (users|map('attr', '__class__')|list)[0] }}",
        "{{ {}.__class__.__base__ }}",
        "{{ namespace.__init__ }}",
    ],
)
def test_templates_cannot_reach_the_inside_of_python_nor_change_variables(text: str) -> None:
    error = refused(text)
    assert "unsafe" in error.message or "not defined" in error.message or "has no" in error.message


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 10**8 }}",
        "{{ 10**8 * 'a' }}",
        "{{ [0] * 10**8 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'a'.ljust(10**8) }}",
        "{{ 'a'.center(10**8) }}",
        "{{ 'a' | center(10**8) }}",
        "{{ '%0100000000d' % 1 }}",
        "{{ '%*d' % (100000000, 1) }}",
        "{{ '{:>100000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 100000000) }}",
        "{{ ('a' * 4000000).replace('a', 'b' * 1000000) }}",
        "{{ ('a' * 4000000) | replace('a', 'b' * 1000000) }}",
        "{{ (['a' * 1000000] * 1000) | join(',') }}",
        "{{ ','.join(['a' * 1000000] * 1000) }}",
        "{{ 'a\\n' | indent(10**9) }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(x='a' * 1000) %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='a' * 1000) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% for i in range(10000) %}{{ 'a' * 10000 }}{% endfor %}",
        "{{ range(10**9) | list }}",
        "{{ [1] | product(range(90000), range(90000)) | list | length }}",
    ],
)
def test_a_template_that_would_eat_the_machine_is_stopped_soon(text: str) -> None:
    started = time.perf_counter()
    assert refused(text).message
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize(
    "text,message,hint",
    [
        ("{{ name | uper }}", "there is no filter 'uper', in {{ name | uper }}", "did you mean 'upper'?"),
        ("{{ name is matches }}", "there is no test 'matches'", "did you mean 'match'"),
        ("{{ 'x' | password_hash('sha512') }}", "there is no filter 'password_hash'", "never converges"),
        ("{{ '/x' is exists }}", "there is no test 'exists'", "cannot see the host"),
        ("{{ '~' | expanduser }}", "there is no filter 'expanduser'", "write the path"),
        ("{{ name", "unexpected end of template", ""),
        ("{{ 1 / 0 }}", "division by zero, in {{ 1 / 0 }}", ""),
        ("{{ users[5] }}", "the list has no item 5: it has 2", ""),
        ("{{ ports.htp }}", "the mapping has no 'htp'", "did you mean 'http'"),
        ("{{ name.x }}", "a text has no attribute 'x'", ""),
        ("{{ users | random }}", "random needs a seed", ""),
        ("{{ nobody | mandatory('say who') }}", "say who", ""),
        ("{{ 'x' | from_json }}", "Expecting value", ""),
        ("{{ 'a: [' | from_yaml }}", "did not find expected", ""),
        ("{{ users + 5 }}", "can only concatenate list", ""),
        ("{% include 'x.j2' ~ 5 %}{{ nobody }}", "'nobody' is not defined", ""),
    ],
)  # fmt: skip
def test_an_error_says_what_where_and_what_to_do(text: str, message: str, hint: str) -> None:
    error = refused(text)
    assert message in error.message
    assert hint in error.hint
    assert error.mark is not None
    assert error.mark.file


@pytest.mark.parametrize(
    "kind", ["env", "pipe", "password", "url", "fileglob", "first_found", "ansible.builtin.env"]
)
def test_lookups_that_are_not_pure_are_refused_with_what_to_do(kind: str) -> None:
    error = only_error(
        site(f"- copy: {{dest: /t, content: \"{{{{ lookup('{kind}', 'x') }}}}\"}}\n")
    )
    assert f"there is no lookup '{kind}'" in error.message
    assert error.hint
    assert error.mark is not None
    assert error.mark.line == 3


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "/etc/passwd", "/etc/nothing", "~/x", "a/../../../x", "\\0"]
)
@pytest.mark.parametrize("use", ["lookup('file', {})", "lookup('template', {})"])
def test_lookup_cannot_leave_the_state_repo_and_does_not_tell_what_is_outside(
    use: str, path: str
) -> None:
    text = use.format(f'\\"{path}\\"')
    error = only_error(site(f'- copy: {{dest: /t, content: "{{{{ {text} }}}}"}}\n'))
    assert "outside of the state repo" in error.message


def test_includes_cannot_leave_the_state_repo() -> None:
    repo = site("- template: {src: t.j2, dest: /t}\n")
    error = only_error(repo | {"templates/t.j2": "\n{% include '../site.yml' %}"})
    assert "outside of the state repo" in error.message
    assert error.mark == Mark("templates/t.j2", 2, 1)


def test_lookup_reads_files_of_the_role_and_of_the_repo() -> None:
    repo: dict[str, str | bytes] = {
        "site.yml": "- hosts: all\n  roles: [r]\n",
        "roles/r/main.yml": "- copy:\n    dest: /t\n    content: \"{{ lookup('file', 'a') }}-{{ query('file', 'b', 'a') }}-{{ lookup('template', 't') }}\"\n",
        "roles/r/files/a": "role\n",
        "files/a": "repo\n",
        "files/b": "b\n",
        "templates/t": "{{ role_name }}\n",
    }
    assert content(repo, "/t") == "role-['b', 'role']-r"


def test_templates_are_compiled_once_for_all_hosts() -> None:
    from reconciler.compile import Project

    tree = MemoryTree(
        {
            **site("- template: {src: t.j2, dest: /t}\n"),
            "templates/t.j2": "{{ inventory_hostname }}",
        }
    )
    whole = Project(tree)
    whole.compile("a", FACTS)
    reads = tree.reads
    for number in range(20):
        whole.compile(f"h{number}", FACTS)
    assert tree.reads == reads


@pytest.mark.parametrize(
    "written",
    [
        "copy: {dest: /etc/a, content: '{{ odd }}'}",
        "copy: {dest: '/etc/{{ odd }}', content: a}",
        "template: {dest: /etc/a, src: odd}",
        "cron: {name: a, job: '{{ odd }}'}",
        "name: '{{ odd }}'\n  group: {name: a}",
    ],
)
def test_a_text_that_no_file_can_hold_is_an_error_at_its_place(written: str) -> None:
    """Half of a surrogate pair: JSON carries it on to where a name or a content has bytes."""
    files = {**site(f"- {written}\n  vars: {{odd: '{ODD}'}}"), "templates/odd": "{{ odd }}"}
    error = only_error(files)
    assert "has '\\udcff', which is no character of UTF-8" in error.message
    assert error.mark is not None
    assert error.mark.line == 3
