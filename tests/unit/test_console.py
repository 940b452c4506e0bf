"""console/: what a daemon's answers become for people, and what can go wrong on the way."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from epolld.console import completion, conversation, tables
from epolld.console.conversation import ControlError, Daemon, ExitCode
from epolld.ctl import make_parser

GIB = 1 << 30


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (10, "10s"),
        (312, "5m12s"),
        (3600, "1h"),
        (7260, "2h1m"),
        (273600 + 59, "3d4h"),
        (86400, "1d"),
    ],
)
def test_a_time_has_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert tables.span(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0, "0"),
        (1023, "1023"),
        (1536, "1.5k"),
        (20 << 20, "20M"),
        (5000 * GIB, "5000G"),
    ],
)
def test_a_size_has_one_unit(number: float | None, text: str) -> None:
    assert tables.size(number) == text


def test_columns_are_equally_wide_and_what_is_unknown_is_shown() -> None:
    lines = list(tables.table(("NAME", "COUNT"), [("a", 1234567), ("longer", None)]))
    assert lines == ["NAME        COUNT", "a       1,234,567", "longer          -"]


def test_the_last_reload_is_in_the_status() -> None:
    facts: dict[str, Any] = dict.fromkeys(
        ("version", "pid", "uptime", "generations_leaving", "state", "generation", "config"), 1
    )
    facts |= dict.fromkeys(("workers_ready", "workers_wanted", "connections"), 2)
    facts["last_reload"] = {"seconds_ago": 61, "message": "it failed"}
    assert list(tables.status(facts))[-1] == "last reload: 1m1s ago, it failed"


def test_an_unknown_shell() -> None:
    with pytest.raises(ValueError, match="no completion for 'csh', only for bash, zsh"):
        completion.script("csh", make_parser())


# -- the conversation ----------------------------------------------------------------------------


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[[bytes], Daemon]]:
    """A daemon that answers one request with these bytes, and closes."""
    threads: list[threading.Thread] = []

    def start(answer: bytes) -> Daemon:
        listener = socket.socket(socket.AF_UNIX)
        path = str(tmp_path / "control.sock")
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with listener, listener.accept()[0] as sock:
                sock.recv(65536)
                sock.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return Daemon(path, 5.0)

    yield start
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (b"", ExitCode.NO_DAEMON, "closed the connection before an answer"),
        (b'{"ok": true, "more": true}\n', ExitCode.NO_DAEMON, "closed the connection before"),
        (b"SSH-2.0-OpenSSH\n", ExitCode.PROTOCOL, "not an answer: b'SSH-2.0-OpenSSH"),
        (b"[1]\n", ExitCode.PROTOCOL, "not an answer"),
        (b"{}\n", ExitCode.PROTOCOL, "not an answer"),
        (b'{"ok": false, "error": "denied"}\n', ExitCode.NOT_ALLOWED, "failed"),
        (b'{"ok": false, "exit_code": 78, "problems": ["f:1:2: x"]}\n', ExitCode.CONFIG, "f:1:2"),
        (b'{"ok": false, "message": "no such worker"}\n', ExitCode.FAILED, "no such worker"),
    ],
)
def test_answers_that_are_none(
    answering: Callable[[bytes], Daemon], answer: bytes, code: ExitCode, said: str
) -> None:
    with pytest.raises(ControlError, match=said) as caught:
        list(answering(answer).ask("status"))
    assert caught.value.exit_code == code
    assert caught.value.answer["ok"] is False


def test_its_end_is_the_answer_to_stop(answering: Callable[[bytes], Daemon]) -> None:
    answer = b'{"ok": true, "more": true, "result": 1}\n'
    assert list(answering(answer).ask("stop")) == [1]


def test_a_folder_that_keeps_us_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Better than to say that no daemon runs."""
    real = os.stat

    def stat(path: Any, *arguments: Any, **more: Any) -> os.stat_result:
        if path == "/run/epolld/control.sock":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(ControlError) as caught:
        conversation.find({"XDG_RUNTIME_DIR": "/nowhere"}, 500)
    assert str(caught.value).startswith("/run/epolld/control.sock: Permission denied; only root")
    assert caught.value.exit_code == ExitCode.NOT_ALLOWED
