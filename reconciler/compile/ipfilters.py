"""The `ipaddr` family: addresses and networks, through the standard `ipaddress`.

As in Ansible, a value that is no address gives False, and a list gives the list of what is left.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2.exceptions import TemplateRuntimeError

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MAC = re.compile(
    r"(?:[0-9a-f]{2}[:-]?){5}[0-9a-f]{2}\Z|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}\Z", re.IGNORECASE
)


def _interface(value: object) -> Interface | None:
    if isinstance(value, bool) or value is None or value == "":
        return None
    try:
        return ipaddress.ip_interface(value if isinstance(value, (int, str)) else str(value))
    except ValueError:
        return None


def _network(value: object) -> Network:
    found = _interface(value)
    if found is None:
        raise TemplateRuntimeError(f"{str(value)[:60]!r} is no network")
    return found.network


def _written(interface: Interface, value: object) -> str:
    """As it was given: with its prefix if it had one."""
    return str(interface) if "/" in str(value) else str(interface.ip)


def _usable(network: Network) -> tuple[int, int]:
    """First and last address for hosts, as numbers."""
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.version == 4 and network.prefixlen < 31:
        return first + 1, last - 1
    return first, last


def _address(network: Network, number: int) -> str:
    return str(type(network.network_address)(number))


def _nth(interface: Interface, index: int) -> Any:
    network = interface.network
    start = int(network.network_address) if index >= 0 else int(network.broadcast_address) + 1
    number = start + index
    if not int(network.network_address) <= number <= int(network.broadcast_address):
        return False
    return f"{_address(network, number)}/{network.prefixlen}"


def _single(interface: Interface) -> bool:
    return interface.network.prefixlen == interface.network.max_prefixlen


def _is_host(i: Interface, value: object) -> bool:
    return "/" not in str(value) or _single(i) or i.ip != i.network.network_address


def _wrapped(interface: Interface, value: object) -> str:
    text = _written(interface, value)
    if interface.version == 4:
        return text
    ip, slash, prefix = text.partition("/")
    return f"[{ip}]{slash}{prefix}"


Query = Callable[[Interface, object], Any]
QUERIES: Mapping[str, Query] = {
    "": _written,
    "bool": lambda i, v: True,
    "address": lambda i, v: str(i.ip) if _is_host(i, v) else False,
    "ip": lambda i, v: str(i.ip) if _is_host(i, v) else False,
    "host": lambda i, v: str(i) if _is_host(i, v) else False,
    "host/prefix": lambda i, v: str(i) if _is_host(i, v) else False,
    "address/prefix": lambda i, v: str(i) if _is_host(i, v) else False,
    "ip/prefix": lambda i, v: str(i) if _is_host(i, v) else False,
    "ip_netmask": lambda i, v: f"{i.ip} {i.netmask}",
    "net": lambda i, v: str(i.network) if not _is_host(i, v) else False,
    "network": lambda i, v: str(i.network.network_address),
    "network_id": lambda i, v: str(i.network.network_address),
    "network/prefix": lambda i, v: str(i.network),
    "network_netmask": lambda i, v: f"{i.network.network_address} {i.netmask}",
    "network_wildcard": lambda i, v: f"{i.network.network_address} {i.hostmask}",
    "subnet": lambda i, v: str(i.network),
    "cidr": lambda i, v: str(i),
    "prefix": lambda i, v: i.network.prefixlen,
    "netmask": lambda i, v: str(i.netmask),
    "hostmask": lambda i, v: str(i.hostmask),
    "wildcard": lambda i, v: str(i.hostmask),
    "broadcast": lambda i, v: str(i.network.broadcast_address),
    "size": lambda i, v: i.network.num_addresses,
    "size_usable": lambda i, v: _usable(i.network)[1] - _usable(i.network)[0] + 1,
    "first_usable": lambda i, v: _address(i.network, _usable(i.network)[0]),
    "last_usable": lambda i, v: _address(i.network, _usable(i.network)[1]),
    "range_usable": lambda i, v: "-".join(_address(i.network, one) for one in _usable(i.network)),
    "next_usable": lambda i, v: _step(i, 1),
    "previous_usable": lambda i, v: _step(i, -1),
    "int": lambda i, v: int(i.ip),
    "version": lambda i, v: i.version,
    "type": lambda i, v: "address" if _is_host(i, v) else "network",
    "revdns": lambda i, v: i.ip.reverse_pointer + ".",
    "wrap": _wrapped,
    "ipv4": lambda i, v: _written(i, v) if i.version == 4 else False,
    "ipv6": lambda i, v: _written(i, v) if i.version == 6 else False,
    "private": lambda i, v: _written(i, v) if i.ip.is_private else False,
    "public": lambda i, v: _written(i, v) if i.ip.is_global else False,
    "loopback": lambda i, v: _written(i, v) if i.ip.is_loopback else False,
    "multicast": lambda i, v: _written(i, v) if i.ip.is_multicast else False,
    "unicast": lambda i, v: _written(i, v) if not i.ip.is_multicast else False,
    "link-local": lambda i, v: _written(i, v) if i.ip.is_link_local else False,
}
ALIASES = {
    "v4": "ipv4",
    "v6": "ipv6",
    "4": "ipv4",
    "6": "ipv6",
    "hostnet": "host",
    "gateway": "host",
    "gw": "host",
    "lo": "loopback",
}


def _step(interface: Interface, by: int) -> Any:
    first, last = _usable(interface.network)
    number = int(interface.ip) + by
    return _address(interface.network, number) if first <= number <= last else False


def ipaddr(value: Any, query: object = "", version: object = False) -> Any:
    """What `query` asks of an address or network; False where it is none."""
    if isinstance(value, (list, tuple)):
        found = (ipaddr(one, query, version) for one in value)
        return [one for one in found if one is not False]
    interface = _interface(value)
    if interface is None or (version and interface.version != int(str(version))):
        return False
    if isinstance(query, int) or (re.fullmatch(r"-?\d+", str(query)) and str(query) not in ALIASES):
        return _nth(interface, int(str(query)))
    name = ALIASES.get(str(query), str(query))
    if name in QUERIES:
        return QUERIES[name](interface, value)
    around = _interface(query)
    if around is None:
        raise TemplateRuntimeError(f"ipaddr knows no '{query}': {', '.join(filter(None, QUERIES))}")
    return _written(interface, value) if _inside(interface.network, around.network) else False


def _inside(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # of one version


def ipwrap(value: Any, query: object = "") -> Any:
    """IPv6 addresses in brackets; everything else as it is."""
    if isinstance(value, (list, tuple)):
        return [ipwrap(one, query) for one in value]
    found = ipaddr(value, query)
    interface = _interface(found)
    return value if interface is None else _wrapped(interface, found)


def ipsubnet(value: Any, query: object = "", index: object = None) -> Any:
    """Subnets: how many of a size, or the one at an index."""
    interface = _interface(value)
    if interface is None:
        return False
    network = interface.network
    if query == "":
        return str(network)
    if not str(query).isdigit():
        around = _network(query)
        if index is None:
            return _written(interface, value) if _inside(network, around) else False
        return False
    prefix = int(str(query))
    if prefix < network.prefixlen:
        return str(network.supernet(new_prefix=prefix)) if index is None else False
    if prefix > network.max_prefixlen:
        return False
    count = 1 << (prefix - network.prefixlen)
    if index is None:
        return count
    number = int(str(index))
    number += count if number < 0 else 0
    if not 0 <= number < count:
        return False
    start = int(network.network_address) + (number << (network.max_prefixlen - prefix))
    return f"{_address(network, start)}/{prefix}"


def ipmath(value: Any, amount: int) -> Any:
    """The address that comes so many later."""
    interface = _interface(value)
    return False if interface is None else str(interface.ip + int(amount))


def nthhost(value: Any, query: object = "") -> Any:
    """The address at an index of a network."""
    interface = _interface(value)
    found = False if interface is None else _nth(interface, int(str(query)))
    return found.partition("/")[0] if found else False


def network_in_network(value: Any, test: Any) -> bool:
    """Whether the second lies in the first."""
    return _inside(_network(test), _network(value))


def cidr_merge(value: list[Any], action: str = "merge") -> Any:
    """Networks put together where they touch; `span`: the one that holds them all."""
    networks = [_network(one) for one in value]
    if action == "merge":
        four = [one for one in networks if isinstance(one, ipaddress.IPv4Network)]
        six = [one for one in networks if isinstance(one, ipaddress.IPv6Network)]
        collapse = ipaddress.collapse_addresses
        return [*map(str, collapse(four)), *map(str, collapse(six))]
    if action != "span" or not networks:
        raise TemplateRuntimeError("cidr_merge takes merge or span, and at least one network")
    outer = networks[0]
    while not all(_inside(one, outer) for one in networks):
        outer = outer.supernet()
    return str(outer)


def ip4_hex(value: object, delimiter: str = "") -> str:
    """An IPv4 address in hexadecimal digits."""
    return delimiter.join(f"{int(part):02x}" for part in str(value).split("."))


def hwaddr(value: Any, query: str = "") -> Any:
    """A hardware address in the form that `query` names; False where it is none."""
    text = str(value)
    if MAC.match(text) is None:
        return False
    digits = re.sub(r"[^0-9a-f]", "", text.lower())
    pairs = [digits[n : n + 2] for n in range(0, 12, 2)]
    forms = {
        "": text, "bool": True, "unix": ":".join(pairs), "linux": ":".join(pairs), "bare": digits,
        "win": "-".join(pairs).upper(), "cisco": ".".join(digits[n : n + 4] for n in (0, 4, 8)),
    }  # fmt: skip
    if query not in forms:
        raise TemplateRuntimeError(f"hwaddr knows no '{query}': {', '.join(filter(None, forms))}")
    return forms[query]


FILTERS: dict[str, Callable[..., Any]] = {
    "ipaddr": ipaddr,
    "ipv4": lambda value, query="": ipaddr(value, query, 4),
    "ipv6": lambda value, query="": ipaddr(value, query, 6),
    "ipwrap": ipwrap,
    "ipsubnet": ipsubnet,
    "ipmath": ipmath,
    "nthhost": nthhost,
    "network_in_network": network_in_network,
    "cidr_merge": cidr_merge,
    "ip4_hex": ip4_hex,
    "hwaddr": hwaddr,
    "macaddr": hwaddr,
}
