"""Inventories and patterns for hypothesis: few names, so that they meet; every form that there is."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from hypothesis import strategies as st
from yaml import YAMLError, safe_load

GROUPS = ("web", "db", "prod", "stage", "g1", "app-x", "eu.west", "a_grp")
HOSTS = (
    *("h1", "h2", "lone", "web01", "localhost", "h3:2222"),
    *("web[01:03].ex.com", "db[1:2]", "web-[a:c]", "n[1:10:4]-[a:b]", "x[A:C]", "u_[00:02]"),
    *("10.0.0.[1:3]", "2001:db8::[1:2]", "[2001:db8::9]:22", "db[:1]", "z[08:11]"),
)
#: Lines of INI files that may be refused, by both sides or by none.
ODD_LINES = (
    *("h[1:", "h[1:]", "h[01:1]", "h[b:a]", "h[1:3:0]", "h[a:2]", "h1 novalue", "h1 a1='x", "[web"),
    *(
        "[web:nosuch]",
        "[web:hosts]",
        "[new:vars]",
        "[new:children]",
        "k=v",
        "h1 =5",
        "[]",
        "[we b]",
    ),
    *(
        "h1 a1=1 #",
        "h1 a1 = 1",
        "[all:children]",
        "[ungrouped]",
        "[db]]",
        "h1:22 a1=x",
        "h1;x",
        "=",
    ),
    *(
        "[web:children] # x",
        "[db] ; x",
        "h1 a1=1;b1=2",
        "h[3:1]",
        "web:[1:3]",
        "h1 \\",
        "[all]",
        "a1",
    ),
)
KEYS = ("a1", "b1", "c1", "d1", "e1", "ansible_become")
_WORDS = r"""
    5 "5" True yes [1,2] None 0777 0x1f #c a 1.5 1e3 (1,) {"a":1} "{'a':1}" "[1,2]" -1 1_0 1e 'x' a=b
    /etc/x "it's" "#q" x#y \"q\" 0 00 1:2 {{x}} ~ null a,b +1 .5 1. 0o7 0b1 '' "'5'" "a\tb" é
