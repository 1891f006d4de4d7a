"""Runs on the host: time whole processes, in turn, and print the samples as JSON.

argv[1] is a JSON object: name -> argv; argv[2] how often each is run.
"""

import json
import os
import subprocess
import sys
import time


def main() -> int:
    commands = json.loads(sys.argv[1])
    samples = {name: [] for name in commands}
    for _ in range(int(sys.argv[2])):
        for name, argv in commands.items():
            started = time.perf_counter()
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            said = process.stdout.read().decode()
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            samples[name].append(
                {
                    "wall": wall,
                    "cpu": usage.ru_utime + usage.ru_stime,
                    "rss": usage.ru_maxrss // 1024,
                    "code": process.returncode,
                    "last": said.strip().splitlines()[-1:] or [""],
                }
            )
    print(json.dumps(samples))
    return 0


if __name__ == "__main__":
    sys.exit(main())
