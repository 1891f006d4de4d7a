"""Whatever a state repo holds: a catalog, or errors with their places; never anything else."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from compile.repo import FACTS, project
from reconciler.catalog import Catalog, dumps
from reconciler.compile.keywords import KEYWORDS
from reconciler.compile.site import PLAY_KEYS
from reconciler.compile.types import builtin, builtin_names
from reconciler.errors import ConfigErrors

TYPES = sorted(builtin_names())
FIELDS = sorted(
    {name for schema in map(builtin, TYPES) if schema is not None for name in schema.names()}
)
words = st.sampled_from(
    ["x", "/etc/x", "root", "0644", "{{ x }}", "{{ item }}", "{{ facts }}", "{{ x", "{% if %}", "present", "absent", "", "a,b", "a=b", "-> x", "all", "\x1b[2J", "a\nb", "\u202e", '{{ "\\udcff" }}']
)  # fmt: skip
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5000),
    st.floats(allow_nan=False, allow_infinity=False),
    words,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=5,
)
params = st.one_of(values, st.dictionaries(st.sampled_from(FIELDS), values, max_size=4))
keywords = st.dictionaries(st.sampled_from([*KEYWORDS, "register", "odd"]), values, max_size=3)


@st.composite
def items(draw: st.DrawFn) -> Mapping[str, object]:
    return {**draw(keywords), draw(st.sampled_from(TYPES)): draw(params)}


lists = st.one_of(values, st.lists(st.one_of(items(), values), max_size=4))
plays = st.fixed_dictionaries(
    {"hosts": st.one_of(st.just("all"), values)},
    optional={
        key: lists if key in ("resources", "handlers") else values
        for key in PLAY_KEYS
        if key != "hosts"
    },
)


@settings(max_examples=400, deadline=None)
@given(st.lists(plays, max_size=2), lists, lists)
def test_any_state_repo_gives_a_catalog_or_errors_with_places(
    site: list[object], main: object, handlers: object
) -> None:
    files: dict[str, str | bytes] = {
        "site.yml": json.dumps([*site, {"hosts": "all", "roles": ["r"]}], ensure_ascii=False),
        "roles/r/main.yml": json.dumps(main, ensure_ascii=False),
        "roles/r/handlers.yml": json.dumps(handlers, ensure_ascii=False),
        "roles/r/templates/x": "{{ x }}",
        "roles/r/files/x": "x",
    }
    try:
        compiled = project(files).compile("web1", FACTS)
    except ConfigErrors as error:
        found = error.errors
    else:
        found = ()
        data = dumps(compiled.catalog.to_json())
        assert dumps(Catalog.from_json(json.loads(data)).to_json()) == data
    assert all(one.mark is not None and one.mark.file for one in found)
    assert all(one.message and str(one).replace("\n", "").isprintable() for one in found)
