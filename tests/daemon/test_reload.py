"""HUP with a right configuration: everything new is in force, nothing that lives is lost."""

import signal
from collections.abc import Callable

import pytest
from harness import Client, Config, Daemon, free_port, upper_at
from processes import eventually

WHO: Config = {"name": "who", "protocol": "protocols:Who", "bind": "127.0.0.1:0"}


def test_new_workers_replace_the_old_ones(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    before = {worker.pid for worker in running.wait_workers(2, generation=1)}
    line = running.reload()
    assert "generation 2, 2 workers" in line
    after = {worker.pid for worker in running.wait_workers(2, generation=2)}
    assert not before & after
    assert running.client().ask(b"a") == b"A"


def test_options_change(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[{"name": "time", "bind": "127.0.0.1:0"}])
    assert len(running.client(running.address("time")).rest()) == 4
    running.reload({"services": [{"name": "time", "protocol": "qotd", "bind": "127.0.0.1:0",
                                  "options": {"quotes": ["so it is"]}}]})  # fmt: skip
    running.wait_log(r"services\.time\.protocol: time → qotd")
    running.wait_workers(2, generation=2)  # until then an old one may accept
    assert b"so it is" in running.client(running.address("time")).rest()


def test_changed_user_code_is_loaded_afresh(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon(
        {"services": [{"name": "mine", "protocol": "mine:P", "bind": "127.0.0.1:0"}]}
    )
    code = "import epolld\nclass P(epolld.Protocol):\n    def connection_made(self, t): %s\n"
    made.write_module("mine", code % "t.write(b'old'); t.close()")
    made.start()
    assert made.client(made.address("mine")).rest() == b"old"
    made.write_module("mine", code % "t.write(b'newer'); t.close()")
    made.reload()
    made.wait_workers(2, generation=2)
    assert made.client(made.address("mine")).rest() == b"newer"


def test_services_and_addresses_come_and_go(daemon: Callable[..., Daemon]) -> None:
    second, third = free_port(), free_port()
    running = daemon()
    first = running.address()
    echo = {"name": "echo", "bind": f"127.0.0.1:{third}"}
    running.reload({"services": [upper_at(["127.0.0.1:0", f"127.0.0.1:{second}"]), echo]})
    assert running.client(first).ask(b"a") == b"A"
    assert running.client(f"127.0.0.1:{second}").ask(b"a") == b"A"
    assert running.client(f"127.0.0.1:{third}").ask(b"a") == b"a"
    running.hang_up()
    running.reload({"services": [echo]})
    running.wait_workers(2, generation=3)
    for gone in (first, f"127.0.0.1:{second}"):
        with pytest.raises(ConnectionRefusedError):
            running.client(gone)
    running.reload({"services": [upper_at()]})
    running.wait_workers(2, generation=4)
    with pytest.raises(ConnectionRefusedError):
        running.client(f"127.0.0.1:{third}")


def test_an_address_moves_to_another_service(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    running.reload({"services": [{"name": "echo", "bind": "127.0.0.1:0"}]})
    running.wait_workers(2, generation=2)
    assert running.client(running.address("upper")).ask(b"a") == b"a"


def test_worker_count_changes(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    running.reload({"workers": {"count": 3}})
    running.wait_workers(3, generation=2)
    running.reload({"workers": {"count": 1}})
    running.wait_workers(1, generation=3)


def test_log_level_changes_in_master_and_workers(daemon: Callable[..., Daemon]) -> None:
    service = {"name": "talker", "protocol": "protocols:Talker", "bind": "127.0.0.1:0"}
    running = daemon(services=[service])
    client = running.client(running.address("talker"))
    client.line()
    client.ask(b"quiet", 1)
    running.reload({"services": [service], "logging": {"level": "debug"}})
    client = running.client(running.address("talker"))
    client.line()
    client.ask(b"loud", 1)
    running.wait_log(r"heard b'loud'", 3)
    assert not running.find_log(r"heard b'quiet'")


def test_log_file_is_taken_into_use_by_master_and_workers(
    make_daemon: Callable[[Config], Daemon],
) -> None:
    service = {"name": "talker", "protocol": "protocols:Talker", "bind": "127.0.0.1:0"}
    made = make_daemon({"services": [service], "logging": {"level": "debug"}})
    made.start()
    made.same_descriptors = False  # one more: the log file
    file = made.directory / "epolld.log"
    logging = {"level": "debug", "target": "file", "file": str(file)}
    made.write_config({"services": [service], "logging": logging})
    made.send(signal.SIGHUP)
    made.wait_workers(2, generation=2)
    client = made.client(made.address("talker"))
    client.line()
    client.ask(b"loud", 1)
    client.close()
    made.stop()
    text = file.read_text()
    assert "reload done" in text
    assert "heard b'loud'" in text


def test_a_storm_of_hups_is_a_few_reloads(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    for _ in range(100):
        running.send(signal.SIGHUP)
    running.wait_log("reload done")
    running.send(signal.SIGHUP)
    # Whatever is under way or pending ends with all workers of one generation.
    last = running.wait_log(r"reload done", count=2)
    assert "reload done" in last
    running.wait_workers(2)
    assert running.count_log("reload done") <= 6
    assert running.client().ask(b"a") == b"A"


def test_a_hup_during_the_start_is_not_lost(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon(
        {"services": [{"name": "mine", "protocol": "mine:P", "bind": "127.0.0.1:0"}]}
    )
    made.write_module("mine", "import time; time.sleep(0.5)\nfrom protocols import Who as P\n")
    made.launch()
    eventually(lambda: made.workers(generation=1), 5, "workers that boot")
    made.send(signal.SIGHUP)
    made.wait_ready()
    made.wait_log("reload done", 4)


def test_a_long_lived_connection_stays_with_its_worker(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHO])
    client = running.client(running.address("who"))
    pid = client.line()
    for generation in (2, 3):
        running.reload()
        assert client.ask(b"?", len(pid) + 1).strip() == pid
        # "reload done" comes before the old workers have read that they are to leave.
        eventually(
            lambda now=generation: {w.generation for w in running.workers() if not w.state} == {now}
        )
        other = running.client(running.address("who"))
        assert other.line() != pid
        other.close()
    assert [w.state for w in running.workers(generation=1)] == ["draining"]
    client.close()
    running.wait_workers(2, generation=3)


def test_the_rest_is_closed_at_graceful_timeout(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[WHO], workers={"count": 1, "graceful_timeout": "300ms"})
    client = running.client(running.address("who"))
    assert client.line()
    running.reload()
    assert client.is_ended()
    client.close()
    running.wait_workers(1, generation=2)
    running.wait_log(r"closing the last 1 connection")


def test_no_client_is_lost_over_reloads(daemon: Callable[..., Daemon]) -> None:
    """New and long-lived clients go on asking all the time."""
    running = daemon()
    address = running.address()
    lasting = [Client(address) for _ in range(10)]
    for _ in range(5):
        before = running.count_log("reload done")
        running.send(signal.SIGHUP)
        while running.count_log("reload done") == before:
            client = Client(address)
            assert client.ask(b"a") == b"A"
            client.close()
            for each in lasting:
                assert each.ask(b"b") == b"B"
    for each in lasting:
        each.close()


def test_settings_of_the_master_wait_for_a_restart(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    running.reload({"master": {"title": "other"}})
    running.expect(r"warning .* master\.title has changed, which takes effect at a restart")


def test_two_ports_that_the_kernel_chose_stay(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[upper_at(["127.0.0.1:0", "127.0.0.1:0"])])
    addresses = [running.address(nth=0), running.address(nth=1)]
    running.reload()
    running.wait_workers(2, generation=2)
    for address in addresses:
        assert running.client(address).ask(b"a") == b"A"


def test_mode_of_a_unix_socket_changes(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({})
    path = made.directory / "sock"
    made.write_config({"services": [upper_at({"address": f"unix:{path}", "mode": "600"})]})
    made.start()
    assert path.stat().st_mode & 0o777 == 0o600
    made.reload({"services": [upper_at({"address": f"unix:{path}", "mode": "666"})]})
    assert path.stat().st_mode & 0o777 == 0o666
