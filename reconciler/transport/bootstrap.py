"""The engine on its way: from a connection to a running engine that speaks the protocol.

What is started on the host is constant, but for a nonce, a digest and a size:

    [sudo ...] sh -c 'is python3 there?' NONCE python3 -I -S -B -c 'read a line and run it' NONCE ...

Then over stdin: the password if it is asked for, a line that reads `arrival.py`, that file, the
engine if it is not in the host's cache, and the frames of the protocol. On stdout everything up
to the nonce is noise of profiles and messages of the day, and is dropped.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from reconciler.errors import AuthFailed, ConnectionLost, HostUnfit, ReconcilerError
from reconciler.transport.become import Become
from reconciler.transport.contract import Channel, Transport
from reconciler.transport.remote import Limits, RemoteLink, said

OLDEST = "3.9"
#: Noise before the nonce, and the longest answer of `arrival.py`, in bytes.
MAX_NOISE = 1 << 20
MAX_ANSWER = 4096
#: How often stderr is looked at for the prompt, in seconds.
GLANCE = 0.05

LAUNCH = 'command -v "$1" >/dev/null 2>&1 || { echo "$0 missing $1"; exit 127; }; exec "$@"'
# A stray line, such as a password that nobody asked for, is passed over and not run.
RECEIVE = (
    "import os,sys;"
    "n=sys.argv[1].encode();"
    "os.write(1,n+bytes([10]));"
    "r=lambda:bytes().join(iter(lambda:os.read(0,1)or os._exit(1),bytes([10])));"
    "l=r();"
    "l=l if l.startswith(n)else r();"
    "exec(l[len(n):])"
)
PROMPTED = (
    "import base64,sys;program=base64.b64decode(sys.argv.pop(1));sys.argv[1]+=chr(37);exec(program)"
)


@dataclass(frozen=True)
class Launch:
    """How the engine is started on one host.

    engine: the zip. keep: whether the host may keep it in its cache.
    interpreter: the Python there. become: None to stay the user of the connection.
    patience: seconds until it must run, logins and passwords included.
    """

    engine: bytes
    interpreter: str = "python3"
    become: Become | None = None
    keep: bool = True
    patience: float = 30.0


def launch(transport: Transport, how: Launch, limits: Limits) -> RemoteLink:
    """Start the engine; the link ends the connection too. Raises AuthFailed, HostUnfit, ConnectionLost, TransportError."""
    nonce = secrets.token_hex(16)
    digest = hashlib.sha256(how.engine).hexdigest()
    end = time.monotonic() + how.patience
    started = transport.start(_argv(how, nonce, digest))
    try:
        talk = _Talk(started, end)
        _enter(talk, how, nonce)
        talk.send(_arrival(nonce))
        if talk.answer() == "need":
            talk.send(how.engine)
            talk.answer()
    except BaseException:
        started.close()
        raise
    return RemoteLink(started, limits, talk.rest, transport.close)


def _argv(how: Launch, nonce: str, digest: str) -> list[str]:
    keep = "keep" if how.keep else "forget"
    python = [how.interpreter, "-I", "-S", "-B", "-c"]
    argv = _checked([*python, RECEIVE, nonce, digest, str(len(how.engine)), keep], nonce)
    if how.become is None:
        return argv
    argv = _checked(how.become.wrap(argv, nonce), nonce)
    if how.become.on_terminal:
        packed = base64.b64encode(_text("terminal.py")).decode()
        # The nonce is in two words: a shell that prints the command line prints no prompt.
        argv = _checked([*python, PROMPTED, packed, nonce, *argv], nonce)
    return argv


def _checked(argv: Sequence[str], nonce: str) -> list[str]:
    """By way of /bin/sh, which says in words of ours that a program is not there."""
    return ["/bin/sh", "-c", LAUNCH, nonce, *argv]


@cache
def _text(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()


def _arrival(nonce: str) -> bytes:
    program = _text("arrival.py")
    reader = (
        f"b=bytes()\nwhile len(b)<{len(program)}:\n"
        f" c=os.read(0,{len(program)}-len(b))\n c or os._exit(1)\n b+=c\nexec(b)"
    )
    return f"{nonce}exec({reader!r})\n".encode() + program


def _enter(talk: _Talk, how: Launch, nonce: str) -> None:
    """Wait for the nonce, and give the password if it is asked for: once."""
    become, given = how.become, False
    password = None if become is None else become.password
    while True:
        mark = talk.rest.find(nonce.encode())
        line_end = talk.rest.find(b"\n", mark)
        if mark >= 0 and line_end >= 0:
            word = talk.rest[mark + len(nonce) : line_end].decode("utf-8", "replace").strip()
            talk.rest = talk.rest[line_end + 1 :]
            if word.startswith("missing"):
                raise _missing(word.removeprefix("missing").strip(), how)
            return
        if len(talk.rest) > MAX_NOISE:
            raise HostUnfit(
                f"the login shell says {MAX_NOISE >> 20} MiB and more before it runs anything"
            )
        if not talk.listen(GLANCE if password is not None else None):
            raise _refused(talk.channel, how, given=given)
        if become is not None and password is not None:
            asked = become.asks(talk.channel.errors(), nonce)
            if asked and not given:
                talk.send(password.encode() + b"\n")
                given = True
            elif asked > 1:
                raise _wrong_password(how)


class _Talk:
    """Lines of the host until the engine runs. rest: what has come and is not read yet."""

    def __init__(self, channel: Channel, end: float) -> None:
        self.channel = channel
        self.rest = b""
        self._end = end

    def listen(self, glance: float | None = None) -> bool:
        """Wait for more, at most `glance` seconds; False once nothing will come any more."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise HostUnfit(
                f"the engine did not start in time{said(self.channel)}",
                hint="a login shell that waits for input, or a slow host: --start-timeout SECONDS",
            )
        piece = self.channel.receive(left if glance is None else min(glance, left))
        self.rest += piece or b""
        return piece != b""

    def send(self, data: bytes) -> None:
        try:
            self.channel.send(data, max(1.0, self._end - time.monotonic()))
        except BrokenPipeError as error:
            raise ConnectionLost(f"the host hung up{said(self.channel)}") from error

    def answer(self) -> str:
        """The next word of `arrival.py`."""
        while b"\n" not in self.rest:
            if len(self.rest) > MAX_ANSWER or not self.listen():
                raise HostUnfit(f"the engine did not start{said(self.channel)}")
        line, _, self.rest = self.rest.partition(b"\n")
        word, _, more = line[:MAX_ANSWER].decode("utf-8", "replace").partition(" ")
        if word == "old":
            raise _too_old(more)
        if word not in ("go", "need"):
            raise HostUnfit(f"the engine did not start: {more or word}{said(self.channel)}")
        return word


