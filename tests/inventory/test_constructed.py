"""`plugin: constructed`: groups and variables out of variables and facts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from reconciler.compile.expressions import InventoryExpressions
from reconciler.errors import ConfigError, InventoryError
from reconciler.inventory import Disk, Inventory
from reconciler.yamldoc import Unsafe

HOSTS = """\
[web]
web1 region=eu-west tags="['blue', '']" size=3
web2 region= tags="[]"
[db]
db1 region=us labels="{'tier': 'gold', 'rack': ''}"
"""


def load(
    directory: Path,
    config: str,
    hosts: str = HOSTS,
    facts: Mapping[str, Mapping[str, object]] | None = None,
) -> Inventory:
    (directory / "1-hosts.ini").write_text(hosts)
    (directory / "2-made.yml").write_text(f"plugin: constructed\n{config}")
    expressions = InventoryExpressions((facts or {}).get)
    return Inventory.load([str(directory)], Disk(), expressions=expressions)


def made(inventory: Inventory) -> dict[str, list[str]]:
    """The groups that the hosts file does not have."""
    return {
        name: hosts
        for name, hosts in inventory.groups().items()
        if name not in ("all", "ungrouped", "web", "db")
    }


def test_a_condition_makes_a_group(tmp_path: Path) -> None:
    config = """
groups:
  fronts: inventory_hostname.startswith('web')
  large: size is defined and size > 2
  in-web: "'web' in group_names"
  typo: nosuch.thing
  number: size
"""
    assert made(load(tmp_path, config)) == {
        "fronts": ["web1", "web2"],
        "large": ["web1"],
        "in_web": ["web1", "web2"],
    }


@pytest.mark.parametrize(
    "entry, expected",
    [
        ("{key: region}", {"_eu_west": ["web1"], "_us": ["db1"]}),
        ("{key: region, prefix: r}", {"r_eu_west": ["web1"], "r_us": ["db1"]}),
        ("{key: region, prefix: r, separator: ''}", {"reu_west": ["web1"], "rus": ["db1"]}),
        (
            "{key: region, prefix: r, default_value: none}",
            {"r_eu_west": ["web1"], "r_none": ["web2"], "r_us": ["db1"]},
        ),
        ("{key: tags, prefix: t}", {"t_blue": ["web1"], "t_": ["web1"]}),
        (
            "{key: tags, prefix: t, default_value: bare}",
            {"t_blue": ["web1"], "t_bare": ["web1"]},
        ),
        ("{key: labels, prefix: l}", {"l_tier_gold": ["db1"], "l_rack_": ["db1"]}),
        (
            "{key: labels, prefix: l, trailing_separator: false}",
            {"l_tier_gold": ["db1"], "l_rack": ["db1"]},
        ),
        (
            "{key: labels, prefix: l, default_value: x}",
            {"l_tier_gold": ["db1"], "l_rack_x": ["db1"]},
        ),
        (
            "{key: region, prefix: r, parent_group: 'by_{{ group_names[0] }}'}",
            {"r_eu_west": ["web1"], "by_web": ["web1"], "r_us": ["db1"], "by_db": ["db1"]},
        ),
    ],
)
def test_a_value_makes_a_group(tmp_path: Path, entry: str, expected: dict[str, list[str]]) -> None:
    assert made(load(tmp_path, f"keyed_groups: [{entry}]")) == expected


def test_the_leading_separator_can_be_left_out(tmp_path: Path) -> None:
    config = "leading_separator: false\nkeyed_groups: [{key: region}, {key: labels}]"
    assert list(made(load(tmp_path, config))) == ["eu_west", "us", "tier_gold", "rack_"]


def test_composed_variables_are_data_and_their_place_is_known(tmp_path: Path) -> None:
    config = 'compose:\n  double: size * 2\n  text: \'"{" ~ "{ x }" ~ "}"\'\n  gone: nosuch\n'
    inventory = load(tmp_path, config)
    assert inventory.variables("web1")["double"] == 6
    assert isinstance(inventory.variables("web1")["text"], Unsafe)
    assert "gone" not in inventory.variables("web1")
    layer = inventory.layers("web1")[-1]
    assert (layer.name, str(layer.values.key_place("double"))) == (
        "compose",
        f"{tmp_path}/2-made.yml:3:11",
    )


def test_groups_see_what_was_composed_but_composed_variables_not_each_other(tmp_path: Path) -> None:
    config = "compose: {one: size, two: one + 1}\ngroups: {has_one: one is defined, has_two: two is defined}"
    assert made(load(tmp_path, config)) == {"has_one": ["web1"]}


def test_what_is_undefined_inside_of_a_value_makes_nothing(tmp_path: Path) -> None:
    config = (
        "compose: {all_of_it: \"{'a': nosuch, 'b': [nosuch]}\"}\nkeyed_groups: [{key: '[nosuch]'}]"
    )
    inventory = load(tmp_path, config)
    assert made(inventory) == {}
    assert "all_of_it" not in inventory.variables("web1")


def test_the_parent_is_asked_for_before_the_key_is_looked_at(tmp_path: Path) -> None:
    entry = "{key: size, prefix: s, parent_group: '{{ nosuch }}'}"
    assert made(load(tmp_path, f"keyed_groups: [{entry}]")) == {}


def test_the_short_name_of_an_address_is_the_address(tmp_path: Path) -> None:
    config = "compose: {short: inventory_hostname_short}"
    inventory = load(tmp_path, config, "192.0.2.1\n2001:db8::1\nweb1.example.org\n")
    shorts = [inventory.variables(host)["short"] for host in inventory.hosts()]
    assert shorts == ["192.0.2.1", "2001:db8::1", "web1"]


def test_only_files_beside_the_sources_before_it_are_seen(tmp_path: Path) -> None:
    for name, text in {
        "a/hosts": "[web]\nh\n",
        "a/group_vars/web.yml": "before: 1",
        "b/made.yml": "plugin: constructed\nuse_vars_plugins: true\n"
        "groups: {before: before is defined, beside: beside is defined}",
        "b/group_vars/web.yml": "beside: 1",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    sources = [str(tmp_path / "a/hosts"), str(tmp_path / "b/made.yml")]
    expressions = InventoryExpressions(lambda host: None)
    inventory = Inventory.load(sources, Disk(), expressions=expressions)
    assert made(inventory) == {"before": ["h"]}
    assert inventory.variables("h") == {"before": 1, "beside": 1}


def test_facts_of_the_last_contact_make_groups(tmp_path: Path) -> None:
    facts = {"web1": {"distribution": "Debian", "os_family": "Debian"}, "db1": {"region": "mars"}}
    config = """
