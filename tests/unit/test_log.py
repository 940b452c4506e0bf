"""Logging: every event one bounded line, whatever it holds and wherever it cannot go."""

import contextlib
import errno
import json
import logging
import os
import re
import resource
import socket
import stat
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epolld import log, logline, logsink
from epolld.errors import PathError
from epolld.floods import Floods, Kind
from epolld.log import LineHandler, Repeats
from epolld.logline import MAX_LINE, escape, format_journal, format_json, format_text

TEXT = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (\w+) ([\w.]+)\[(\d+)\]: (.*)\n$")
FORMATS = [format_text, format_journal, format_json, logline.format_plain]


@pytest.fixture(autouse=True)
def restore_logging():
    """Leave the root logger as it was; the module's handler goes back to standard error."""
    root = logging.getLogger()
    level, raising = root.level, logging.raiseExceptions
    yield
    log.configure("info", "stderr", "text", None)
    root.removeHandler(log._handler)
    log._handler.lost = 0
    root.setLevel(level)
    logging.raiseExceptions = raising
    logging.captureWarnings(False)


def record(message="hello", *args, name="epolld.master", level=logging.INFO, **extra):
    made = logging.getLogger(name).makeRecord(name, level, "f.py", 1, message, args, None)
    made.__dict__.update(extra)
    return made


def failed(message):
    try:
        raise ValueError(message)
    except ValueError:
        return record("it broke", level=logging.ERROR, exc_info=sys.exc_info())


def run(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)


# What a line looks like


def test_text_format():
    match = TEXT.match(format_text(record("served %d", 3)).decode())
    assert match.groups() == ("info", "master", str(os.getpid()), "served 3")


def test_text_time_is_local_and_keeps_milliseconds():
    made = record(created=1795432523.0459)
    assert format_text(made).decode().split()[1].endswith(".045")
    made = record(created=1795432523.9996)
    assert format_text(made).decode().split()[1].endswith(".999")


def test_names():
    assert b" epolld[" in format_text(record(name="epolld"))
    assert b" worker.loop[" in format_text(record(name="epolld.worker.loop"))
    assert b" asyncio[" in format_text(record(name="asyncio"))


@pytest.mark.parametrize(
    ("level", "priority"), [(10, b"<7>"), (20, b"<6>"), (30, b"<4>"), (40, b"<3>"), (50, b"<2>")]
)
def test_journal_has_a_priority_and_no_time(level, priority):
    line = format_journal(record("x", level=level))
    assert line.startswith(priority + logging.getLevelName(level).lower().encode() + b" master[")


def test_a_peer_cannot_forge_a_line_or_talk_to_the_terminal():
    line = format_text(
        record("got %s", "x\n2026 info master[1]: fake\r\t\x1b[2J\u202e\u2028\udcff")
    )
    assert line.decode().endswith(
        r"got x\n2026 info master[1]: fake\r\t\x1b[2J\u202e\u2028\xff" + "\n"
    )


def test_traceback_is_on_the_same_line():
    line = format_text(failed("first\nsecond")).decode()
    assert line.count("\n") == 1
    assert "it broke | Traceback (most recent call last): |   File " in line
    assert line.endswith("| ValueError: first | second\n")


def test_long_traceback_keeps_its_end():
    line = format_text(failed("é" * 9000 + " the end"))
    assert len(line) <= MAX_LINE
    assert line.decode().endswith("the end\n")
    assert b"it broke | ..." in line
    event = json.loads(format_json(failed("é" * 9000 + " the end")))
    assert event["traceback"].endswith("the end")


def test_json_fields():
    made = failed("oops")
    made.created = 1795432523.0459
    made.epolld = {"peer": ("::1", 5), "rate": float("nan"), "deep": {"a": {"b": 1}}, "n": 2**70}
    event = json.loads(format_json(made))
    assert event["time"] == "2026-11-23T11:15:23.045Z"
    assert event["level"] == "error"
    assert event["logger"] == "epolld.master"
    assert event["pid"] == os.getpid()
    assert event["message"] == "it broke"
    assert event["error"] == "ValueError: oops"
    assert event["traceback"].startswith("Traceback")
    assert event["context"]["peer"] == ["::1", 5]
    assert event["context"]["rate"] == "nan"
    assert event["context"]["n"] == str(2**70)


def test_json_drops_a_context_that_is_too_large():
    context = {str(i): {str(j): [0.123456789] * 32 for j in range(32)} for i in range(32)}
    line = format_json(record("kept", epolld=context))
    assert len(line) <= MAX_LINE
    assert json.loads(line)["message"] == "kept"


