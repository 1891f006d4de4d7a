"""Whose digests a process has shows in what it has loaded, and not in what they are."""

from __future__ import annotations

import hashlib
import subprocess
import sys

LOOK = """
import sys
from reconciler.agent import digests

with digests.small():
    import reconciler.agent.supervisor, hashlib

def look():
    print("libcrypto" in open("/proc/self/maps").read(), hashlib.sha256(b"x").hexdigest())

look()
digests.fast()
look()
"""


def test_the_process_that_stays_has_no_openssl_and_a_run_has() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK], check=True, capture_output=True, text=True, timeout=60
    )
    digest = hashlib.sha256(b"x").hexdigest()
    assert done.stdout.splitlines() == [f"False {digest}", f"True {digest}"]


def test_a_python_without_digests_of_its_own_keeps_those_it_has() -> None:
    without = LOOK.replace("with digests", "digests.OWN = ('no_such_module',)\nwith digests", 1)
    done = subprocess.run(
        [sys.executable, "-c", without], check=True, capture_output=True, text=True, timeout=60
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["True", "True"]
