"""Words that messages are made of."""

from __future__ import annotations

import pytest

from reconciler.words import counted


@pytest.mark.parametrize(
    "number, text", [(0, "0 hosts"), (1, "1 host"), (2, "2 hosts"), (21, "21 hosts")]
)
def test_one_of_a_thing_is_said_as_one(number: int, text: str) -> None:
    assert counted(number, "host") == text
