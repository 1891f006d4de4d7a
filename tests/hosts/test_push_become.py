"""Becoming root on real hosts: with and without a password, by every program that can."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from hosts import pushing
from hosts.booted import BootedHost
from reconciler.errors import AuthFailed, HostUnfit
from reconciler.transport.target import Target

Rules = Callable[[str], None]
CANARY = "hunter2 is%no secret"


@pytest.fixture(scope="module")
def deploy(host: BootedHost) -> BootedHost:
    """A host with a user who may become root if he says his password."""
    pushing.login(host, "deploy", password=CANARY)
    return host


@pytest.fixture
def rules(deploy: BootedHost) -> Iterator[Rules]:
    """Writes sudoers rules that are gone after the test."""
    path = deploy.root / "etc/sudoers.d/test"

    def write(text: str) -> None:
        path.write_text(text)
        path.chmod(0o440)

    yield write
    path.unlink(missing_ok=True)


def target(host: BootedHost, **variables: object) -> Target:
    return pushing.target(host, ansible_user="deploy", ansible_become=True, **variables)


def wish(name: str) -> pushing.Wish:
    return pushing.Wish({f"/srv/become-{name}": b"by root\n"})


def owner(host: BootedHost, name: str) -> int:
    return os.stat(host.root / f"srv/become-{name}").st_uid


@pytest.mark.parametrize("way", ["ssh", "openssh"])
def test_sudo_without_a_password(deploy: BootedHost, rules: Rules, way: str) -> None:
    rules("deploy ALL=(ALL) NOPASSWD: ALL\n")
    to = target(deploy, ansible_connection=way)
    assert pushing.apply(to, wish(way)).changed
    assert owner(deploy, way) == 0
    # A password that is not asked for is not sent, and so cannot be taken for anything else.
    unasked = target(deploy, ansible_connection=way, ansible_become_password=CANARY)
    assert not pushing.apply(unasked, wish(way)).changed


@pytest.mark.parametrize("way", ["ssh", "openssh"])
@pytest.mark.parametrize(
    "defaults", ["", "Defaults lecture=always\n", "Defaults use_pty\n", "Defaults !use_pty\n"]
)
def test_sudo_with_a_password(deploy: BootedHost, rules: Rules, way: str, defaults: str) -> None:
    rules(f"{defaults}deploy ALL=(ALL) ALL\n")
    to = target(deploy, ansible_connection=way, ansible_become_password=CANARY)
    name = f"asked-{way}-{len(defaults)}"
    assert pushing.apply(to, wish(name)).changed
    assert owner(deploy, name) == 0


def test_sudo_that_asks_in_another_language(deploy: BootedHost, rules: Rules) -> None:
    rules('Defaults env_keep += "LANG"\nDefaults badpass_message="Nö"\ndeploy ALL=(ALL) ALL\n')
    (deploy.root / "etc/default/locale").write_text("LANG=de_DE.UTF-8\n")
    assert pushing.apply(target(deploy, ansible_become_password=CANARY), wish("german")).changed
    with pytest.raises(AuthFailed, match="does not accept the password"):
        pushing.apply(target(deploy, ansible_become_password="falsch"), wish("never"))


def test_a_wrong_password_is_tried_once(deploy: BootedHost, rules: Rules) -> None:
    rules("deploy ALL=(ALL) ALL\n")
    failures = "journalctl -o cat | grep -c 'authentication failure' || true"
    before = int(deploy.run(["sh", "-c", failures]).stdout)
    with pytest.raises(AuthFailed, match="does not accept the password") as failure:
        pushing.apply(target(deploy, ansible_become_password="wrong guess"), wish("never"))
    assert failure.value.exit_code == 5
    assert "wrong guess" not in str(failure.value)
    assert int(deploy.run(["sh", "-c", failures]).stdout) == before + 1


def test_a_password_that_nobody_gave_is_asked_for(deploy: BootedHost, rules: Rules) -> None:
    rules("deploy ALL=(ALL) ALL\n")
    with pytest.raises(AuthFailed) as failure:
        pushing.apply(target(deploy), wish("never"))
    assert "ansible_become_password" in failure.value.hint


def test_a_rule_that_wants_a_terminal_is_told(deploy: BootedHost, rules: Rules) -> None:
    rules("Defaults requiretty\ndeploy ALL=(ALL) NOPASSWD: ALL\n")
    with pytest.raises(AuthFailed, match="tty"):
        pushing.apply(target(deploy), wish("never"))


def test_a_rule_for_one_other_program_is_not_enough(deploy: BootedHost, rules: Rules) -> None:
    rules("deploy ALL=(ALL) NOPASSWD: /usr/bin/true\n")
    with pytest.raises(AuthFailed):
        pushing.apply(target(deploy), wish("never"))


def test_another_user_than_root(deploy: BootedHost, rules: Rules) -> None:
    rules("deploy ALL=(ALL) NOPASSWD: ALL\n")
    to = target(deploy, ansible_become_user="daemon")
    wanted = pushing.Wish({"/tmp/by-daemon": b"x\n"})
    assert pushing.plan(to, wanted).differs


def test_su_with_the_password_of_root(deploy: BootedHost) -> None:
    deploy.run(["chpasswd"], input="root:of root\n")
    to = target(deploy, ansible_become_method="su", ansible_become_password="of root")
    assert pushing.apply(to, wish("su")).changed
    assert owner(deploy, "su") == 0
    wrong = target(deploy, ansible_become_method="su", ansible_become_password="not that")
    with pytest.raises(AuthFailed, match="su does not accept the password"):
        pushing.apply(wrong, wish("never"))


def test_su_of_root_asks_nobody(deploy: BootedHost) -> None:
    to = pushing.target(
        deploy,
        ansible_become=True,
        ansible_become_method="su",
        ansible_become_user="daemon",
        ansible_become_password=CANARY,
    )
    assert pushing.plan(to, pushing.Wish({"/tmp/x": b"x\n"})).differs


@pytest.fixture(scope="module")
def doas(deploy: BootedHost) -> Rules:
    """Installs doas, and writes its rules."""
    deploy.run(["apt-get", "install", "-qy", "--no-install-recommends", "doas"], timeout=300)
    conf = deploy.root / "etc/doas.conf"

    def write(text: str) -> None:
        conf.write_text(text)

    return write


def test_doas_without_a_password(deploy: BootedHost, doas: Rules) -> None:
    doas("permit nopass deploy\n")
    to = target(deploy, ansible_become_method="doas")
    assert pushing.apply(to, wish("doas")).changed
    # A password that is not asked for is not sent.
    unasked = target(deploy, ansible_become_method="doas", ansible_become_password=CANARY)
    assert not pushing.apply(unasked, wish("doas")).changed
    doas("permit deploy\n")
    with pytest.raises(AuthFailed):
        pushing.apply(to, wish("never"))


@pytest.mark.parametrize("way", ["ssh", "openssh"])
def test_doas_with_a_password_asks_on_a_terminal_of_its_own(
    deploy: BootedHost, doas: Rules, way: str
) -> None:
    doas("permit deploy\n")
    by = {"ansible_connection": way, "ansible_become_method": "doas"}
    to = target(deploy, ansible_become_password=CANARY, **by)
    # No program that the engine runs has that terminal, or could be taken for a question.
    look = "(: </dev/tty) 2>/srv/become-tty; cat /proc/*/cmdline /proc/*/environ >/srv/seen; true"
    wanted = pushing.Wish({f"/srv/become-doas-{way}": bytes(3_000_000)}, f"{look} # {way}")
    assert pushing.apply(to, wanted).changed
    assert owner(deploy, f"doas-{way}") == 0
    assert "No such device" in (deploy.root / "srv/become-tty").read_text()
    assert CANARY.encode() not in (deploy.root / "srv/seen").read_bytes()
    with pytest.raises(AuthFailed, match="doas does not accept the password"):
        pushing.apply(target(deploy, ansible_become_password="wrong guess", **by), wish("never"))


def test_a_host_without_the_program_is_told_apart(fresh_host: BootedHost) -> None:
    pushing.login(fresh_host, "deploy")
    fresh_host.run(["rm", "/usr/bin/sudo"])
    with pytest.raises(HostUnfit, match="there is no sudo"):
        pushing.apply(target(fresh_host), wish("never"))


def test_the_password_is_nowhere_on_the_host(deploy: BootedHost, rules: Rules) -> None:
    rules("Defaults log_input, log_output\ndeploy ALL=(ALL) ALL\n")
    look = "cat /proc/*/cmdline /proc/*/environ >/srv/seen 2>/dev/null"
    to = target(deploy, ansible_become_password=CANARY)
    assert pushing.apply(to, pushing.Wish({}, look)).changed
    assert CANARY.encode() not in (deploy.root / "srv/seen").read_bytes()
    journal = deploy.run(["journalctl", "-o", "cat"]).stdout
    assert CANARY not in journal
    assert deploy.run(["grep", "-rqF", CANARY, "/var/lib/reconciler"], check=False).returncode