"""
INI_VALUES = (*_WORDS.split(), "", "'a b'", '"x y"', r"a\ b", '"{{ x }}"', "'[1, 2'")
YAML_VALUES = (
    *("5", '"5"', "yes", "no", "0777", '"0644"', "[1, 2]", "{a: 1}", "~", "abc", "1.5", "1_0"),
    *("on", "0x1f", '"a: b"', "1.10", "+1", "1e3", ".5", "0o7", "2024_1", "null", "'{{ x }}'"),
    *(
        "True",
        "off",
        "Yes",
        "-1",
        "0b11",
        "[]",
        "{}",
        "''",
        "é",
        "|-\n          two\n          lines",
    ),
)
ATOMS = (
    *("web", "db", "prod", "all", "*", "web*", r"~web\d+", "~(web|db)[12]", "[dw]b*", "al*"),
    *("ungr*", "nosuch", "localhost", "2001:db8::1", "h1", "lone", "db[0]", "web[-1]", "all[1:3]"),
    *("all[2:]", "*[1]", "g1[0:0]", "all[1:0]", "web[9]", "h3", "eu.west", "app-x", "ungrouped"),
    *("web01.ex.com", "10.0.0.1", "web[0:1]", "w?b*", "*.ex.com", "~.*ex", "all[-9]", "web-a"),
    *("*1", "prod[0]", "prod[-1]", "stage[1:2]", "[!w]*", "~", "g1*[0]", "127.0.0.1", "z08", ""),
    *("10.0.0.*", "web[1-2]", "db[", "~[", "app-x[0]", "a_grp[-2]", "~(?i)WEB", "u_0[0:1]"),
    *(
        "::ffff:10.0.0.1",
        "[2001:db8::9]",
        "2001:db8::*",
        "h3:2222",
        "@nosuch",
        "é",
        "-h1",
        "web,db",
    ),
)


class Case(NamedTuple):
    """files: name -> text, below one directory. programs: those that are executable.

    sources: in the order of `-i`; a list of hosts is one too.
    """

    files: dict[str, str]
    programs: frozenset[str]
    sources: tuple[str, ...]
    patterns: tuple[str, ...]


def some(values: tuple[Any, ...], most: int, least: int = 0) -> st.SearchStrategy[list[Any]]:
    """A few of these, maybe one of them twice."""
    return st.lists(st.sampled_from(values), min_size=least, max_size=most)


@st.composite
def ini(draw: st.DrawFn) -> str:
    """An INI file. Mostly groups refer to groups above them, so that there are no loops."""
    lines: list[str] = []
    odd = draw(st.integers(0, 5)) == 0
    value = st.sampled_from(INI_VALUES)

    def host_lines(most: int) -> None:
        if odd:
            lines.extend(draw(some(ODD_LINES, 1)))
        for name in draw(some(HOSTS, most)):
            pairs = "".join(f" {key}={draw(value)}" for key in draw(some(KEYS, 2)))
            lines.append(name + pairs + draw(st.sampled_from(("", "", "", " # x", "\t"))))

    host_lines(2)
    names = list(dict.fromkeys(draw(some(GROUPS, 5, 1))))
    for index, group in enumerate(names):
        lines.append(f"[{group}]" + draw(st.sampled_from(("", "", "  # x", " "))))
        host_lines(3)
        if index and draw(st.booleans()):
            lines.append(f"[{group}:children]")
            lines += draw(some(GROUPS if odd else tuple(names[:index]), 2, 1))
        if draw(st.booleans()):
            lines.append(f"[{draw(st.sampled_from((*names, 'all')))}:vars]")
            for key in draw(some(KEYS, 2, 1)):
                lines.append(key + draw(st.sampled_from(("=", " = ", "= "))) + draw(value))
            if draw(st.integers(0, 3)) == 0:
                lines.append(f"ansible_group_priority={draw(st.integers(0, 9))}")
        if draw(st.integers(0, 5)) == 0:
            lines.append(draw(st.sampled_from(("", "# comment", "; comment", "   "))))
    return "\n".join(lines) + "\n"


def _yaml_variables(draw: st.DrawFn, indent: int, least: int) -> list[str]:
    keys = dict.fromkeys(draw(some(KEYS, 3, least)))
    return [f"{' ' * indent}{key}: {draw(st.sampled_from(YAML_VALUES))}" for key in keys]


@st.composite
def yaml(draw: st.DrawFn) -> str:
    """A YAML file. Each group has its content in one place and may be named in others."""
    written = _Yaml(draw)
    for top in dict.fromkeys(("all", *draw(some(GROUPS, 2)))):
        if top not in written.done:
            written.group(top, 0, 3)
    return "\n".join(written.lines) + "\n"


class _Yaml:
    """Groups, written one below the other."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.lines: list[str] = []
        self.done: set[str] = set()
        self._draw = draw

    def group(self, name: str, indent: int, depth: int) -> None:
        """A group with all that is in it; with its name only where it has been written before."""
        self._line(indent, f"{name}:")
        if name in self.done:
            return
        self.done.add(name)
        for part in dict.fromkeys(self._draw(some(("hosts", "vars", "children"), 3))):
            if part == "vars":
                self._vars(indent + 2)
            elif part == "hosts":
                self._hosts(indent + 2)
            elif depth:
                self._children(name, indent + 2, depth)

    def _vars(self, indent: int) -> None:
        self._line(indent, "vars:")
        self.lines += _yaml_variables(self._draw, indent + 2, 1)
        if self._draw(st.integers(0, 4)) == 0:
            self._line(indent + 2, f"ansible_group_priority: {self._draw(st.integers(0, 9))}")

    def _hosts(self, indent: int) -> None:
        self._line(indent, "hosts:")
        for host in dict.fromkeys(self._draw(some(HOSTS, 3))):
            self._line(indent + 2, f'"{host}":')
            self.lines += _yaml_variables(self._draw, indent + 4, 0)

    def _children(self, name: str, indent: int, depth: int) -> None:
        # In the order of names there are no loops.
        below = [one for one in dict.fromkeys(self._draw(some(GROUPS, 2))) if one > name]
        if below:
            self._line(indent, "children:")
        for child in below:
            self.group(child, indent + 2, depth - 1)

    def _line(self, indent: int, text: str) -> None:
        self.lines.append(" " * indent + text)


