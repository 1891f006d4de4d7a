"""A commit or tag, split byte by byte into what was signed and the signature.

Stricter than git: whatever could be read in two ways is refused, so that the bytes that are
verified are the bytes that the id is made of, less one signature in its one place.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal, NamedTuple

from reconciler.errors import BadSignature, Damaged

#: The largest commit or tag object that is looked at, in bytes.
MAX_OBJECT = 1 << 20

Kind = Literal["", "ssh", "openpgp"]

_SSH = (b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----")
_PGP = (b"-----BEGIN PGP SIGNATURE-----", b"-----END PGP SIGNATURE-----")
#: What starts a signature in the body of a tag, of whatever kind.
_ARMOUR = re.compile(rb"^-----BEGIN [A-Z0-9 ]*(?:SIGNATURE|MESSAGE)-----", re.MULTILINE)
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9:._-]*")
_OBJECT_ID = re.compile(rb"(?:[0-9a-f]{40}|[0-9a-f]{64})")
_LINEAGE = re.compile(rb"tree %s\n(?:parent %s\n)*" % (2 * (_OBJECT_ID.pattern,)))
_SIGNATURES = (b"gpgsig", b"gpgsig-sha256")


class Signed(NamedTuple):
    """payload: the bytes that were signed. signature: in its armour, b"" where there is none."""

    payload: bytes
    signature: bytes
    kind: Kind


class Header(NamedTuple):
    """One header: `raw` is all of its lines with their ends, `value` without the leading blanks."""

    name: bytes
    value: bytes
    raw: bytes


def split_commit(id_: str, raw: bytes) -> Signed:
    """Split the content of a commit object. Raises BadSignature for anything that is odd."""
    headers, rest = _open(id_, "commit", raw)
    names = [header.name for header in headers]
    parents = names.count(b"parent")
    expected = [b"tree", *[b"parent"] * parents, b"author", b"committer"]
    if names[: len(expected)] != expected or set(names[len(expected) :]) & set(expected):
        raise _odd(id_, "its headers are not in the order of a commit")
    if not all(_OBJECT_ID.fullmatch(header.value) for header in headers[: parents + 1]):
        raise _odd(id_, "a parent or its tree is no object id")
    signatures = [header for header in headers if header.name in _SIGNATURES]
    if not signatures:
        return Signed(raw, b"", "")
    wanted = _SIGNATURES[len(id_) == 64]
    if len(signatures) > 1 or signatures[0].name != wanted:
        raise _odd(id_, "it has several signatures, or one for another kind of repository")
    kept = b"".join(header.raw for header in headers if header.name != wanted)
    signature = signatures[0].value + b"\n"
    return Signed(kept + b"\n" + rest, signature, _kind(id_, signature))


def split_tag(id_: str, raw: bytes, name: str) -> Signed:
    """Split the content of an annotated tag that is offered as `name`, like `v1.2`.

    Raises BadSignature for anything that is odd, and for the tag of another name.
    """
    headers, rest = _open(id_, "tag", raw)
    names = [header.name for header in headers]
    if names != [b"object", b"type", b"tag", b"tagger"]:
        raise _odd(id_, "its headers are not those of a tag")
    if not _OBJECT_ID.fullmatch(headers[0].value) or headers[1].value != b"commit":
        raise _odd(id_, "it does not name a commit")
    if headers[2].value != name.encode():
        raise BadSignature(
            f"the tag object {id_[:12]} was made as {_text(headers[2].value)}, not as {name}",
            hint="a signed tag counts under its own name only: make a new one with git tag -s",
        )
    found = list(_ARMOUR.finditer(rest))
    if not found:
        return Signed(raw, b"", "")
    if len(found) > 1:
        raise _odd(id_, "it has several signatures")
    at = len(raw) - len(rest) + found[0].start()
    return Signed(raw[:at], raw[at:], _kind(id_, raw[at:]))


class Lineage(NamedTuple):
    """What a commit is made of: its tree, and the commits that it was made on top of."""

    tree: str
    parents: tuple[str, ...]


def lineage(id_: str, raw: bytes) -> Lineage:
    """From the content of a commit object, as git reads it. Raises Damaged for anything else."""
    found = _LINEAGE.match(raw)
    if found is None:
        raise Damaged(
            f"the commit {id_[:12]} is malformed: it does not begin with a tree",
            hint=f"it was not made by git as we know it; look at it: git cat-file -p {id_[:12]}",
        )
    tree, *parents = (line.split()[1].decode("ascii") for line in found[0].splitlines())
    return Lineage(tree, tuple(parents))


def tagged(raw: bytes) -> str:
    """The id that the first header of a tag object names."""
    return raw[len(b"object ") :].split(b"\n", 1)[0].decode("ascii", "replace")


def message(raw: bytes) -> str:
    """The message of a commit, decoded as far as it can be."""
    return raw.partition(b"\n\n")[2].decode("utf-8", "replace")


def _open(id_: str, kind: str, raw: bytes) -> tuple[list[Header], bytes]:
    """The headers, and what comes behind the empty line."""
    if len(raw) > MAX_OBJECT:
        raise _odd(id_, f"it has {len(raw)} bytes")
    algorithm = hashlib.sha256 if len(id_) == 64 else hashlib.sha1
    if algorithm(b"%s %d\0%s" % (kind.encode(), len(raw), raw)).hexdigest() != id_:
        raise _odd(id_, "its content is not what its id says")
    if b"\0" in raw:
        raise _odd(id_, "it has a NUL byte")
    head, end, rest = raw.partition(b"\n\n")
    if not end:
        raise _odd(id_, "its headers do not end")
    return _headers(id_, head), rest


def _headers(id_: str, head: bytes) -> list[Header]:
    headers: list[Header] = []
    for line in head.split(b"\n"):
        if b"\r" in line:
            raise _odd(id_, "a header has a carriage return")
        if line.startswith(b" ") and headers:
            name, value, raw = headers[-1]
            headers[-1] = Header(name, value + b"\n" + line[1:], raw + line + b"\n")
            continue
        name, blank, value = line.partition(b" ")
        if not blank or not _NAME.fullmatch(name):
            raise _odd(id_, "a header has no name or no value")
        headers.append(Header(name, value, line + b"\n"))
    single = (b"tree", b"parent", b"author", b"committer", b"object", b"type", b"tag", b"tagger")
    if any(header.name in single and b"\n" in header.value for header in headers):
        raise _odd(id_, "a header goes on in a second line")
    return headers


def _kind(id_: str, signature: bytes) -> Kind:
    """The kind of a signature that is one armoured block and nothing else."""
    kinds: tuple[tuple[Kind, tuple[bytes, bytes]], ...] = (("ssh", _SSH), ("openpgp", _PGP))
    for kind, (begin, end) in kinds:
        lines = signature.rstrip(b"\n").split(b"\n")
        marks = [line for line in lines if line.startswith(b"-----")]
        if lines[0] == begin and lines[-1] == end and marks == [begin, end]:
            return kind
    raise _odd(id_, "its signature is of no kind that we verify, or has something around it")


def _odd(id_: str, what: str) -> BadSignature:
    return BadSignature(
        f"the object {id_[:12]} is malformed: {what}",
        hint="it was not made by git as we know it; look at it: git cat-file -p " + id_[:12],
    )


def _text(value: bytes) -> str:
    shown = value.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in shown)[:80]
