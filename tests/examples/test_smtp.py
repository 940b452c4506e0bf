"""The mail receiver, by swaks."""

import mailbox
import subprocess
from collections.abc import Callable
from pathlib import Path

import needs
import pytest

from epolld.testing import Daemon

Swaks = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    return tmp_path / "maildir"


@pytest.fixture
def receiver(serve: Callable[..., Daemon], maildir: Path) -> Daemon:
    return serve("smtp", maildir=str(maildir), max_size=20_000)


@pytest.fixture
def swaks(receiver: Daemon) -> Swaks:
    """Sends a mail to the receiver."""

    def swaks(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [needs.tool("swaks"), "--server", receiver.address(), "--from", "eva@example.com"]
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=30, check=False
        )

    return swaks


def test_a_mail(swaks: Swaks, receiver: Daemon, maildir: Path) -> None:
    done = swaks("--to", "ada@example.org,bob@EXAMPLE.org", "--body", "line\n.\nend")
    assert done.returncode == 0, done.stdout
    assert "250 2.0.0 stored" in done.stdout
    receiver.reload()
    assert swaks("--to", "ada@example.org").returncode == 0
    mails = sorted(mailbox.Maildir(maildir), key=lambda mail: len(mail["Delivered-To"]))
    assert [mail["Return-Path"] for mail in mails] == ["<eva@example.com>"] * 2
    assert mails[1]["Delivered-To"] == "ada@example.org, bob@EXAMPLE.org"
    assert mails[1].get_payload().split() == ["line", ".", "end"]


def test_it_is_no_relay(swaks: Swaks, maildir: Path) -> None:
    done = swaks("--to", "ada@example.net")
    assert "550 5.7.1" in done.stdout
    assert done.returncode != 0
    assert not maildir.exists()


def test_too_big_a_mail(swaks: Swaks, maildir: Path) -> None:
    done = swaks("--to", "ada@example.org", "--body", "x" * 70 + "\n" * 30_000)
    assert "552" in done.stdout
    assert not maildir.exists()
