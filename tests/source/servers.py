"""Git servers on loopback: https that behaves or misbehaves, and a real sshd."""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from source.signers import git_environment


class Server(ThreadingHTTPServer):
    """`git http-backend` behind https, with a fault in the answer that carries the pack.

    fault: a kind and a number: `cut`, `hang` or `flip` at that share of the bytes, `endless` for a
    pack without end, `refs` for so many names of refs, 0 for names without end; password: what it asks for. bundles: an address of a bundle that it tells clients to
    fetch first. seen: the headers of all requests, and what was asked. hanging: how many requests
    hang now; they are reset when the fault is another one. look: called while a client waits.
    """

    daemon_threads = True

    def __init__(
        self, root: Path, certificate: tuple[str, str], address: str = "127.0.0.1", port: int = 0
    ) -> None:
        super().__init__((address, port), Handler)
        self.root = root
        self.fault: tuple[str, float] = ("", 0.0)
        self.redirect = ""
        self.password = ""
        self.bundles = ""
        self.seen: list[dict[str, str]] = []
        self.hanging = 0
        self.look: Callable[[], object] = lambda: None
        self.stopped = threading.Event()
        self.socket = with_tls(self.socket, certificate)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://{self.server_address[0]}:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what these tests are about."""

    def stop(self) -> None:
        self.stopped.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Not in the output of the tests."""

    @property
    def git(self) -> Server:
        assert isinstance(self.server, Server)
        return self.server

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def answer(self, asked: bytes) -> None:
        said = {"path": self.path, "asked": asked[:100].decode("ascii", "replace")}
        self.git.seen.append({**said, **dict(self.headers.items())})
        self.git.look()
        if self.git.redirect:
            self.send_response(302)
            self.send_header("Location", self.git.redirect + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        wanted = "Basic " + base64.b64encode(self.git.password.encode()).decode()
        if self.git.password and self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        headers, body = self.backend(asked)
        if self.git.bundles:
            body = self.with_bundles(asked, body)
        # Compressed or not, the request that fetches is the one that names its wants.
        kind, share = self.git.fault if self.path.endswith("upload-pack") else ("", 0.0)
        asks_for_refs = b"command=ls-refs" in asked
        if kind and (asks_for_refs if kind != "refs" else not asks_for_refs):
            kind = ""
        if kind and kind != "refs" and len(body) < 2000:
            kind = ""
        length = 1 << 40 if kind in ("endless", "refs") else len(body)
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if kind == "refs":
            self.send_refs(int(share))
        elif kind == "endless":
            self.send_pack(body)
        else:
            self.send_body(body, kind, int(len(body) * share))

    def send_refs(self, count: int) -> None:
        """Names of refs that all end like the one that was asked for."""
        for number in itertools.count() if count == 0 else range(count):
            self.wfile.write(packet(f"{'1' * 40} refs/heads/{number:040}/refs/heads/main\n"))
            if self.git.stopped.is_set():
                return
        self.wfile.write(b"0000")
        self.wfile.flush()
        self.close_connection = True

    def send_pack(self, body: bytes) -> None:
        """A pack that begins as it must, and goes on with one sound object after another: 60 GB of them."""
        begin, start, _ = body.partition(packet("packfile\n"))
        size = 60_000
        head = bytes([0xB0 | size & 0x0F, 0x80 | size >> 4 & 0x7F, size >> 11])
        noise = head + zlib.compress(os.urandom(size), 0)
        self.wfile.write(begin + start + sideband(b"PACK" + struct.pack(">II", 2, 1_000_000)))
        while start and not self.git.stopped.is_set():
            self.wfile.write(sideband(noise))

    def with_bundles(self, asked: bytes, body: bytes) -> bytes:
        """The answer of a server that has a bundle to offer, in the second protocol of git."""
        if b"command=bundle-uri" in asked:
            lines = ("version=1", "mode=all", f"all.uri={self.git.bundles}")
            return b"".join(packet(f"bundle.{line}") for line in lines) + b"0000"
        advertises = b"version 2\n" in body and body.endswith(b"0000")
        return body[:-4] + packet("bundle-uri\n") + b"0000" if advertises else body

    def send_body(self, body: bytes, kind: str, at: int) -> None:
        if kind == "flip":
            body = body[:at] + bytes([body[at] ^ 0x10]) + body[at + 1 :]
        if kind in ("cut", "hang"):
            self.wfile.write(body[:at])
            self.wfile.flush()
            if kind == "hang":
                self.hang()
            # A reset, not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(body)

    def hang(self) -> None:
        self.git.hanging += 1
        while self.git.fault[0] == "hang" and not self.git.stopped.wait(0.05):
            pass
        self.git.hanging -= 1

    def backend(self, asked: bytes) -> tuple[dict[str, str], bytes]:
        path, _, query = self.path.partition("?")
        environment = {
            **git_environment(),
            "GIT_PROJECT_ROOT": str(self.git.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(asked)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=asked, env=environment, capture_output=True, check=False
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        return dict(line.split(": ", 1) for line in lines if line), body


class Files(ThreadingHTTPServer):
    """A directory behind https, as any web server shows it; git takes it for a repository.

    seen: the paths that were asked for.
    """

    daemon_threads = True

    def __init__(self, root: Path, certificate: tuple[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(FileHandler, directory=str(root)))
        self.seen: list[str] = []
        self.socket = with_tls(self.socket, certificate)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """As above."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class FileHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Not in the output of the tests."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Files)
        self.server.seen.append(self.path)
        super().do_GET()


