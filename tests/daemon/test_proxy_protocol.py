"""proxy_protocol: required: the client that the header names is the peer everywhere."""

import ast
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from certificates import Authority
from harness import Client, Config, Daemon, upper_at
from processes import eventually

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 1688\r\n"
V2_START = b"\r\n\r\n\0\r\nQUIT\n"
INET6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + struct.pack("!HH", 5, 6)
TLV = b"\x02\x00\x0bexample.org"
V2 = V2_START + struct.pack("!BBH", 0x21, 0x21, len(INET6 + TLV)) + INET6 + TLV
LOCAL = V2_START + struct.pack("!BBH", 0x20, 0, 0)


def peers(**settings: Any) -> Config:
    """A service that says who it thinks is there, behind a proxy on this machine."""
    return {
        "name": "peer",
        "protocol": "guarded:Peer",
        "bind": "127.0.0.1:0",
        "proxy_protocol": "required",
        "proxy_trusted": ["127.0.0.1", "unix"],
        **settings,
    }


def heard(client: Client) -> tuple[Any, ...]:
    """What the service said."""
    found: tuple[Any, ...] = ast.literal_eval(client.line().decode())
    return found


def test_who_is_there(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[peers()])
    client = running.client(running.address("peer"))
    client.sock.sendall(V1 + b"first")
    real, proxy = ("192.0.2.7", 4711), client.sock.getsockname()
    assert heard(client)[1:] == (real, proxy, ("198.51.100.1", 1688), {}, b"")
    assert heard(client)[5] == b"first"

    client = running.client(running.address("peer"))
    client.sock.sendall(V2)
    _, peer, _, to, tlvs, _ = heard(client)
    assert (peer, to) == (("2001:db8::7", 5, 0, 0), ("2001:db8::7", 6, 0, 0))
    assert tlvs == {2: b"example.org"}

    client = running.client(running.address("peer"))
    client.sock.sendall(LOCAL)
    assert heard(client)[1:] == (client.sock.getsockname(), None, None, None, b"")


def test_in_pieces_and_not_a_byte_more(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[peers()], workers={"count": 1})
    client = running.client(running.address("peer"))
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in V2[:-1]:
        client.sock.sendall(bytes([byte]))
    client.sock.sendall(V2[-1:] + b"the rest")
    assert heard(client)[1] == ("2001:db8::7", 5, 0, 0)
    assert heard(client)[5] == b"the rest"


def test_coroutines_and_the_log_know_the_client(daemon: Callable[..., Daemon]) -> None:
    services = [
        peers(name="coroutine", protocol="coroutines:facts"),
        peers(name="trouble", protocol="protocols:Trouble"),
    ]
    running = daemon(services=services)
    client = running.client(running.address("coroutine"))
    client.sock.sendall(V1)
    assert b"('192.0.2.7', 4711)" in client.rest()
    client = running.client(running.address("trouble"))
    client.sock.sendall(V1 + b"no such order")
    assert client.rest()
    running.expect("closing the connection from 192.0.2.7:4711", r"Traceback|^ |Error")


def test_tls_after_the_header_and_limits_on_it(
    daemon: Callable[..., Daemon], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """All layers at once: the header, TLS, a framing, and its limits."""
    folder = tmp_path_factory.mktemp("ca")
    for each in (folder, folder.parent):
        each.chmod(0o755)
    authority = Authority(folder)
    limits = {"write_buffer": "3m", "client_connections": 1}
    service = peers(protocol="guarded:Lines", tls=authority.issue("localhost"), limits=limits)
    running = daemon(services=[service])
    client = running.client(running.address("peer"))
    client.sock.sendall(V1)
    client.sock = authority.client().wrap_socket(client.sock, server_hostname="localhost")
    client.sock.sendall(b"who?\r\n")
    assert client.line() == b"('192.0.2.7', 4711)\r"
    again = running.client(running.address("peer"))
    again.sock.sendall(V1)
    assert again.is_ended()
    client.sock.sendall(b"pour\r\n")
    running.wait_log("peer: 192.0.2.7:4711: .* more than write_buffer")
    running.expect("write_buffer")


def test_threads_know_the_client(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    running.write_module(
        "blocking",
        "import socketserver\n"
        "class Says(socketserver.BaseRequestHandler):\n"
        "    def handle(self):\n"
        "        self.request.sendall(repr(self.client_address).encode())\n",
    )
    running.reload({"services": [peers(name="upper", protocol="blocking:Says")]})
    client = running.client()
    client.sock.sendall(V1)
    assert client.rest() == b"('192.0.2.7', 4711)"


def test_over_a_unix_socket(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[peers(bind="unix:@epolld-test-proxy")])
    client = running.client("unix:@epolld-test-proxy")
    client.sock.sendall(V1)
    assert heard(client)[1] == ("192.0.2.7", 4711)


def test_anything_else_is_refused(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[peers()])
    for data, why in (
        (b"GET / HTTP/1.0\r\n", "no PROXY header"),
        (V1.replace(b"4711", b"70000"), "not a port"),
        (V2_START + b"\x21\x21\0\x01", "1 bytes for addresses of 36"),
    ):
        client = running.client(running.address("peer"))
        client.sock.sendall(data)
        assert client.is_ended()
        running.wait_log(rf"peer: refused 127.0.0.1:\d+: its PROXY header is wrong: .*{why}")


def test_an_untrusted_proxy_is_not_heard(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[peers(proxy_trusted="10.0.0.0/8")])
    client = running.client(running.address("peer"))
    assert client.is_ended()
    running.wait_log("refused 127.0.0.1:.*not in proxy_trusted")


def test_no_header_in_time(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[peers(proxy_timeout="300ms")])
    silent, slow = (running.client(running.address("peer")) for _ in range(2))
    slow.sock.sendall(V1[:-1])
    assert silent.is_ended()
    assert slow.is_ended()
    running.wait_log("no PROXY header within 0.3s", count=2)
    hasty = running.client(running.address("peer"))
    hasty.close()
    running.wait_log("closed before its PROXY header came")


def test_off_means_off(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[upper_at()])
    assert running.client().ask(V1) == V1.upper()


def test_access_is_about_the_client(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[peers(access=[{"deny": "192.0.2.0/24"}])])
    client = running.client(running.address("peer"))
    client.sock.sendall(V1)
    assert client.is_ended()
    running.wait_log("refused 192.0.2.7:4711: not allowed")
    other = running.client(running.address("peer"))
    other.sock.sendall(V2)
    assert heard(other)[1] == ("2001:db8::7", 5, 0, 0)


def test_it_stays_known_over_a_reload(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[peers()])
    client = running.client(running.address("peer"))
    client.sock.sendall(V2)
    before = heard(client)
    running.reload()
    running.wait_workers(2, generation=2)
    client.sock.sendall(b"?")
    after = heard(client)
    assert after[0] != before[0]
    assert after[1:5] == before[1:5]


def test_a_header_that_comes_after_the_reload(daemon: Callable[..., Daemon]) -> None:
    """Its worker is leaving by then, but serves it; it waits for no more than the header."""
    running = daemon(services=[peers()])
    client = running.client(running.address("peer"))
    client.sock.sendall(V1[:10])
    running.reload()
    client.sock.sendall(V1[10:])
    assert heard(client)[1] == ("192.0.2.7", 4711)
    eventually(lambda: len(running.workers(generation=1)) == 1, what="the other one leaves")
    client.close()
    eventually(lambda: not running.workers(generation=1), what="the old worker leaves")
