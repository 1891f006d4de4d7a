"""Promise 9: what is secret of a file is not shown with what is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from behaviour.world import World, as_json


def of_a_line(world: World) -> str:
    world.declare(
        "lineinfile", "/etc/conf#^p=", {"path": "/etc/conf", "line": "p=s3cr3t", "regexp": "^p="},
        no_log=True,
    )  # fmt: skip
    world.declare("lineinfile", "/etc/conf#user=x", {"path": "/etc/conf", "line": "user=x"})
    return "/etc/conf"


def of_a_job(world: World) -> str:
    for name, job in (("secret", "curl -u s3cr3t"), ("open", "true")):
        params = {"name": name, "job": job, "cron_file": "app", "user": "root"}
        world.declare("cron", name, params, no_log=name == "secret")
    return "/etc/cron.d/app"


@pytest.mark.parametrize("alone", [False, True], ids=["all", "alone"])
@pytest.mark.parametrize("declare", [of_a_line, of_a_job])
def test_a_secret_is_in_no_text_of_what_is_beside_it(
    world: World, declare: Callable[[World], str], alone: bool
) -> None:
    """Neither now nor when drift of the other is undone, alone or not, which the ledger remembers."""
    world.path("/etc/cron.d").mkdir(parents=True)
    world.path("/etc/conf").write_text("p=s3cr3t of before\n")
    path = world.path(declare(world))
    secret = next(one.id for one in world.resources if one.no_log)
    said = [as_json(world.plan()), as_json(world.apply())]
    assert "s3cr3t" in path.read_text()
    kept = [line for line in path.read_text().splitlines() if "user=" not in line]
    path.write_text("\n".join(kept[:-1] if "cron" in str(path) else kept) + "\n")
    if alone:
        world.chosen = {one.id for one in world.resources} - {secret}
    said += [as_json(world.plan()), as_json(world.apply())]
    assert '"cause": "corrective"' in said[-1]
    assert all("s3cr3t" not in one for one in said)
    state = world.path("/var/lib/reconciler")
    assert all(b"s3cr3t" not in one.read_bytes() for one in state.glob("ledger.db*"))
    assert all(b"s3cr3t" not in one.read_bytes() for one in (state / "images").iterdir())


def test_of_what_has_no_secret_beside_it_the_text_is_shown(world: World) -> None:
    of_a_line(world)
    world.path("/etc/other").write_text("a\n")
    world.declare("lineinfile", "/etc/other#b", {"path": "/etc/other", "line": "b"})
    assert "+b" in as_json(world.plan())
