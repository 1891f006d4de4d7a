"""Send notices on their way: apprise, a webhook, a command. A short-lived process does it.

python -m reconciler.agent.tell     reads {"sinks": [...], "to": [...], "notices": [...], ...}

and prints the numbers of those places that it did not come to, of the ones that `to` names.

Addresses hold secrets: they come on stdin, and no message about a failure repeats one.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import Any, NoReturn

from reconciler.agent import advice

#: Seconds for each of them: for each thing that it waits for, and for all of that together.
PATIENCE, ENOUGH = 20.0, 30.0
#: Resources that a text names.
NAMED = 5
SIGNATURE = "X-Reconciler-Signature"


class Undelivered(Exception):
    """A sink did not take a message; the text names no address."""


def main() -> int:
    """0 if everything was delivered, else 1 with words on stderr."""
    logging.disable()  # libraries log the addresses that they talk to
    job = json.load(sys.stdin)
    message = compose(job)
    left: list[int] = list(job["to"])
    # Who is told to end still says what has arrived, or that would be sent once more.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for number in tuple(left):
            why = _sent(job["sinks"][number], message)
            if not why:
                left.remove(number)
                continue
            sys.stderr.write(f"notification {number + 1} {why}\n")
    finally:
        with contextlib.suppress(BrokenPipeError):  # who wants to know may be gone
            os.write(1, json.dumps(left).encode())
    return int(bool(left))


def _sent(sink: Mapping[str, Any], message: Mapping[str, Any]) -> str:
    """Why it did not arrive; "" if it did."""
    kind = next(one for one in ("command", "webhook", "apprise") if one in sink)
    try:
        with _in_time():
            send(sink, message)
    except Undelivered as error:
        why = str(error)
    except Exception as error:  # noqa: BLE001  # one sink must not keep the others silent
        why = type(error).__name__  # its text may hold the address
    else:
        return ""
    return f"({kind}) did not arrive: {why}"


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """Raises Undelivered from whoever goes on and on, such as a server that says a byte now and then."""

    def late(*_: object) -> NoReturn:
        raise Undelivered(f"it was not over within {ENOUGH:.0f} s")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, ENOUGH)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def compose(job: Mapping[str, Any]) -> dict[str, Any]:
    """One message of all that is to be told: for programs, with a text for people."""
    notices = job["notices"]
    titles = [title(one) for one in notices]
    more = f" and {len(titles) - 1} more" if len(titles) > 1 else ""
    return {
        "schema": ["reconciler/notices", 1],
        "host": job["host"],
        "at": round(time.time(), 3),
        "title": f"{job['host']}: {titles[0]}{more}",
        "text": _text(job, titles),
        # What is told of one condition of one host may be one message that is changed.
        "notices": [{**one, "key": f"{job['id']}/{one['type']}"} for one in notices],
    }


def title(notice: Mapping[str, Any]) -> str:
    """`Trusted is False (BadSignature)`, `Trusted: resolved`."""
    kind = notice["type"]
    if notice["event"] == "test":
        return "a test, and nothing is wrong"
    if notice["event"] == "resolved":
        return f"{kind}: resolved"
    if notice["event"] == "digest":
        return f"{kind}: was bad {_times(notice)}, and is fine now"
    return f"{kind} is {notice['status']} ({notice['reason']})"


def _text(job: Mapping[str, Any], titles: list[str]) -> str:
    lines: list[str] = []
    for one, name in zip(job["notices"], titles, strict=True):
        lines.append(name)
        lines += [f"  {row}" for row in str(one.get("message", "")).splitlines()]
        lines.append(
            f"  since {advice.clock(one['since'])}, at commit {one['commit'][:12] or 'none'}"
        )
        if one["event"] == "problem":
            lines += [f"  {row}" for row in _about(job, one)]
    subject = job.get("subject", {})
    if subject.get("subject"):
        lines.append(f"newest commit: {subject['subject']} ({subject['author']})")
    if any(one["event"] == "problem" for one in job["notices"]):
        lines.append("more: reconciler agent status")
        lines.append("to stop it for a while: reconciler agent suspend --reason WHY")
    return "\n".join(lines)


def _about(job: Mapping[str, Any], notice: Mapping[str, Any]) -> Iterator[str]:
    if notice.get("new"):
        yield f"new since it was told last: {', '.join(notice['new'][:NAMED])}"
    if notice["missed"]:
        yield f"before that it was bad {_times(notice)} and went by"
    if step := advice.next_step(notice, job["next"]):
        yield step
    if command := advice.more(notice, job["named"]):
        yield f"more: {command}"


def _times(notice: Mapping[str, Any]) -> str:
    return "once" if notice["missed"] == 1 else f"{notice['missed']} times"


def send(sink: Mapping[str, Any], message: Mapping[str, Any]) -> None:
    """Deliver one message to one sink. Raises Undelivered."""
    payload = json.dumps(message, sort_keys=True).encode()
    if "command" in sink:
        _run(list(sink["command"]), payload)
    elif "webhook" in sink:
        _post(str(sink["webhook"]), payload, str(sink.get("secret_file", "")))
    else:
        _apprise(str(sink["apprise"]), message)


def _run(argv: list[str], payload: bytes) -> None:
    try:
        done = subprocess.run(
            argv, input=payload, check=False, timeout=PATIENCE, stdout=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise Undelivered(f"{argv[0]} did not end within {PATIENCE:.0f} s") from None
    except OSError as error:
        raise Undelivered(f"{argv[0]}: {error.strerror}") from None
    if done.returncode:
        raise Undelivered(f"{argv[0]} ended with {done.returncode}")


def _apprise(address: str, message: Mapping[str, Any]) -> None:
    try:
        import apprise
    except ImportError:
        raise Undelivered(
            f"the library apprise is missing: {sys.executable} -m pip install apprise"
        ) from None
    sender = apprise.Apprise()
    if not sender.add(address):
        raise Undelivered("apprise does not know this kind of address")
    if not sender.notify(title=str(message["title"]), body=str(message["text"])):
        raise Undelivered("apprise could not deliver it")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is signed for one address is not for another."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Undelivered("the server sends us elsewhere; name the final address")


def _post(url: str, payload: bytes, secret_file: str) -> None:
    if not url.startswith(("https://", "http://")):
        raise Undelivered("a webhook is an https:// or http:// address")
    headers = {"Content-Type": "application/json"}
    if secret_file:
        try:
            with open(secret_file, "rb") as file:
                secret = file.read().strip()
        except OSError as error:
            raise Undelivered(f"cannot read {secret_file}: {error.strerror}") from None
        digest = hmac.new(secret, payload, hashlib.sha256).hexdigest()
        headers[SIGNATURE] = f"sha256={digest}"
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        request = urllib.request.Request(url, payload, headers)  # noqa: S310  # checked above
        with opener.open(request, timeout=PATIENCE):
            pass
    except urllib.error.HTTPError as error:
        raise Undelivered(f"the server answered {error.code}") from None
    except urllib.error.URLError as error:
        raise Undelivered(str(getattr(error.reason, "strerror", "") or "no connection")) from None
    except (OSError, HTTPException, ValueError) as error:
        raise Undelivered(type(error).__name__) from None


if __name__ == "__main__":
    sys.exit(main())
