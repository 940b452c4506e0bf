"""What a service and a worker grant to whom: access, limits, the rights of the process.

A part of the schema; see schema.py.
"""

from typing import Annotated, Any

import msgspec

from epolld.config import scalars
from epolld.config.kinds import MAX_INT, Choice, Duration, Kind, Setting, Size, Text, Whole
from epolld.networks import Network, parse_network

MAX_RATE = 10_000  # a second and client; the table of clients counts up to 65,535


# linux/capability.h: a capability's place here is its number.
_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG
MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM
BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES = tuple(f"CAP_{name}" for name in _NAMES.split())
# With these a process can take all others, so to keep them would be to drop nothing.
TOO_MUCH = {"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETFCAP", "CAP_SYS_ADMIN"}


class NetworkKind(Kind):
    """A network of clients."""

    expects = "a network such as 192.0.2.0/24, 2001:db8::/32, unix or all"

    def read(self, text: str, plain: bool) -> Network:
        """The network."""
        return parse_network(text)

    def write(self, value: Network) -> str:
        """Its text."""
        return scalars.quote(str(value))

    def schema(self) -> dict[str, Any]:
        """The loader checks more."""
        return {"type": "string", "pattern": r"^(all|unix|[0-9a-fA-F:.]+(/[0-9]{1,3})?)$"}


class CapabilityKind(Choice):
    """A capability that is less than all."""

    def __init__(self) -> None:
        super().__init__(*(name for name in CAPABILITIES if name not in TOO_MUCH))
        self.expects = "a capability such as CAP_NET_RAW"

    def read(self, text: str, plain: bool) -> str:
        """Its name."""
        if text in TOO_MUCH:
            raise ValueError(f"{text} is as much as being root; leave it out")
        return super().read(text, plain)


class AccessRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the access rules: either `allow` or `deny`."""

    allow: Annotated[Network | None, Setting(NetworkKind(), "Clients that may connect.")] = None
    deny: Annotated[Network | None, Setting(NetworkKind(), "Clients that may not.")] = None


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of a service there is for all and for each client, counted over all workers.
    0: no limit."""

    connections: Annotated[
        int, Setting(Whole(0, MAX_INT), "Live connections of the whole service.")
    ] = 0
    client_connections: Annotated[
        int,
        Setting(
            Whole(0, MAX_INT),
            "Live connections of one client: an IPv4 address, or a /64 network of IPv6. Unix "
            "peers are not limited.",
        ),
    ] = 0
    client_rate: Annotated[
        int, Setting(Whole(0, MAX_RATE), "New connections a second of one client.")
    ] = 0
    refusal: Annotated[
        str | None,
        Setting(
            Text("text", r"[\s\S]+"),
            "What a client above a limit is sent before it is closed, as it stands (before any "
            'TLS), such as "421 too busy\\r\\n". Without it: nothing.',
        ),
    ] = None
    write_buffer: Annotated[
        int,
        Setting(
            Size(),
            "Bytes that may wait to be sent to one client; one that reads too slowly for that is "
            "cut off.",
        ),
    ] = 0
    write_buffer_soft: Annotated[
        int, Setting(Size(), "The same, but only if it stays above for `write_buffer_soft_time`.")
    ] = 0
    write_buffer_soft_time: Annotated[
        float, Setting(Duration(zero=False), "How long `write_buffer_soft` may be exceeded.")
    ] = 60.0


class Rlimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits that the kernel sets to each worker (setrlimit(2)); without a value they stay."""

    address_space: Annotated[
        int | None, Setting(Size(), "RLIMIT_AS: bytes of address space, what is shared included.")
    ] = None
    core: Annotated[
        int | None, Setting(Size(), "RLIMIT_CORE: bytes of a core dump; 0 for none.")
    ] = None
    file_size: Annotated[
        int | None, Setting(Size(), "RLIMIT_FSIZE: bytes of a file that it may write.")
    ] = None
    open_files: Annotated[
        int | None, Setting(Whole(16, MAX_INT), "RLIMIT_NOFILE: descriptors, connections too.")
    ] = None
    processes: Annotated[
        int | None,
        Setting(
            Whole(0, MAX_INT),
            "RLIMIT_NPROC: processes and threads of its user, above which it can make no more.",
        ),
    ] = None
