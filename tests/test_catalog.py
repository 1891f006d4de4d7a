"""Catalog, Plan and Report survive JSON whole, and nothing else is taken for one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.catalog import (
    STATUSES,
    Catalog,
    Declaration,
    Plan,
    Report,
    Result,
    check_schema,
    decode_param,
    dumps,
    encode_param,
    show_value,
)
from reconciler.errors import Mark, ProtocolError
from reconciler.resource import Change, Content, Secret, Value

text = st.text(max_size=8)
texts = st.lists(text, max_size=3).map(tuple)
value = st.recursive(
    st.none() | st.booleans() | st.integers() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
mark = st.builds(Mark, text, st.integers(0, 9999), st.integers(0, 999))
seconds = st.integers(0, 10**6).map(lambda ms: ms / 1000)
declaration = st.builds(
    Declaration, text, text, st.dictionaries(text, value, max_size=3), mark, text, texts, texts, texts,
    st.booleans(), st.sampled_from([900.0, 1.5]), st.booleans(), text, text,
)  # fmt: skip
catalog = st.builds(
    Catalog, text, st.lists(declaration, max_size=3).map(tuple), text, st.booleans(), text,
    st.dictionaries(text, text, max_size=2),
)  # fmt: skip
result = st.builds(
    Result, text, st.sampled_from(sorted(STATUSES)), mark, text, text,
    st.lists(st.builds(Change, text, value, value), max_size=2).map(tuple), text, text, text, texts,
    text, texts, seconds,
)  # fmt: skip
results = st.lists(result, max_size=3).map(tuple)
plan = st.builds(Plan, text, results, text, st.booleans(), texts, seconds)
report = st.builds(
    Report, text, results, text, st.booleans(), texts, seconds, text, text, seconds, st.booleans()
)


@given(catalog | plan | report)
def test_a_document_survives_json(document: Catalog | Plan | Report) -> None:
    encoded = dumps(document.to_json())
    assert type(document).from_json(json.loads(encoded)) == document
    assert dumps(type(document).from_json(json.loads(encoded)).to_json()) == encoded


@given(catalog)
def test_the_same_data_give_the_same_bytes(document: Catalog) -> None:
    turned = json.loads(dumps(document.to_json()))
    reversed_keys = {key: turned[key] for key in reversed(turned)}
    assert dumps(reversed_keys) == dumps(document.to_json())
    assert dumps(document.to_json()).isascii()


broken = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "status", "source", "changes"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.data())
def test_a_document_with_any_part_broken_is_a_protocol_error_or_well_formed(
    data: st.DataObject,
) -> None:
    document = data.draw(report)
    encoded = document.to_json()
    for key in data.draw(st.sets(st.sampled_from(sorted(encoded)), min_size=1, max_size=3)):
        if data.draw(st.booleans()):
            encoded[key] = data.draw(broken)
        else:
            encoded.pop(key)
    try:
        found = Report.from_json(encoded)
    except ProtocolError:
        return
    dumps(found.to_json())
    assert all(isinstance(one, str) for one in found.warnings)
    assert sum(found.counts().values()) == len(found.results)
    assert isinstance(found.failed, bool)


def well_formed() -> dict[str, object]:
    return Report("h", (Result("file:/a", "ok", Mark("s.yml", 1)),), run="r").to_json()


@pytest.mark.parametrize(
    "key, value",
    [
        ("results", [{"id": "x", "status": "fine", "source": ["f", 1, 1]}]),
        ("results", [{"id": "x", "status": "ok", "source": ["f", "one", 1]}]),
        ("results", [{"id": "x", "status": "ok"}]),
        ("results", ["x"]),
        ("results", 5),
        ("warnings", "text"),
        ("seconds", float("nan")),
        ("started", "soon"),
        ("schema", ["reconciler/report", 2]),
        ("schema", None),
    ],
)
def test_what_is_no_report_is_refused(key: str, value: object) -> None:
    Report.from_json(well_formed())
    with pytest.raises(ProtocolError):
        Report.from_json({**well_formed(), key: value})


def test_schemas_are_told_apart() -> None:
    with pytest.raises(ProtocolError, match="expected a reconciler/plan of version 1"):
        check_schema(well_formed(), "reconciler/plan")


def test_ids_name_type_and_key_and_handlers_their_title() -> None:
    mark = Mark("s")
    assert Declaration("file", "/a", {}, mark).id == "file:/a"
    assert (
        Declaration("service", "x", {}, mark, title="restart x", handler=True).id
        == "handler:restart x"
    )


def test_params_travel_as_references_and_come_back_whole() -> None:
    content = Content("0" * 64, 3)
    assert decode_param(json.loads(json.dumps(encode_param(content))), {}) == content
    secret = decode_param({"$secret": "h"}, {"h": "hunter2"})
    assert secret == "hunter2"
    assert isinstance(secret, Secret)
    assert decode_param({"plain": 1}, {}) == {"plain": 1}


def test_counts_always_have_the_common_statuses() -> None:
    mark = Mark("s")
    some = Plan("h", (Result("a", "pending", mark), Result("b", "pending", mark)))
    assert some.counts() == {"ok": 0, "changed": 0, "failed": 0, "blocked": 0, "pending": 2}
    assert some.differs
    assert not some.failed
    assert Plan("h", (Result("a", "blocked", mark),)).failed


def test_values_are_shown_as_text_or_json() -> None:
    values: list[Value] = ["ä", None, True, ["ä"]]
    assert [show_value(one) for one in values] == ["ä", "null", "true", '["ä"]']
