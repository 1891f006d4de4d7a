"""Filters and tests, with the results that Ansible gives."""

from __future__ import annotations

import pytest

from compile.test_template import refused, render


@pytest.mark.parametrize(
    "expression,value",
    [
        ("'ä' | b64encode", "w6Q="), ("'w6Q=' | b64decode", "ä"),
        ("'x' | hash('sha256') | length", 64), ("'x' | md5", "9dd4e461268c8034f5c8564e155c67a6"),
        ("'x' | sha1", "11f6ad8ec52a2984abaafd7c3b516503785c2072"), ("'x' | checksum", "11f6ad8ec52a2984abaafd7c3b516503785c2072"),
        ("'python.org' | to_uuid('6ba7b810-9dad-11d1-80b4-00c04fd430c8')", "886313e1-3b8a-5372-9b90-0c9aee199e5d"),
        ("'a b' | quote", "'a b'"), ("none | quote", "''"),
        ("'foo.bar' | regex_replace('^(\\\\w+)\\\\.', '\\\\1-')", "foo-bar"),
        ("'FOO' | regex_replace('o', 'x', ignorecase=true)", "Fxx"),
        ("'a1b2' | regex_search('[0-9]')", "1"), ("'ab' | regex_search('[0-9]')", None),
        ("'k=v' | regex_search('(\\\\w)=(\\\\w)', '\\\\1', '\\\\2')", ["k", "v"]),
        ("'k=v' | regex_search('(?P<n>\\\\w)=', '\\\\g<n>')", ["k"]),
        ("'a1b2' | regex_findall('[0-9]')", ["1", "2"]), ("'a.b' | regex_escape", "a\\.b"),
        ("'a\nb' | comment", "#\n# a\n# b\n#"), ("'a' | comment('c')", "//\n// a\n//"),
        ("'a' | comment('cblock')", "/*\n *\n * a\n *\n */"),
        ("'a\nb\n\nc' | indent(2)", "a\n  b\n\n  c"), ("'a\nb' | indent(2, first=true)", "  a\n  b"),
        ("{'b': 1, 'a': [1, 2]} | to_json", '{"b": 1, "a": [1, 2]}'),
        ("{'b': 1, 'a': 'ä'} | to_nice_json", '{\n    "a": "\\u00e4",\n    "b": 1\n}'),
        ("{'b': 1, 'a': [1, {'c': none}]} | to_nice_yaml(indent=2)", "a:\n- 1\n- c: null\nb: 1\n"),
        ("{'b': 1, 'a': [1, 2]} | to_yaml", "a: [1, 2]\nb: 1\n"),
        ("'{\"a\": 1}' | from_json", {"a": 1}), ("'a: [1, yes]' | from_yaml", {"a": [1, True]}),
        ("[3, 1, 3] | union([2, 1])", [3, 1, 2]), ("[3, 1, 3] | intersect([3])", [3]),
        ("[3, 1, 2] | difference([1])", [3, 2]), ("[1, 2] | symmetric_difference([2, 3])", [1, 3]),
        ("[1, [2, [3, none]]] | flatten", [1, 2, 3]), ("[1, [2, [3]]] | flatten(levels=1)", [1, 2, [3]]),
        ("[1, 2, 1] | unique", [1, 2]), ("[{'a': 1}, {'a': 1}] | union([])", [{"a": 1}]),
        ("[1, 2] | zip(['a', 'b'])", [[1, "a"], [2, "b"]]),
        ("[1, 2] | zip_longest(['a'], fillvalue='-')", [[1, "a"], [2, "-"]]),
        ("[1, 2] | product(['a'])", [[1, "a"], [2, "a"]]),
        ("[{'n': 1, 'k': ['a', 'b']}] | subelements('k') | map('last')", ["a", "b"]),
        ("[{'n': 1}] | subelements('k', skip_missing=true)", []),
        ("{'a': 1, 'b': {'x': 1}} | combine({'b': {'y': 2}})", {"a": 1, "b": {"y": 2}}),
        ("{'b': {'x': 1}} | combine({'b': {'y': 2}}, recursive=true)", {"b": {"x": 1, "y": 2}}),
        ("{'a': [1]} | combine({'a': [2]}, list_merge='append')", {"a": [1, 2]}),
        ("{'a': 1} | dict2items", [{"key": "a", "value": 1}]),
        ("{'a': 1} | dict2items(key_name='k', value_name='v')", [{"k": "a", "v": 1}]),
        ("[{'key': 'a', 'value': 1}] | items2dict", {"a": 1}),
        ("['http'] | map('extract', ports) | list", [80]), ("'x' | extract({'x': {'y': 3}}, 'y')", 3),
        ("[1, 2, 3] | shuffle(seed='s') | sort", [1, 2, 3]), ("60 | random(seed='web1') == 60 | random(seed='web1')", True),
        ("'yes' | bool", True), ("'no' | bool", False), ("'' | bool", False), ("none | bool", None),
        ("true | ternary('a', 'b')", "a"), ("none | ternary('a', 'b', 'c')", "c"),
        ("nobody | default('d')", "d"), ("'' | default('d', true)", "d"), ("nobody | d('e')", "e"),
        ("name | mandatory", "web"), ("1 | type_debug", "int"), ("users | type_debug", "list"),
        ("'12' | int + 1", 13), ("'/a/b.c' | basename", "b.c"), ("'/a/b.c' | dirname", "/a"),
        ("'/a/b.c' | splitext", ["/a/b", ".c"]), ("'/a/b' | relpath('/a')", "b"), ("['/a', 'b'] | path_join", "/a/b"),
        ("'%Y-%m-%d' | strftime(0)", "1970-01-01"),
        ("('2024-01-02' | to_datetime('%Y-%m-%d') - '2024-01-01' | to_datetime('%Y-%m-%d')).days", 1),
        ("10485760 | human_readable", "10.00 MB"), ("'10M' | human_to_bytes", 10485760), ("'1.5 GB' | human_to_bytes", 1610612736),
        ("'http://u@h:80/p?q' | urlsplit('hostname')", "h"), ("'a b' | urlencode | urldecode", "a b"),
        ("8 | log(2) | int", 3), ("2 | pow(3)", 8.0), ("'a,b' | split(',')", ["a", "b"]),
        ("[{'n': 1, 'x': true}, {'n': 2, 'x': false}] | selectattr('x') | map(attribute='n')", [1]),
        ("[{'n': 1}, {'n': 2}] | rejectattr('n', 'equalto', 1) | map(attribute='n')", [2]),
        ("[{'n': 1, 't': 'a'}, {'n': 2, 't': 'a'}] | groupby('t') | map('first')", ["a"]),
        ("users | join(', ')", "ada, bob"), ("[{'n': 1}, {'n': 2}] | join('-', attribute='n')", "1-2"),
        ("'a' | ansible.builtin.b64encode", "YQ=="), ("'a' ~ 1 ~ none", "a1None"),
    ],
)  # fmt: skip
def test_a_filter_gives_what_ansible_gives(expression: str, value: object) -> None:
    assert render(f"{{{{ {expression} }}}}") == value


