"""The first promise: what comes in goes out again in upper case."""

from collections.abc import Callable

from harness import Daemon, upper_at


def test_upper_answers(daemon: Callable[..., Daemon]) -> None:
    client = daemon().client()
    assert client.ask(b"hello\n") == b"HELLO\n"
    assert client.ask("Grüße 123\n".encode()) == "GRüßE 123\n".encode()


def test_several_services_each_at_its_address(daemon: Callable[..., Daemon]) -> None:
    echo = {"name": "echo", "bind": ["127.0.0.1:0", "[::1]:0"]}
    daytime = {"name": "clock", "protocol": "daytime", "bind": "unix:@epolld-test-clock"}
    running = daemon(services=[upper_at(), echo, daytime])
    assert running.client(running.address("upper")).ask(b"a") == b"A"
    assert running.client(running.address("echo", 0)).ask(b"a") == b"a"
    assert running.client(running.address("echo", 1)).ask(b"a") == b"a"
    assert running.client("unix:@epolld-test-clock").rest().endswith(b"\r\n")


def test_a_long_answer_is_whole(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    client = running.client()
    sent = bytes(range(97, 123)) * 20_000
    for _ in range(4):
        assert client.ask(sent) == sent.upper()


def test_a_mistake_of_user_code_ends_its_own_connection_alone(
    daemon: Callable[..., Daemon],
) -> None:
    running = daemon(
        workers={"count": 1},
        services=[{"name": "t", "protocol": "protocols:Trouble", "bind": "127.0.0.1:0"}],
    )
    good, bad = running.client(running.address("t")), running.client(running.address("t"))
    pid = good.line()
    assert bad.line() == pid
    bad.sock.sendall(b"no_such_thing")
    assert bad.is_ended()
    good.sock.sendall(b"say")
    assert good.line() == pid
    running.expect(r"t: data_received of Trouble raised AttributeError; .* from 127\.0\.0\.1:\d+")