# -- what went wrong ---------------------------------------------------------------------------


def _missing(program: str, how: Launch) -> ReconcilerError:
    if how.become is not None and program == how.become.method:
        return HostUnfit(
            f"there is no {program} on the host, or not on the PATH of a login",
            hint="log in as root, or choose ansible_become_method sudo, su or doas",
        )
    return HostUnfit(
        f"there is no {program} on the host",
        hint=f"install Python {OLDEST} or later, or name one with ansible_python_interpreter",
    )


def _too_old(version: str) -> ReconcilerError:
    return HostUnfit(
        f"Python {version} of the host is too old: the engine needs {OLDEST} or later",
        hint="name a later one with ansible_python_interpreter: /usr/bin/python3.9",
    )


def _wrong_password(how: Launch) -> ReconcilerError:
    method = how.become.method if how.become else "login"
    return AuthFailed(
        f"{method} does not accept the password",
        hint="it was tried once, so that the account is not locked; see ansible_become_password",
    )


def _refused(channel: Channel, how: Launch, *, given: bool) -> ReconcilerError:
    """The program ended before Python ran: who stopped it?"""
    code = channel.status(2.0)
    words = said(channel)
    if code is None:
        return ConnectionLost(f"the connection broke off before the engine ran{words}")
    if "nknown option" in words and "-I" in words:
        return _too_old("3.3 or earlier")
    if how.become is not None and code in (1, 126):
        if given:
            return _wrong_password(how)
        return AuthFailed(
            f"{how.become.method} does not let us become {how.become.user}{words}",
            hint="give ansible_become_password (--ask-become-pass), or a NOPASSWD rule"
            if how.become.password is None
            else "",
        )
    return HostUnfit(
        f"the login shell ended with code {code} before it ran anything{words}",
        hint="the account needs a shell that runs `sh -c`: not nologin, not a menu",
    )
