"""The bytes that are verified are the bytes that the id is made of, less one signature."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import BadSignature
from reconciler.source.signed import MAX_OBJECT, split_commit, split_tag

TREE = b"tree " + b"1" * 40 + b"\n"
PARENT = b"parent " + b"2" * 40 + b"\n"
PEOPLE = b"author A <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\n"
ARMOUR = b"-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\nAAAA\n-----END SSH SIGNATURE-----\n"
GPGSIG = b"gpgsig " + ARMOUR.rstrip(b"\n").replace(b"\n", b"\n ") + b"\n"
MERGETAG = (
    b"mergetag object " + b"3" * 40 + b"\n type commit\n tag v1\n tagger T <t@x> 1 +0000\n \n"
    b" text\n " + ARMOUR.rstrip(b"\n").replace(b"\n", b"\n ") + b"\n"
)
BODY = b"\nsubject\n\nbody\n"


def name_of(raw: bytes, kind: bytes = b"commit") -> str:
    return hashlib.sha1(b"%s %d\0%s" % (kind, len(raw), raw)).hexdigest()  # noqa: S324


def split(raw: bytes):
    return split_commit(name_of(raw), raw)


def test_a_signature_is_cut_out_and_every_other_byte_stays() -> None:
    found = split(TREE + PARENT + PEOPLE + GPGSIG + BODY)
    assert found.payload == TREE + PARENT + PEOPLE + BODY
    assert found.signature == ARMOUR
    assert found.kind == "ssh"


def test_a_merged_tag_stays_in_what_was_signed() -> None:
    found = split(TREE + PARENT + PEOPLE + MERGETAG + GPGSIG + BODY)
    assert found.payload == TREE + PARENT + PEOPLE + MERGETAG + BODY
    assert found.signature == ARMOUR


def test_the_signature_of_a_merged_tag_is_not_that_of_the_commit() -> None:
    assert split(TREE + PARENT + PEOPLE + MERGETAG + BODY).kind == ""


def test_a_signature_in_the_message_is_text() -> None:
    assert split(TREE + PEOPLE + BODY + GPGSIG + ARMOUR).kind == ""


def test_carriage_returns_in_the_message_are_kept() -> None:
    raw = TREE + PEOPLE + GPGSIG + b"\nsubject\r\n\r\nbody\r\n"
    assert split(raw).payload == TREE + PEOPLE + b"\nsubject\r\n\r\nbody\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(TREE + PEOPLE + GPGSIG + GPGSIG + BODY, id="two signatures"),
        pytest.param(
            TREE + PEOPLE + GPGSIG + GPGSIG.replace(b"gpgsig", b"gpgsig-sha256") + BODY,
            id="two kinds of signatures",
        ),
        pytest.param(
            TREE + PEOPLE + GPGSIG.replace(b"gpgsig", b"gpgsig-sha256") + BODY,
            id="the signature of another kind of repository",
        ),
        pytest.param(GPGSIG + TREE + PEOPLE + BODY, id="a signature before the tree"),
        pytest.param(TREE + PEOPLE + TREE + BODY, id="a second tree"),
        pytest.param(TREE + PEOPLE + PARENT + BODY, id="a parent after the people"),
        pytest.param(TREE + PEOPLE + b"author B <b@x> 1 +0000\n" + BODY, id="a second author"),
        pytest.param(TREE.replace(b"1" * 40, b"1" * 39) + PEOPLE + BODY, id="a short id"),
        pytest.param(TREE + PEOPLE.replace(b"> 1", b">\n 1") + BODY, id="an author in two lines"),
        pytest.param(TREE + PEOPLE + GPGSIG + b"\nsub\0ject\n", id="a NUL in the message"),
        pytest.param(TREE + PEOPLE.replace(b"A", b"A\0") + BODY, id="a NUL in a header"),
        pytest.param((TREE + PEOPLE + GPGSIG).replace(b"\n", b"\r\n") + b"\r\nx\n", id="CRLF"),
        pytest.param(TREE + PEOPLE + b"gpgsig\n" + BODY, id="a header without a value"),
        pytest.param(TREE + PEOPLE + b"\tgpgsig x\n" + BODY, id="a tab before a header"),
        pytest.param(TREE + PEOPLE.rstrip(b"\n"), id="no end of the headers"),
        pytest.param(b" x\n" + TREE + PEOPLE + BODY, id="it begins with a continuation"),
        pytest.param(b"", id="nothing at all"),
        pytest.param(TREE + PEOPLE + BODY + b"x" * MAX_OBJECT, id="too large"),
        pytest.param(
            TREE + PEOPLE + GPGSIG.replace(b"gpgsig ", b"gpgsig x\n ") + BODY,
            id="something before the armour",
        ),
        pytest.param(
            TREE + PEOPLE + GPGSIG + b" " + ARMOUR.replace(b"\n", b"\n ")[:-1] + BODY,
            id="two armours in one header",
        ),
        pytest.param(
            TREE + PEOPLE + GPGSIG.replace(b"SSH SIGNATURE", b"SIGNED MESSAGE") + BODY,
            id="a kind that nobody verifies",
        ),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(BadSignature, match="malformed"):
        split(raw)


def test_content_that_is_not_what_the_id_says_is_refused() -> None:
    raw = TREE + PEOPLE + GPGSIG + BODY
    with pytest.raises(BadSignature, match="its id"):
        split_commit(name_of(raw), raw.replace(b"subject", b"Subject"))


@given(st.binary(max_size=400))
def test_any_bytes_are_split_or_refused(raw: bytes) -> None:
    try:
        found = split(raw)
    except BadSignature:
        return
    assert found.payload == raw or found.signature


PIECES = [
    TREE,
    PARENT,
    PEOPLE,
    GPGSIG,
    MERGETAG,
    ARMOUR,
    b"\n",
    b" ",
    b"x y\n",
    b"\r\n",
    b"gpgsig ",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_whatever_is_taken_for_signed_can_be_put_together_again(pieces: list[bytes]) -> None:
    """A second reader: the signed content is the object with one header put back in its place."""
    raw = b"".join(pieces)
    try:
        found = split(raw)
    except BadSignature:
        return
    if not found.kind:
        assert found.payload == raw
        return
    header = b"gpgsig " + found.signature.rstrip(b"\n").replace(b"\n", b"\n ") + b"\n"
    assert raw.count(header, 0, raw.index(b"\n\n") + 1) == 1
    at = raw.index(header)
    assert raw[:at] + raw[at + len(header) :] == found.payload


@given(st.integers(0, 400), st.integers(0, 255))
def test_one_changed_byte_never_leaves_the_same_signed_content(at: int, byte: int) -> None:
    raw = TREE + PARENT + PEOPLE + MERGETAG + GPGSIG + BODY
    good = split(raw)
    at %= len(raw)
    if raw[at] == byte:
        return
    changed = raw[:at] + bytes([byte]) + raw[at + 1 :]
    try:
        found = split(changed)
    except BadSignature:
        return
    assert (found.payload, found.signature) != (good.payload, good.signature)


TAG = b"object " + b"4" * 40 + b"\ntype commit\ntag v1\ntagger T <t@x> 1 +0000\n\ntext\n"


def tag(raw: bytes, name: str = "v1"):
    return split_tag(name_of(raw, b"tag"), raw, name)


def test_the_signature_of_a_tag_is_its_end() -> None:
    found = tag(TAG + ARMOUR)
    assert (found.payload, found.signature, found.kind) == (TAG, ARMOUR, "ssh")


def test_a_tag_without_a_signature_is_unsigned() -> None:
    assert tag(TAG).kind == ""


@pytest.mark.parametrize(
    "raw",
    [
        TAG + ARMOUR + ARMOUR,
        TAG + ARMOUR + b"more text\n",
        TAG.replace(b"type commit", b"type tree") + ARMOUR,
        TAG.replace(b"tagger", b"gpgsig x\ntagger") + ARMOUR,
        TAG.replace(b"text", b"te\0xt") + ARMOUR,
        TAG + b"-----BEGIN PGP MESSAGE-----\n" + ARMOUR,
    ],
)
def test_an_odd_tag_is_refused(raw: bytes) -> None:
    with pytest.raises(BadSignature, match="malformed"):
        tag(raw)


def test_a_signed_tag_counts_under_its_own_name_only() -> None:
    with pytest.raises(BadSignature, match="made as v1, not as v2"):
        tag(TAG + ARMOUR, "v2")
