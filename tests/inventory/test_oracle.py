"""What Ansible 2.19 was seen to do, case by case: our inventory does the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import ConfigError, InventoryError
from reconciler.inventory import Disk, Inventory
from reconciler.inventory.literals import ini_value
from reconciler.inventory.names import expand

FIXTURE = """
lone ansible_host=192.0.2.1
lone2:2222
localhost ansible_connection=local
[2001:db8::1]:2022

[web]
web[01:12]

[db]
db[1:2]

[a_grp]
web12

[prod:children]
web
db
"""


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def load(directory: Path, files: dict[str, str], *sources: str) -> Inventory:
    write(directory, files)
    return Inventory.load([str(directory / source) for source in sources], Disk())


@pytest.fixture
def eighteen(tmp_path: Path) -> Inventory:
    inventory = load(tmp_path, {"hosts": FIXTURE}, "hosts")
    assert len(inventory.hosts()) == 18
    return inventory


@pytest.mark.parametrize(
    "text, value",
    [
        ("5", 5),
        ("True", True),
        ("None", None),
        ("[1,2]", [1, 2]),
        ("(1, 2)", [1, 2]),
        ("{2, 1}", [1, 2]),
        ("{'a': 1}", {"a": 1}),
        ("0x1f", 31),
        ("1_000", 1000),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("./x", "./x"),
        ("-1", -1),
        (" 5", 5),
        ("'  5'", "  5"),
        ("b'xx'", "xx"),
        ("0777", "0777"),
        ("FALSE", "FALSE"),
        ("yes", "yes"),
        ("nan", "nan"),
        ("1j", "1j"),
        ("", ""),
        ("a b # c", "a b # c"),
    ],
)
def test_a_value_in_ini_has_the_type_that_ansible_gives_it(text: str, value: object) -> None:
    found = ini_value(text)
    assert (found, type(found)) == (value, type(value))


def test_a_host_line_is_split_like_a_shell_line_before_its_values_are_typed(tmp_path: Path) -> None:
    line = """h x=5 y="5" q="'it'" z='a b' w=True v=[1,2] t=None u=0777 s=0x1f a=#notcomment"""
    inventory = load(tmp_path, {"hosts.ini": line}, "hosts.ini")
    assert inventory.variables("h") == {
        "x": 5,
        "y": 5,
        "q": "it",
        "z": "a b",
        "w": True,
        "v": [1, 2],
        "t": None,
        "u": "0777",
        "s": 31,
        "a": "",
    }


def test_a_vars_section_is_typed_too_and_keeps_what_looks_like_a_comment(tmp_path: Path) -> None:
    text = "[web]\nh\n[web:vars]\nport=8080\nlst=[1, 2]\nflag=FALSE\npw=a b # c\nspaced = yes\n"
    inventory = load(tmp_path, {"hosts.ini": text}, "hosts.ini")
    assert inventory.variables("h") == {
        "port": 8080,
        "lst": [1, 2],
        "flag": "FALSE",
        "pw": "a b # c",
        "spaced": "yes",
    }


def test_values_in_yaml_are_read_as_yaml_one_one(tmp_path: Path) -> None:
    text = 'all: {hosts: {h: {n: 0777, b: yes, o: "0644"}}}'
    inventory = load(tmp_path, {"hosts.yml": text}, "hosts.yml")
    assert inventory.variables("h") == {"n": 511, "b": True, "o": "0644"}