keyed_groups:
  - {key: ansible_distribution, prefix: distro}
groups:
  debian: facts.os_family == "Debian"
  us: ansible_region == "mars" and region == "us"
"""
    assert made(load(tmp_path, config, facts=facts)) == {
        "distro_Debian": ["web1"],
        "debian": ["web1"],
        "us": ["db1"],
    }


def test_a_fact_is_neither_a_template_nor_stronger_than_git(tmp_path: Path) -> None:
    facts = {"h": {"host": "evil", "name": "{{ secret }}"}}
    config = "compose: {seen: ansible_host, copied: ansible_name}"
    inventory = load(tmp_path, config, "h ansible_host=192.0.2.1 secret=s\n", facts)
    assert inventory.variables("h")["seen"] == "192.0.2.1"
    assert inventory.variables("h")["copied"] == "{{ secret }}"
    assert isinstance(inventory.variables("h")["copied"], Unsafe)


def test_files_of_variables_count_only_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/web.yml").write_text("role: front\n")
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/web2.yml").write_text("role: spare\n")
    config = "keyed_groups: [{key: role, prefix: is}]"
    assert made(load(tmp_path, config)) == {}
    asked = load(tmp_path, f"use_vars_plugins: true\n{config}")
    assert made(asked) == {"is_front": ["web1"], "is_spare": ["web2"]}


@pytest.mark.parametrize(
    "config, said",
    [
        ("strict: true\ngroups: {g: nosuch}", "group g cannot be made for host web1"),
        ("strict: true\ngroups: {g: inventory_hostname}", "not true or false"),
        ("strict: true\ncompose: {a: 'x ~'}", "variable a cannot be made"),
        ("strict: true\nkeyed_groups: [{key: region, prefix: r}]", "is empty for host web2"),
        ("strict: true\nkeyed_groups: [{prefix: r}]", "is not an expression"),
        ("keyed_groups: [{key: size}]", "neither text nor a list"),
        ("keyed_groups: [{key: region, parent_group: '{{ size }}'}]", "which is no name"),
        ("keyed_groups: {key: size}", "must be a list"),
        ("groups: [a]", "must be a mapping"),
        ("strict: maybe", "must be true or false"),
        ("strict: true\ncompose: {a: \"lookup('file', '/etc/passwd')\"}", "no lookups"),
        ("compose: {ansible_host: \"'-x'\"}", "is not a host name"),
        (
            "keyed_groups: [{key: region, default_value: x, trailing_separator: true}]",
            "exclude each other",
        ),
    ],
)
def test_what_cannot_be_made_is_an_error_with_its_place(
    tmp_path: Path, config: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, config)
    assert said in str(caught.value)
    assert "2-made.yml:" in str(caught.value)


def test_unknown_options_warn_and_suggest(tmp_path: Path) -> None:
    inventory = load(tmp_path, "keyed_group: []\nkeyed_groups: [{key: region, prefx: r}]")
    assert [warning.partition(": ")[2] for warning in inventory.warnings] == [
        "'keyed_group' is ignored: did you mean 'keyed_groups'?",
        "'prefx' is ignored: did you mean 'prefix'?",
    ]


def test_another_plugin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text("plugin: amazon.aws.aws_ec2\n")
    with pytest.raises(InventoryError, match=r"plugin 'amazon.aws.aws_ec2' is not supported"):
        Inventory.load([str(tmp_path / "x.yml")], Disk())


def test_without_an_evaluator_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text("plugin: ansible.builtin.constructed\n")
    with pytest.raises(InventoryError, match="cannot be evaluated here"):
        Inventory.load([str(tmp_path / "x.yml")], Disk())


def test_a_thousand_hosts_are_grouped_fast(tmp_path: Path) -> None:
    hosts = "[web]\n" + "".join(f"w{n} rack=r{n % 40}\n" for n in range(1000))
    config = (
        "keyed_groups: [{key: rack, prefix: rack}]\ngroups: {even: \"rack is search('[02468]$')\"}"
    )
    start = time.process_time()
    inventory = load(tmp_path, config, hosts)
    assert time.process_time() - start < 2.0  # 0.15 s on an idle machine
    assert len(made(inventory)) == 41
