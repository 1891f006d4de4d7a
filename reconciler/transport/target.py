"""How one host is reached, read from its inventory variables.

The names are Ansible's, so its inventories work as they are; `via` and `host_keys` are ours.
Every value that could be taken for an option or a command is refused here, before anything uses it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.errors import ConfigError, InventoryError
from reconciler.ports import check_port, whole_number
from reconciler.transport.become import Become

CONNECTIONS = ("ssh", "openssh", "local", "chroot", "nspawn")
#: Those whose address is a directory that holds a root file system.
DIRECTORIES = ("chroot", "nspawn")
#: Names that Ansible has for the same.
ALIASES = {"smart": "ssh", "paramiko": "ssh", "paramiko_ssh": "ssh"}
Others = Callable[[str], "Mapping[str, object] | None"]
#: The names of a password.
LOGIN = ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password")
BECOME = ("ansible_become_password", "ansible_become_pass")
BECOME_BY = ("ansible_sudo_pass", "ansible_su_pass", "ansible_doas_pass")
KEY_FILE = ("ansible_ssh_private_key_file", "ansible_private_key_file")
PASSPHRASE = ("ansible_ssh_private_key_passphrase", "ansible_private_key_passphrase")
TIMEOUT = ("ansible_ssh_timeout", "ansible_timeout")
#: Every variable that is read here.
NAMES = (
    *("ansible_host", "ansible_ssh_host", "ansible_port", "ansible_ssh_port"),
    *("ansible_user", "ansible_ssh_user", "ansible_connection", "ansible_python_interpreter"),
    *(*LOGIN, *KEY_FILE, *PASSPHRASE, *TIMEOUT),
    *("ansible_ssh_common_args", "ansible_ssh_extra_args", "via", "host_keys"),
    *("ansible_become", "ansible_become_method", "ansible_become_user", *BECOME, *BECOME_BY),
)
MOST_SECONDS = 3600
_ADDRESS = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]{0,254}")
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@+-]{0,254}\$?")
_INTERPRETER = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]*")
_HOP = re.compile(r"(?:(?P<user>[^@]+)@)?(?P<host>\[[^\]]+\]|[^:\[\]]+)(?::(?P<port>\d+))?")


@dataclass(frozen=True)
class Hop:
    """One SSH login: an address with a port and user, and what opens it.

    None where ssh_config decides, and at last the default. host_keys: pinned public keys,
    `TYPE BASE64`; where there are any, only they count. passphrase: of the key file.
    """

    address: str
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    key_file: str | None = None
    passphrase: str | None = field(default=None, repr=False)
    host_keys: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Hop:
        """`user@host:port`, as ProxyJump has it. Raises InventoryError."""
        found = _HOP.fullmatch(text.removeprefix("ssh://"))
        if found is None:
            raise InventoryError(f"{text[:60]!r} is not a jump host", hint="write user@host:port")
        host = found["host"].strip("[]")
        port = None if found["port"] is None else check_port(found["port"], "the jump host's port")
        user = found["user"]
        return cls(
            _match(host, _ADDRESS, "a jump host"),
            port,
            None if user is None else _match(user, _USER, "a jump host's user"),
        )


@dataclass(frozen=True)
class Target:
    """One host and the way to it.

    name: in the inventory. connection: one of CONNECTIONS. via: jump hosts, the first one first.
    options: of ssh, `Name=value`; extra: words that only OpenSSH understands.
    root: the directory of one that is one. ssh_config: a file to read instead of the usual ones.
    """

    name: str
    hop: Hop
    connection: str = "ssh"
    via: tuple[Hop, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    extra: tuple[str, ...] = ()
    interpreter: str = "python3"
    become: Become | None = None
    root: str = "/"
    ssh_config: str | None = None

    @classmethod
    def of(
        cls,
        name: str,
        variables: Mapping[str, object],
        ssh_config: str | None = None,
        others: Others = lambda name: None,
    ) -> Target:
        """The target of a host with these inventory variables. Raises InventoryError, ConfigError.

        others: the variables of another host of the inventory, so that `via` can name one.
        """
        try:
            return _Reader(name, variables).target(ssh_config, others)
        except ConfigError as error:
            error.host = error.host or name
            raise


class _Reader:
    """The variables of one host, by any of the names that they have."""

    def __init__(self, name: str, variables: Mapping[str, object]) -> None:
        self.name = name
        self._variables = variables

    def target(self, ssh_config: str | None, others: Others) -> Target:
        connection = self._connection()
        if connection in DIRECTORIES:
            return self._directory(connection)
        hop = self.hop()
        options, extra = self._arguments()
        jumps = options.pop("proxyjump", None)
        via = self.words("via") or ([] if jumps in (None, "none") else str(jumps).split(","))
        return Target(
            self.name,
            hop,
            connection,
            via=tuple(_jump(text, others) for text in via),
            options=tuple(options.items()),
            extra=extra,
            interpreter=self._interpreter(),
            become=self._become(hop.user),
            ssh_config=ssh_config,
        )

    def _directory(self, connection: str) -> Target:
        root = self.text("ansible_host", "ansible_ssh_host") or self.name
        if not root.startswith("/"):
            raise InventoryError(
                f"ansible_connection {connection} wants a directory, and {root!r} is none",
                hint="ansible_host: /srv/roots/NAME",
            )
        interpreter = self._interpreter()
        return Target(self.name, Hop("localhost"), connection, root=root, interpreter=interpreter)

    def hop(self) -> Hop:
        address = self.text("ansible_host", "ansible_ssh_host") or self.name
        user = self.text("ansible_user", "ansible_ssh_user")
        port = self.text("ansible_port", "ansible_ssh_port")
        return Hop(
            _match(address, _ADDRESS, "ansible_host"),
            None if port is None else check_port(port, "ansible_port"),
            None if user is None else _match(user, _USER, "ansible_user"),
            password=self.text(*LOGIN),
            key_file=self.text(*KEY_FILE),
            passphrase=self.text(*PASSPHRASE),
            host_keys=tuple(self.words("host_keys")),
        )

    def text(self, *names: str) -> str | None:
        """The first of these variables that is set, as text."""
        for name in names:
            value = self._variables.get(name)
            if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
                return self._settled(name, str(value))
        return None

    def _settled(self, name: str, text: str) -> str:
        if "{{" in text or "{%" in text:
            raise InventoryError(f"{name} is a template, and this is no place to render it")
        return text

    def words(self, name: str) -> list[str]:
        """A list of texts, or one text."""
        value = self._variables.get(name)
        if value is None:
            return []
        if isinstance(value, str):
            return [value]
        if isinstance(value, Sequence) and all(isinstance(one, str) for one in value):
            return [str(one) for one in value]
        raise InventoryError(f"{name} must be a list of texts, not {value!r}")

    def _connection(self) -> str:
        said = self.text("ansible_connection") or "ssh"
        connection = ALIASES.get(said.rpartition(".")[2], said)
        if connection not in CONNECTIONS:
            raise InventoryError(
                f"ansible_connection {said!r} is not one that this tool knows",
                hint=f"one of: {', '.join(CONNECTIONS)}",
            )
        return connection

    def _interpreter(self) -> str:
        said = self.text("ansible_python_interpreter") or "python3"
        # `auto` is Ansible's own search; ours is the PATH of the login.
        said = "python3" if said.startswith("auto") else said
        return _match(said, _INTERPRETER, "ansible_python_interpreter")

    def _become(self, login: str | None) -> Become | None:
        if str(self._variables.get("ansible_become", False)).lower() not in ("true", "yes", "1"):
            return None
        user = _match(self.text("ansible_become_user") or "root", _USER, "ansible_become_user")
        if user == login:
            return None
        method = self.text("ansible_become_method") or "sudo"
        return Become(method, user, self.text(*BECOME, f"ansible_{method}_pass"))

    def _arguments(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """ssh's own arguments: options as pairs, and what else there is."""
        options: dict[str, str] = {}
        extra: list[str] = []
        for name in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
            words = _split(self.text(name) or "", name)
            while words:
                word = words.pop(0)
                flag, value = word[:2], word[2:]
                if flag not in ("-o", "-J"):
                    extra.append(word)
                    continue
                if not value and not words:
                    raise InventoryError(f"{name}: {flag} wants a value")
                value = value or words.pop(0)
                key, _, setting = ("ProxyJump", "", value) if flag == "-J" else _pair(value)
                options[key.lower()] = setting
        timeout = self.text(*TIMEOUT)
        if timeout is not None:
            options.setdefault("connecttimeout", str(_seconds(timeout, "ansible_timeout")))
        return options, tuple(extra)


def _jump(text: str, others: Others) -> Hop:
    """A jump host: a host of the inventory by its name, or `user@host:port`."""
    variables = others(text)
    return Hop.parse(text) if variables is None else _Reader(text, variables).hop()


def _split(text: str, name: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InventoryError(f"{name}: {error}") from error


def _pair(text: str) -> tuple[str, str, str]:
    key, separator, value = text.partition("=")
    return (key.strip(), separator, value.strip()) if separator else text.partition(" ")


def _match(text: str, accepted: re.Pattern[str], what: str) -> str:
    if not accepted.fullmatch(text):
        raise InventoryError(f"{text[:60]!r} cannot be {what}")
    return text


def _seconds(text: str, what: str) -> int:
    seconds = whole_number(text, MOST_SECONDS)
    if not seconds:
        raise InventoryError(
            f"{what}: {text[:20]!r} is not a number of seconds from 1 to {MOST_SECONDS}"
        )
    return seconds