@st.composite
def toml(draw: st.DrawFn) -> str:
    """A TOML file."""
    lines: list[str] = []
    for name in dict.fromkeys(draw(some(GROUPS, 3, 1))):
        lines.append(f'["{name}"]')
        children = [one for one in draw(some(GROUPS, 2)) if one > name]
        if children:
            lines.append(f"children = {json.dumps(children)}")
        values = ("5", '"5"', "true", "[1, 2]", "1.5", '"é"', "{a = 1}")
        if draw(st.booleans()):
            lines.append(f'["{name}".vars]')
            lines += [
                f"{key} = {draw(st.sampled_from(values))}"
                for key in dict.fromkeys(draw(some(KEYS, 2)))
            ]
        lines.append(f'["{name}".hosts]')
        lines += [
            f'"{host}" = {{a1 = {draw(st.sampled_from(values))}}}'
            for host in dict.fromkeys(draw(some(HOSTS, 2)))
        ]
    return "\n".join(lines) + "\n"


@st.composite
def program(draw: st.DrawFn) -> str:
    """A program that prints JSON."""
    plain = tuple(name for name in HOSTS if "[" not in name and ":" not in name)
    values = st.dictionaries(
        st.sampled_from(KEYS), st.sampled_from((5, "5", True, None, [1], {"a": 1}, "é")), max_size=2
    )
    document: dict[str, object] = {}
    for name in dict.fromkeys(draw(some((*GROUPS, "all"), 3, 1))):
        form = draw(st.integers(0, 9))
        if form == 0:
            document[name] = draw(some(plain, 2))
            continue
        group: dict[str, object] = {"hosts": draw(some(plain, 3))}
        if form > 4:
            group["vars"] = draw(values)
        if form > 6:
            group["children"] = [one for one in draw(some(GROUPS, 2)) if one > name]
        document[name] = group
    hostvars = {name: draw(values) for name in draw(some(plain, 3))}
    if draw(st.integers(0, 9)):
        document["_meta"] = {"hostvars": hostvars}
        return f"#!/bin/sh\ncat <<'EOF'\n{json.dumps(document)}\nEOF\n"
    return (
        "#!/bin/sh\nif [ $1 = --list ]; then cat <<'EOF'\n"
        f"{json.dumps(document)}\nEOF\nelse echo '{{\"me\": \"'$2'\"}}'; fi\n"
    )


PLUGINS = ("constructed", "ansible.builtin.constructed")
EXPRESSIONS = (
    *("a1", "b1", "c1 | default('none')", "a1 ~ 'x'", "[b1, 'k']", "{'k': a1, 'e': ''}", "''"),
    *("group_names", "inventory_hostname", "inventory_hostname_short", "a1 == 5", "nosuch.x"),
    *(
        "a1 is defined",
        "'web' in group_names",
        "b1 is defined and b1 is string",
        "not (a1 is defined)",
        "true",
        "x +",
    ),
    *("group_names | length > 1", "inventory_hostname.startswith('web')", "[]", "e1"),
)


@st.composite
def constructed(draw: st.DrawFn) -> str:
    """A source that makes groups and variables. It is not strict: what fails makes nothing."""
    config: dict[str, Any] = {"plugin": draw(st.sampled_from(PLUGINS))}
    expression = st.sampled_from(EXPRESSIONS)
    options: dict[str, st.SearchStrategy[Any]] = {
        "compose": st.dictionaries(st.sampled_from(("a1", "m1", "m2")), expression, max_size=2),
        "groups": st.dictionaries(
            st.sampled_from(("made", "web", "x-y", "1st")), expression, max_size=2
        ),
        "leading_separator": st.booleans(),
        "use_vars_plugins": st.booleans(),
        "keyed_groups": st.lists(keyed_groups(), min_size=1, max_size=2),
    }
    for name in dict.fromkeys(draw(some(tuple(options), 5, 1))):
        config[name] = draw(options[name])
    return "---\n" + json.dumps(config) + "\n"