class Hostile:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.mark.parametrize("to_line", FORMATS)
def test_arguments_that_do_not_fit(to_line):
    assert b"%d (its arguments do not fit)" in to_line(record("%d", "x"))
    assert b"(its arguments do not fit)" in to_line(record("%s", Hostile()))


@pytest.mark.parametrize("to_line", FORMATS)
@given(
    message=st.text() | st.text().map(lambda text: text * 500),
    name=st.text(min_size=1, max_size=100),
    context=st.dictionaries(st.text(), st.text() | st.integers() | st.floats() | st.none()),
)
def test_any_event_is_one_bounded_line(to_line, message, name, context):
    for made in (record(message, name=name, epolld=context), failed(message)):
        line = to_line(made)
        assert len(line) <= MAX_LINE
        assert line.endswith(b"\n")
        text = line[:-1].decode()  # UTF-8 all through
        assert text.isprintable() or not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", text)
        assert len(text.splitlines()) == 1
        if to_line is format_json:
            json.loads(line)


@given(st.text())
def test_escape_leaves_nothing_to_escape(text):
    assert escape(escape(text)) == escape(text)
    assert len(escape(text).splitlines()) <= 1
    escape(text).encode()  # no lone surrogate


# Where it goes: files


def test_file_is_private_and_appended_to(tmp_path):
    path = tmp_path / "log"
    before = os.umask(0)
    try:
        log.configure("info", "file", "text", str(path))
    finally:
        os.umask(before)
    logging.getLogger("epolld.master").info("one")
    logging.getLogger("users.own").warning("two")
    logging.getLogger("epolld").debug("not this")
    lines = path.read_text().splitlines(keepends=True)
    assert [TEXT.match(line)[4] for line in lines] == ["one", "two"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not os.get_inheritable(log.output_fd())
    assert log.descriptors() == [log.output_fd()]
    log.configure("debug", "file", "json", str(path))
    logging.getLogger("epolld").debug("three")
    assert json.loads(path.read_text().splitlines()[-1])["message"] == "three"


def test_refuses_what_is_no_plain_file_and_keeps_the_old(tmp_path):
    good = tmp_path / "good"
    log.configure("info", "file", "text", str(good))
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)  # so that it can be opened
    (tmp_path / "folder").mkdir()
    for name, why in (
        ("link", "symbolic link"),
        ("fifo", "not a regular file"),
        ("folder", "directory"),
        ("absent/log", "No such file"),
    ):
        with pytest.raises(PathError, match=f"{name}.*{why}.*set logging.file"):
            log.configure("error", "file", "json", str(tmp_path / name))
    os.close(reader)
    assert not (tmp_path / "target").exists()
    logging.getLogger("epolld").info("still here")
    assert "still here" in good.read_text()


@pytest.mark.parametrize(
    ("level", "target", "format"),
    [("loud", "stderr", "text"), ("info", "x", "text"), ("info", "file", "text")],
)
def test_unknown_words_are_refused(level, target, format):
    with pytest.raises(ValueError, match="not known"):
        log.configure(level, target, format, None)


def test_reopen_after_rotation_keeps_the_number(tmp_path):
    path = tmp_path / "log"
    log.configure("info", "file", "text", str(path))
    number = log.output_fd()
    logging.getLogger("epolld").info("old")
    path.rename(tmp_path / "log.1")
    logging.getLogger("epolld").info("still old")
    assert log.reopen() == number == log.output_fd()
    logging.getLogger("epolld").info("new")
    assert [line.split(": ")[1] for line in path.read_text().splitlines()] == ["new"]
    assert len((tmp_path / "log.1").read_text().splitlines()) == 2
    assert not os.get_inheritable(number)


def test_reopen_that_fails_keeps_the_old_file_and_says_so(tmp_path):
    (tmp_path / "d").mkdir()
    log.configure("info", "file", "text", str(tmp_path / "d" / "log"))
    (tmp_path / "d").rename(tmp_path / "e")
    assert log.reopen() is None
    assert "not reopened, still using the old one" in (tmp_path / "e" / "log").read_text()


def test_reopen_without_a_file():
    log.configure("info", "stderr", "text", None)
    assert log.reopen() is None
    assert log.output_fd() == 2


