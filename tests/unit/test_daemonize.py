"""Going to the background, by a real program as its shell sees it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from epolld.errors import ExitCode
from epolld.host.daemon import read_report

# The daemon keeps the writing end of a pipe of ours: its news come there, and EOF is its end.
PROLOGUE = """
import os, sys, signal, threading
from epolld.host import daemon
news = int(sys.argv[1])
def say(text): os.write(news, (text + "\\n").encode())
"""


class Run:
    """One run of a program that daemonizes."""

    def __init__(self, body, **options):
        self.read_fd, write_fd = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROLOGUE + body, str(write_fd)],
            pass_fds=[write_fd],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **options,
        )
        os.close(write_fd)
        self.news = open(self.read_fd)  # noqa: SIM115 (closed by the fixture)


@pytest.fixture
def run():
    runs = []

    def start(body, **options):
        runs.append(Run(body, **options))
        return runs[-1]

    yield start
    for one in runs:
        one.process.communicate()
        assert one.news.read() == "", "the daemon said more than the test read"  # waits for EOF
        one.news.close()


def test_parent_exits_0_once_ready(run, tmp_path):
    os.mkfifo(tmp_path / "go")
    one = run(f"""
go = os.open({str(tmp_path / "go")!r}, os.O_RDWR)
report = daemon.detach([news, go], 0o027, {str(tmp_path)!r})
say(f"{{os.getpid()}} {{os.getsid(0) == os.getpgrp() != os.getpid()}} {{os.getcwd()}}")
say(f"{{os.umask(0):o}} {{[os.readlink(f'/proc/self/fd/{{n}}') for n in (0, 1)]}}")
say(f"{{[os.get_inheritable(n) for n in (0, 1, 2)]}}")
say(f"{{signal.getsignal(signal.SIGTERM) is signal.SIG_DFL}}")
os.read(go, 1)
os.write(2, b"still on the terminal\\n")
report.ready()
os.write(2, b"gone with the wind\\n")
say(os.readlink("/proc/self/fd/2") + f" {{report.fileno()}}")
""")
    pid, in_session, cwd = one.news.readline().split()
    assert int(pid) != one.process.pid
    assert in_session == "True"
    assert cwd == str(tmp_path)
    assert one.news.readline() == "27 ['/dev/null', '/dev/null']\n"
    assert one.news.readline() == "[True, True, True]\n"
    assert one.news.readline() == "True\n"
    assert one.process.poll() is None  # waits for the news
    with open(tmp_path / "go", "wb") as go:
        go.write(b"x")
    assert one.process.wait() == 0
    assert one.news.readline() == "/dev/null -1\n"
    assert one.process.stderr.read() == b"still on the terminal\n"


def test_failure_reaches_the_shell(run):
    one = run("daemon.detach([news], 0, '/').failed(69, 'cannot bind 127.0.0.1:80: \\u2026')")
    _, stderr = one.process.communicate()
    assert one.process.returncode == 69
    assert stderr.decode() == "epolld: cannot bind 127.0.0.1:80: …\n"


def test_daemon_that_dies_without_a_word(run):
    one = run("daemon.detach([news], 0, '/'); os.kill(os.getpid(), signal.SIGKILL)")
    _, stderr = one.process.communicate()
    assert one.process.returncode == ExitCode.BOOT_FAILED
    assert b"died before it was ready" in stderr


def test_worker_that_lives_does_not_hide_the_death(run):
    one = run("""
report = daemon.detach([news], 0, '/')
if not os.fork():
    say(f"{os.getpid()} {report.fileno()}")
    signal.pause()
os.kill(os.getpid(), signal.SIGKILL)
""")
    worker, fd = one.news.readline().split()
    try:
        # Not communicate(): the worker holds the pipe of standard error.
        assert one.process.wait(timeout=20) == ExitCode.BOOT_FAILED
        assert fd == "-1"
    finally:
        os.kill(int(worker), signal.SIGKILL)


def test_wrong_directory_is_told(run):
    one = run("daemon.detach([news], 0, '/no/such/place'); say('lives')")
    _, stderr = one.process.communicate()
    assert one.process.returncode == ExitCode.BOOT_FAILED
    assert b"cannot go to the background" in stderr
    assert b"/no/such/place" in stderr


def test_keeps_what_it_must_and_closes_the_rest_quickly(run, tmp_path):
    one = run(f"""
from epolld import log
log.configure("info", "file", "text", {str(tmp_path / "log")!r})
lost = os.dup2(0, 150)  # a number that nothing takes again
report = daemon.detach([news], 0, "/")
import logging
logging.getLogger("epolld.master").info("after")
fds = sorted(map(int, os.listdir("/proc/self/fd")))
say(repr(lost in fds))
say(repr(set(fds) >= {{0, 1, 2, news, log.output_fd(), report.fileno()}}) + f" {{len(fds)}}")
report.ready()
""")
    started = time.monotonic()
    assert one.process.wait() == 0
    assert time.monotonic() - started < 10  # even with a limit of a million
    assert one.news.readline() == "False\n"
    assert one.news.readline() == "True 7\n"  # the seventh is that of listdir
    assert "info master" in (tmp_path / "log").read_text()


def test_interrupting_the_parent_leaves_the_daemon(run, tmp_path):
    os.mkfifo(tmp_path / "go")
    one = run(f"""
report = daemon.detach([news], 0, "/")
say("up")
open({str(tmp_path / "go")!r}).read()
report.ready()
say("ready all the same")
""")
    assert one.news.readline() == "up\n"
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait() == -signal.SIGINT
    open(tmp_path / "go", "w").close()
    assert one.news.readline() == "ready all the same\n"


def test_log_to_stderr_goes_silent_with_it(run):
    one = run("""
import logging
from epolld import log
log.configure("info", "stderr", "text", None)
logger = logging.getLogger("epolld.master")
logger.info("first")
report = daemon.detach([news], 0, "/")
logger.info("second")
report.ready()
logger.info("third")
""")
    stderr = one.process.stderr.read().decode()
    assert [line.split(": ")[1] for line in stderr.splitlines()] == ["first", "second"]


def test_standard_descriptors_are_filled():
    code = """
import os
for fd in (0, 1): os.close(fd)
from epolld.host.daemon import fill_standard_descriptors
fill_standard_descriptors()
os.write(2, ",".join(os.readlink(f"/proc/self/fd/{n}") for n in (0, 1)).encode())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "/dev/null,/dev/null"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"0 ", (0, "")),
        (b"78 line one\nline two", (78, "line one\nline two")),
        (b"70 \xff", (70, "\\xff")),
    ],
)
def test_read_report(message, expected):
    assert read_report(message) == expected


@pytest.mark.parametrize("message", [b"", b"garbage", b" 3"])
def test_read_report_takes_silence_for_death(message):
    assert read_report(message)[0] == ExitCode.BOOT_FAILED