@st.composite
def keyed_groups(draw: st.DrawFn) -> dict[str, Any]:
    """One entry of that option."""
    entry: dict[str, Any] = {"key": draw(st.sampled_from(EXPRESSIONS))}
    options: dict[str, st.SearchStrategy[Any]] = {
        "prefix": st.sampled_from(("k", "", "p-")),
        "separator": st.sampled_from(("", "-", "__")),
        "parent_group": st.sampled_from(("above", "{{ b1 }}", "by_{{ a1 }}")),
        "default_value": st.just("dflt"),
        "trailing_separator": st.booleans(),
    }
    for name in dict.fromkeys(draw(some(tuple(options), 3))):
        entry[name] = draw(options[name])
    return entry


@st.composite
def variables_beside(draw: st.DrawFn, base: str) -> dict[str, str]:
    """group_vars/ and host_vars/ in a directory, in every form."""
    files: dict[str, str] = {}
    for kind, names in (
        ("group_vars", (*GROUPS, "all", "ungrouped")),
        ("host_vars", ("h1", "lone", "db1", "web01.ex.com", "localhost", "2001:db8::1")),
    ):
        for name in draw(some(names, 3)):
            path = f"{base}{kind}/{name}" + draw(st.sampled_from(("", ".yml", ".yaml", ".json")))
            places = [path]
            if draw(st.integers(0, 3)) == 0:
                inside = (
                    *("10.yml", "20.yaml", "x.json", "plain", "n.txt", ".hid", "b~"),
                    *("sub/z.yml", "s.d/z.yml", ".h/z.yml"),
                )
                places = [f"{path}/{one}" for one in dict.fromkeys(draw(some(inside, 3, 1)))]
            if any(
                place in files
                or place.startswith(tuple(f"{one}/" for one in files))
                or any(one.startswith(f"{place}/") for one in files)
                for place in places
            ):
                continue
            for place in places:
                text = "\n".join(_yaml_variables(draw, 0, 1)).replace("\n          ", "\n  ")
                files[place] = '{"b1": "json"}' if place.endswith(".json") else text + "\n"
    return files


def as_json(text: str) -> str:
    """A YAML file as JSON; one with a mistake in it as it is."""
    try:
        return json.dumps(safe_load(text), indent=1)
    except YAMLError:
        return text


#: Kind of a source -> what makes one, and how its name may end.
FORMS: dict[str, tuple[st.SearchStrategy[str], tuple[str, ...]]] = {
    "ini": (ini(), (".ini", "", ".hosts")),
    "yaml": (yaml(), (".yml", ".yaml", "")),
    "json": (yaml().map(as_json), (".json", ".yml", "")),
    "toml": (toml(), (".toml",)),
    "program": (program(), (".sh", "")),
}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """One to three sources, files of variables beside them and beside the playbook, patterns."""
    kinds = draw(
        some(("ini", "ini", "ini", "yaml", "yaml", "yaml", "json", "toml", "program"), 2, 1)
    )
    together = draw(st.booleans())
    files: dict[str, str] = {}
    programs: set[str] = set()
    for index, kind in enumerate(kinds):
        form, endings = FORMS[kind]
        name = ("dir/" if together else f"{index}/") + f"{index}{draw(st.sampled_from(endings))}"
        files[name] = draw(form)
        if kind == "program":
            programs.add(name)
    if draw(st.integers(0, 4)) == 0:
        files[("dir/" if together else "9/") + "9.yml"] = draw(constructed())
    sources = ["dir"] if together else list(files)
    if draw(st.integers(0, 9)) == 0:
        sources.append(draw(st.sampled_from(("h1,h9:22,", "2001:db8::1,h1,", "n1,lone,"))))
    for base in sorted({f"{name.split('/')[0]}/" for name in files}):
        files |= draw(variables_beside(base))
    files |= draw(variables_beside("play/"))
    parts = st.lists(
        st.tuples(st.sampled_from(("", "", "", "&", "!")), st.sampled_from(ATOMS)),
        min_size=1,
        max_size=4,
    )
    patterns = draw(st.lists(st.tuples(parts, st.sampled_from(",:")), min_size=2, max_size=8))
    return Case(
        files=files,
        programs=frozenset(programs),
        sources=tuple(sources),
        patterns=tuple(between.join(map("".join, found)) for found, between in patterns),
    )
