"""Inventory variables become a way to a host, or an error before anything uses them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import ConfigError, InventoryError
from reconciler.transport.options import check_options
from reconciler.transport.target import Hop, Target


def test_ansibles_names_are_understood() -> None:
    found = Target.of(
        "web",
        {
            "ansible_host": "10.0.0.7",
            "ansible_port": 2222,
            "ansible_user": "deploy",
            "ansible_ssh_pass": "secret",
            "ansible_ssh_private_key_file": "~/.ssh/deploy",
            "ansible_become": "yes",
            "ansible_become_pass": "other",
            "ansible_python_interpreter": "/usr/bin/python3.9",
            "via": ["jump@bastion:2022", "inner"],
        },
    )
    assert found.hop == Hop("10.0.0.7", 2222, "deploy", "secret", "~/.ssh/deploy")
    assert found.become is not None
    assert (found.become.method, found.become.user) == ("sudo", "root")
    assert found.become.password == "other"
    assert found.interpreter == "/usr/bin/python3.9"
    assert found.via == (Hop("bastion", 2022, "jump"), Hop("inner"))


def test_passwords_are_not_shown() -> None:
    variables = {"ansible_password": "canary", "ansible_become": True}
    shown = repr(Target.of("web", {**variables, "ansible_become_password": "canary"}))
    assert "canary" not in shown


@pytest.mark.parametrize(
    "said", ["smart", "paramiko", "ansible.netcommon.libssh", "winrm", "docker"]
)
def test_connections(said: str) -> None:
    if said in ("smart", "paramiko"):
        assert Target.of("web", {"ansible_connection": said}).connection == "ssh"
    else:
        with pytest.raises(InventoryError, match="ssh, openssh, local, chroot"):
            Target.of("web", {"ansible_connection": said})


def test_whoever_is_root_already_does_not_become_root() -> None:
    assert Target.of("web", {"ansible_user": "root", "ansible_become": True}).become is None


def test_a_jump_host_of_the_inventory_brings_its_own_variables() -> None:
    hosts = {"bastion": {"ansible_host": "192.0.2.1", "ansible_user": "jump", "host_keys": ["k"]}}
    found = Target.of("web", {"via": ["bastion", "other:2222"]}, others=hosts.get)
    assert found.via == (Hop("192.0.2.1", None, "jump", host_keys=("k",)), Hop("other", 2222))


def test_jumps_of_ssh_arguments() -> None:
    for text in ("-J a@b:22,c", "-o ProxyJump=a@b:22,c", "-oProxyJump=a@b:22,c"):
        found = Target.of("web", {"ansible_ssh_common_args": text})
        assert found.via == (Hop("b", 22, "a"), Hop("c")), text


@pytest.mark.parametrize(
    "variables",
    [
        {"ansible_host": "-oProxyCommand=touch /tmp/x"},
        {"ansible_host": "host;rm -rf /"},
        {"ansible_host": "$(x)"},
        {"ansible_host": "a\nb"},
        {"ansible_host": "a" * 300},
        {"ansible_user": "-l"},
        {"ansible_user": "root;x"},
        {"ansible_port": "22 -o x"},
        {"ansible_port": 70000},
        {"ansible_port": 0},
        {"ansible_port": "0" * 8 + "70000"},
        {"ansible_port": "0" * 8 + "22"},
        {"ansible_port": "9" * 5000},
        {"ansible_port": "\u0662\u0662"},
        {"ansible_timeout": "0" * 8 + "70000"},
        {"ansible_timeout": 3601},
        {"via": ["bastion:" + "0" * 8 + "70000"]},
        {"via": ["-oProxyCommand=x"]},
        {"via": {"a": 1}},
        {"ansible_python_interpreter": "python3; rm"},
        {"ansible_python_interpreter": "-c"},
        {"ansible_become": True, "ansible_become_user": "--help"},
        {"ansible_become": True, "ansible_become_method": "pbrun"},
        {"ansible_become": True, "ansible_become_password": "two\nlines"},
        {"ansible_ssh_common_args": "-o 'unclosed"},
        {"ansible_ssh_common_args": "-o"},
    ],
)
def test_values_that_are_no_addresses_users_or_ports_are_refused(
    variables: dict[str, object],
) -> None:
    with pytest.raises(ConfigError) as failure:
        Target.of("web", variables)
    assert failure.value.host == "web"
    assert failure.value.exit_code == 3


@given(st.text())
def test_no_text_is_an_address_that_ssh_takes_for_an_option(text: str) -> None:
    try:
        hop = Target.of("web", {"ansible_host": text, "ansible_user": text}).hop
    except ConfigError:
        return
    assert not hop.address.startswith("-")
    assert not (hop.user or "").startswith("-")
    assert not set(hop.address) & set(" ;$`'\"\\|&<>(){}!\n")


@pytest.mark.parametrize("way", ["ssh", "openssh"])
@pytest.mark.parametrize(
    "words",
    [
        "-o ProxyCommand='sh -c x'",
        "-o StrictHostKeyChecking=no",
        "-o ForwardAgent=yes",
        "-o PermitLocalCommand=yes",
        "-o KnownHostsCommand=x",
        "-o PKCS11Provider=/tmp/x.so",
        "-o SendEnv=*",
        "-F /tmp/config",
        "-A",
        "-R 22:localhost:22",
        "other-host",
    ],
)
def test_options_that_run_commands_or_weaken_are_refused(way: str, words: str) -> None:
    variables = {"ansible_connection": way, "ansible_ssh_extra_args": words}
    with pytest.raises(InventoryError):
        check_options(Target.of("web", variables))


def test_options_of_ordinary_inventories_are_accepted() -> None:
    text = "-o ControlMaster=auto -o ControlPersist=60s -o StrictHostKeyChecking=yes -C -q"
    check_options(Target.of("web", {"ansible_ssh_common_args": text}))
    only = {"ansible_ssh_common_args": "-o Ciphers=aes256-ctr"}
    check_options(Target.of("web", {**only, "ansible_connection": "openssh"}))
    with pytest.raises(InventoryError) as failure:
        check_options(Target.of("web", only))
    assert "openssh" in failure.value.hint
