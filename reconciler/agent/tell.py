"""Send notices on their way: apprise, a webhook, a command. A short-lived process does it.

python -m reconciler.agent.tell     reads {"sinks": [...], "notices": [...], "host": ...}
"""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from typing import Any

#: Seconds for each of them.
PATIENCE = 20.0
SIGNATURE = "X-Reconciler-Signature"


def main() -> int:
    """0 if everything was delivered, else 1 with words on stderr."""
    job = json.load(sys.stdin)
    failed = 0
    for notice in job["notices"]:
        body = {"schema": ["reconciler/notice", 1], "host": job["host"], **notice}
        for sink in job["sinks"]:
            try:
                send(sink, body)
            except Exception as error:  # noqa: BLE001  # one sink must not keep the others silent
                sys.stderr.write(f"a notification did not arrive: {error}\n")
                failed = 1
    return failed


def send(sink: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    """Deliver one notice to one sink. Raises whatever kept it."""
    payload = json.dumps(body, sort_keys=True).encode()
    if "command" in sink:
        subprocess.run(list(sink["command"]), input=payload, check=True, timeout=PATIENCE)
    elif "webhook" in sink:
        _post(str(sink["webhook"]), payload, str(sink.get("secret_file", "")))
    else:
        import apprise  # type: ignore[import-not-found]  # optional: pip install apprise

        sender = apprise.Apprise()
        sender.add(str(sink["apprise"]))
        if not sender.notify(title=title(body), body=str(body.get("message", ""))):
            raise RuntimeError("apprise could not deliver it")


def title(body: Mapping[str, Any]) -> str:
    """`web1: Trusted is False (BadSignature)`, `web1: Trusted: resolved`."""
    if body.get("event") == "resolved":
        return f"{body['host']}: {body['type']}: resolved"
    return f"{body['host']}: {body['type']} is {body['status']} ({body['reason']})"


def _post(url: str, payload: bytes, secret_file: str) -> None:
    if not url.startswith(("https://", "http://")):
        raise ValueError("a webhook is an https:// or http:// address")
    request = urllib.request.Request(url, payload, {"Content-Type": "application/json"})  # noqa: S310  # checked above
    if secret_file:
        with open(secret_file, "rb") as file:
            secret = file.read().strip()
        digest = hmac.new(secret, payload, hashlib.sha256).hexdigest()
        request.add_header(SIGNATURE, f"sha256={digest}")
    with urllib.request.urlopen(request, timeout=PATIENCE):  # noqa: S310  # checked above
        pass


if __name__ == "__main__":
    sys.exit(main())