@pytest.mark.parametrize("target", ["file", "stderr"])
def test_adopt_writes_to_what_was_received(tmp_path, target):
    log.configure("info", target, "json", str(tmp_path / "old"))
    before = log.output_fd()
    fd = os.open(tmp_path / "new", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    log.adopt(fd)
    logging.getLogger("epolld.worker").info("there")
    assert json.loads((tmp_path / "new").read_text())["message"] == "there"
    if target == "file":
        assert log.output_fd() == before
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)
    assert not os.get_inheritable(log.output_fd())


def test_no_line_is_lost_or_doubled_while_everything_changes(tmp_path):
    log.configure("info", "file", "text", str(tmp_path / "a"))
    total = 2000

    def write():
        for number in range(total):
            logging.getLogger("epolld").info("number %d", number)

    thread = threading.Thread(target=write)
    thread.start()
    turn = 0
    while thread.is_alive():
        turn += 1
        if turn % 2:
            log.reopen()
        else:
            log.configure("info", "file", "text", str(tmp_path / "ab"[turn // 2 % 2 :][:1]))
    thread.join()
    lines = [line for name in "ab" for line in _lines(tmp_path / name)]
    assert sorted(int(line.split()[-1]) for line in lines) == list(range(total))
    assert log._handler.lost == 0


def _lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_processes_share_a_file_line_by_line(tmp_path):
    log.configure("info", "file", "text", str(tmp_path / "log"))
    children = []
    for letter in "abc":
        pid = os.fork()
        if not pid:
            for _ in range(200):
                logging.getLogger("epolld").info(letter * 3000)
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 600
    assert {line.split(": ")[1] for line in lines} == {letter * 3000 for letter in "abc"}


# Where it cannot go


class Places:
    """A sink that fails when it is told to."""

    def __init__(self):
        self.lines, self.error = [], None

    def write(self, line, level):
        if self.error:
            raise self.error
        self.lines.append(line.decode())


def test_losses_are_counted_and_told():
    places = Places()
    handler = LineHandler(format_text, places)
    places.error = OSError(errno.ENOSPC, "No space left on device")
    for _ in range(3):
        handler.handle(record("lost"))
    places.error = None
    handler.handle(record("back"))
    handler.handle(record("again"))
    assert [TEXT.match(line)[4] for line in places.lines] == [
        "3 log lines were lost: No space left on device",
        "back",
        "again",
    ]
    assert TEXT.match(places.lines[0])[1] == "warning"


def test_a_formatter_that_fails_harms_nobody():
    places = Places()
    handler = LineHandler(format_text, places)
    handler.handle(record("x", levelname=None))
    handler.handle(record("y"))
    assert "1 log lines were lost: AttributeError while formatting" in places.lines[0]


def test_full_disk(tmp_path):
    # The limit on a file's size stops a write half-way, as a full disk does.
    path = tmp_path / "log"
    pid = os.fork()
    if not pid:
        try:
            log.configure("info", "file", "text", str(path))
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (250, hard))
            for number in range(20):
                logging.getLogger("epolld").info("number %d %s", number, "x" * 50)
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            logging.getLogger("epolld").info("room again")
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    lines = path.read_text().splitlines()
    assert TEXT.match(lines[0] + "\n")[4].startswith("number 0")
    assert lines[2].startswith(lines[0][:10])
    assert not lines[2].endswith("x" * 50)  # the torn one, on a line of its own
    assert TEXT.match(lines[3] + "\n")[4].startswith("18 log lines were lost: ")
    assert TEXT.match(lines[4] + "\n")[4] == "room again"
    assert len(lines) == 5


# Lines of more than a page: a pipe that poll(2) calls writable may have room for one page only.
STALLED = """
import logging, os, sys
from epolld import log
log.configure("info", "stderr", "text", None)
logger = logging.getLogger("epolld.master")
for number in range(3000): logger.info("number %d %s", number, "x" * 4090)
print(log._handler.lost > 0, log._handler.lost < 3000, os.get_blocking(2))
sys.stdout.flush()
sys.stdin.readline()
logger.info("room again")
"""


@pytest.mark.parametrize("kind", ["pipe", "stream socket", "datagram socket"])
def test_a_reader_that_stalls_blocks_nobody(kind):
    if kind == "pipe":
        read_fd, write_fd = os.pipe()
    else:
        style = socket.SOCK_STREAM if kind == "stream socket" else socket.SOCK_SEQPACKET
        ends = socket.socketpair(socket.AF_UNIX, style)
        read_fd, write_fd = ends[0].detach(), ends[1].detach()
    with subprocess.Popen(
        [sys.executable, "-c", STALLED],
        stderr=write_fd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(write_fd)
        assert process.stdout.readline() == "True True True\n"
        os.set_blocking(read_fd, False)
        data = drain(read_fd)
        os.set_blocking(read_fd, True)
        process.communicate("go\n")
    tail = drain(read_fd)
    os.close(read_fd)
    assert data.startswith(b"20")
    lines = tail.decode().splitlines()
    assert "log lines were lost: " in lines[-2]
    assert lines[-1].endswith("room again")
    assert process.returncode == 0


def drain(fd):
    data = b""
    try:
        while chunk := os.read(fd, 65536):
            data += chunk
    except BlockingIOError:
        pass
    return data


@pytest.mark.parametrize("how", ["os.close(2)", "r, w = os.pipe(); os.dup2(w, 2); os.close(r)"])
def test_standard_error_that_went_away_kills_nobody(how):
    done = run(f"""
import logging, os
from epolld import log
log.configure("info", "stderr", "text", None)
{how}
for _ in range(3): logging.getLogger("epolld").info("x")
os.write(1, str(log._handler.lost).encode())
os._exit(0)
""")
    assert (done.returncode, done.stdout) == (0, "3")


def test_redirected_standard_error_shares_its_offset(tmp_path):
    code = """
import logging, os
from epolld import log
log.configure("info", "stderr", "text", None)
os.write(2, b"before\\n")
logging.getLogger("epolld").info("between")
os.write(2, b"after\\n")
"""
    with open(tmp_path / "out", "w") as out:
        subprocess.run([sys.executable, "-c", code], stderr=out, check=True)
    lines = (tmp_path / "out").read_text().splitlines()
    assert [line.split(": ")[-1] for line in lines] == ["before", "between", "after"]


@pytest.mark.parametrize("ours", [True, False])
def test_journal_is_recognized(tmp_path, ours):
    with open(tmp_path / "out", "w+") as out:
        found = os.fstat(out.fileno())
        stream = f"{found.st_dev}:{found.st_ino if ours else found.st_ino + 1}"
        code = (
            "import logging; from epolld import log\n"
            "log.configure('info', 'stderr', 'text', None)\n"
            "logging.getLogger('epolld.master').warning('x')"
        )
        env = {**os.environ, "JOURNAL_STREAM": stream}
        subprocess.run([sys.executable, "-c", code], stderr=out, env=env, check=True)
        out.seek(0)
        assert out.read().startswith("<4>warning master[") == ours


def test_warnings_of_user_code_are_one_line():
    done = run("""
import warnings
from epolld import log
log.configure("info", "stderr", "text", None)
warnings.warn("old\\nthing")
""")
    assert done.stderr.count("\n") == 1
    assert "warning py.warnings[" in done.stderr


# The system's log


@pytest.fixture
def syslogd(tmp_path, monkeypatch):
    path = str(tmp_path / "syslog")
    monkeypatch.setattr(logsink, "SYSLOG_PATH", path)

    def start():
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.bind(path)
        sock.setblocking(False)
        started.append(sock)
        return sock

    started = []
    yield start
    for sock in started:
        sock.close()


def test_syslog_datagram(syslogd):
    daemon = syslogd()
    log.configure("info", "syslog", "text", None, "mail")
    logging.getLogger("epolld.master").error("bad\nthing")
    assert (
        daemon.recv(9000).decode() == f"<27>mail[{os.getpid()}]: error master[{os.getpid()}]: "
        "bad\\nthing"
    )
    assert log.output_fd() == 2
    log.configure("info", "syslog", "json", None)
    logging.getLogger("epolld.master").info("x")
    tag, _, event = daemon.recv(9000).decode().partition(": ")
    assert tag == f"<30>epolld[{os.getpid()}]"
    assert json.loads(event)["message"] == "x"


def test_syslog_is_found_again_after_a_restart(syslogd, tmp_path):
    first = syslogd()
    log.configure("info", "syslog", "text", None)
    logger = logging.getLogger("epolld")
    first.close()
    os.unlink(tmp_path / "syslog")
    logger.info("lost")
    second = syslogd()
    logger.info("back")
    assert b"1 log lines were lost" in second.recv(9000)
    assert second.recv(9000).endswith(b"back")


def test_syslog_with_a_full_queue_does_not_wait(syslogd):
    daemon = syslogd()
    log.configure("info", "syslog", "text", None)
    for _ in range(2000):
        logging.getLogger("epolld").info("x" * 1000)
    assert 0 < log._handler.lost < 2000
    with contextlib.suppress(BlockingIOError):
        while daemon.recv(9000):
            pass
    logging.getLogger("epolld").info("more")
    assert b"log lines were lost: " in daemon.recv(9000)
    assert daemon.recv(9000).endswith(b"more")


def test_syslog_missing_names_the_remedy(syslogd):
    with pytest.raises(PathError, match=r"no system log: .*set logging\.target"):
        log.configure("info", "syslog", "text", None)


# Repeats


def test_repeats():
    repeats = Repeats(10.0)
    assert repeats.allow("emfile", 100.0) == (True, 0)
    assert repeats.allow("emfile", 105.0) == (False, 1)
    assert repeats.allow("other", 105.0) == (True, 0)
    assert repeats.allow("emfile", 109.9) == (False, 2)
    assert repeats.allow("emfile", 110.0) == (True, 2)
    assert repeats.allow("emfile", 120.0) == (True, 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 20)), max_size=50))
