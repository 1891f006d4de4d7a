"""Runs on the host, before the engine: takes the engine out of the cache, or in from stdin.

It travels as text to a `python3 -c` that may be any Python 3, and says so if that is too old;
so it uses no syntax that is younger than 3.4. What it answers are lines on stdout:

    old 3.6.8       this Python is too old
    need            send the engine
    go              from here on the engine speaks
    error TEXT      it could not be started

The cache holds the engine compiled, because compiling costs more than everything else in a run
that changes nothing. Only what nobody else can write is believed: the directory must be ours
and 0700, the file ours and whole. Otherwise the engine lives in memory and leaves nothing.
"""

import os
import sys

OLDEST = (3, 9)

if sys.version_info < OLDEST:
    os.write(1, ("old %d.%d.%d\n" % sys.version_info[:3]).encode())  # noqa: UP031  old syntax
    os._exit(1)

# Only now: what an old Python lacks must not hide that it is old.
import contextlib  # noqa: E402
import hashlib  # noqa: E402
import importlib.machinery  # noqa: E402
import importlib.util  # noqa: E402
import marshal  # noqa: E402
import pwd  # noqa: E402
import stat  # noqa: E402
import types  # noqa: E402
from collections.abc import Iterator  # noqa: E402

#: Dotted name of a module -> whether it is a package, and its text, or its code as bytes.
Parts = dict[str, tuple[bool, "str | bytes"]]

#: Engines that are kept: several versions of the tool may take turns on one host.
KEEP = 3
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "LANG": "C.UTF-8",
}


def arrive(sha256: str, size: int, keep: bool) -> int:
    """Start the engine with this SHA-256 and size; its exit code. keep: use the cache."""
    os.chdir("/")
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    os.umask(0o077)
    tag = importlib.util.MAGIC_NUMBER.hex()[:4]
    name = "-".join((sha256, str(sys.implementation.cache_tag), tag))
    shelf = open_shelf() if keep else None
    parts = None if shelf is None else load(shelf, name)
    if parts is None:
        os.write(1, b"need\n")
        packed = take(size)
        if hashlib.sha256(packed).hexdigest() != sha256:
            os.write(1, b"error the engine did not arrive whole\n")
            return 1
        parts = unpack(packed)
        if shelf is not None:
            parts = compile_all(parts)
            store(shelf, name, parts)
    sys.meta_path.insert(0, Modules(parts))
    lighten()
    try:
        from reconciler.engine.__main__ import main
    except ImportError as error:
        os.write(1, ("error this Python is not whole: " + str(error) + "\n").encode())
        return 1
    os.write(1, b"go\n")
    return main()


def take(size: int) -> bytes:
    """`size` bytes from stdin, and not one more: what follows is for the engine."""
    pieces = []
    while size:
        piece = os.read(0, min(size, 1 << 20))
        if not piece:
            os._exit(1)
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def unpack(packed: bytes) -> Parts:
    """The modules of a zip: dotted name -> (whether it is a package, its text)."""
    # Here, because a host that has the engine in its cache has no use for them.
    import io
    import zipfile

    parts = {}
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        for path in archive.namelist():
            words = path[:-3].split("/")
            package = words[-1] == "__init__"
            if words[0] == "reconciler":
                text = archive.read(path).decode()
                parts[".".join(words[:-1] if package else words)] = (package, text)
    return parts


def compiled(name: str, text: "str | bytes") -> bytes:
    """The code of a module, as bytes."""
    return marshal.dumps(compile(text, name.replace(".", "/") + ".py", "exec", dont_inherit=True))


def compile_all(parts: Parts) -> Parts:
    """The same modules, as code."""
    return {one: (is_one, compiled(one, text)) for one, (is_one, text) in parts.items()}


class Modules:
    """Imports modules from memory: each is text, or bytes that are compiled already."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> "importlib.machinery.ModuleSpec | None":
        """As importlib wants it."""
        if name not in self.parts:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=self.parts[name][0])  # type: ignore[arg-type]  # is one

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Nothing: modules are made in the usual way."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the module's code."""
        body = self.parts[module.__name__][1]
        code = body if isinstance(body, bytes) else compiled(module.__name__, body)
        exec(marshal.loads(code), module.__dict__)  # noqa: S102, S302  ours, and whole


def lighten() -> None:
    """Let dataclasses do without inspect, whose import costs as much as Python's own start.

    It asks inspect for the docstring of a class that has none, and nobody here reads that.
    """
    with late("inspect"):
        importlib.import_module("dataclasses")


@contextlib.contextmanager
def late(name: str) -> Iterator[None]:
    """What is imported within this gets a module that is imported only once it is needed.

    Not for who needs it already while it is imported itself.
    """
    absent = name not in sys.modules
    if absent:
        sys.modules[name] = Late(name)
    try:
        yield
    finally:
        if absent:
            del sys.modules[name]


class Late(types.ModuleType):
    """A module that is imported once more than `signature` is asked of it."""

    @staticmethod
    def signature(_: object) -> str:
        """As the end of a docstring."""
        return ""

    def __getattr__(self, name: str) -> object:
        return getattr(importlib.import_module(self.__name__), name)


# -- the cache -------------------------------------------------------------------------------


def open_shelf() -> "int | None":
    """A descriptor of the directory in which engines are kept; None where there is none to trust.

    Root's is in memory and gone after a reboot: looking at a host must not write to its disk.
    """
    if os.geteuid() == 0:
        base, names = "/run", ["reconciler", "engine"]
    else:
        base, names = pwd.getpwuid(os.geteuid()).pw_dir, [".cache", "reconciler", "engine"]
    try:
        fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=fd)
            above, fd = fd, os.open(name, DIRECTORY, dir_fd=fd)
            os.close(above)
    except (OSError, KeyError):
        return None
    found = os.fstat(fd)
    private = found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700
    return fd if private else None


def load(shelf: int, name: str) -> "Parts | None":
    """The parts of a kept engine; None if it is not there or not whole."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=shelf)
    except OSError:
        return None
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
            return None
        digest, _, body = file.read().partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        return None
    os.utime(name, dir_fd=shelf)
    return marshal.loads(body)  # noqa: S302  from a file that is ours, and whole


def store(shelf: int, name: str, parts: Parts) -> None:
    """Keep an engine; where there is no room, it is sent again next time."""
    body = marshal.dumps(parts)
    temp = ".".join(("", name, str(os.getpid())))
    try:
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=shelf)
        with open(fd, "wb") as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        os.rename(temp, name, src_dir_fd=shelf, dst_dir_fd=shelf)
        ages = [(os.stat(one, dir_fd=shelf).st_mtime, one) for one in os.listdir(shelf)]
        for _, old in sorted(ages, reverse=True)[KEEP:]:
            os.unlink(old, dir_fd=shelf)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temp, dir_fd=shelf)


if __name__ == "__main__":
    sys.exit(arrive(sys.argv[2], int(sys.argv[3]), sys.argv[4] == "keep"))
