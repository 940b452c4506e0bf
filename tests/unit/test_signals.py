"""The signal queue, with real signals and real forks."""

import os
import pty
import select
import signal

import pytest
from forked import in_child

from epolld.host.signals import SignalQueue, blocked, sent_by_terminal

HUP, TERM, TTIN, USR1 = signal.SIGHUP, signal.SIGTERM, signal.SIGTTIN, signal.SIGUSR1


@pytest.fixture
def queue():
    queue = SignalQueue()
    queue.open([HUP, TERM, TTIN, USR1])
    yield queue
    queue.close()


def wakes(queue):
    return bool(select.select([queue.fileno()], [], [], 0)[0])


def test_records_in_order_and_wakes(queue):
    assert not wakes(queue)
    assert queue.take() == []
    for number in (USR1, HUP):
        os.kill(os.getpid(), number)
    assert wakes(queue)
    assert queue.take() == [USR1, HUP]
    assert not wakes(queue)
    assert queue.take() == []


def test_coalesces_all_but_the_counted(queue):
    for number in (HUP, TERM, HUP, TTIN, TERM, TTIN, HUP):
        signal.raise_signal(number)
    assert queue.take() == [HUP, TERM, TTIN, TERM, TTIN]


def test_a_full_pipe_loses_no_signal(queue):
    for _ in range(70_000):
        signal.raise_signal(HUP)
    signal.raise_signal(TERM)
    assert queue.take() == [HUP, TERM]
    assert not wakes(queue)


def test_close_restores_handlers_and_wakeup():
    came = []
    before = signal.signal(USR1, lambda number, frame: came.append(number))
    wakeup_before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup_before)
    queue = SignalQueue()
    queue.open([USR1])
    fd = queue.fileno()
    queue.close()
    queue.close()  # twice is once
    try:
        signal.raise_signal(USR1)
        assert came == [USR1]
        current = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(current)
        assert current == wakeup_before
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    finally:
        signal.signal(USR1, before)


def test_open_twice_is_refused(queue):
    with pytest.raises(RuntimeError):
        queue.open([HUP])


def test_child_starts_with_defaults(queue):
    fd = queue.fileno()

    def work():
        queue.reset_for_child()
        states = [signal.getsignal(number) is signal.SIG_DFL for number in (HUP, TERM, USR1)]
        open_still = os.path.exists(f"/proc/self/fd/{fd}")
        ignored = signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
        return states, open_still, ignored, signal.set_wakeup_fd(-1), queue.fileno()

    assert in_child(work) == repr(([True, True, True], False, True, -1, -1))
    signal.raise_signal(HUP)
    assert queue.take() == [HUP]  # the parent's is untouched


def test_blocked_signal_reaches_only_the_parent(queue):
    ready_read, ready_write = os.pipe()
    with blocked([TERM]):
        os.kill(os.getpid(), TERM)
        pid = os.fork()
        if not pid:
            queue.reset_for_child()
    if not pid:  # TERM would have killed us at the end of the block, had we inherited it
        os.write(ready_write, b"alive")
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert os.read(ready_read, 10) == b"alive"
    assert queue.take() == [TERM]
    os.close(ready_read)
    os.close(ready_write)


def test_signal_sent_to_the_child_while_blocked_has_the_default_effect(queue):
    with blocked([TERM]):
        pid = os.fork()
        if not pid:
            os.kill(os.getpid(), TERM)  # pends
            queue.reset_for_child()
    if not pid:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -TERM
    assert queue.take() == []


def test_blocked_restores_the_mask_after_an_error():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def fail():
        with blocked([HUP]):
            assert HUP in signal.pthread_sigmask(signal.SIG_BLOCK, [])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_without_a_terminal():
    def work():
        os.setsid()
        return sent_by_terminal()

    assert in_child(work) == "False"


def test_in_the_foreground_of_a_terminal_and_behind():
    pid, master = pty.fork()
    if not pid:
        try:
            foreground = sent_by_terminal()
            child = os.fork()
            if not child:
                os.setpgid(0, 0)  # a background job
                os._exit(10 + sent_by_terminal())
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os._exit(50 if foreground and status == 10 else 51)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 50
    os.close(master)
