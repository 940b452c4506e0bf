"""Started with systemd's sockets: they are used by number, by address and by name."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import HERE, Config, Daemon, free_port, upper_at


def activated(made: Daemon, *addresses: str, names: str = "") -> Daemon:
    """`made`, to be started with these sockets."""
    made.command = [
        *(sys.executable, str(HERE / "with_sockets.py"), ",".join(addresses)),
        *made.command,
    ]
    if names:
        made.environment["LISTEN_FDNAMES"] = names
    return made


def test_by_number(make_daemon: Callable[[Config], Daemon]) -> None:
    port = free_port()
    made = activated(make_daemon({"services": [upper_at("fd:3")]}), str(port)).start()
    assert made.client(f"127.0.0.1:{port}").ask(b"a") == b"A"


def test_by_address(make_daemon: Callable[[Config], Daemon]) -> None:
    port = free_port()
    made = make_daemon({"services": [upper_at(f"127.0.0.1:{port}")]})
    activated(made, str(port)).start()
    assert made.client().ask(b"a") == b"A"


def test_by_name(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({})
    port, path = free_port(), str(made.directory / "echo.sock")
    made.write_config({"services": [upper_at(), {"name": "echo", "bind": "127.0.0.1:0"}]})
    activated(made, str(port), path, names="upper:echo").start()
    assert made.client(f"127.0.0.1:{port}").ask(b"a") == b"A"
    assert made.client(f"unix:{path}").ask(b"a") == b"a"


def test_an_unused_one_is_told(make_daemon: Callable[[Config], Daemon]) -> None:
    made = activated(make_daemon({}), str(free_port()), names="spare").start()
    made.expect("warning .*inherited socket 'spare' is used by no service")


@pytest.mark.parametrize("count", [1, 3])
def test_clients_that_came_before_the_start_and_over_reloads(
    make_daemon: Callable[[Config], Daemon], count: int
) -> None:
    port = free_port()
    made = activated(make_daemon({"services": [upper_at("fd:3")]}), str(port)).start()
    for generation in range(2, 2 + count):
        made.reload()
        made.wait_workers(2, generation=generation)
        client = made.client(f"127.0.0.1:{port}")
        assert client.ask(b"a") == b"A"
        client.close()
    # Given up and taken again: systemd's socket is never closed.
    made.reload({"services": [upper_at()]})
    made.wait_workers(2)
    queued = made.client(f"127.0.0.1:{port}")
    made.reload({"services": [upper_at("fd:3")]})
    assert queued.ask(b"a") == b"A"
    made.allow("inherited socket")
    made.same_descriptors = False


def test_the_socket_file_is_systemds(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({})
    path = made.directory / "upper.sock"
    made.write_config({"services": [upper_at(f"unix:{path}")]})
    activated(made, str(path)).start()
    assert made.client(f"unix:{path}").ask(b"a") == b"A"
    made.hang_up()
    made.stop()
    assert path.exists()


def test_variables_are_not_handed_on(make_daemon: Callable[[Config], Daemon]) -> None:
    """A worker's own children must not believe that they are meant."""
    made = make_daemon({})
    made.write_module(
        "mine",
        "import os\nfrom epolld import Protocol\n"
        "class P(Protocol):\n"
        "    def connection_made(self, t):\n"
        "        found = [n for n in os.environ if n.startswith(('LISTEN_', 'NOTIFY', 'WATCH'))]\n"
        "        t.write(repr(found).encode()); t.close()\n",
    )
    made.write_config({"services": [{"name": "mine", "protocol": "mine:P", "bind": "fd:3"}]})
    port = free_port()
    made.environment |= {"NOTIFY_SOCKET": "/no/such", "WATCHDOG_USEC": "9000000"}
    activated(made, str(port), names="mine").start()
    assert made.client(f"127.0.0.1:{port}").rest() == b"[]"


def test_what_systemd_kept_for_us_and_is_not_wanted_is_given_back(
    make_daemon: Callable[[Config], Daemon], tmp_path: Path
) -> None:
    """It came out of the descriptor store; its address has gone from the configuration."""
    made = make_daemon({})
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(8)
        made.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        activated(made, str(port), names="epolld-0badcafe").start()
        while b"FDSTOREREMOVE=1" not in (message := manager.recv(4096)):
            pass
        assert b"FDNAME=epolld-0badcafe" in message
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        client = made.client()
        assert client.ask(b"a") == b"A"
        client.close()
        made.stop()