@pytest.mark.parametrize(
    "text, hosts, port",
    [
        ("w[1:10:4]-[a:b]", "w1-a w1-b w5-a w5-b w9-a w9-b", 0),
        ("web[01:03].ex.com", "web01.ex.com web02.ex.com web03.ex.com", 0),
        ("web-[a:c]", "web-a web-b web-c", 0),
        ("h[A:C]:22", "hA hB hC", 22),
        ("h[:3]", "h0 h1 h2 h3", 0),
        ("h[1:010]", "h1 h2 h3 h4 h5 h6 h7 h8 h9 h10", 0),
        ("h[1:2].[3:4]:99", "h1.3 h1.4 h2.3 h2.4", 99),
        ("lone2:2222", "lone2", 2222),
        ("[2001:db8::1]:2022", "2001:db8::1", 2022),
        ("2001:db8::[1:3]", "2001:db8::1 2001:db8::2 2001:db8::3", 0),
        ("fe80::1%eth0", "fe80::1%eth0", 0),
    ],
)
def test_ranges_and_ports(text: str, hosts: str, port: int) -> None:
    assert expand(text) == (hosts.split(), port)


@pytest.mark.parametrize(
    "text", ["h[1:]", "h[1-3]", "h[01:1]", "h[z:a]", "h[1:3:0]", "h[", "h:", "[::1]", "h[a:2]"]
)
def test_what_ansible_refuses_as_a_host_is_refused(text: str) -> None:
    with pytest.raises(InventoryError):
        expand(text)


@pytest.mark.parametrize(
    "pattern, count",
    [
        ("web:&prod:!db", 12),
        ("!db", 16),
        ("&a_grp", 1),
        (r"~web\d+", 12),
        ("~(web|db)[12]", 5),
        ("[dw]b*", 2),
        ("al*", 18),
        ("ungr*", 4),
        ("nosuch", 0),
        ("nosuch:db", 2),
        ("prod:&web:!~web0[12]", 10),
        ("2001:db8::1,db1", 2),
        ("web[0:2]", 3),
        ("web[1:]", 11),
        ("web[1-2]", 2),
        ("127.0.0.1,localhost", 1),
        ("web[0:0]", 1),
        ("all:22", 0),
        ("nosuch[0]", 0),
        ("a,,db", 2),
        ("!db:!web", 4),
        ("web01:web01", 1),
        ("*", 18),
    ],
)
def test_a_pattern_selects_as_many_hosts_as_in_ansible(
    eighteen: Inventory, pattern: str, count: int
) -> None:
    assert len(eighteen.select(pattern)) == count


def test_subscripts_count_from_both_ends(eighteen: Inventory) -> None:
    assert eighteen.select("web[-1]") == ["web12"]
    assert eighteen.select("web[1:0]") == ["web02"]
    assert eighteen.select("web[0]:db[-1]") == ["web01", "db2"]


def test_a_subscript_beyond_the_group_is_an_error(eighteen: Inventory) -> None:
    with pytest.raises(InventoryError, match="has only 12 hosts"):
        eighteen.select("web[99]")


def test_localhost_is_there_even_if_no_source_names_it(tmp_path: Path) -> None:
    inventory = load(tmp_path, {"hosts": "web1\n[all:vars]\nv=1\n"}, "hosts")
    assert inventory.select("localhost") == ["localhost"]
    assert inventory.hosts() == ["web1"]
    assert inventory.variables("localhost") == {"v": 1, "ansible_connection": "local"}


def test_this_machine_is_one_host_by_the_first_name_that_a_pattern_gives_it(tmp_path: Path) -> None:
    inventory = load(tmp_path, {"hosts": "web1\n"}, "hosts")
    assert inventory.select("127.0.0.1,web1,localhost") == ["127.0.0.1", "web1"]
    assert inventory.select("localhost:!127.0.0.1") == []
    assert inventory.select("::1") == ["::1"]


def test_an_address_in_two_notations_is_one_only_where_ansible_knows_it(tmp_path: Path) -> None:
    inventory = load(tmp_path, {"hosts": "::ffff:10.0.0.1\n1.2.3.4\n"}, "hosts")
    assert inventory.select("::ffff:10.0.0.1") == ["::ffff:10.0.0.1"]
    assert inventory.select("2001:db8::1:1.2.3.4") == ["1.2.3.4"]


