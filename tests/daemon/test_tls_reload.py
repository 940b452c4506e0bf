"""New certificates over HUP and USR2: nobody is dropped, and nothing changes by halves."""

import datetime
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from harness import TIMEOUT, Config, Daemon, upper_at
from processes import eventually
from scrape import scrape


@pytest.fixture(name="ca", scope="module")
def _ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


class Secure:
    """A client with TLS."""

    def __init__(self, daemon: Daemon, ca: Authority) -> None:
        host, _, port = daemon.address().rpartition(":")
        plain = socket.create_connection((host, int(port)), TIMEOUT)
        self.sock = ca.client().wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        )

    def ask(self, data: bytes) -> bytes:
        self.sock.sendall(data)
        return self.sock.recv(1000)

    def serial(self) -> str:
        """Of the certificate that we were shown."""
        certificate = self.sock.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


@pytest.fixture(name="client")
def _client(ca: Authority) -> Iterator[Callable[[Daemon], Secure]]:
    made: list[Secure] = []

    def client(daemon: Daemon) -> Secure:
        made.append(Secure(daemon, ca))
        return made[-1]

    yield client
    for each in made:
        each.sock.close()


@pytest.fixture(name="pair")
def _pair(ca: Authority, tmp_path: Path) -> dict[str, str]:
    """A certificate in files of its own, which a test may replace."""
    issued = ca.issue("localhost")
    pair = {name: str(tmp_path / name) for name in issued}
    for name in issued:
        shutil.copy(issued[name], pair[name])
    return pair


def renew(ca: Authority, pair: dict[str, str], *names: str) -> None:
    """Put new files where the old ones are."""
    issued = ca.issue("localhost")
    for name in names or issued:
        shutil.copy(issued[name], pair[name])


GENTLE = """
from epolld import Protocol

class P(Protocol):
    def data_received(self, data):
        self.transport.write(data.upper())

    def draining(self):
        self.transport.write(b"bye")
        self.transport.close()
"""


def test_new_certificates(
    daemon: Callable[..., Daemon], ca: Authority, pair: dict[str, str], client: Any
) -> None:
    running = daemon(services=[upper_at(tls=pair)])
    old = client(running)
    renew(ca, pair)
    assert client(running).serial() == old.serial()  # files alone change nothing
    running.reload()
    new = client(running)
    assert new.serial() != old.serial()
    assert old.ask(b"still here") == b"STILL HERE"
    assert new.ask(b"me too") == b"ME TOO"
    running.send(signal.SIGINT)
    running.wait_exit()


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_half_of_a_new_pair(
    daemon: Callable[..., Daemon], ca: Authority, pair: dict[str, str], client: Any, name: str
) -> None:
    """As a renewal that writes one file after the other, with a reload between."""
    running = daemon(services=[upper_at(tls=pair)])
    old = client(running)
    renew(ca, pair, name)
    line = running.reload(ok=False)
    assert "the key does not belong to the certificate" in line
    running.expect(
        r"error .*epolld\.yaml:\d+:\d+: services\.upper\.tls\.key: .*does not belong",
        "generation 1 goes on",
    )
    assert old.ask(b"a") == b"A"
    assert client(running).serial() == old.serial()
    renew(ca, pair)
    running.reload()
    assert client(running).serial() != old.serial()
    running.send(signal.SIGINT)
    running.wait_exit()


def test_a_file_cut_off(
    daemon: Callable[..., Daemon], ca: Authority, pair: dict[str, str], client: Any
) -> None:
    running = daemon(services=[upper_at(tls=pair)])
    whole = Path(pair["certificate"]).read_bytes()
    Path(pair["certificate"]).write_bytes(whole[:-40])
    assert "holds no certificate in PEM form" in running.reload(ok=False)
    running.expect("holds no certificate in PEM form")
    assert client(running).ask(b"a") == b"A"


def test_a_connection_is_told_and_closed_with_close_notify(
    make_daemon: Callable[[Config], Daemon], pair: dict[str, str], client: Any
) -> None:
    running = make_daemon({"services": [{**upper_at(tls=pair), "protocol": "gentle:P"}]})
    running.write_module("gentle", GENTLE)
    running.start()
    staying = client(running)
    assert staying.ask(b"a") == b"A"
    running.reload()
    assert staying.sock.recv(100) == b"bye"
    assert staying.sock.recv(100) == b""  # an end without close_notify would raise