def with_tls(sock: socket.socket, certificate: tuple[str, str]) -> ssl.SSLSocket:
    """A listening socket that speaks TLS to whoever connects."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


def sideband(data: bytes) -> bytes:
    """A piece of a pack as git sends it."""
    return b"%04x\x01" % (len(data) + 5) + data


def packet(text: str) -> bytes:
    """A line as git sends it."""
    return f"{len(text) + 4:04x}{text}".encode()


def make_certificate(
    directory: Path,
    name: str = "server",
    address: str = "127.0.0.1",
    authority: tuple[str, str] | None = None,
) -> tuple[str, str]:
    """A certificate for an address and its key; without an authority it is its own."""
    certificate, key = str(directory / f"{name}.crt"), str(directory / f"{name}.key")
    signing = ["-CA", authority[0], "-CAkey", authority[1]] if authority else []
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}.example.org", "-out", certificate),
            *("-addext", f"subjectAltName=IP:{address}", "-keyout", key, *signing),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@contextlib.contextmanager
def https_server(
    root: Path, certificate: tuple[str, str], address: str = "127.0.0.1"
) -> Iterator[Server]:
    server = Server(root, certificate, address)
    try:
        yield server
    finally:
        server.stop()


class Stalling:
    """A way to a port of this machine that lets so many bytes of each connection back, no more."""

    def __init__(self, port: int, most: int) -> None:
        self._to, self._most = port, most
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += [client, server]
                for pair in ((client, server, 1 << 40), (server, client, self._most)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, left: int) -> None:
        with contextlib.suppress(OSError):
            while left > 0 and (piece := source.recv(min(left, 1 << 14))):
                sink.sendall(piece)
                left -= len(piece)
            if left > 0:
                sink.shutdown(socket.SHUT_WR)


class Sshd:
    """A real sshd that lets one key in, as whoever runs the tests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("host", "other-host", "client"):
            self._keygen(directory / name)
        self.port = _free_port()
        self.log = directory / "log"
        self.known_hosts = directory / "known_hosts"
        self.knows("host")
        configuration = directory / "sshd_config"
        configuration.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\n"
            f"AuthorizedKeysFile {directory}/client.pub\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nPidFile none\nPermitRootLogin yes\nAcceptEnv GIT_PROTOCOL\n"
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*_sshd(directory), "-D", "-e", "-f", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": _libraries()},
                start_new_session=True,
            )
        self._wait()

    @property
    def url(self) -> str:
        return f"ssh://{_user()}@127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return str(self.directory / "client")

    def knows(self, name: str) -> None:
        """Write a known_hosts file with this server's key, or another's."""
        public = (self.directory / f"{name}.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}")

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _keygen(self, path: Path) -> None:
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
        subprocess.run(argv, check=True)

    def _wait(self) -> None:
        limit = time.monotonic() + 10
        while time.monotonic() < limit and self.process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.02)
        self.stop()
        pytest.fail(f"sshd did not start:\n{self.log.read_text()}")


def sshd_binary() -> str:
    """An sshd of this machine, or of an image that tests boot; "" if there is none."""
    found = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if found or os.geteuid() != 0:
        return found or ""
    images = Path.home() / ".cache" / "reconciler-lab" / "images"
    return next((str(path) for path in sorted(images.glob("bookworm-*/usr/sbin/sshd"))), "")


def _libraries() -> str:
    binary = Path(sshd_binary())
    root = binary.parents[2]
    return (
        ":".join(str(path) for path in root.glob("usr/lib/*-linux-gnu"))
        if root != Path("/")
        else ""
    )


def _sshd(directory: Path) -> list[str]:
    """For root, sshd wants a user and a directory of its own: in a view of the machine that only
    it has."""
    if os.geteuid() != 0:
        return [sshd_binary()]
    (directory / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nsshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"
    )
    (directory / "shadow").write_text("root:*:20000::::::\nsshd:*:20000::::::\n")
    script = (
        'set -e; d=$1; shift; mount --bind "$d/passwd" /etc/passwd; '
        'mount --bind "$d/shadow" /etc/shadow; mount -t tmpfs tmpfs /run; '
        'mkdir -m 755 /run/sshd; exec "$@"'
    )
    return ["unshare", "-m", "/bin/sh", "-c", script, "sshd", str(directory), sshd_binary()]


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def processes_with(text: str, *, environment: bool = False) -> list[str]:
    """The command lines of all processes that name `text`, but for our own.

    environment: each with its environment.
    """
    found: list[str] = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            with contextlib.suppress(OSError):
                known = (directory / "cmdline").read_bytes()
                if text.encode() in known.replace(b"\0", b" "):
                    known += (directory / "environ").read_bytes() if environment else b""
                    found.append(known.replace(b"\0", b" ").decode("utf-8", "replace"))
    return found