def test_a_port_counts_where_a_host_is_first_named(tmp_path: Path) -> None:
    inventory = load(tmp_path, {"hosts": "[a]\nh1\nh2:22\n[b]\nh1:2222\nh2:2222\n"}, "hosts")
    assert inventory.variables("h1") == {}
    assert inventory.variables("h2") == {"ansible_port": 22}
    assert "port 2222 is ignored, as host h1 is named before" in inventory.warnings[0]


def test_a_list_of_hosts_leaves_known_hosts_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all: {hosts: {h1: }}")
    inventory = Inventory.load([str(tmp_path / "hosts.yml"), "h1:22,h9:22,"], Disk())
    assert inventory.groups()["ungrouped"] == ["h9", "h1"]
    assert inventory.variables("h1") == {}


def test_a_group_joins_its_parents_where_it_is_declared(tmp_path: Path) -> None:
    text = "[prod]\np\n[db:children]\nstage\nprod\n[stage]\ns\n"
    inventory = load(tmp_path, {"hosts": text}, "hosts")
    assert inventory.select("db") == ["p", "s"]
    assert inventory.to_list_json()["db"] == {"children": ["prod", "stage"]}


def test_exclusion_comes_last_wherever_it_is_written(eighteen: Inventory) -> None:
    assert eighteen.select("!web01:web:&prod") == eighteen.select("web:&prod:!web01")


def test_precedence_from_the_inventory_file_up_to_host_vars(tmp_path: Path) -> None:
    places = [
        ("all:vars", {"hosts": "[prod]\nh\n[all:vars]\nlvl=all_inv\n"}),
        (
            "group vars in the file",
            {"hosts": "[prod]\nh\n[all:vars]\nlvl=x\n[prod:vars]\nlvl=prod_inv\n"},
        ),
        ("group_vars/all", {"group_vars/all.yml": "lvl: all_gv"}),
        ("group_vars/GROUP", {"group_vars/prod.yml": "lvl: prod_gv"}),
        ("host line", {"hosts": "[prod]\nh lvl=line\n[all:vars]\nlvl=x\n[prod:vars]\nlvl=y\n"}),
        ("host_vars", {"host_vars/h.yml": "lvl: hv"}),
    ]
    seen = [load(tmp_path, files, "hosts").variables("h")["lvl"] for _, files in places]
    assert seen == ["all_inv", "prod_inv", "all_gv", "prod_gv", "line", "hv"]


def test_a_deeper_group_wins_over_a_priority_and_a_priority_over_a_name(tmp_path: Path) -> None:
    text = """
[a:children]
deep
[deep]
h
[b]
h
[c]
h
[a:vars]
ansible_group_priority=50
[b:vars]
ansible_group_priority=10
v=b
w=b
[c:vars]
v=c
w=c
[deep:vars]
v=deep
"""
    inventory = load(tmp_path, {"hosts": text}, "hosts")
    assert inventory.variables("h") == {"v": "deep", "w": "b"}
    assert inventory.groups_of("h") == ["all", "c", "b", "a", "deep"]


def test_a_later_source_wins_but_group_vars_beat_both(tmp_path: Path) -> None:
    files = {"inv/20.ini": "[g:vars]\nw=2\nx=2\n"}
    files["inv/10.ini"] = "[g]\nh\n[g:vars]\nw=1\nx=1\n"
    inventory = load(tmp_path, {**files, "inv/group_vars/g": "x: 3\n"}, "inv")
    assert inventory.variables("h") == {"w": 2, "x": 3}


def test_dictionaries_replace_each_other(tmp_path: Path) -> None:
    files = {"hosts": "h", "group_vars/all.yml": "d: {a: 1}", "host_vars/h.yml": "d: {b: 2}"}
    assert load(tmp_path, files, "hosts").variables("h") == {"d": {"b": 2}}


