"""Variables that say how a host is reached: known names, and values that are refused at once.

Their values end up in argv of ssh and sudo, so `-oProxyCommand=...` must never be a host.
"""

from __future__ import annotations

import re

from reconciler.errors import InventoryError, Mark
from reconciler.inventory.graph import Graph
from reconciler.inventory.names import check_host
from reconciler.ports import check_port
from reconciler.words import did_you_mean
from reconciler.yamldoc import Map

_KNOWN = """
    ansible_host ansible_port ansible_user ansible_password ansible_connection ansible_timeout
    ansible_private_key_file ansible_pipelining ansible_host_key_checking ansible_remote_tmp
    ansible_python_interpreter ansible_shell_type ansible_shell_executable
    ansible_group_priority ansible_become ansible_become_method ansible_become_user
    ansible_become_password ansible_become_pass ansible_become_exe ansible_become_flags
    ansible_ssh_host ansible_ssh_port ansible_ssh_user ansible_ssh_pass ansible_ssh_password
    ansible_ssh_private_key_file ansible_ssh_args ansible_ssh_common_args
    ansible_ssh_extra_args ansible_ssh_executable ansible_ssh_pipelining ansible_ssh_retries
    ansible_ssh_timeout ansible_ssh_transfer_method ansible_ssh_host_key_checking
    ansible_sftp_extra_args ansible_scp_extra_args ansible_sudo_pass ansible_su_pass
    ansible_network_os ansible_docker_host ansible_facts ansible_check_mode
    ansible_diff_mode ansible_version ansible_managed ansible_hostname ansible_fqdn
    ansible_ssh_private_key_passphrase ansible_private_key_passphrase ansible_doas_pass
    ansible_domain ansible_distribution ansible_os_family ansible_architecture
    ansible_nodename
"""
#: What Ansible and its connection plugins know, and this tool or testinfra reads.
KNOWN = frozenset(_KNOWN.split())

_ADDRESSES = ("ansible_host", "ansible_ssh_host")
_USERS = ("ansible_user", "ansible_ssh_user", "ansible_become_user")
_PORTS = ("ansible_port", "ansible_ssh_port")
_USER = re.compile(r"[^\s\x00-\x1f\x7f'\"`$;|&<>(){}*?!\\-][^\s\x00-\x1f\x7f'\"`$;|&<>(){}*?!]*")


def check_variables(values: Map, graph: Graph) -> None:
    """Raises InventoryError for a value that cannot reach a host; warns of names close to a known one."""
    for key in values:
        if not isinstance(key, str):
            raise InventoryError(
                f"the variable name {key!r} is not text",
                mark=values.key_place(key),
                hint="put it in quotes",
            )
        if key.startswith("ansible_"):
            _check_value(key, values[key], values.place(key))
            if key not in KNOWN:
                _warn_of(key, values.key_place(key), graph)


def _check_value(key: str, value: object, mark: Mark) -> None:
    if isinstance(value, str) and "{{" in value:
        return  # checked again once it is known
    if key in _ADDRESSES and value is not None:
        # A directory is the address of a `chroot`; every other connection refuses it.
        if not str(value).startswith("/"):
            check_host(str(value), mark)
    elif key in _USERS and value is not None and not _USER.fullmatch(str(value)):
        raise InventoryError(f"{key}: {str(value)[:60]!r} is not a user name", mark=mark)
    elif key in _PORTS:
        check_port(str(value), key, mark)


def _warn_of(key: str, mark: Mark, graph: Graph) -> None:
    meant = did_you_mean(key, KNOWN, likeness=0.85)
    if meant:
        graph.warn(f"{mark}: unknown variable {key}, {meant}")