@pytest.mark.parametrize(
    "expression,value",
    [
        ("'192.168.1.5/24' | ipaddr", "192.168.1.5/24"), ("'x' | ipaddr", False), ("'' | ipaddr", False),
        ("['10.0.0.1', 'x', '::1'] | ipaddr", ["10.0.0.1", "::1"]),
        ("'192.168.1.5/24' | ipaddr('address')", "192.168.1.5"),
        ("'192.168.1.5/24' | ipaddr('network')", "192.168.1.0"),
        ("'192.168.1.5/24' | ipaddr('network/prefix')", "192.168.1.0/24"),
        ("'192.168.1.5/24' | ipaddr('netmask')", "255.255.255.0"),
        ("'192.168.1.5/24' | ipaddr('prefix')", 24), ("'192.168.1.5/24' | ipaddr('broadcast')", "192.168.1.255"),
        ("'192.168.1.5/24' | ipaddr('size')", 256), ("'10.0.0.0/24' | ipaddr(5)", "10.0.0.5/24"),
        ("'10.0.0.0/24' | ipaddr('-1')", "10.0.0.255/24"), ("'10.0.0.0/24' | ipaddr('net')", "10.0.0.0/24"),
        ("'10.0.0.7' | ipaddr('10.0.0.0/8')", "10.0.0.7"), ("'11.0.0.7' | ipaddr('10.0.0.0/8')", False),
        ("'10.0.0.7' | ipaddr('private')", "10.0.0.7"), ("'8.8.8.8' | ipaddr('public')", "8.8.8.8"),
        ("'10.0.0.7' | ipaddr('int')", 167772167), ("'10.0.0.1' | ipaddr('revdns')", "1.0.0.10.in-addr.arpa."),
        ("'192.168.0.0/24' | ipaddr('first_usable')", "192.168.0.1"), ("'192.168.0.0/24' | ipaddr('range_usable')", "192.168.0.1-192.168.0.254"),
        ("'::1' | ipv4", False), ("'10.0.0.1' | ipv4", "10.0.0.1"), ("'::1' | ipv6", "::1"), ("['::1', '1.2.3.4'] | ipv6", ["::1"]),
        ("'::1' | ipwrap", "[::1]"), ("'10.0.0.1' | ipwrap", "10.0.0.1"), ("'host' | ipwrap", "host"), ("'fe80::1/64' | ipwrap", "[fe80::1]/64"),
        ("'192.168.0.0/16' | ipsubnet(20)", 16), ("'192.168.0.0/16' | ipsubnet(20, 0)", "192.168.0.0/20"),
        ("'192.168.0.0/16' | ipsubnet(20, -1)", "192.168.240.0/20"), ("'192.168.144.5' | ipsubnet(20)", "192.168.144.0/20"),
        ("'192.168.1.5' | ipmath(5)", "192.168.1.10"), ("'10.0.0.0/8' | nthhost(305)", "10.0.1.49"),
        ("'10.0.0.0/8' | network_in_network('10.1.0.0/16')", True),
        ("['192.168.0.0/17', '192.168.128.0/17'] | cidr_merge", ["192.168.0.0/16"]),
        ("['10.0.0.1', '10.0.0.9'] | cidr_merge('span')", "10.0.0.0/28"),
        ("'192.168.1.5' | ip4_hex", "c0a80105"), ("'1a:2b:3c:4d:5e:6f' | hwaddr('cisco')", "1a2b.3c4d.5e6f"),
        ("'x' | hwaddr", False), ("'10.0.0.1' | ansible.utils.ipaddr('version')", 4),
    ],
)  # fmt: skip
def test_addresses_and_networks_are_as_in_ansible_utils(expression: str, value: object) -> None:
    assert render(f"{{{{ {expression} }}}}") == value


