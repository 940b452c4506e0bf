"""Commands in a network namespace of their own: what happens on its loopback disturbs nobody."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

# Loopback is down in a new namespace. All of its ports are there for the taking.
PORTS = "/proc/sys/net/ipv4/ip_local_port_range"
SCRIPT = f'ip link set lo up && echo 1024 65535 >{PORTS} && exec "$@"'


def alone(command: list[str]) -> list[str]:
    """The command, to be run in a namespace of its own."""
    return ["unshare", "--net", "--", "sh", "-c", SCRIPT, "sh", *command]


@functools.cache
def may_be_alone() -> bool:
    """Whether this user, on this machine, can have one."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return subprocess.run(alone(["true"]), capture_output=True, check=False).returncode == 0
