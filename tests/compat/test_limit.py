"""`--limit` with files of patterns leaves the hosts that it leaves in Ansible."""

from __future__ import annotations

from pathlib import Path

import pytest

from compat.oracle import Ansible
from compat.test_fuzz import ours
from reconciler.inventory import Disk, Inventory

HOSTS = "[web]\nw[1:3]\n[db]\nd[1:2]\n[prod:children]\nweb\ndb\n"


@pytest.mark.parametrize(
    "lines, limit",
    [
        (["w1", "d2"], "@FILE"),
        (["w1", "", "d2", ""], "@FILE"),
        (["web", "!w2"], "@FILE"),
        (["!w2"], "@FILE"),
        (["web", "&prod"], "@FILE,!w3"),
        (["w1"], "db,@FILE"),
        (["  w1  ", "\td1"], "@FILE"),
        (["w[12]", "db[0]", "~d.$"], "@FILE"),
        ([], "w1,@FILE"),
    ],
)
def test_a_file_of_patterns_leaves_the_same_hosts(
    ansible: Ansible, tmp_path: Path, lines: list[str], limit: str
) -> None:
    (tmp_path / "play").mkdir()
    (tmp_path / "hosts").write_text(HOSTS)
    (tmp_path / "patterns").write_text("\n".join(lines))
    ansible.load([str(tmp_path / "hosts")], str(tmp_path / "play"))
    found = ours([str(tmp_path / "hosts")], tmp_path)
    assert isinstance(found, Inventory)
    limit = limit.replace("FILE", str(tmp_path / "patterns"))
    assert set(found.select(limit, Disk())) == set(ansible.limit(limit))
