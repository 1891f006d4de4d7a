"""Runs on the host: gives a program a terminal to ask for a password on, and nothing else.

doas asks on /dev/tty only. The program gets a terminal of its own, which nobody else can write to,
while its stdin, stdout and stderr stay the pipes that they are: what is on the terminal can only be
the question. For each question the prompt that was made up goes to stderr, and the next line of
stdin to the terminal, which does not echo while it asks.

argv: PROMPT PROGRAM [WORD...]. Ends with the program's code. Any Python 3 can read this.
"""

import fcntl
import os
import pty
import signal
import sys
import termios


class Ended(Exception):
    """The program has ended."""


def main(prompt: str, argv: "list[str]") -> int:
    """Run the program; its exit code."""
    signal.signal(signal.SIGCHLD, ended)
    # Kept open: between two who look at it the terminal must not seem to have no end any more.
    master, slave = pty.openpty()
    try:
        if os.fork() == 0:
            become(slave, argv)
        while True:
            # An empty line is what follows an answer.
            if os.read(master, 1024).strip():
                os.write(2, prompt.encode())
                os.write(master, line())
    except Ended:
        _, status = os.waitpid(-1, 0)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def become(slave: int, argv: "list[str]") -> None:
    """Be the program, on the terminal."""
    try:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        os.execvp(argv[0], argv)
    finally:
        os._exit(127)


def line() -> bytes:
    """One line of stdin and not one byte more: what follows is for the engine."""
    read = b""
    while not read.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(1)
        read += byte
    return read


def ended(number: int, frame: object) -> None:
    """Leave whatever is waited for."""
    raise Ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
