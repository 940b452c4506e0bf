"""Looking up an identity, and really becoming it."""

import grp
import os
import pathlib
import pwd

import pytest
from forked import in_child

from epolld.errors import PrivilegeError
from epolld.host import privileges
from epolld.host.privileges import Identity, drop, plan

NOBODY = pwd.getpwnam("nobody")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def test_no_switch_wanted():
    assert plan(None, None, 0) is None


def test_a_plain_user_does_not_switch_and_is_not_asked():
    assert plan("no-such-user", "no-such-group", 1000) is None


def test_user_brings_its_groups():
    identity = plan("nobody", None, 0)
    assert identity.uid == NOBODY.pw_uid
    assert identity.gid == NOBODY.pw_gid
    assert set(identity.groups) == set(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert identity.name == "nobody"


def test_group_replaces_the_primary_one():
    daemon = grp.getgrnam("daemon").gr_gid
    identity = plan("nobody", "daemon", 0)
    assert identity.gid == daemon
    assert identity.groups == (daemon,)


def test_group_alone_keeps_the_user():
    daemon = grp.getgrnam("daemon").gr_gid
    assert plan(None, "daemon", 0) == Identity(0, daemon, (daemon,), "root")


def test_numbers():
    assert plan(str(NOBODY.pw_uid), None, 0) == plan("nobody", None, 0)
    assert plan("3999999", "3999998", 0) == Identity(3999999, 3999998, (3999998,), "3999999")


@pytest.mark.parametrize(
    ("user", "group", "text"),
    [
        ("no-such-user", None, "no user 'no-such-user'.*useradd"),
        (None, "no-such-group", "no group 'no-such-group'.*groupadd"),
        ("3999999", None, "set master.group too"),
        ("4294967295", "daemon", "no user"),  # -1 means "unchanged" to setresuid(2)
        (None, "4294967295", "no group"),
        ("9" * 30, "daemon", "no user"),
    ],
)
def test_unknown_names_are_refused(user, group, text):
    with pytest.raises(PrivilegeError, match=text):
        plan(user, group, 0)


@needs_root
def test_drop_to_nobody_is_for_good():
    identity = plan("nobody", None, 0)

    def work():
        os.setgroups([0, 4, 27])
        drop(identity)
        back = []
        for attempt in (
            lambda: os.setuid(0),
            lambda: os.seteuid(0),
            lambda: os.setgid(0),
            lambda: os.setgroups([0]),
            lambda: os.open("/etc/shadow", os.O_RDONLY),
        ):
            try:
                attempt()
                back.append("succeeded")
            except PermissionError:
                back.append("refused")
        status = pathlib.Path("/proc/self/status").read_text()
        capabilities = [line.split()[1] for line in status.split("\n") if line.startswith("CapEff")]
        return os.getresuid(), os.getresgid(), os.getgroups(), back, int(capabilities[0], 16)

    uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
    expected = ((uid,) * 3, (gid,) * 3, list(identity.groups), ["refused"] * 5, 0)
    assert in_child(work) == repr(expected)


@needs_root
def test_drop_of_the_group_alone():
    identity = plan(None, "daemon", 0)

    def work():
        drop(identity)
        return os.getresuid(), os.getresgid(), tuple(os.getgroups())

    assert in_child(work) == repr(((0,) * 3, (identity.gid,) * 3, identity.groups))


@needs_root
def test_drop_without_the_right_says_so():
    def work():
        drop(Identity(65534, 65534, (65534,), "nobody"))
        drop(Identity(1, 1, (1,), "daemon"))

    assert in_child(work).startswith("PrivilegeError: cannot become user daemon")


@needs_root
@pytest.mark.parametrize("call", ["setgroups", "setresgid", "setresuid"])
def test_a_call_that_did_nothing_is_found_out(call, monkeypatch):
    monkeypatch.setattr(privileges.os, call, lambda *args: None)
    text = in_child(lambda: drop(Identity(65534, 65534, (65534, 65533), "nobody")))
    assert text.startswith("PrivilegeError: tried to become user nobody but am")


@needs_root
def test_a_way_back_to_root_is_found_out(monkeypatch):
    # What a kept CAP_SETUID looks like: setuid(0) does not fail.
    monkeypatch.setattr(privileges.os, "setuid", lambda uid: None)
    text = in_child(lambda: drop(Identity(65534, 65534, (65534,), "nobody")))
    assert "could become root again" in text
