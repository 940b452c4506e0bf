"""Become another user for good: groups, group, user, in this order, and verified.

`plan` looks up and decides, before any fork; `drop` acts, in each worker. Refuses to know
who calls it, and never continues with more rights than were asked for.
"""

import os
from typing import NamedTuple

from epolld.errors import PrivilegeError


class Identity(NamedTuple):
    """Whom to become. `groups` are all the supplementary groups, `gid` included, sorted."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str  # for messages; the number where it has no name


def plan(user: str | None, group: str | None, euid: int) -> Identity | None:
    """The identity to switch to; None when none is configured, or `euid` is not root's.

    A plain user cannot switch and need not: the same file serves root and a shell. Names or
    numbers. Raises PrivilegeError for an unknown user or group, only as root.
    """
    if euid != 0 or (user is None and group is None):
        return None
    gid = None if group is None else find_group("master.group", group)
    if user is None:
        assert gid is not None
        return Identity(0, gid, (gid,), "root")
    uid, primary, name = _find_user(user)
    if gid is None:
        gid = primary
    if gid is None:
        raise PrivilegeError(
            f"master.user: user {user} is not in the user database, so its group is unknown; "
            "set master.group too"
        )
    # Looked up here and not by initgroups(3) in each worker: no user database after the fork.
    groups = (gid,) if name is None else os.getgrouplist(name, gid)
    return Identity(uid, gid, tuple(sorted(set(groups))), name or user)


def _find_user(user: str) -> tuple[int, int | None, str | None]:
    """Number, primary group and name of `user`; the last two None for a number without entry."""
    import pwd

    number = user.isascii() and user.isdigit()
    try:
        entry = pwd.getpwuid(int(user)) if number else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        if number and int(user) < 2**32 - 1:
            return int(user), None, None
        raise PrivilegeError(
            f"master.user: no user {user!r} on this system; create it (useradd --system {user}) "
            "or correct the name"
        ) from None
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def find_group(setting: str, group: str) -> int:
    """The number of `group`; raises PrivilegeError, which names the setting."""
    import grp

    if group.isascii() and group.isdigit() and int(group) < 2**32 - 1:
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise PrivilegeError(
            f"{setting}: no group {group!r} on this system; create it "
            f"(groupadd --system {group}) or correct the name"
        ) from None


def drop(identity: Identity) -> None:
    """Become `identity` and make sure that there is no way back. Raises PrivilegeError."""
    try:
        # Groups first, user last: each step needs the rights that the last one gives away.
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        raise PrivilegeError(
            f"cannot become user {identity.name} (uid {identity.uid}, gid {identity.gid}): "
            f"{error.strerror}; start as root with CAP_SETUID and CAP_SETGID, or unset master.user"
        ) from error
    _verify(identity)


def _verify(identity: Identity) -> None:
    """Ask the kernel who we are now; a call that reports success may still have done nothing."""
    uids, gids, groups = os.getresuid(), os.getresgid(), set(os.getgroups())
    if uids != (identity.uid,) * 3 or gids != (identity.gid,) * 3 or groups != set(identity.groups):
        raise PrivilegeError(
            f"tried to become user {identity.name} but am uid {uids}, gid {gids}, "
            f"groups {sorted(groups)}"
        )
    if identity.uid == 0:
        return
    try:
        os.setuid(0)
    except PermissionError:
        return
    raise PrivilegeError(
        f"became user {identity.name} but could become root again: CAP_SETUID was kept; "
        "remove it from AmbientCapabilities="
    )
