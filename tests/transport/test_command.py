"""Words reach a program through any login shell as they are, or are not sent."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import ConfigError
from reconciler.transport.bootstrap import LAUNCH, RECEIVE
from reconciler.transport.command import quoted, shell_line

SHELLS = [name for name in ("sh", "bash", "zsh", "tcsh", "csh", "fish") if shutil.which(name)]


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=30, deadline=None)
@given(words=st.lists(st.text(max_size=20), max_size=4))
def test_words_arrive_whole(shell: str, words: list[str]) -> None:
    try:
        line = shell_line(["printf", "<%s>", *words])
    except ConfigError:
        return
    done = subprocess.run([shell, "-c", line], capture_output=True, check=True)
    assert done.stdout.decode() == "".join(f"<{word}>" for word in words) or not words


@pytest.mark.parametrize("word", ["a\nb", "a\\b", "wow!", "\0", "\x7f"])
def test_what_shells_do_not_agree_on_is_not_sent(word: str) -> None:
    with pytest.raises(ConfigError):
        quoted(word)


@pytest.mark.parametrize("word", [LAUNCH, RECEIVE])
def test_what_is_always_sent_can_be(word: str) -> None:
    assert "'" not in word
    quoted(word)
    quoted(shell_line([word]))
