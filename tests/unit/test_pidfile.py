"""The pid file, with real locks, forks, races and an execve."""

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys

import pytest

from epolld.errors import AlreadyRunningError, PathError
from epolld.host.pidfile import PidFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "epolld.pid"


def leftovers(path):
    return sorted(entry.name for entry in path.parent.iterdir() if entry.name != path.name)


def fork(work):
    """Fork a child that runs `work(say)` and exits; its PID and the end to hear it."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read_fd)
            work(lambda text: os.write(write_fd, text.encode()))
        except BaseException as error:
            os.write(write_fd, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    return pid, read_fd


def hear(read_fd):
    with open(read_fd) as file:
        return file.read()


def test_acquire_and_release(path):
    before = os.umask(0o077)
    try:
        pidfile = PidFile(str(path))
        pidfile.acquire()
    finally:
        os.umask(before)
    assert path.read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert not os.get_inheritable(pidfile.fileno())
    assert leftovers(path) == []
    pidfile.release()
    pidfile.release()
    assert not path.exists()
    assert pidfile.fileno() == -1


def test_relative_path(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    pidfile = PidFile(path.name)
    pidfile.acquire()
    pidfile.release()
    assert leftovers(path) == []


def test_second_start_names_the_first(path):
    first = PidFile(str(path))
    first.acquire()
    with pytest.raises(AlreadyRunningError, match=f"process {os.getpid()};"):
        PidFile(str(path)).acquire()
    assert leftovers(path) == []
    first.release()
    second = PidFile(str(path))
    second.acquire()
    second.release()


def test_crash_leaves_a_stale_file_that_is_replaced(path):
    def work(say):
        PidFile(str(path)).acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    pid, read_fd = fork(work)
    os.waitpid(pid, 0)
    os.close(read_fd)
    assert path.read_text() == f"{pid}\n"
    pidfile = PidFile(str(path))
    pidfile.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    assert leftovers(path) == []
    pidfile.release()


@pytest.mark.parametrize("content", ["", "\n", "1\n", "999999999\n"])
def test_unlocked_file_is_stale_whatever_its_number(path, content):
    path.write_text(content)
    pidfile = PidFile(str(path))
    pidfile.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    pidfile.release()


def test_refuses_to_replace_what_is_no_pid_file(path):
    path.write_text("root:x:0:0\n")
    with pytest.raises(PathError, match="not a pid file"):
        PidFile(str(path)).acquire()
    assert path.read_text() == "root:x:0:0\n"
    assert leftovers(path) == []


@pytest.mark.parametrize(
    ("content", "process"), [("", "unknown"), ("0", "unknown"), ("9" * 30, "9" * 30)]
)
def test_holder_without_a_number_is_still_a_holder(path, monkeypatch, content, process):
    monkeypatch.setattr("epolld.host.pidfile.PATIENCE", 2)
    path.write_text(content)
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunningError, match=f"process {process};"):
            PidFile(str(path)).acquire()
    assert leftovers(path) == []


def test_refuses_a_symlink_and_leaves_its_target(path):
    target = path.parent / "target"
    target.write_text("1\n")
    path.symlink_to(target)
    with pytest.raises(PathError, match="symbolic link"):
        PidFile(str(path)).acquire()
    assert target.read_text() == "1\n"
    assert leftovers(path) == ["target"]


def test_refuses_a_fifo_without_waiting(path):
    os.mkfifo(path)
    with pytest.raises(PathError, match="not a regular file"):
        PidFile(str(path)).acquire()


def test_refuses_a_socket(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        with pytest.raises(PathError, match="cannot open the pid file: No such device"):
            PidFile(str(path)).acquire()
    assert leftovers(path) == []


def test_refuses_a_file_in_place_of_the_directory(path):
    path.write_text("")
    with pytest.raises(PathError, match="is not a directory; set master"):
        PidFile(str(path / "epolld.pid")).acquire()


def test_a_full_disk_leaves_nothing(path, monkeypatch):
    def full(fd, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(PathError, match="cannot write the pid file: No space left"):
        PidFile(str(path)).acquire()
    monkeypatch.undo()
    assert list(path.parent.iterdir()) == []


def test_a_file_that_cannot_be_replaced_stays(path, monkeypatch):
    """The directory has become read-only, say, between the start and going to the background."""
    pidfile = PidFile(str(path))
    pidfile.acquire()

    def refuse(old, new):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PathError, match="cannot replace the pid file: Read-only file system"):
        pidfile.write(1)
    assert path.read_text() == f"{os.getpid()}\n"
    assert leftovers(path) == []
    pidfile.release()


def test_refuses_a_directory_that_is_missing_or_open_to_all(tmp_path):
    with pytest.raises(PathError, match=r"create .*absent or set master\.pidfile"):
        PidFile(str(tmp_path / "absent" / "x.pid")).acquire()
    tmp_path.chmod(0o777)
    with pytest.raises(PathError, match="chmod o-w"):
        PidFile(str(tmp_path / "x.pid")).acquire()
    tmp_path.chmod(0o1777)  # as /tmp
    pidfile = PidFile(str(tmp_path / "x.pid"))
    pidfile.acquire()
    pidfile.release()


def test_lock_survives_fork_and_exit_of_the_parent(path):
    go_read, go_write = os.pipe()

    def work(say):
        pidfile = PidFile(str(path))
        pidfile.acquire()
        if os.fork():
            os._exit(0)
        pidfile.write(os.getpid())
        say(path.read_text())
        os.read(go_read, 1)
        pidfile.release()
        say("released")

    pid, read_fd = fork(work)
    os.waitpid(pid, 0)  # the parent is gone
    daemon = int(os.read(read_fd, 100))
    assert daemon != pid
    with pytest.raises(AlreadyRunningError, match=f"process {daemon};"):
        PidFile(str(path)).acquire()
    os.write(go_write, b"x")
    assert hear(read_fd) == "released"
    assert leftovers(path) == []
    assert not path.exists()
    os.close(go_read)
    os.close(go_write)


def test_worker_that_closed_its_copy_does_not_hold_the_lock(path):
    stay_read, stay_write = os.pipe()

    def work(say):
        pidfile = PidFile(str(path))
        pidfile.acquire()
        if not os.fork():  # a worker that outlives its master
            os.close(stay_write)
            pidfile.close()
            say("closed")
            os.read(stay_read, 1)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    pid, read_fd = fork(work)
    os.waitpid(pid, 0)
    assert os.read(read_fd, 10) == b"closed"
    pidfile = PidFile(str(path))
    pidfile.acquire()
    pidfile.release()
    os.close(stay_write)
    assert hear(read_fd) == ""
    os.close(stay_read)


def test_release_leaves_a_file_that_is_not_ours_any_more(path):
    pidfile = PidFile(str(path))
    pidfile.acquire()
    path.unlink()
    path.write_text("4242\n")
    pidfile.release()
    assert path.read_text() == "4242\n"


def test_write_after_somebody_removed_the_file(path):
    pidfile = PidFile(str(path))
    pidfile.acquire()
    path.unlink()
    pidfile.write(123456)
    assert path.read_text() == "123456\n"
    with pytest.raises(AlreadyRunningError):
        PidFile(str(path)).acquire()
    pidfile.release()
    assert leftovers(path) == []


def test_reader_never_sees_a_part(path):
    pidfile = PidFile(str(path))
    pidfile.acquire()
    go_read, go_write = os.pipe()

    def work(say):
        os.close(go_write)
        os.set_blocking(go_read, False)
        seen = set()
        say("r")
        while True:
            seen.add(path.read_text())
            try:
                if not os.read(go_read, 1):
                    break
            except BlockingIOError:
                pass
        say(repr(seen <= {f"{number}\n" for number in (os.getppid(), 1, 4194303)}))

    pid, read_fd = fork(work)
    assert os.read(read_fd, 1) == b"r"
    for _ in range(300):
        pidfile.write(1)
        pidfile.write(4194303)
    os.close(go_write)
    assert hear(read_fd) == "True"
    os.waitpid(pid, 0)
    pidfile.release()
    os.close(go_read)


@pytest.mark.parametrize("stale", [True, False])
def test_of_many_starters_exactly_one_wins(path, stale):
    for _ in range(10):
        if stale:
            path.write_text("999999999\n")
        go_read, go_write = os.pipe()
        stay_read, stay_write = os.pipe()

        def work(say, go_read=go_read, go_write=go_write, stay=(stay_read, stay_write)):
            os.close(go_write)
            os.close(stay[1])
            os.read(go_read, 1)
            pidfile = PidFile(str(path))
            try:
                pidfile.acquire()
                say(f"won {os.getpid()}\n")
                os.read(stay[0], 1)
            except AlreadyRunningError as error:
                say(f"lost to {str(error).split('process ')[1].split(';')[0]}\n")

        children = [fork(work) for _ in range(8)]
        os.close(go_write)
        news = [os.read(read_fd, 200).decode() for _, read_fd in children]
        content = path.read_text().strip()
        os.close(stay_write)
        for pid, read_fd in children:
            os.waitpid(pid, 0)
            os.close(read_fd)
        os.close(go_read)
        os.close(stay_read)
        assert sorted(news) == [f"lost to {content}\n"] * 7 + [f"won {content}\n"]
        assert leftovers(path) == []
        path.unlink()


def test_lock_is_adopted_after_an_execve(path):
    pidfile = PidFile(str(path))
    pidfile.acquire()
    code = (
        "import sys, os; from epolld.host.pidfile import PidFile\n"
        "p = PidFile.adopt(sys.argv[1], int(sys.argv[2]))\n"
        "print(os.get_inheritable(p.fileno())); sys.stdout.flush()\n"
        "sys.stdin.read(); p.release()"
    )
    fd = pidfile.fileno()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(fd)],
        pass_fds=[fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        pidfile.close()  # as if we had become it
        assert process.stdout.readline() == b"False\n"
        with pytest.raises(AlreadyRunningError):
            PidFile(str(path)).acquire()
    assert process.returncode == 0
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try as another user")
def test_directory_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o755)

    def work(say):
        os.chdir(tmp_path)  # the folders above are not for everybody
        os.setresuid(65534, 65534, 65534)
        PidFile("x.pid").acquire()

    pid, read_fd = fork(work)
    assert hear(read_fd).startswith("PathError: x.pid: cannot create the pid file: Permission")
    os.waitpid(pid, 0)