def test_at_a_stop_connections_end_with_close_notify(
    daemon: Callable[..., Daemon], pair: dict[str, str], client: Any
) -> None:
    running = daemon(services=[upper_at(tls=pair)], workers={"graceful_timeout": "500ms"})
    staying = client(running)
    assert staying.ask(b"a") == b"A"
    running.send(signal.SIGTERM)
    assert staying.sock.recv(100) == b""
    staying.sock.close()
    assert running.wait_exit() == 0


def test_upgrade_in_place(
    daemon: Callable[..., Daemon], ca: Authority, pair: dict[str, str], client: Any
) -> None:
    running = daemon(services=[upper_at(tls=pair)], workers={"graceful_timeout": "1s"})
    old = client(running)
    assert old.ask(b"a") == b"A"
    renew(ca, pair)
    running.send(signal.SIGUSR2)
    running.wait_log("reload done: generation 2", 15)
    # The old ones accept until they have heard of it.
    eventually(lambda: all(w.state for w in running.workers() if w.generation == 1))
    assert old.ask(b"b") == b"B"
    new = client(running)
    assert new.serial() != old.serial()
    assert new.ask(b"c") == b"C"


def test_from_plain_to_tls(
    daemon: Callable[..., Daemon], pair: dict[str, str], client: Any
) -> None:
    running = daemon(services=[upper_at()], workers={"graceful_timeout": "1s"})
    plain = running.client()
    assert plain.ask(b"a") == b"A"
    running.reload({"services": [upper_at(tls=pair)], "workers": {"graceful_timeout": "1s"}})
    assert plain.ask(b"b") == b"B"
    assert client(running).ask(b"c") == b"C"


def test_certificates_that_end(
    make_daemon: Callable[[Config], Daemon], ca: Authority, run: Any
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    soon = ca.issue("localhost", ends=now + datetime.timedelta(days=5, hours=1), file="soon")
    over = ca.issue("localhost", ends=now - datetime.timedelta(days=5), file="over")
    running = make_daemon({"services": [upper_at(tls={**soon, "more_certificates": [over]})]})
    checked = run("--check", "--config", str(running.config_file))
    assert (checked.returncode, checked.stdout) == (0, "OK\n")
    first, second = checked.stderr.splitlines()
    place = rf"warning: {running.config_file}:"
    assert first.startswith(place)
    assert "services.upper.tls.certificate: the certificate ends in 5 days, on 20" in first
    assert "tls.more_certificates.0.certificate: the certificate has ended on 20" in second
    running.start()
    running.expect(r"warning .*the certificate ends in 5 days", r"the certificate has ended on")


def test_a_metric_tells_when_the_first_ends(
    daemon: Callable[..., Daemon], ca: Authority, pair: dict[str, str]
) -> None:
    end = datetime.datetime(2044, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    tls = {**pair, "more_certificates": ca.issue("localhost", ends=end, file="first")}
    metrics = {"bind": "127.0.0.1:0"}
    plain = {"name": "echo", "bind": "127.0.0.1:0"}
    running = daemon(services=[plain, upper_at(tls=tls)], metrics=metrics)

    def shown() -> dict[str, float]:
        samples = scrape(running.address("epolld.metrics")).samples
        name = "epolld_certificate_end_timestamp_seconds"
        return {
            dict(its)["service"]: value for (each, its), value in samples.items() if each == name
        }

    eventually(lambda: shown() == {"upper": end.timestamp()}, what="the end in the metric")
    running.reload({"services": [plain, upper_at()], "metrics": metrics})
    eventually(lambda: shown() == {}, what="no certificate in the metric")


def test_check_tells_what_a_start_would(
    make_daemon: Callable[[Config], Daemon], ca: Authority, run: Any
) -> None:
    pair = {**ca.issue("localhost"), "key": ca.issue("other.org")["key"]}
    config = make_daemon({"services": [upper_at(tls=pair)]}).config_file
    checked = run("--check", "--config", str(config))
    assert checked.returncode == 1
    assert "services.upper.tls.key: " in checked.stdout
    started = run("--config", str(config))
    assert started.returncode == 78
    assert checked.stdout.strip() in started.stderr
