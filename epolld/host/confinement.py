"""What a worker gives up before and after it runs user code, in this order:

    limits of the kernel → user and capabilities → (user code is imported) → root directory

What is not configured costs nothing; but capabilities that nobody asked for are dropped in any
case, such as those that systemd gives a master which binds ports below 1024.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable

from epolld.config import Config
from epolld.config.guard import Rlimits
from epolld.errors import PrivilegeError
from epolld.host import privileges
from epolld.host.privileges import Identity

RESOURCES = {
    "address_space": resource.RLIMIT_AS,
    "core": resource.RLIMIT_CORE,
    "file_size": resource.RLIMIT_FSIZE,
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
}


def forbid_new_privileges(wanted: bool) -> None:
    """In the master, before the first fork; raises PrivilegeError."""
    if wanted:
        from epolld.host import capabilities

        capabilities.set_no_new_privs()


def confine(config: Config, identity: Identity | None) -> None:
    """In a worker, before user code: limits, user, capabilities; raises PrivilegeError."""
    set_limits(config.workers.rlimits)
    master = config.master
    chroot = master.chroot is not None and os.geteuid() == 0
    if identity is None or identity.uid == 0:
        if identity is not None:
            privileges.drop(identity)
        if os.geteuid() != 0 and _has_capabilities():
            _limit(master.capabilities)
        return
    if not master.capabilities and not chroot:
        privileges.drop(identity)  # the kernel drops all
        return
    from epolld.host import capabilities

    kept = {*master.capabilities, *(["CAP_SYS_CHROOT"] if chroot else [])}
    capabilities.bound(capabilities.mask_of(kept))
    capabilities.keep_over_setuid()
    privileges.drop(identity)
    capabilities.limit(capabilities.mask_of(kept))


def enter_root(config: Config, started_as_root: bool) -> None:
    """In a worker, after user code is imported; raises PrivilegeError.

    What the daemon itself imports late would not be found any more, so it is imported now.
    """
    path = config.master.chroot
    if path is None or not started_as_root:
        return
    import importlib
    import pkgutil

    for room in ("epolld.net", "epolld.worker"):
        package = importlib.import_module(room)
        for module in pkgutil.iter_modules(package.__path__, room + "."):
            importlib.import_module(module.name)
    try:
        os.chroot(path)
        os.chdir("/")
    except OSError as error:
        raise PrivilegeError(f"master.chroot: {path}: {error.strerror}") from error
    if os.geteuid() != 0:
        _limit(config.master.capabilities)


def set_limits(limits: Rlimits) -> None:
    """Soft and hard, so that nobody raises them again; raises PrivilegeError."""
    for name, number in RESOURCES.items():
        value = getattr(limits, name)
        if value is None:
            continue
        try:
            resource.setrlimit(number, (value, value))
        except (OSError, ValueError) as error:
            hard = resource.getrlimit(number)[1]
            raise PrivilegeError(
                f"workers.rlimits.{name}: cannot be {value}: {error}; the hard limit is {hard}"
            ) from None


def _has_capabilities() -> bool:
    """Asked of the kernel without anything that would have to be imported for it."""
    with open("/proc/self/status") as file:
        return any(line.startswith("CapPrm:") and int(line.split()[1], 16) for line in file)


def _limit(names: Iterable[str]) -> None:
    from epolld.host import capabilities

    capabilities.limit(capabilities.mask_of(names))