def test_of_several_files_for_one_name_the_first_extension_is_read(tmp_path: Path) -> None:
    files = {"hosts": "db1", "host_vars/db1.yml": "v: yml", "host_vars/db1.yaml": "v: yaml\nw: 1"}
    assert load(tmp_path, files, "hosts").variables("db1") == {"v": "yml"}


def test_a_directory_of_variables_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    files = {
        "hosts": "[g]\nh",
        "group_vars/g/10.yml": "v: 10\na: 1",
        "group_vars/g/20.yaml": "v: 20",
        "group_vars/g/x.json": '{"j": 1}',
        "group_vars/g/plain": "p: 1",
        "group_vars/g/deeper/z.yml": "z: 1",
        "group_vars/g/note.txt": "t: 1",
        "group_vars/g/.hidden.yml": "t: 1",
        "group_vars/g/old.yml~": "t: 1",
    }
    assert load(tmp_path, files, "hosts").variables("h") == {
        "a": 1,
        "v": 20,
        "j": 1,
        "p": 1,
        "z": 1,
    }


def test_files_that_are_no_sources_are_skipped_in_a_directory(tmp_path: Path) -> None:
    ignored = [".h", "x.pyc", "x.swp", "x.bak", "x~", "x.md", "x.txt", "x.orig", "x.cfg", "x.retry"]
    files = {f"inv/{name}": "wrong" for name in ignored} | {
        "inv/hosts": "right",
        "inv/sub/more": "deep",
    }
    assert load(tmp_path, files, "inv").hosts() == ["right", "deep"]


def test_the_json_has_the_shape_of_ansible_inventory_list(tmp_path: Path) -> None:
    text = "lone\n[web]\nw1 a=1\n[prod:children]\nweb\n[empty]\n"
    assert load(tmp_path, {"hosts": text}, "hosts").to_list_json() == {
        "_meta": {"hostvars": {"w1": {"a": 1}}, "profile": "inventory_legacy"},
        "all": {"children": ["ungrouped", "prod", "empty"]},
        "ungrouped": {"hosts": ["lone"]},
        "prod": {"children": ["web"]},
        "web": {"hosts": ["w1"]},
    }


def test_text_that_only_looks_like_a_template_is_marked_in_the_json(tmp_path: Path) -> None:
    text = "all: {hosts: {h: {a: !unsafe '{{ x }}', b: !unsafe plain, c: '{{ x }}'}}}"
    inventory = load(tmp_path, {"hosts.yml": text}, "hosts.yml")
    assert inventory.to_host_json("h") == {
        "a": {"__ansible_unsafe": "{{ x }}"},
        "b": "plain",
        "c": "{{ x }}",
    }


@pytest.mark.parametrize("name", ["hosts", "hosts.prod"])
def test_a_file_without_an_extension_that_we_know_is_recognised_by_its_start(
    tmp_path: Path, name: str
) -> None:
    yaml = "# the hosts\n\nall:\n  hosts:\n    h1:\n"
    assert load(tmp_path, {f"y/{name}": yaml}, f"y/{name}").hosts() == ["h1"]
    assert load(tmp_path, {f"i/{name}": "# x\n[g]\nh2\n"}, f"i/{name}").hosts() == ["h2"]


def test_toml_says_the_same_as_yaml(tmp_path: Path) -> None:
    text = '[web.vars]\nport = 80\n[web.hosts]\n"w[1:2]" = {a = 1}\n[prod]\nchildren = ["web"]\n'
    inventory = load(tmp_path, {"hosts.toml": text}, "hosts.toml")
    assert inventory.groups()["prod"] == ["w1", "w2"]
    assert inventory.variables("w2") == {"port": 80, "a": 1}


def test_all_errors_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {"hosts": "a b\n[g\n[g:nosuch]\nh[1:]\n"}, "hosts", "missing")
    lines = str(caught.value)
    for part in (
        "hosts:1:1: expected key=value",
        "hosts:2",
        "hosts:3",
        "hosts:4",
        "missing is not there",
    ):
        assert part in lines
