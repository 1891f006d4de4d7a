"""Becoming another user on the host: sudo, su, doas.

The password goes over stdin and nowhere else. It is given once: programs that ask again are hung
up on, because a loop of wrong passwords locks the account. sudo asks with a prompt that we made
up, so neither a locale nor a message of the day can pass for it. doas asks on a terminal only, so
it gets one of its own: what is said there nobody else can have said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reconciler.errors import ConfigError
from reconciler.transport.command import shell_line

METHODS = ("sudo", "su", "doas")


@dataclass(frozen=True)
class Become:
    """Who the engine is to run as, and by which program. password: None where none is needed."""

    method: str = "sudo"
    user: str = "root"
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(
                f"ansible_become_method {self.method!r} is not one that this tool knows",
                hint=f"one of: {', '.join(METHODS)}",
            )
        if self.password is not None and not self.password.isprintable():
            raise ConfigError("ansible_become_password has a character that no prompt takes")

    @property
    def on_terminal(self) -> bool:
        """Whether the password is asked for on a terminal, which `terminal.py` then gives."""
        return self.method == "doas" and self.password is not None

    def wrap(self, argv: Sequence[str], nonce: str) -> list[str]:
        """The argv that runs `argv` as the user. nonce: what the prompt is made of."""
        if self.method == "doas":
            quiet = [] if self.on_terminal else ["-n"]
            return ["doas", *quiet, "-u", self.user, "--", *argv]
        if self.method == "su":
            return ["su", "-s", "/bin/sh", "-c", shell_line(argv), self.user]
        if self.password is None:
            return ["sudo", "-n", "-H", "-u", self.user, "--", *argv]
        # %% is shown as %: a shell that prints the command line does not print the prompt.
        prompt = self.prompt(nonce).replace("%", "%%")
        return ["sudo", "-k", "-S", "-H", "-p", prompt, "-u", self.user, "--", *argv]

    def prompt(self, nonce: str) -> str:
        """What says on stderr that the password is asked for."""
        return f"{nonce}%"

    def asks(self, said: bytes, nonce: str) -> int:
        """How often the program has asked for the password, by what it said on stderr.

        su has no prompt of ours: with a password to give, whatever it says first is taken for it.
        """
        if self.method == "su":
            return int(bool(said))
        return said.count(self.prompt(nonce).encode())