def test_repeats_accounts_for_every_event(events):
    repeats, now, told, open_ = Repeats(10.0), 0.0, 0, {}
    for key, step in events:
        now += step
        allowed, suppressed = repeats.allow(key, now)
        told += 1 + suppressed if allowed else 0
        open_[key] = 0 if allowed else suppressed
    assert told + sum(open_.values()) == len(events)


def test_repeats_is_bounded():
    repeats = Repeats(10.0)
    for number in range(Repeats.MAX_KEYS + 1):
        repeats.allow(number, 1.0)
    assert repeats.allow(Repeats.MAX_KEYS, 1.0) == (False, 1)
    assert repeats.allow(0, 1.0) == (True, 0)  # forgotten


# -- floods ------------------------------------------------------------------------------------


def test_the_first_of_a_kind_are_logged_and_the_rest_counted() -> None:
    floods = Floods()
    a, b = (Kind("epolld.x", logging.INFO, text, None) for text in "ab")
    assert [floods.allow(a, 0.0) for _ in range(Floods.BURST + 5)] == (
        [True] * Floods.BURST + [False] * 5
    )
    assert floods.allow(b, 0.0)
    assert floods.take(Floods.SECONDS - 0.1) == []
    assert floods.take(Floods.SECONDS) == [(a, 5)]
    assert floods.take(Floods.SECONDS) == []
    assert floods.allow(a, Floods.SECONDS)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3)), max_size=200))
