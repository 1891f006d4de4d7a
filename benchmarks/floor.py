"""The floor: look at a workload in one bare process, without plan, report or safety.

Not a product, but the limit of what this machine and Python can do. Reads the workload's
resources as JSON from the file in argv[1].
"""

import grp
import hashlib
import json
import os
import pwd
import subprocess
import sys


def main() -> int:
    wanted = json.load(open(sys.argv[1]))  # noqa: SIM115  a bare program
    missing = 0
    for path, digest in wanted["files"]:
        os.lstat(path)
        with open(path, "rb") as file:
            missing += hashlib.sha256(file.read()).hexdigest() != digest
    if wanted["packages"]:
        with open("/var/lib/dpkg/status", "rb") as file:
            installed = set(file.read().split(b"\n"))
        missing += sum(f"Package: {name}".encode() not in installed for name in wanted["packages"])
    if wanted["services"]:
        units = [f"{name}.service" for name in wanted["services"]]
        show = ["systemctl", "show", "-p", "Id,ActiveState,UnitFileState", *units]
        shown = subprocess.run(show, capture_output=True, check=True).stdout
        missing += len(units) - shown.count(b"ActiveState=active")
    for name in wanted["users"]:
        pwd.getpwnam(name)
    for name in wanted["groups"]:
        grp.getgrnam(name)
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main())
