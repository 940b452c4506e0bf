"""TLS over the real daemon: what clients see, with Python's ssl and with the openssl command."""

import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import needs
import pytest
from certificates import Authority
from harness import TIMEOUT, Config, Daemon, upper_at


@pytest.fixture(name="ca", scope="module")
def _ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("ca")
    for each in (folder, folder.parent):
        each.chmod(0o755)
    return Authority(folder)


@pytest.fixture(name="secure")
def _secure() -> Iterator[Callable[..., ssl.SSLSocket]]:
    """Connects with TLS."""
    with contextlib.ExitStack() as stack:

        def secure(
            daemon: Daemon, context: ssl.SSLContext, name: str = "localhost", **more: Any
        ) -> ssl.SSLSocket:
            host, _, port = daemon.address().rpartition(":")
            plain = stack.enter_context(socket.create_connection((host, int(port)), TIMEOUT))
            return stack.enter_context(context.wrap_socket(plain, server_hostname=name, **more))

        yield secure


def ask(sock: ssl.SSLSocket, data: bytes) -> bytes:
    """Send, and read as many bytes back."""
    sock.sendall(data)
    got = b""
    while len(got) < len(data) and (more := sock.recv(65536)):
        got += more
    return got


def service(authority: Authority, **tls: Any) -> Config:
    """upper, with TLS for localhost."""
    return upper_at(tls={**authority.issue("localhost"), **tls})


def test_upper(daemon: Callable[..., Daemon], ca: Authority, secure: Any) -> None:
    running = daemon(services=[service(ca)])
    client = secure(running, ca.client())
    assert client.version() == "TLSv1.3"
    assert ask(client, b"hello") == b"HELLO"
    data = b"x" * 1_000_000
    assert ask(client, data) == data.upper()
    client.unwrap()  # sends close_notify, and waits for the daemon's


def test_a_session_is_resumed_by_whichever_worker_accepts(
    daemon: Callable[..., Daemon], ca: Authority, secure: Any
) -> None:
    """The keys of the tickets are made before the fork."""
    running = daemon(
        services=[{**service(ca), "name": "who", "protocol": "protocols:Who"}],
        workers={"count": 4},
    )
    running.address = lambda: Daemon.address(running, "who")  # type: ignore[method-assign]
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ca.client()
        context.maximum_version = version
        first = secure(running, context)
        first.recv(100)  # by now the ticket has come, too
        session = first.session
        assert session is not None
        pids = set()
        clients = []
        for _ in range(12):
            clients.append(secure(running, context, session=session))
            pids.add(clients[-1].recv(100))
            assert clients[-1].session_reused
        assert len(pids) == 4
        for client in clients:
            client.close()


def test_the_certificate_of_the_name_asked_for(
    daemon: Callable[..., Daemon], ca: Authority, secure: Any
) -> None:
    running = daemon(services=[service(ca, more_certificates=[ca.issue("*.example.org")])])
    for name in ("localhost", "www.example.org"):
        assert ask(secure(running, ca.client(), name), b"a") == b"A"
    with pytest.raises(ssl.SSLCertVerificationError):
        secure(running, ca.client(), "example.org")
    running.allow("authority of our certificate")


FACTS = """
from epolld import Protocol

NAMES = ("cipher", "tls_version", "alpn", "server_name", "peercert")

class P(Protocol):
    def connection_made(self, transport):
        facts = {name: transport.get_extra_info(name) for name in NAMES}
        transport.write(repr(facts).encode() + b"\\n")
"""


def test_facts_of_a_client_with_a_certificate(
    make_daemon: Callable[[Config], Daemon], ca: Authority, secure: Any
) -> None:
    tls = {"client_certificates": "required", "ca": ca.file, "alpn": ["b", "a"]}
    running = make_daemon({"services": [{**service(ca, **tls), "protocol": "facts:P"}]})
    running.write_module("facts", FACTS)
    running.start()
    context = ca.client(ca.issue("me.example.org"))
    context.set_alpn_protocols(["a", "b"])
    facts = eval(secure(running, context).recv(10000))
    assert facts["cipher"][0].startswith("TLS_")
    assert (facts["tls_version"], facts["alpn"], facts["server_name"]) == (
        "TLSv1.3",
        "b",
        "localhost",
    )
    assert ("DNS", "me.example.org") in facts["peercert"]["subjectAltName"]
    stranger = secure(running, ca.client())  # in TLS 1.3 the client learns of it when it reads
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        stranger.recv(1)
    running.wait_log("no TLS: the client has no certificate")


def test_plain_text_and_silence(daemon: Callable[..., Daemon], ca: Authority) -> None:
    running = daemon(services=[service(ca, handshake_timeout="300ms")])
    talker, silent = running.client(), running.client()
    talker.sock.sendall(b"hello\n")
    assert talker.is_ended()
    running.wait_log("the client speaks plain text, not TLS")
    assert silent.is_ended()
    running.wait_log(r"no handshake within 0\.3s \(handshake_timeout\)")


