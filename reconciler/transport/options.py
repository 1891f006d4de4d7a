"""Options of ssh that an inventory may set.

An inventory comes out of Git, and some options of ssh run commands or weaken the check of host
keys. What an operator wants of that belongs into his own ssh_config, which nobody else writes.
"""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.errors import InventoryError
from reconciler.transport.target import Target

#: Carried out by both back-ends.
UNDERSTOOD = {
    *("port", "user", "hostname", "hostkeyalias", "identityfile", "identitiesonly"),
    *("userknownhostsfile", "globalknownhostsfile", "connecttimeout", "proxyjump"),
    *("serveraliveinterval", "serveralivecountmax"),
}
#: Accepted where they ask for what is done anyway, or change nothing here.
ANYWAY = {
    "stricthostkeychecking": {"yes"},
    "forwardagent": {"no"},
    "forwardx11": {"no"},
    "batchmode": {"yes"},
    "permitlocalcommand": {"no"},
    **dict.fromkeys(("controlmaster", "controlpersist", "controlpath", "loglevel"), None),
    **dict.fromkeys(("tcpkeepalive", "preferredauthentications", "pubkeyauthentication"), None),
}
#: What else OpenSSH may be told.
OPENSSH = {
    *("addressfamily", "bindaddress", "bindinterface", "casignaturealgorithms", "ciphers"),
    *("compression", "connectionattempts", "gssapiauthentication", "hostbasedauthentication"),
    *("gssapidelegatecredentials", "hostkeyalgorithms", "ipqos", "kexalgorithms", "macs"),
    *("certificatefile", "pubkeyacceptedalgorithms", "rekeylimit", "verifyhostkeydns"),
    *("updatehostkeys", "hashknownhosts", "checkhostip", "requiredrsasize"),
}
FLAGS = {"-4", "-6", "-C", "-q", "-T", "-x", "-a"}


def check_options(target: Target) -> None:
    """Raises InventoryError for an option that the back-end cannot or must not carry out."""
    openssh = target.connection == "openssh"
    for name, value in target.options:
        if name in ANYWAY:
            accepted = ANYWAY[name]
            if accepted is not None and value.lower() not in accepted:
                raise _refused(target, f"{name}={value}")
        elif name not in UNDERSTOOD and not (openssh and name in OPENSSH):
            raise _refused(target, f"{name}={value}", other=name in OPENSSH)
    for word in target.extra:
        if word not in FLAGS:
            raise _refused(target, word)


def _refused(target: Target, option: str, *, other: bool = False) -> InventoryError:
    if other:
        hint = "set ansible_connection: openssh, which can do that"
    elif option.startswith("stricthostkeychecking"):
        hint = "host keys are always checked: pin them with host_keys, or add them to known_hosts"
    elif option.startswith("proxycommand"):
        hint = "an inventory must not run commands here: use via: [JUMP], or your own ssh_config"
    else:
        hint = "put it into your own ssh_config if you need it"
    return InventoryError(
        f"the inventory must not give ssh the option {option[:80]!r}", host=target.name, hint=hint
    )


def merged(target: Target) -> Iterable[tuple[str, str]]:
    """The options that are to be carried out."""
    return ((name, value) for name, value in target.options if name not in ANYWAY)
