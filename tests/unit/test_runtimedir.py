"""Where the runtime directory is, and which ones are refused."""

import os
import stat

import pytest

from epolld.errors import PathError
from epolld.host.runtimedir import SYSTEM_MODE, USER_MODE, distrust, find, prepare

FULL = {
    "RUNTIME_DIRECTORY": "/run/a:/run/b",
    "XDG_RUNTIME_DIR": "/run/user/7",
    "TMPDIR": "/var/tmp",
}


def without(*names):
    return {key: value for key, value in FULL.items() if key not in names}


@pytest.mark.parametrize(
    ("configured", "environ", "uid", "expected"),
    [
        ("/srv/x", FULL, 0, "/srv/x"),
        (None, FULL, 0, "/run/a"),
        (None, FULL, 7, "/run/a"),
        (None, without("RUNTIME_DIRECTORY"), 0, "/run/user/7/epolld"),
        (None, without("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"), 0, "/run/epolld"),
        (None, without("RUNTIME_DIRECTORY"), 7, "/run/user/7/epolld"),
        (None, without("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"), 7, "/var/tmp/epolld-7"),
        (None, {}, 7, "/tmp/epolld-7"),
        (None, {"XDG_RUNTIME_DIR": "relative", "TMPDIR": "relative"}, 7, "/tmp/epolld-7"),
    ],
)
def test_find(configured, environ, uid, expected):
    assert find(configured, environ, uid) == expected


def test_prepare_creates_a_tight_directory_whatever_the_umask(tmp_path):
    path = tmp_path / "run"
    before = os.umask(0)
    try:
        prepare(str(path))
        assert os.umask(0) == 0  # put back
    finally:
        os.umask(before)
    expected = SYSTEM_MODE if os.geteuid() == 0 else USER_MODE
    assert stat.S_IMODE(path.stat().st_mode) == expected
    prepare(str(path))  # again: found and trusted


def test_refuses_a_symlink(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to("real")
    with pytest.raises(PathError, match="symbolic link"):
        prepare(str(tmp_path / "run"))


def test_refuses_a_file(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(PathError, match="not a directory"):
        prepare(str(tmp_path / "run"))


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_refuses_one_that_others_may_write_to(tmp_path, mode):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(mode)
    with pytest.raises(PathError, match="chmod go-w"):
        prepare(str(tmp_path / "run"))


def test_refuses_another_users(tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    found = (tmp_path / "run").stat()
    assert distrust(found, found.st_uid) == ""
    assert "belongs to user" in distrust(found, found.st_uid + 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_root_refuses_a_users_directory(tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    os.chown(tmp_path / "run", 65534, 65534)
    with pytest.raises(PathError, match="belongs to user 65534"):
        prepare(str(tmp_path / "run"))


def test_missing_parent_names_the_remedy(tmp_path):
    with pytest.raises(PathError, match=r"create .*absent first or set master.runtime_directory"):
        prepare(str(tmp_path / "absent" / "run"))
