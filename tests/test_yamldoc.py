"""YAML: what it reads, what it refuses, and that nothing hostile crashes it."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import Mark, YamlError
from reconciler.yamldoc import Limits, Map, Seq, Unsafe, load, raw_number


def refused(text: bytes, limits: Limits | None = None) -> YamlError:
    with pytest.raises(YamlError) as caught:
        load(text, "x.yml", limits or Limits())
    return caught.value


# -- what it reads ---------------------------------------------------------------------------


def test_values_know_their_line_and_column() -> None:
    document = load(b"---\nname: web\nitems:\n  - one\n  - {port: 80}\n", "site.yml")
    assert isinstance(document, Map)
    assert document == {"name": "web", "items": ["one", {"port": 80}]}
    assert document.mark == Mark("site.yml", 2, 1)
    assert document.place("name") == Mark("site.yml", 2, 7)
    assert document.key_place("items") == Mark("site.yml", 3, 1)
    items = document["items"]
    assert isinstance(items, Seq)
    assert items.place(1) == Mark("site.yml", 5, 5)
    assert items[1].place("port") == Mark("site.yml", 5, 12)


def test_a_value_that_was_never_written_has_the_place_of_its_mapping() -> None:
    document = load(b"a: 1", "x.yml")
    assert isinstance(document, Map)
    assert document.place("b") == document.mark
    assert document.raw("b") is None


@pytest.mark.parametrize(
    "text,value",
    [
        ("yes", True), ("Off", False), ("n", "n"), ("~", None), ("", None),
        ("0644", 420), ("644", 644), ("0x1F", 31), ("0b101", 5), ("-12", -12), ("1_000", 1000),
        ("08", "08"), ("1.10", 1.1), ("1e3", "1e3"), ("1.0e+3", 1000.0), ("1.2.3", "1.2.3"),
        ("22:22", "22:22"), ("1:30:00", "1:30:00"), ("2024-01-01", "2024-01-01"),
        ("2024-01-01 10:00:00", "2024-01-01 10:00:00"), ("=", "="), ("-", [None]),
    ],
)  # fmt: skip
def test_plain_scalars_are_typed_as_ansible_does_except_times_and_dates(
    text: str, value: object
) -> None:
    document = load(f"key: {text}\n".encode() if text != "-" else b"key:\n  -\n", "x.yml")
    assert document == {"key": value}
    assert isinstance(document["key"], type(value))  # type: ignore[index]


def test_what_was_written_is_kept_beside_what_it_means() -> None:
    document = load(b"mode: 0644\nversion: 1.10\nname: 'yes'\ntext: |\n  a\n", "x.yml")
    assert isinstance(document, Map)
    assert (document["mode"], document.raw("mode"), document.quoted("mode")) == (420, "0644", False)
    assert (document["version"], document.raw("version")) == (1.1, "1.10")
    assert (document["name"], document.quoted("name")) == ("yes", True)
    assert document.quoted("text")
    items = load(b"- 010\n- '010'\n", "x.yml")
    assert isinstance(items, Seq)
    assert (items.raw(0), items.quoted(0), items.quoted(1)) == ("010", False, True)


def test_a_number_remembers_how_it_was_written_where_it_reads_otherwise() -> None:
    document = load(b"[0644, 1.10, 0x1F, 644, 1.5, '0644', +5]", "x.yml")
    assert [raw_number(one) for one in document] == ["0644", "1.10", "0x1F", None, None, None, "+5"]  # type: ignore[union-attr]
    assert f"{document[0]} {document[1]}" == "420 1.1"  # type: ignore[index]
    assert json.dumps(document) == '[420, 1.1, 31, 644, 1.5, "0644", 5]'


def test_explicit_tags_of_the_core_types_are_read() -> None:
    assert load(b"[!!str 1, !!int '7', !!float 2, !!bool yes, !!null '', !!str yes]", "x") == [
        "1", 7, 2.0, True, None, "yes",
    ]  # fmt: skip


def test_unsafe_text_is_marked_so_that_it_is_never_a_template() -> None:
    document = load(b"a: !unsafe '{{ x }}'", "x.yml")
    assert isinstance(document, dict)
    assert document == {"a": "{{ x }}"}
    assert type(document["a"]) is Unsafe


def test_merge_keys_give_defaults_that_keep_their_place() -> None:
    document = load(b"base: &b {a: 1, b: 2}\nuse:\n  <<: *b\n  b: 3\n", "x.yml")
    assert isinstance(document, Map)
    assert document["use"] == {"a": 1, "b": 3}
    assert document["use"].place("a") == Mark("x.yml", 1, 14)
    assert document["use"].place("b") == Mark("x.yml", 4, 6)


def test_of_several_merged_mappings_the_first_wins() -> None:
    document = load(b"x: &x {a: 1}\ny: &y {a: 2, b: 2}\nz: {<<: [*x, *y]}\n", "x.yml")
    assert document["z"] == {"a": 1, "b": 2}  # type: ignore[index]


def test_an_empty_file_is_none() -> None:
    assert load(b"", "x.yml") is None
    assert load(b"# only a comment\n", "x.yml") is None
    assert load(b"---\n", "x.yml") is None


# -- what it refuses -------------------------------------------------------------------------


def test_a_duplicate_key_is_an_error_that_names_both_lines() -> None:
    error = refused(b"a: 1\nb: 2\na: 3\n")
    assert error.mark == Mark("x.yml", 3, 1)
    assert "already at line 1" in error.message
    assert refused(b"1: a\n0x1: b\n").mark == Mark("x.yml", 2, 1)


@pytest.mark.parametrize(
    "text,column",
    [
        (b"a: !!python/object/apply:os.system [id]", 4),
        (b"a: !!python/name:os.system ''", 4),
        (b"a: !!binary aGk=", 4),
        (b"a: !!timestamp 2024-01-01", 4),
        (b"a: !!set {x}", 4),
        (b"a: !mine {x: 1}", 4),
        (b"a: !vault x", 4),
        (b"%TAG ! tag:yaml.org,2002:python/\n---\na: !name:os.system ''", 4),
        (b"a: !!int abc", 4),
    ],
)
def test_unknown_tags_are_refused_at_their_place(text: bytes, column: int) -> None:
    error = refused(text)
    assert error.mark is not None
    assert error.mark.column == column
    assert "tag" in error.message


def test_thirty_thousand_nested_brackets_are_refused_by_depth_without_a_crash() -> None:
    assert "deeper than 64" in refused(b"[" * 30_000).message
    assert "deeper than 64" in refused(b"a: " + b"{a: " * 30_000).message
    assert "deeper than 64" in refused(b"- " * 30_000).message


def test_sixty_four_levels_are_accepted() -> None:
    assert load(b"[" * 64 + b"]" * 64, "x.yml")


def laughs(levels: int) -> bytes:
    lines = [b"l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [
        b"l%d: &l%d [%s]" % (n, n, b", ".join([b"*l%d" % (n - 1)] * 9)) for n in range(1, levels)
    ]
    return b"\n".join(lines)


def test_a_billion_laughs_are_refused_at_once() -> None:
    tracemalloc.start()
    started = time.process_time()
    error = refused(laughs(10))
    seconds = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "aliases" in error.message
    assert seconds < 0.5
    assert peak < 10 << 20


def test_merge_keys_that_grow_exponentially_are_refused() -> None:
    lines = [b"l0: &l0 {" + b", ".join(b"k%d: 1" % n for n in range(100)) + b"}"]
    lines += [b"m%d: {<<: *l0}" % n for n in range(900)]
    limits = Limits(nodes=20_000)
    assert "expand" in refused(b"\n".join(lines), limits).message


def test_limits_on_bytes_events_and_aliases_say_what_to_do() -> None:
    assert "more than the limit" in refused(b"a: " + b"x" * 200, Limits(size=100)).message
    assert "more than 10 values" in refused(b"[1,1,1,1,1,1,1,1,1,1,1]", Limits(events=10)).message
    assert "more than 2 aliases" in refused(b"[&a 1, *a, *a, *a]", Limits(aliases=2)).message
    assert refused(b"a: " + b"x" * (3 << 20)).hint


def test_an_alias_inside_of_its_own_anchor_is_refused() -> None:
    assert "inside of itself" in refused(b"a: &a [*a]").message
    assert "not defined" in refused(b"a: *b").message


def test_two_documents_in_one_file_are_refused() -> None:
    assert refused(b"a: 1\n---\nb: 2\n").mark == Mark("x.yml", 2, 1)


@pytest.mark.parametrize(
    "text,line,column",
    [
        (b"\xef\xbb\xbfa: 1", 1, 1),
        ("a: ü".encode("utf-16"), 1, 1),
        (b"a: 1\nb: \xff\n", 2, 4),
        (b"a: \x1b[2J", 1, 4),
        (b"a: \0", 1, 4),
        ("a: x\ufeff".encode(), 1, 5),
    ],
)
def test_what_is_not_plain_utf8_text_is_refused(text: bytes, line: int, column: int) -> None:
    assert refused(text).mark == Mark("x.yml", line, column)


def test_numbers_beyond_use_are_refused() -> None:
    assert "no number" in refused(b"a: .inf").message
    assert "no number" in refused(b"a: .nan").message
    assert "no number" in refused(b"a: " + b"9" * 5000).message


@pytest.mark.parametrize(
    "text,hint",
    [
        (b"a: {{ x }}\n", "needs quotes"),
        (b"a: {{ x }}/y\nb: 1\n", "needs quotes"),
        (b"- {{ x }}\n", "needs quotes"),
        (b"a: b: c\n", "needs quotes"),
        (b"a:\n\tb: 1\n", "tab"),
        (b"a: @x\n", "quotes"),
        (b'a: "x\nb: 1\n', "not closed"),
        (b"a: 1\n  b: 2\n", "indentation"),
    ],
)
def test_a_syntax_error_says_what_its_usual_cause_is(text: bytes, hint: str) -> None:
    error = refused(text)
    assert error.mark is not None
    assert error.mark.line > 0
    assert hint in error.hint


def test_messages_show_no_control_characters_from_the_file() -> None:
    error = refused(b'"\\e[2J": 1\n"\\e[2J": 2\n')
    assert "\x1b" not in str(error)


# -- whatever comes --------------------------------------------------------------------------

yamlish = st.text(alphabet="ab01 \n\t:-[]{}&*!<>|?'\"#%@,.~=", max_size=200)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), yamlish.map(str.encode)))
def test_any_bytes_give_a_value_or_an_error_with_a_place(text: bytes) -> None:
    error = None
    try:
        load(text, "x.yml")
    except YamlError as caught:
        error = caught
    assert error is None or (error.mark is not None and error.mark.file == "x.yml")
    assert error is None or str(error).replace("\n", "").isprintable()


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.text(st.characters(codec="utf-8", exclude_categories=["C"])),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text("abcdé:- ", max_size=6), inner, max_size=4),
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(values)
def test_what_json_can_say_is_read_back_unchanged(value: object) -> None:
    assert load(json.dumps(value, ensure_ascii=False).encode(), "x.yml") == value
