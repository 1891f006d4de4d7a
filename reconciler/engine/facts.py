"""What a host says about itself before compiling: read from files, no program started.

Only what stays the same from run to run is a fact: the digest of the facts is part of the key
under which compiled catalogs are cached. Nothing here touches a mount point, so a dead NFS
server cannot hang it.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import sys

Facts = dict[str, object]

FAMILIES = {
    "debian": "Debian",
    "ubuntu": "Debian",
    "rhel": "RedHat",
    "fedora": "RedHat",
    "centos": "RedHat",
    "suse": "Suse",
    "opensuse": "Suse",
    "arch": "Archlinux",
    "alpine": "Alpine",
}
NAMES = {
    "debian": "Debian",
    "ubuntu": "Ubuntu",
    "fedora": "Fedora",
    "centos": "CentOS",
    "rhel": "RedHat",
}
MANAGERS = (
    ("usr/bin/apt-get", "apt"),
    ("usr/bin/dnf5", "dnf5"),
    ("usr/bin/dnf", "dnf"),
    ("usr/bin/yum", "yum"),
    ("usr/bin/zypper", "zypper"),
    ("usr/bin/pacman", "pacman"),
    ("sbin/apk", "apk"),
)


def gather(root: str = "/") -> Facts:
    """The facts of the machine, or of a directory root (which has no network of its own)."""
    facts = _distribution(root)
    kernel = os.uname()
    facts.update(
        kernel=kernel.release,
        kernel_version=kernel.version,
        system=kernel.sysname,
        architecture=kernel.machine,
        machine=kernel.machine,
        python_version=".".join(map(str, sys.version_info[:3])),
        python=list(sys.version_info[:3]),
        service_mgr="systemd"
        if root == "/" and os.path.isdir("/run/systemd/system")
        else "unknown",
        pkg_mgr=next(
            (name for path, name in MANAGERS if os.path.exists(os.path.join(root, path))), "unknown"
        ),
        processor_vcpus=os.cpu_count() or 1,
        memtotal_mb=_memory(),
        machine_id=_text(root, "etc/machine-id").strip(),
        selinux={"status": "enabled" if os.path.exists("/sys/fs/selinux/enforce") else "disabled"},
        virtualization_type=_container(root),
        timezone=_timezone(root),
    )
    facts.update(_names(root))
    facts.update(
        _network() if root == "/" else {"interfaces": [], "default_ipv4": {}, "default_ipv6": {}}
    )
    return dict(sorted(facts.items()))


def _text(root: str, path: str) -> str:
    try:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def _distribution(root: str) -> Facts:
    release: dict[str, str] = {}
    text = _text(root, "etc/os-release") or _text(root, "usr/lib/os-release")
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            release[name.strip()] = re.sub(r"\\(.)", r"\1", value.strip().strip("\"'"))
    kind = release.get("ID", "linux")
    like = [kind, *release.get("ID_LIKE", "").split()]
    version = release.get("VERSION_ID", "")
    return {
        "distribution": NAMES.get(kind, kind.capitalize()),
        "distribution_version": version,
        "distribution_major_version": version.split(".")[0],
        "distribution_release": release.get("VERSION_CODENAME", ""),
        "os_family": next((FAMILIES[name] for name in like if name in FAMILIES), kind.capitalize()),
    }


def _names(root: str) -> Facts:
    node = (
        socket.gethostname() if root == "/" else _text(root, "etc/hostname").strip() or "localhost"
    )
    fqdn = node
    for line in _text(root, "etc/hosts").splitlines():
        words = line.split("#")[0].split()[1:]
        if node in words and "." in words[0]:
            fqdn = words[0]
            break
    return {
        "nodename": node,
        "hostname": node.split(".")[0],
        "fqdn": fqdn,
        "domain": fqdn.partition(".")[2],
    }


def _memory() -> int:
    match = re.search(r"MemTotal:\s+(\d+)", _text("/", "proc/meminfo"))
    return int(match[1]) // 1024 if match else 0


def _container(root: str) -> str:
    if root != "/":
        return "chroot"
    try:
        with open("/run/systemd/container", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        pass
    vendor = _text("/", "sys/class/dmi/id/sys_vendor").strip()
    return {
        "QEMU": "kvm",
        "VMware, Inc.": "VMware",
        "innotek GmbH": "virtualbox",
        "Amazon EC2": "kvm",
    }.get(vendor, "NA")


def _timezone(root: str) -> str:
    try:
        return os.readlink(os.path.join(root, "etc/localtime")).partition("zoneinfo/")[2] or "UTC"
    except OSError:
        return _text(root, "etc/timezone").strip() or "UTC"


def _network() -> Facts:
    interfaces = sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else []
    addresses4, addresses6 = _ipv4(interfaces), _ipv6()
    gateway, device = _default_route()
    facts: Facts = {
        "interfaces": interfaces,
        "all_ipv4_addresses": sorted(a for name, a in addresses4.items() if name != "lo"),
        "all_ipv6_addresses": sorted(a for name, a in addresses6 if name != "lo"),
        "default_ipv4": {},
        "default_ipv6": {},
    }
    if device in addresses4:
        facts["default_ipv4"] = {
            "interface": device,
            "address": addresses4[device],
            "gateway": gateway,
            "macaddress": _text("/", f"sys/class/net/{device}/address").strip(),
        }
    wide = [
        address for name, address in addresses6 if name == device and not address.startswith("fe80")
    ]
    if wide:
        facts["default_ipv6"] = {"interface": device, "address": wide[0]}
    return facts


def _ipv4(interfaces: list[str]) -> dict[str, str]:
    """The first address of each interface, from the kernel (SIOCGIFADDR)."""
    import fcntl

    found: dict[str, str] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for name in interfaces:
            request = struct.pack("256s", name.encode()[:15])
            try:
                reply = fcntl.ioctl(any_socket.fileno(), 0x8915, request)
            except OSError:
                continue
            found[name] = socket.inet_ntoa(reply[20:24])
    return found


def _ipv6() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for line in _text("/", "proc/net/if_inet6").splitlines():
        address, _, _, _, _, name = line.split()
        found.append((name, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))))
    return found


def _default_route() -> tuple[str | None, str]:
    for line in _text("/", "proc/net/route").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == fields[7] == "00000000":
            return socket.inet_ntoa(struct.pack("<I", int(fields[2], 16))), fields[0]
    return None, ""
