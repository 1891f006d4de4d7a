"""The systemd units of the agent, as text. Their exposure scores are tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from reconciler.agent.places import UNIT, USER, credential

PROVIDER_SOCKET = "reconciler-provider.socket"
PROVIDER = "reconciler-provider@.service"
TIMER = "reconciler-agent.timer"
#: Places of which the provider sees nothing.
HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108  # names only
DEADMAN = "reconciler-deadman.service"
DEADMAN_TIMER = "reconciler-deadman.timer"

AGENT = """\
[Unit]
Description=keep this host as its state repo says
# Not network-online.target: healing needs no network.
After=local-fs.target network.target {socket}
Wants={socket}
ConditionPathExists=/etc/reconciler/agent.yml
StartLimitIntervalSec=0

[Service]
{how}
KillMode=mixed
TimeoutStopSec=90
RuntimeDirectory=reconciler
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
StateDirectory=reconciler
StateDirectoryMode=0700
LimitNOFILE=65536
OOMPolicy=continue
Nice=5
TasksMax=512
MemoryHigh=512M
MemoryMax=1G
{hardening}
[Install]
WantedBy=multi-user.target
"""
#: Version of systemd -> how a reload is asked for. Only the newer way waits until it is done.
RELOADS = {
    0: "Type=notify\nExecReload=/bin/kill -HUP $MAINPID",
    253: "Type=notify-reload",
}
RESIDENT = """\
{reload}
NotifyAccess=main
ExecStart={python} -I -B -m reconciler.agent
Restart=always
RestartSec=5
WatchdogSec=120"""
ONESHOT = """\
Type=oneshot
ExecStart={python} -I -B -m reconciler.agent.once
# What one run could not do, the next one tries; the exit code says what it was.
SuccessExitStatus=4 5 6 7 9
# It has a limit of its own: run_limit.
TimeoutStartSec=infinity"""
#: For all that changes the machine. No namespace of mounts: what a run mounts must reach the
#: host. No NoNewPrivileges and no RestrictSUIDSGID: package scripts need both. What is asked for
#: all the same is told no, and not killed: it may be half-way through something.
HARDENING = """\
LimitCORE=0
LockPersonality=yes
RestrictRealtime=yes
KeyringMode=private
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=~user
SystemCallErrorNumber=EPERM
SystemCallFilter=~@clock @cpu-emulation @debug @obsolete @raw-io @reboot
CapabilityBoundingSet=~CAP_SYS_RAWIO CAP_SYS_TIME CAP_SYS_BOOT CAP_MAC_OVERRIDE CAP_AUDIT_READ CAP_BPF CAP_PERFMON CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_LEASE CAP_SYS_PACCT CAP_NET_BROADCAST
"""
#: Besides, for the agent, which runs no package scripts and no commands; but guards (`ping`) and
#: validators (`nginx -t` binds its ports), so CAP_NET_RAW and CAP_NET_BIND_SERVICE stay.
AGENT_HARDENING = (
    HARDENING
    + """\
UMask=0077
DevicePolicy=closed
SystemCallArchitectures=native
RestrictNamespaces=~cgroup
SystemCallFilter=~@swap
CapabilityBoundingSet=~CAP_SYS_PTRACE CAP_SYS_MODULE CAP_MAC_ADMIN CAP_AUDIT_CONTROL CAP_IPC_LOCK CAP_SYS_TTY_CONFIG CAP_SYSLOG CAP_LINUX_IMMUTABLE
"""
)
#: For every run that may touch packages or commands, whatever its unit is called in full. No limit
#: of memory or tasks, and the kernel looks for other victims first: dpkg must not end half-way.
#: Scripts count on this mask. They load AppArmor profiles (MAC_ADMIN) and modules, look for
#: processes to restart (PTRACE), write boot sectors (devices), may be of another architecture.
RUN = "reconciler-run-.service.d/hardening.conf"
RUN_HARDENING = f"""\
[Service]
{HARDENING}UMask=0022
OOMPolicy=continue
OOMScoreAdjust=-100
RestrictAddressFamilies=AF_PACKET
"""
SOCKET = """\
[Unit]
Description=where the agent of reconciler asks for what its state repo says