def test_more_handshakes_than_allowed_end_the_oldest(
    daemon: Callable[..., Daemon], ca: Authority, secure: Any
) -> None:
    running = daemon(services=[service(ca, max_handshakes=3)], workers={"count": 1})
    silent = [running.client() for _ in range(3)]
    assert ask(secure(running, ca.client()), b"a") == b"A"
    assert silent[0].is_ended()
    running.wait_log(r"3 handshakes are under way \(max_handshakes\)")
    silent[1].sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        silent[1].sock.recv(1)


def test_limits_hold_over_tls(daemon: Callable[..., Daemon], ca: Authority, secure: Any) -> None:
    tls = service(ca)
    generous = {**tls, "protocol": "protocols:Generous", "limits": {"write_buffer": "1m"}}
    running = daemon(services=[generous])
    secure(running, ca.client())
    running.wait_log("more than write_buffer")
    running.expect("more than write_buffer")
    running.reload({"services": [{**tls, "idle_timeout": "200ms"}]})
    client = secure(running, ca.client(), suppress_ragged_eofs=False)
    assert ask(client, b"a") == b"A"
    with pytest.raises(ssl.SSLError, match="EOF"):  # a time limit is no goodbye
        client.recv(1)
    running.wait_log("idle for")


def test_keys_that_only_root_can_read(
    make_daemon: Callable[[Config], Daemon], ca: Authority, secure: Any
) -> None:
    needs.root()
    tls = ca.issue("localhost", file="secret")
    Path(tls["key"]).chmod(0o600)
    running = make_daemon({"services": [upper_at(tls=tls)], "master": {"user": "nobody"}}).start()
    assert ask(secure(running, ca.client()), b"a") == b"A"
    assert all(os.stat(f"/proc/{worker.pid}").st_uid != 0 for worker in running.workers())


# -- with the openssl command ------------------------------------------------------------------


@contextlib.contextmanager
def s_client(running: Daemon, ca: Authority, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`openssl s_client`, connected; its input and output are pipes."""
    command = [needs.tool("openssl"), "s_client", "-connect", running.address()]
    command += ["-CAfile", ca.file, "-verify_return_error", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[bytes], end: bytes) -> bytes:
    """What it prints, up to `end`."""
    assert process.stdout is not None
    got = b""
    while not got.endswith(end) and (byte := process.stdout.read(1)):
        got += byte
    assert got.endswith(end), got
    return got


def say(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_s_client(daemon: Callable[..., Daemon], ca: Authority, version: str) -> None:
    running = daemon(services=[service(ca)])
    with s_client(running, ca, version) as client:
        read_until(client, b"Verify return code: 0 (ok)\n")
        say(client, b"hello\n")
        read_until(client, b"HELLO\n")
        if version == "-tls1_3":
            say(client, b"K\n")  # a KeyUpdate, and ours wanted in return
            read_until(client, b"KEYUPDATE\n")
            say(client, b"again\n")
            read_until(client, b"AGAIN\n")
        say(client, b"Q\n")
        client.wait(TIMEOUT)


def test_no_renegotiation(daemon: Callable[..., Daemon], ca: Authority) -> None:
    """A client that asks for one handshake after another would have us work for nothing."""
    running = daemon(services=[service(ca)])
    with s_client(running, ca, "-tls1_2") as client:
        read_until(client, b"Verify return code: 0 (ok)\n")
        say(client, b"R\n")
        read_until(client, b"RENEGOTIATING\n")
        read_until(client, b"no renegotiation")


def test_versions_that_are_too_old(daemon: Callable[..., Daemon], ca: Authority) -> None:
    running = daemon(services=[service(ca, minimum_version="1.3")])
    with s_client(running, ca, "-tls1_2") as client:
        read_until(client, b"alert protocol version")
    running.wait_log("no TLS: the client speaks older versions of TLS only")


STARTTLS = """
from epolld import Protocol

class P(Protocol):
    def connection_made(self, transport):
        super().connection_made(transport)
        transport.write(b"220 here\\r\\n")

    def data_received(self, data):
        word = data.split()[0].upper()
        if word == b"EHLO":
            self.transport.write(b"250-here\\r\\n250 STARTTLS\\r\\n")
        elif word == b"STARTTLS":
            self.transport.write(b"220 go ahead\\r\\n")
            self.transport.start_tls()
        else:
            self.transport.write(b"250 " + data)
"""


def test_starttls_as_mail_clients_do_it(
    make_daemon: Callable[[Config], Daemon], ca: Authority
) -> None:
    running = make_daemon({"services": [{**service(ca, starttls=True), "protocol": "mail:P"}]})
    running.write_module("mail", STARTTLS)
    running.start()
    with s_client(running, ca, "-starttls", "smtp") as client:
        read_until(client, b"Verify return code: 0 (ok)\n")
        say(client, b"noop\n")
        read_until(client, b"250 noop\n")
