"""An engine whose system calls are counted, so that it can be killed or refused at each of them.

What changes a disk goes through the kernel: a kill before every call that does covers each
instant at which a run can be cut off, the middle of SQLite's commits included.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from behaviour.crash import Victim
from behaviour.world import World
from reconciler.engine.wire import Message

#: Why this cannot be done here, or "".
OBSTACLE = "" if platform.machine() == "x86_64" else "the numbers of system calls are x86-64's"

SEIZE, INTERRUPT, SYSCALL, POKEUSER, SYSCALL_INFO = 0x4206, 0x4207, 24, 6, 0x420E
SYSGOOD, EXITKILL = 1, 1 << 20
#: Offsets in the user area: the call that is asked for, and what it gives.
ORIG_RAX, RAX = 15 * 8, 10 * 8
ENTRY = 1

#: Calls that change something: number -> name. Of those in BY_FD the first argument is a descriptor.
CHANGES = {
    1: "write", 18: "pwrite64", 74: "fsync", 75: "fdatasync", 77: "ftruncate", 82: "rename",
    83: "mkdir", 84: "rmdir", 87: "unlink", 90: "chmod", 91: "fchmod", 92: "chown", 93: "fchown",
    190: "fsetxattr", 257: "openat", 258: "mkdirat", 260: "fchownat", 263: "unlinkat",
    264: "renameat", 265: "linkat", 266: "symlinkat", 268: "fchmodat", 280: "utimensat",
    285: "fallocate", 316: "renameat2",
}  # fmt: skip
BY_FD = {"write", "pwrite64"}
#: Which arguments say what a call is about: a directory (None: the current one) and a name in it, or
#: a descriptor alone.
ABOUT = {
    "renameat": (2, 3), "rename": (None, 1), "mkdirat": (0, 1), "unlinkat": (0, 1), "linkat": (2, 3),
    "symlinkat": (1, 2), "unlink": (None, 0), "write": (0, None), "pwrite64": (0, None),
    "fsync": (0, None), "fdatasync": (0, None),
}  # fmt: skip
#: Those that a full disk refuses.
TAKE_SPACE = {
    "write", "pwrite64", "ftruncate", "mkdir", "openat", "mkdirat", "linkat", "symlinkat",
    "fallocate",
}  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Info(ctypes.Structure):
    _fields_ = [
        ("op", ctypes.c_uint8),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
    ]


class Outcome(NamedTuple):
    """names: the calls that changed something below the root, or would have. paths: what each was
    about, where `ABOUT` knows. answer: the last message of the engine, its report or its error; None
    if it was killed before."""

    names: list[str]
    paths: list[str]
    answer: Message | None


#: Says of call number `index` (from 0) what is to become of it: 0 nothing, an errno, or KILL.
Fate = Callable[[int, str], int]
KILL = -1


def run(world: World, fate: Fate) -> Outcome:
    """An apply of the world's catalog, durable as on a real host, each of its calls judged."""
    answers: list[Message] = []
    names: list[str] = []
    paths: list[str] = []
    with Victim(world) as victim:
        pid = victim.process.pid
        _ptrace(SEIZE, pid, 0, SYSGOOD | EXITKILL)
        _ptrace(INTERRUPT, pid)
        talk = threading.Thread(target=_converse, args=(victim, answers))
        talk.start()
        try:
            victim.process.returncode = _follow(pid, fate, names, paths, str(world.root))
        finally:
            victim.kill()
            talk.join()
    return Outcome(names, paths, answers[-1] if answers else None)


def _converse(victim: Victim, answers: list[Message]) -> None:
    try:
        victim.start("batch")
        while True:
            message = victim.next()
            if "event" not in message:
                answers.append(message)
                break
    except (EOFError, OSError):
        return
    finally:
        victim.hang_up()


def _follow(pid: int, fate: Fate, names: list[str], paths: list[str], root: str) -> int:
    """Until it has ended; its exit code as Popen has it."""
    entering, refusal = True, 0
    while True:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        number = os.WSTOPSIG(status)
        if number != signal.SIGTRAP | 0x80:
            # A signal is passed on; a stop of the tracer's own making is not one.
            _ptrace(SYSCALL, pid, 0, 0 if status >> 16 else number)
            continue
        if entering:
            refusal = _judge(pid, fate, names, paths, root)
        elif refusal:
            _ptrace(POKEUSER, pid, RAX, -refusal & (1 << 64) - 1)
        entering = not entering
        _ptrace(SYSCALL, pid)


def _judge(pid: int, fate: Fate, names: list[str], paths: list[str], root: str) -> int:
    """Count a call if it changes something; the errno that it is refused with, or 0."""
    info = _Info()
    _ptrace(SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info))
    name = CHANGES.get(info.nr)
    if info.op != ENTRY or name is None:
        return 0
    if name == "openat" and (
        not info.args[2] & os.O_CREAT or _is_elsewhere(pid, info.args[1], root)
    ):
        return 0
    if name in BY_FD and not os.readlink(f"/proc/{pid}/fd/{info.args[0]}").startswith(f"{root}/"):
        return 0
    names.append(name)
    paths.append(_about(pid, name, info.args))
    verdict = fate(len(names) - 1, name)
    if verdict == KILL:
        os.kill(pid, signal.SIGKILL)
        return 0
    if verdict:
        _ptrace(POKEUSER, pid, ORIG_RAX, (1 << 64) - 1)
    return verdict


def _is_elsewhere(pid: int, address: int, root: str) -> bool:
    """Whether the name that a call is given is an absolute one outside of our root."""
    name = _text(pid, address)
    return name.startswith("/") and not name.startswith(f"{root}/")


def _about(pid: int, name: str, args: Sequence[int]) -> str:
    """The path that a call is about; "" where that is not known."""
    directory, text = ABOUT.get(name, (None, None))
    place = "" if directory is None else os.readlink(f"/proc/{pid}/fd/{args[directory]}")
    return place if text is None else os.path.join(place, _text(pid, args[text]))


def _text(pid: int, address: int) -> str:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        # No further than the end of the page: what comes after it may not be there.
        return os.fsdecode(memory.read(4096 - address % 4096).partition(b"\0")[0])


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, pid, address, data) == -1:
        code = ctypes.get_errno()
        if code != errno.ESRCH:  # it was killed; waitpid tells
            raise OSError(code, f"ptrace {request:#x}: {os.strerror(code)}")