def test_floods_account_for_every_event(events) -> None:
    floods, now, logged, told = Floods(), 0.0, 0, 0
    for kind, step in events:
        now += step
        told += sum(count for _, count in floods.take(now))
        logged += floods.allow(Kind("epolld.x", logging.INFO, kind, None), now)
    told += sum(count for _, count in floods.take(now + Floods.SECONDS))
    assert logged + told == len(events)


def test_a_flood_of_lines_is_cut_and_told(tmp_path) -> None:
    path = tmp_path / "log"
    log.configure("info", "file", "text", str(path))
    peers, master = logging.getLogger("epolld.connection"), logging.getLogger("epolld.master")
    for number in range(100):
        peers.info("%s: %s went", "upper", number)
        master.info("%s", number)  # each is needed
    log.tell_suppressed(last=True)
    lines = path.read_text().splitlines()
    assert sum("went" in line and "more" not in line for line in lines) == Floods.BURST
    assert sum(" master[" in line for line in lines) == 100
    assert lines[-1].endswith(f"{100 - Floods.BURST} more like this suppressed: %s: %s went")


def test_what_is_raised_makes_another_kind(tmp_path) -> None:
    path = tmp_path / "log"
    log.configure("info", "file", "text", str(path))
    peers = logging.getLogger("epolld.connection")
    for error in [ValueError("x")] * 30 + [KeyError("y")]:
        peers.error("it raised", exc_info=error)
    text = path.read_text()
    assert text.count("ValueError: x") == Floods.BURST
    assert text.count("KeyError: 'y'") == 1


def test_on_the_console_a_traceback_has_its_lines() -> None:
    head, *trace = logline.format_console(failed("bad \x1b[31m")).decode().splitlines()
    assert TEXT.match(head + "\n")
    assert " | " not in head
    assert trace[0].startswith("Traceback")
    assert trace[-1] == "ValueError: bad \\x1b[31m"
    assert logline.format_console(record("served %d", 3)).endswith(b" served 3\n")
