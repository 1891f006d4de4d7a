"""What an inventory must not be able to say, and what it is told when it tries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import ConfigError, ConfigErrors, InventoryError, Mark
from reconciler.inventory import Disk, Inventory, Places
from reconciler.inventory.names import MAX_HOSTS, check_group, check_host, expand
from reconciler.inventory.patterns import Patterns, split
from reconciler.tree import Entry


def load(directory: Path, text: str, name: str = "hosts.ini") -> Inventory:
    (directory / name).write_text(text)
    return Inventory.load([str(directory / name)], Disk())


HOSTILE = [
    "-oProxyCommand=touch",
    "--",
    "h;rm",
    "$(x)",
    "`x`",
    "a|b",
    "a&b",
    "a b",
    "a\nb",
    "a\0b",
    "../x",
    "a/b",
    ".hidden",
    "@file",
    "~x",
    "{{x}}",
    "a'b",
    "a\\b",
    "h" * 300,
    "\u202egnp",
    "a\u200bb",
    "",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_no_host_and_no_group(name: str) -> None:
    for check in (check_host, check_group):
        with pytest.raises(InventoryError):
            check(name)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name and "\0" not in name])
def test_a_hostile_name_is_refused_in_yaml_with_its_place(tmp_path: Path, name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace("\n", "\\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f'all:\n  hosts:\n    "{quoted}":\n', "hosts.yml")
    assert caught.value.mark is not None
    assert caught.value.mark.line == 3


@pytest.mark.parametrize(
    "name", ["-oProxyCommand=touch", "h;rm", "$(x)", "h" * 300, "h\x1b[2J", "a\vb"]
)
def test_a_hostile_name_is_refused_in_ini_with_its_place(tmp_path: Path, name: str) -> None:
    with pytest.raises(InventoryError) as caught:
        load(tmp_path, f"[web]\n{name}\n")
    assert caught.value.mark == Mark(str(tmp_path / "hosts.ini"), 2, 1)


@pytest.mark.parametrize(
    "line",
    [
        "h ansible_host=-oProxyCommand=x",
        "h ansible_host='a b'",
        "h ansible_user=-l",
        "h ansible_user='a b'",
        "h ansible_become_user='$(x)'",
        "h ansible_port=0",
        "h ansible_port=99999",
        "h ansible_port=22;id",
        "h:99999",
    ],
)
def test_a_connection_value_that_could_become_an_option_is_refused(
    tmp_path: Path, line: str
) -> None:
    with pytest.raises(InventoryError):
        load(tmp_path, line)


def test_the_same_holds_in_files_of_variables(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text("ok: 1\nansible_host: -oProxyCommand=x\n")
    with pytest.raises(InventoryError) as caught:
        load(tmp_path, "h")
    assert str(caught.value.mark).endswith("group_vars/all.yml:2:15")


def test_a_templated_address_is_left_for_later(tmp_path: Path) -> None:
    assert load(tmp_path, 'h ansible_host="{{ ip }}"').variables("h") == {
        "ansible_host": "{{ ip }}"
    }


def test_a_range_cannot_make_more_hosts_than_fit(tmp_path: Path) -> None:
    for text in ("h[1:999999999]", "h[1:999][1:999]", f"h[1:{MAX_HOSTS + 1}]"):
        with pytest.raises(InventoryError, match="more than"):
            expand(text)
    with pytest.raises(InventoryError, match="more than"):
        load(tmp_path, "".join(f"h{n}x[1:60000]\n" for n in range(2)))


def test_groups_that_contain_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="it contains it") as caught:
        load(tmp_path, "[a:children]\nb\n[b:children]\na\n")
    assert caught.value.mark is not None
    assert caught.value.mark.line == 4


@pytest.mark.parametrize("child", ["all", "a"])
def test_a_group_contains_neither_all_nor_itself(tmp_path: Path, child: str) -> None:
    with pytest.raises(InventoryError, match="it contains it"):
        load(tmp_path, f"[a:children]\n{child}\n")


def test_an_undefined_group_in_a_section_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(tmp_path, "[webservers]\nh\n[webserver:vars]\na=1\n[all_web:children]\nwebservrs\n")
    assert [error.hint for error in caught.value.errors] == ["did you mean 'webservers'?"] * 2


def test_a_close_miss_of_a_connection_variable_warns(tmp_path: Path) -> None:
    inventory = load(tmp_path, "h ansible_hots=192.0.2.1 ansible_hostname=x my_ansible=1")
    assert [w.split(": ")[1] for w in inventory.warnings] == [
        "unknown variable ansible_hots, did you mean 'ansible_host'?"
    ]


def test_two_groups_that_only_their_names_decide_between_warn_once(tmp_path: Path) -> None:
    inventory = load(
        tmp_path, "[a]\nh[1:9]\n[b]\nh[1:9]\n[a:vars]\nv=1\nsame=1\n[b:vars]\nv=2\nsame=1\n"
    )
    for host in inventory.hosts():
        inventory.variables(host)
    assert len(inventory.warnings) == 1
    assert "groups a and b both set v, and b wins by its name only" in inventory.warnings[0]


def test_an_unknown_name_in_a_pattern_warns_and_suggests(tmp_path: Path) -> None:
    inventory = load(tmp_path, "[webservers]\nh\n")
    assert inventory.select("webserver") == []
    assert inventory.warnings == [
        "pattern 'webserver' matches no host or group: did you mean 'webservers'?"
    ]


@pytest.mark.parametrize("pattern", ["", " ", ":", ",", "~", "!", "web:&", "web[", "~(", "@hosts"])
def test_what_is_no_pattern_is_an_error(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(InventoryError):
        load(tmp_path, "[web]\nh\n").select(pattern)


def test_a_regex_that_never_ends_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.inventory.patterns.REGEX_LIMIT", 0.2)
    inventory = load(tmp_path, f"{'a' * 60}b\n")
    with pytest.raises(InventoryError, match=r"took more than 0\.2 s"):
        inventory.select("~(a+)+$")
    assert inventory.select("~a+b$") == [f"{'a' * 60}b"]


def test_a_limit_may_name_a_file_of_patterns(tmp_path: Path) -> None:
    (tmp_path / "failed").write_text("# of the last run\nh1\n\nh3:&web\n")
    inventory = load(tmp_path, "[web]\nh[1:4]\n")
    assert inventory.select(f"@{tmp_path}/failed,!h1", files=Disk()) == ["h3"]


def test_an_empty_file_of_patterns_means_no_host_and_not_all(tmp_path: Path) -> None:
    (tmp_path / "failed").write_text("\n# nobody\n")
    inventory = load(tmp_path, "[web]\nh[1:4]\n")
    assert inventory.select(f"@{tmp_path}/failed", files=Disk()) == []
    assert inventory.select(f"@{tmp_path}/failed,h2", files=Disk()) == ["h2"]


def test_what_leaves_no_host_is_an_error_that_says_why(tmp_path: Path) -> None:
    inventory = load(tmp_path, "[web]\nh1\n")
    with pytest.raises(InventoryError, match="no host matches 'wbe'") as caught:
        inventory.chosen("wbe")
    assert "did you mean 'web'?" in caught.value.hint
    assert inventory.chosen("wbe", allow_empty=True) == []
    assert inventory.chosen(None) == ["h1"]
    with pytest.raises(InventoryError, match="there is no host in the inventory"):
        load(tmp_path, "[web]\n").chosen(None)


@pytest.mark.parametrize("text", ["[web\nh1\n", "[web]]\nh1\n"])
def test_a_section_that_is_not_closed_is_called_a_section(tmp_path: Path, text: str) -> None:
    with pytest.raises(InventoryError, match="bad section"):
        load(tmp_path, text)


def test_a_missing_source_is_an_error_even_beside_a_good_one(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="is not there"):
        Inventory.load(["h1,", str(tmp_path / "nosuch")], Disk())


@pytest.mark.parametrize(
    "written, said",
    [
        ("production", "did you mean 'inventories/production'?"),
        ("inventories/prodution", "did you mean 'inventories/production'?"),
        ("inventories/x", "there is inventories/production, inventories/staging"),
        (
            "x",
            "there is inventories/production, inventories/staging\na list of hosts needs a comma",
        ),
    ],
)
def test_of_a_missing_source_it_is_said_what_was_probably_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("production", "staging"):
        (tmp_path / "inventories" / name).mkdir(parents=True)
    with pytest.raises(InventoryError) as caught:
        Inventory.load([written], Disk())
    assert caught.value.hint.startswith(said)


def test_a_missing_source_can_be_allowed_and_is_a_warning_then(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    sources = ["h1,", str(tmp_path / "nosuch"), str(tmp_path / "empty")]
    inventory = Inventory.load(sources, Disk(), allow_missing=True)
    assert inventory.hosts() == ["h1"]
    missing, empty = inventory.warnings
    assert "is not there" in missing
    assert "no inventory in the directory" in empty


def test_a_source_with_an_error_is_never_allowed(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all: [")
    with pytest.raises(ConfigError):
        Inventory.load([str(tmp_path / "hosts.yml")], Disk(), allow_missing=True)


def test_a_directory_without_a_source_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(InventoryError, match="no inventory in the directory"):
        Inventory.load([str(tmp_path)], Disk())


def test_a_program_is_not_run(tmp_path: Path) -> None:
    program = tmp_path / "hosts"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    with pytest.raises(InventoryError, match="are not run"):
        Inventory.load([str(program)], Disk())
    assert not (tmp_path / "ran").exists()


def test_a_file_encrypted_by_vault_says_so(tmp_path: Path) -> None:
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/h").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    with pytest.raises(InventoryError, match="ansible-vault"):
        load(tmp_path, "h").variables("h")
    with pytest.raises(InventoryError, match="ansible-vault"):
        load(tmp_path, "$ANSIBLE_VAULT;1.1;AES256\n6162\n")


def test_lists_where_names_belong_say_how_to_write_them(tmp_path: Path) -> None:
    with pytest.raises(InventoryError) as caught:
        load(tmp_path, "all:\n  hosts:\n    - web1\n", "x.yml")
    assert "`web1:` instead of `- web1`" in str(caught.value)


def test_an_unknown_key_of_a_group_is_ignored_as_in_ansible_but_not_in_silence(
    tmp_path: Path,
) -> None:
    inventory = load(tmp_path, "all:\n  host:\n    h:\n", "x.yml")
    assert inventory.hosts() == []
    assert (
        "x.yml:2:3: key 'host' of group all is ignored: did you mean 'hosts'?"
        in inventory.warnings[0]
    )


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "hosts")
    with pytest.raises(InventoryError, match="is not a file"):
        Inventory.load([str(tmp_path / "hosts")], Disk())


class FakeTree:
    """The state repo as a dictionary."""

    commit, dirty, key = "", False, "k"

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def entry(self, path: str) -> Entry | None:
        if path in self._files:
            return Entry(path, "file")
        return Entry(path, "directory") if self.listdir(path) or not path else None

    def listdir(self, path: str) -> list[Entry]:
        start = f"{path}/" if path else ""
        names = {
            start + name[len(start) :].split("/")[0]
            for name in self._files
            if name.startswith(start)
        }
        return [Entry(n, "file" if n in self._files else "directory") for n in sorted(names)]

    def read(self, path: str) -> bytes:
        return self._files[path].encode()

    def chunks(self, path: str) -> Iterator[bytes]:
        yield self.read(path)


def test_variables_beside_site_yml_win_over_those_beside_the_inventory() -> None:
    tree = FakeTree(
        {
            "site.yml": "",
            "inventories/p/hosts": "[web]\nh line=1\n",
            "inventories/p/group_vars/all": "a: inventory\nall_inv: 1",
            "inventories/p/host_vars/h.yml": "b: inventory",
            "group_vars/all.yml": "a: site",
            "group_vars/web.yml": "c: site",
            "host_vars/h.yml": "b: site",
        }
    )
    inventory = Inventory.load(["inventories/p"], Places(tree), tree)
    assert inventory.variables("h") == {
        "a": "site",
        "all_inv": 1,
        "b": "site",
        "c": "site",
        "line": 1,
    }
    assert [(layer.name, str(layer.mark)) for layer in inventory.layers("h")] == [
        ("group_vars/all", "inventories/p/group_vars/all"),
        ("group_vars/all", "group_vars/all.yml"),
        ("group_vars/web", "group_vars/web.yml"),
        ("inventory host line", "inventories/p/hosts:2:1"),
        ("host_vars/h", "inventories/p/host_vars/h.yml"),
        ("host_vars/h", "host_vars/h.yml"),
    ]


@pytest.mark.parametrize("source", ["hosts", "./hosts"])
def test_an_inventory_beside_site_yml_has_each_file_of_variables_once(source: str) -> None:
    tree = FakeTree(
        {"site.yml": "", "hosts": "h\n", "./hosts": "h\n", "group_vars/all.yml": "a: 1"}
    )
    for reader in (tree, Places(tree)):
        layers = Inventory.load([source], reader, tree).layers("h")
        assert [str(layer.mark) for layer in layers] == ["group_vars/all.yml"]


def test_an_inventory_on_disk_has_the_variables_that_lie_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.yml").write_text("a: disk\nb: disk\n")
    (tmp_path / "hosts").write_text("h\n")
    tree = FakeTree({"site.yml": "", "group_vars/all.yml": "a: site"})
    inventory = Inventory.load(["hosts"], Places(tree), tree)
    assert inventory.variables("h") == {"a": "site", "b": "disk"}


def test_one_host_without_an_inventory_has_the_variables_beside_site_yml() -> None:
    tree = FakeTree({"group_vars/all.yml": "a: 1", "host_vars/box.yml": "b: 2"})
    inventory = Inventory.localhost("box", tree)
    assert inventory.variables("box") == {"ansible_connection": "local", "a": 1, "b": 2}
    assert inventory.groups() == {"all": ["box"], "ungrouped": ["box"]}


def test_every_value_knows_its_place(tmp_path: Path) -> None:
    inventory = load(tmp_path, "[g]\nh a=1  bb='x y'\n[g:vars]\n  c = 2\n")
    places = {
        key: (layer.values.place(key).line, layer.values.place(key).column)
        for layer in inventory.layers("h")
        for key in layer.values
    }
    assert places == {"c": (4, 3), "a": (2, 3), "bb": (2, 8)}


# -- properties ------------------------------------------------------------------------------


@given(st.integers(0, 500), st.integers(0, 300), st.integers(1, 50), st.integers(0, 6))
def test_a_numeric_range_is_the_python_range_written_out(
    start: int, length: int, step: int, width: int
) -> None:
    stop = start + length
    first, last = str(start).zfill(width), str(stop).zfill(width)
    padded = first[0] == "0" and len(first) > 1
    if padded and len(first) != len(last):
        with pytest.raises(InventoryError, match="same width"):
            expand(f"w[{first}:{last}:{step}]")
        return
    expected = [
        f"w{str(n).zfill(len(first) if padded else 0)}" for n in range(start, stop + 1, step)
    ]
    assert expand(f"w[{first}:{last}:{step}]").hosts == expected


NAMES = st.text("abcdefghij0123456789", min_size=1, max_size=4).map(lambda text: f"n{text}")
SETS = st.dictionaries(
    NAMES.map(lambda name: f"g{name}"), st.lists(NAMES, max_size=6, unique=True), max_size=5
)


@given(SETS, st.data())
def test_a_pattern_is_the_algebra_of_sets(
    groups: dict[str, list[str]], data: st.DataObject
) -> None:
    hosts = dict.fromkeys(host for members in groups.values() for host in members)
    groups = {"all": list(hosts), **groups}
    parts = data.draw(
        st.lists(
            st.tuples(st.sampled_from(["", "&", "!"]), st.sampled_from(list(groups))), min_size=1
        )
    )
    plain = [set(groups[name]) for sign, name in parts if not sign] or [set(hosts)]
    expected = set().union(*plain)
    for sign, name in parts:
        if sign:
            expected = expected & set(groups[name]) if sign == "&" else expected - set(groups[name])
    found = Patterns(groups, hosts, lambda warning: None).select(
        split(",".join(s + n for s, n in parts))
    )
    assert len(found) == len(set(found))
    assert set(found) == expected


@given(st.text(max_size=60))
def test_any_text_as_a_pattern_selects_known_hosts_or_is_an_inventory_error(text: str) -> None:
    hosts: dict[str, object] = {"web1": None, "2001:db8::1": None}
    patterns = Patterns({"all": list(hosts), "web": ["web1"]}, hosts, lambda warning: None)
    try:
        found = patterns.select(split(text))
    except InventoryError:
        return
    assert set(found) <= {*hosts, "localhost", "127.0.0.1", "::1"}


LINES = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(
            [
                "[a]",
                "[a:vars]",
                "[a:children]",
                "x=1",
                "b",
                "h[1:3] k='v",
                "[",
                "]",
                "h:22",
                "h k=(1",
            ]
        ),
    ),
    max_size=12,
)


@given(LINES)
def test_any_text_as_an_ini_file_is_an_inventory_or_a_config_error(lines: list[str]) -> None:
    text = "\n".join(lines)
    tree = FakeTree({"hosts.ini": text})
    tree.read = lambda path: text.encode("utf-8", "surrogatepass")
    try:
        inventory = Inventory.load(["hosts.ini"], tree)
    except ConfigError:
        return
    for host in inventory.hosts():
        inventory.variables(host)
