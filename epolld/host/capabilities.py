"""Capabilities: what a process that is not root may do of what root may (capabilities(7)).

Python has no call for them, so the C library's is used; imported only where there is something
to drop or to keep.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

from epolld.config.guard import CAPABILITIES
from epolld.errors import PrivilegeError

PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_VERSION_3 = 0x20080522  # of capget(2): 64 bits in two words

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def mask_of(names: Iterable[str]) -> int:
    """The bits of capabilities by name."""
    return sum(1 << CAPABILITIES.index(name) for name in set(names))


def set_no_new_privs() -> None:
    """No program executed from here on, by us or our children, gains rights."""
    _prctl("PR_SET_NO_NEW_PRIVS", PR_SET_NO_NEW_PRIVS, 1)


def keep_over_setuid() -> None:
    """Have the next change from root to another user leave the permitted ones as they are."""
    _prctl("PR_SET_KEEPCAPS", PR_SET_KEEPCAPS, 1)


def bound(mask: int) -> None:
    """Never to gain others than those in `mask` again, not by any program either."""
    number = 0
    while (has := _libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:
        if has and not mask >> number & 1:
            _prctl("PR_CAPBSET_DROP", PR_CAPBSET_DROP, number)
        number += 1


def limit(mask: int) -> None:
    """Have those in `mask` alone, of what there is: permitted and effective, none inherited."""
    mask &= permitted()
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)(*(_Data(word, word, 0) for word in (mask & 0xFFFFFFFF, mask >> 32)))
    if _libc.capset(ctypes.byref(header), data) != 0:
        _fail("capset")
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)  # EINVAL before Linux 4.3
    if permitted() != mask:
        raise PrivilegeError(f"kept capabilities {permitted():x}, not {mask:x}")


def permitted() -> int:
    """Those that the process has or may take."""
    header = _Header(_VERSION_3, 0)
    data = (_Data * 2)()
    if _libc.capget(ctypes.byref(header), data) != 0:
        _fail("capget")
    return int(data[0].permitted | data[1].permitted << 32)


def _prctl(name: str, option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        _fail(name)


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise PrivilegeError(f"{what}: {os.strerror(number)}")