@pytest.mark.parametrize(
    "expression,value",
    [
        ("'web1' is match('web')", True), ("'aweb' is match('web')", False), ("'aweb' is search('web')", True),
        ("'aWEB' is regex('web', ignorecase=true)", True),
        ("'1.10' is version('1.9', '>')", True), ("'1.2.3' is version('1.2', 'ge')", True),
        ("'1.0rc1' is version('1.0.0', '<')", True), ("'12' is version('12')", True),
        ("'2.0.0-rc.1' is version('2.0.0', '<', version_type='semver')", True), ("'1.0' is version_compare('2', 'lt')", True),
        ("[1] is subset([1, 2])", True), ("[1, 2] is superset([1])", True), ("[1, 2] is contains(1)", True),
        ("'x' is truthy", True), ("'' is falsy", True), ("'no' is truthy(convert_bool=true)", False),
        ("1 in [1]", True), ("1 is in [1]", True), ("[true, false] is any", True), ("[true, false] is all", False),
        ("nobody is defined", False), ("name is defined", True), ("'/a' is abs", True), ("nothing is none", True),
    ],
)  # fmt: skip
def test_a_test_says_what_ansible_says(expression: str, value: object) -> None:
    assert render(f"{{{{ {expression} }}}}") is value


@pytest.mark.parametrize(
    "expression,message",
    [
        ("'10.0.0.1' | ipaddr('netwrk')", "ipaddr knows no 'netwrk'"),
        ("'x' | network_in_network('y')", "is no network"),
        ("'x' | human_to_bytes", "is no size"),
        ("'1' is version('2', '~')", "there is no comparison '~'"),
        ("'1' is version('2', '<', version_type='semver')", "no semantic version"),
        ("'x' | hash('nope')", "there is no hash 'nope'"),
        ("'x' | comment('nope')", "there is no comment style"),
        ("'x' | flatten", "flatten needs a list"),
        ("[1] | dict2items", "dict2items needs a mapping"),
        ("{} | combine([1])", "combine needs mappings"),
        ("'%Y' | strftime", "the time is not known"),
        ("[1] | shuffle", "needs a seed"),
        ("'k' | regex_search('k', 'nope')", "is no group"),
        ("'k' | regex_replace('(', '')", "unterminated subpattern"),
        ("'k' | regex_replace('x', '\\\\1')", "invalid group reference"),
        ("('a' * 9000) | regex_replace('(?=(.*))', '\\\\1')", "more than 8 MiB of data"),
        ("{'a': nobody} | to_json", "'nobody' is not defined"),
        ("[nobody] | to_nice_yaml", "'nobody' is not defined"),
    ],
)
def test_a_filter_that_cannot_do_it_says_why(expression: str, message: str) -> None:
    assert message in refused(f"{{{{ {expression} }}}}").message


@pytest.mark.parametrize(
    "use",
    [
        "text is match('^(a+)+$')", "text is search('(a+)+$')", "text is regex('(a+)+$')",
        "text | regex_search('(a+)+$')", "text | regex_findall('(a+)+$')",
        "text | regex_replace('(a+)+$', '')", "[text] | select('match', '(a+)+$') | list",
    ],
)  # fmt: skip
def test_an_expression_that_takes_for_ever_is_ended(
    use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.compile.regexes.LIMIT", 0.2)
    said = refused("{{ " + use.replace("text", "('a' * 60 ~ '!')") + " }}").message
    assert "took more than 0.2 s" in said
    assert "nested repeats" in said
