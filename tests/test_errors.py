"""The tree of errors is what its docstring draws, and its exit codes are a contract."""

from __future__ import annotations

import re

import pytest

from reconciler import errors
from reconciler.errors import CommandFailed, ConfigErrors, Mark, ReconcilerError, UsageError


def drawn() -> dict[str, tuple[str, int]]:
    """class -> (parent, exit code), as the docstring draws them."""
    found: dict[str, tuple[str, int]] = {}
    above: list[str] = []
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        match = re.match(r"( *(?:[│├└─]+ *)*)([A-Z]\w+) +(\d+)?", line)
        if match is None or match[2] not in vars(errors):
            continue
        depth = (len(match[1]) - 4) // 3
        parent = above[depth - 1] if depth else "Exception"
        code = int(match[3]) if match[3] else found[parent][1]
        found[match[2]] = (parent, code)
        above[depth:] = [match[2]]
    return found


def classes() -> dict[str, type[ReconcilerError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, ReconcilerError)
    }


def test_the_tree_in_the_docstring_is_the_code() -> None:
    code = {name: (kind.__bases__[0].__name__, kind.exit_code) for name, kind in classes().items()}
    assert drawn() == code


@pytest.mark.parametrize(
    "name, code",
    {
        "ReconcilerError": 1,
        "ConfigError": 3,
        "UsageError": 3,
        "ResourceError": 4,
        "TransportError": 5,
        "SourceError": 5,
        "LockBusy": 9,
        "TrustError": 10,
        "Interrupted": 130,
    }.items(),
)
def test_exit_codes(name: str, code: int) -> None:
    assert classes()[name].exit_code == code


@pytest.mark.parametrize(
    "kind", [one for one in classes().values() if one not in (ConfigErrors, CommandFailed)]
)
def test_an_error_says_where_what_and_what_to_do(kind: type[ReconcilerError]) -> None:
    error = kind("it broke", mark=Mark("site.yml", 3, 7), hint="mend it")
    assert str(error) == "site.yml:3:7: it broke\n  mend it"
    assert str(kind("it broke")) == "it broke"


@pytest.mark.parametrize("kind", classes().values())
def test_every_error_is_documented(kind: type[ReconcilerError]) -> None:
    assert kind.__doc__
    assert kind.__doc__.rstrip().endswith(".")


def test_marks_leave_out_what_is_unknown() -> None:
    assert [str(Mark("f")), str(Mark("f", 2)), str(Mark("f", 2, 3))] == ["f", "f:2", "f:2:3"]


def test_a_failed_command_shows_the_end_of_what_it_said() -> None:
    error = CommandFailed(["apt-get", "install"], 100, "\n".join(map(str, range(20))) + "\n")
    assert error.message.startswith("apt-get ended with code 100:\n10\n")
    assert error.message.endswith("\n19")
    assert CommandFailed(["true"], 1, " \n").message == "true ended with code 1"


def test_several_errors_are_all_shown() -> None:
    both = ConfigErrors([UsageError("a"), UsageError("b")])
    assert str(both) == "a\nb"
    assert both.message == "2 errors"
    assert both.exit_code == 3
    assert ConfigErrors([UsageError("a")]).message == "a"
    assert str(ConfigErrors([])) == ""
