"""Becoming another user on the host: sudo, su, doas.

The password goes over stdin and nowhere else. It is given once: programs that ask again are hung
up on, because a loop of wrong passwords locks the account. sudo asks with a prompt that we made
up, so neither a locale nor a message of the day can pass for it.
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
        if self.method == "doas" and self.password is not None:
            raise ConfigError(
                "doas reads a password from a terminal only, and there is none",
                hint="use a `nopass` rule in doas.conf, or ansible_become_method: sudo",
            )

    def wrap(self, argv: Sequence[str], nonce: str) -> list[str]:
        """The argv that runs `argv` as the user. nonce: what the prompt is made of."""
        if self.method == "doas":
            return ["doas", "-n", "-u", self.user, "--", *argv]
        if self.method == "su":
            return ["su", "-s", "/bin/sh", "-c", shell_line(argv), self.user]
        if self.password is None:
            return ["sudo", "-n", "-H", "-u", self.user, "--", *argv]
        # %% is shown as %: a shell that prints the command line does not print the prompt.
        prompt = f"{nonce}%%"
        return ["sudo", "-k", "-S", "-H", "-p", prompt, "-u", self.user, "--", *argv]

    def asks(self, said: bytes, nonce: str) -> int:
        """How often the program has asked for the password, by what it said on stderr.

        su has no prompt of ours: with a password to give, whatever it says first is taken for it.
        """
        if self.method == "su":
            return int(bool(said))
        return said.count(f"{nonce}%".encode())