[Socket]
ListenStream=/run/reconciler/provider.sock
SocketMode=0600
DirectoryMode=0755
Accept=yes
MaxConnections=4

[Install]
WantedBy=sockets.target
"""
PROVIDER_UNIT = """\
[Unit]
Description=fetch, verify and compile the state repo of reconciler
CollectMode=inactive-or-failed

[Service]
User={user}
ExecStart={python} -I -B -m reconciler.agent.provider /var/lib/reconciler-fetch
StandardInput=socket
StandardError=journal
# Of a poll that brings nothing, nothing is said.
LogLevelMax=notice
SyslogLevel=warning
RuntimeMaxSec=2h
StateDirectory=reconciler-fetch
StateDirectoryMode=0700
{credentials}UMask=0077
LimitCORE=0
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
ProcSubset=pid
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
RemoveIPC=yes
KeyringMode=private
DevicePolicy=closed
MemoryMax={memory}
TasksMax=64
{binds}"""
TIMER_UNIT = """\
[Unit]
Description=run the agent of reconciler now and then

[Timer]
OnActiveSec=1s
OnUnitInactiveSec={interval:.0f}s
RandomizedDelaySec={spread:.0f}s
FixedRandomDelay=yes
AccuracySec=1s

[Install]
WantedBy=timers.target
"""
DEADMAN_UNIT = """\
[Unit]
Description=say so if the agent of reconciler says nothing any more

[Service]
Type=oneshot
ExecStart={python} -I -B -m reconciler.agent.deadman
TimeoutStartSec=10min
{hardening}"""
DEADMAN_TIMER_UNIT = """\
[Unit]
Description=look whether the agent of reconciler is alive

[Timer]
OnActiveSec=15min
OnUnitInactiveSec=15min

[Install]
WantedBy=timers.target
"""


def units(
    *, timer: bool, interval: float, memory: int, secrets: Sequence[str] = (), systemd: int = 0
) -> Mapping[str, str]:
    """File name -> text, for a resident agent or for one that a timer starts.

    memory: bytes that the provider may use. secrets: files of root's that it needs. systemd: its
    version; 0 if that is not known.
    """
    python = sys.executable
    reload = RELOADS[max(since for since in RELOADS if since <= systemd)]
    binds = hidden(sys.prefix, os.path.dirname(os.path.dirname(__file__)))
    found = {
        UNIT: AGENT.format(
            socket=PROVIDER_SOCKET,
            how=(ONESHOT if timer else RESIDENT).format(python=python, reload=reload),
            hardening=AGENT_HARDENING,
        ),
        PROVIDER_SOCKET: SOCKET,
        PROVIDER: PROVIDER_UNIT.format(
            user=USER,
            memory=memory,
            python=python,
            credentials="".join(f"LoadCredential={credential(one)}:{one}\n" for one in secrets),
            home="tmpfs" if binds else "yes",
            binds="".join(f"BindReadOnlyPaths={path}\n" for path in binds),
        ),
    }
    found[RUN] = RUN_HARDENING
    found[DEADMAN] = DEADMAN_UNIT.format(python=python, hardening=AGENT_HARDENING)
    found[DEADMAN_TIMER] = DEADMAN_TIMER_UNIT
    if timer:
        found[UNIT] = found[UNIT].replace("\n[Install]\nWantedBy=multi-user.target\n", "")
        found[TIMER] = TIMER_UNIT.format(interval=interval, spread=interval / 5)
    return found


def hidden(*paths: str) -> list[str]:
    """Those of our own places that the provider would not see behind its private directories."""
    return sorted({path for path in paths if path.startswith(HIDDEN)})
