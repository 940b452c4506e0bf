"""Where a service can listen: IPv6 alone or with IPv4, several at once, port 0, told in the log."""

import re
from collections.abc import Callable

import pytest
from harness import Config, Daemon, upper_at


def test_v6only_both_ways(daemon: Callable[..., Daemon]) -> None:
    services: list[Config] = [
        {"name": "only", "protocol": "upper", "bind": "[::]:0"},
        {"name": "both", "protocol": "guarded:Peer", "bind": "[::]:0", "v6only": False},
    ]
    running = daemon(services=services)
    for name in ("only", "both"):
        port = running.address(name).rpartition(":")[2]
        assert running.client(f"[::1]:{port}").ask(b"a", 1)
    only = running.address("only").rpartition(":")[2]
    with pytest.raises(ConnectionRefusedError):
        running.client(f"127.0.0.1:{only}")
    both = running.address("both").rpartition(":")[2]
    line = running.client(f"127.0.0.1:{both}").line()
    assert b"('::ffff:127.0.0.1', " in line


def test_rules_for_ipv4_hold_on_a_listener_for_both(daemon: Callable[..., Daemon]) -> None:
    rules = [{"deny": "127.0.0.0/8"}]
    running = daemon(services=[upper_at("[::]:0", v6only=False, access=rules)])
    port = running.address().rpartition(":")[2]
    assert running.client(f"127.0.0.1:{port}").is_ended()
    running.wait_log("refused .*127.0.0.1.*: not allowed")
    assert running.client(f"[::1]:{port}").ask(b"a") == b"A"


def test_several_of_one_service_and_ports_that_the_kernel_chose(
    daemon: Callable[..., Daemon],
) -> None:
    bind = ["127.0.0.1:0", "127.0.0.1:0", "[::1]:0", "unix:@epolld-test-several"]
    running = daemon(services=[upper_at(bind)])
    line = running.find_log("ready: ")
    ports = re.findall(r":(\d+) \(upper\)", line)
    assert len({*ports}) == 3
    assert "0" not in ports
    for nth in range(4):
        assert running.client(running.address("upper", nth)).ask(b"a") == b"A"
