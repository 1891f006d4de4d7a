"""`apt` is `package` under Ansible's name: same fields, same meaning, no host."""

from __future__ import annotations

from dataclasses import fields

from reconciler.modules.apt import Apt
from reconciler.modules.package import Package
from reconciler.resource import Lowered

#: The parameters of ansible.builtin.apt that say what a host should be like.
ANSIBLE = {
    "name", "state", "deb", "purge", "upgrade", "install_recommends", "update_cache",
    "cache_valid_time", "default_release", "allow_downgrade", "allow_change_held_packages",
    "allow_unauthenticated", "only_upgrade", "autoremove", "fail_on_autoremove", "dpkg_options",
    "policy_rc_d", "lock_timeout",
}  # fmt: skip


def test_every_parameter_of_ansible_is_a_field_or_is_refused_with_a_reason() -> None:
    own = {field.name for field in fields(Apt)}
    assert own >= ANSIBLE
    assert not own & set(Apt.refused)
    assert all(Apt.refused.values())


def test_what_compile_makes_of_it_is_a_package() -> None:
    assert issubclass(Apt, Lowered)
    assert [field.name for field in fields(Apt)] == [field.name for field in fields(Package)]


def test_without_a_name_it_is_about_everything() -> None:
    apt = Apt(upgrade="dist", cache_valid_time=3600)
    assert apt.claims() == {"package:*"}
    assert apt.desired() == {"lists": "at most 3600 s old", "upgradable": "none"}
    assert Apt(update_cache=True).desired() == {}
