"""A reload while a message has come in part: the rest of it is served by the new worker."""

from collections.abc import Callable

import pytest
from harness import Daemon

CASES = {
    "Lines": b"one\ntwo, and three\nDATA 10\nraw\nbytes.four\n",
    "Prefixed": b"\0\0\0\3one\0\0\0\0\0\0\0\x0etwo, and three\0\0\0\4four",
    "Netstrings": b"3:one,0:,14:two, and three,4:four,",
}


@pytest.mark.parametrize("name", CASES)
def test_a_hangup_in_the_middle_of_a_message(daemon: Callable[..., Daemon], name: str) -> None:
    """Cut at each byte: one connection for each, all of them moved at once."""
    text = CASES[name]
    answer = text.upper().replace(b"DATA 10\n", b"")
    service = {"name": "framed", "protocol": f"framings:{name}", "bind": "127.0.0.1:0"}
    running = daemon(services=[service], workers={"count": 1})
    clients = [running.client(running.address("framed")) for _ in text]
    for place, client in enumerate(clients):
        client.sock.sendall(text[:place])
    # What was sent before this is read; were it not, it would move all the same, in the kernel.
    probe = running.client(running.address("framed"))
    assert probe.ask(text, len(answer)) == answer
    running.reload()
    running.wait_log(rf"{len(clients) + 1} connections moved")
    running.wait_workers(1, generation=2)
    for place, client in enumerate(clients):
        assert client.ask(text[place:], len(answer)) == answer
