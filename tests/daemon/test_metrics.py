"""The exporter: what it shows, that it never falls, and that it outlives what it reports on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needs
import pytest
from harness import Config, Daemon, free_port
from processes import descriptors, eventually, status, title
from scrape import Figures, get, scrape
from test_become_user import interpreter_for_all
from test_upgrade import copied, pid_of, upgrade  # noqa: F401  (a fixture)

METRICS: Config = {"bind": "127.0.0.1:0"}
UPPER: Config = {"name": "upper", "bind": "127.0.0.1:0"}
WHO: Config = {"name": "who", "protocol": "protocols:Who", "bind": "127.0.0.1:0"}


def at(running: Daemon) -> str:
    """Where the exporter answers."""
    return running.address("epolld.metrics")


def exporters(running: Daemon) -> list[int]:
    """Their pids."""
    return [pid for pid in running.processes() if title(pid) == "epolld: exporter"]


def until(running: Daemon, condition: Callable[[Figures], Any]) -> Figures:
    """Scrape until the workers' tick has brought it."""
    found: list[Figures] = []

    def look() -> Any:
        found[:] = [scrape(at(running))]
        return condition(found[0])

    eventually(look, 15, "figures")
    return found[0]


def test_connections_bytes_and_causes(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[UPPER, WHO], metrics=METRICS)
    first, second = running.client(), running.client()
    assert first.ask(b"hello") == b"HELLO"
    assert second.ask(b"ab") == b"AB"
    first.half_close()
    assert first.rest() == b""
    figures = until(  # each worker publishes at its own tick
        running,
        lambda f: (
            f.sum("epolld_connections_closed_total", cause="eof")
            and f.sum("epolld_sent_bytes_total") == 7
            and f.sum("epolld_connections", service="upper") == 1
        ),
    )
    assert figures.sum("epolld_connections_accepted_total", service="upper") == 2
    assert figures.sum("epolld_received_bytes_total", service="upper") == 7
    assert figures.sum("epolld_sent_bytes_total", service="upper") == 7
    assert figures.sum("epolld_connections_closed_total", service="upper") == 1
    assert figures.sum("epolld_connections_accepted_total", service="who") == 0
    assert figures.sum("epolld_connections_refused_total", cause="full", service="who") == 0
    second.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    second.close()
    until(running, lambda f: f.sum("epolld_connections_closed_total", cause="reset") == 1)


def test_the_daemon_and_its_processes(daemon: Callable[..., Daemon]) -> None:
    running = daemon(metrics=METRICS)
    figures = until(running, lambda f: f.sum("epolld_workers", state="serving") == 2)
    assert figures.sum("epolld_generation") == figures.sum("epolld_ready") == 1
    assert figures.sum("epolld_workers_wanted") == 2
    assert figures.sum("epolld_accept_queue_limit", service="upper") == 1024
    assert figures.sum("epolld_accept_queue_length", address=running.address()) == 0
    for process in ("master", "worker", "exporter"):
        assert figures.sum("epolld_process_resident_memory_bytes", process=process) > 1e6
        assert figures.sum("epolld_process_open_fds", process=process) > 4
    assert figures.sum("epolld_process_cpu_seconds_total", process="master") > 0
    assert figures.sum("epolld_loop_lag_seconds", worker="0") < 5
    assert set(figures.kinds.values()) == {"gauge", "counter"}


def test_clients_that_wait_are_seen(daemon: Callable[..., Daemon]) -> None:
    running = daemon(metrics=METRICS)
    running.send(signal.SIGWINCH)
    eventually(lambda: not running.workers(), what="all workers have left")
    clients = [running.client() for _ in range(3)]
    until(running, lambda f: f.sum("epolld_accept_queue_length", service="upper") == 3)
    running.reload()
    assert all(client.ask(b"a") == b"A" for client in clients)
    until(running, lambda f: f.sum("epolld_accept_queue_length", service="upper") == 0)


def test_openmetrics_is_offered(daemon: Callable[..., Daemon]) -> None:
    running = daemon(metrics=METRICS)
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    code, content_type, body = get(at(running), "/metrics", accept)
    assert code == 200
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


def test_counters_never_fall(daemon: Callable[..., Daemon]) -> None:
    """Over a worker's death, a reload with live connections, and an upgrade in place."""
    running = daemon(services=[{**WHO, "protocol": "movable:Where"}], metrics=METRICS)
    address = running.address("who")
    seen = scrape(at(running))

    def check(figures: Figures) -> Figures:
        before, after = seen.counters(), figures.counters()
        ours = {
            key: value for key, value in before.items() if ("process", "exporter") not in key[1]
        }
        fallen = {k: (v, after.get(k)) for k, v in ours.items() if after.get(k, -1) < v}
        assert not fallen
        return figures

    until(running, lambda f: f.sum("epolld_workers", state="serving") == 2)
    clients, servers = [], []
    while len(set(servers)) < 2:
        clients.append(running.client(address))
        servers.append(pid_of(clients[-1]))
    total = "epolld_connections_accepted_total"
    received = len(clients)
    seen = check(until(running, lambda f: f.sum("epolld_received_bytes_total") == received))
    assert seen.sum(total) == len(clients)
    running.send(signal.SIGKILL, servers[0])
    running.wait_log("is ready")
    running.expect("killed by SIGKILL")
    running.allow("next try in")
    seen = check(until(running, lambda f: f.sum("epolld_workers", state="serving") == 2))
    assert seen.sum("epolld_worker_restarts_total", cause="signal") == 1
    assert seen.sum("epolld_worker_restarts_total") == 1
    running.reload()
    running.wait_workers(2, generation=2)
    alive = [client for client, pid in zip(clients, servers, strict=True) if pid != servers[0]]
    moved = "epolld_connections_moved_total"
    seen = check(until(running, lambda f: f.sum(moved, direction="in") == len(alive)))
    assert seen.sum(moved, direction="out") == len(alive) > 0
    assert seen.sum("epolld_received_bytes_total") == received  # moved ones count once
    upgrade(running)
    running.wait_workers(2, generation=3)
    for client in alive:
        pid_of(client)
    more = received + len(alive)
    seen = check(until(running, lambda f: f.sum("epolld_received_bytes_total") == more))
    assert seen.sum(total) == len(clients)
    assert seen.sum("epolld_upgrades_total") == 1
    assert seen.sum("epolld_reloads_total", result="done") == 2
    assert seen.sum("epolld_last_reload_successful") == 1


def test_counters_never_fall_over_another_layout(copied: tuple[Daemon, Path]) -> None:  # noqa: F811
    """The new program knows one more cause: it cannot read the old table, and is told."""
    made, package = copied
    made.write_config({"metrics": METRICS})
    made.start()
    client = made.client()
    assert client.ask(b"abc") == b"ABC"
    until(made, lambda f: f.sum("epolld_received_bytes_total") == 3)
    causes = package / "causes.py"
    causes.write_text(causes.read_text().replace('    "eof",', '    "eof", "brand_new",'))
    made.send(signal.SIGUSR2)
    while not made.find_log("reload done"):
        assert get(at(made), "/readyz")[0] == 200
    figures = until(made, lambda f: f.sum("epolld_workers", state="serving") == 2)
    assert figures.sum("epolld_connections_closed_total", cause="brand_new") == 0
    assert figures.sum("epolld_received_bytes_total") == 3
    assert figures.sum("epolld_connections_accepted_total") == 1
    assert figures.sum("epolld_upgrades_total") == 1
    assert figures.sum("epolld_start_time_seconds") > 0
    assert client.ask(b"d") == b"D"
    until(made, lambda f: f.sum("epolld_received_bytes_total") == 4)


def test_a_failed_reload_shows(daemon: Callable[..., Daemon]) -> None:
    running = daemon(metrics=METRICS)
    good = running.config_file.read_text()
    running.write_text("workers: {cuont: 2}\n" + good.replace("workers:", "x:"))
    running.reload(ok=False)
    figures = scrape(at(running))
    assert figures.sum("epolld_reloads_total", result="failed") == 1
    assert figures.sum("epolld_last_reload_successful") == 0
    assert figures.sum("epolld_last_reload_timestamp_seconds") > 0
    running.expect("unknown key", "reload failed")
    running.allow("error master")


SHOP = """
from epolld import Protocol, metrics

ORDERS = metrics.counter("shop_orders", "Orders taken.")
OPEN = metrics.gauge("shop_open_orders", "Orders being cooked.")

class Shop(Protocol):
    def data_received(self, data):
        ORDERS.inc(len(data))
        OPEN.set(0.5)
        self.transport.write(data)
"""


def test_the_applications_own(make_daemon: Callable[[Config], Daemon]) -> None:
    shop = {"name": "shop", "protocol": "shop:Shop", "bind": "127.0.0.1:0"}
    made = make_daemon({"services": [shop], "metrics": METRICS, "workers": {"count": 1}})
    made.write_module("shop", SHOP)
    made.start()
    assert made.client(made.address("shop")).ask(b"abc") == b"abc"
    figures = scrape(at(made))  # no tick between: it counts in shared memory
    assert figures.sum("shop_orders_total", worker="0") == 3
    assert figures.sum("shop_open_orders", worker="0") == 0.5
    made.hang_up()
    made.reload()
    made.wait_workers(1, generation=2)
    figures = until(made, lambda f: f.sum("shop_open_orders", worker="0") == 0)
    assert figures.sum("shop_orders_total", worker="0") == 3


# -- probes ------------------------------------------------------------------------------------


def test_ready_only_while_it_serves(make_daemon: Callable[[Config], Daemon]) -> None:
    slow = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n"
    port = _free_port()
    service = {"name": "slow", "protocol": "slow:Who", "bind": "127.0.0.1:0"}
    made = make_daemon({"services": [service], "metrics": {"bind": f"127.0.0.1:{port}"}})
    made.write_module("slow", slow + "from protocols import Who\n")
    made.launch()
    where = f"127.0.0.1:{port}"
    eventually(lambda: _answers(where), what="the exporter answers")
    assert get(where, "/readyz")[::2] == (503, "starting\n")
    assert get(where, "/healthz")[0] == 200
    (made.directory / "go").touch()
    made.wait_ready()
    assert get(where, "/readyz")[0] == 200
    client = made.client(made.address("slow"))
    client.line()
    made.send(signal.SIGWINCH)
    made.wait_log("suspended")
    assert get(where, "/readyz")[::2] == (503, "suspended\n")
    made.reload()
    assert get(where, "/readyz")[0] == 200
    holder = made.client(made.address("slow"))
    holder.line()
    made.send(signal.SIGTERM)
    made.wait_log("stopping")
    assert get(where, "/readyz")[::2] == (503, "stopping\n")
    assert scrape(where).sum("epolld_ready") == 0
    made.hang_up()
    made.wait_exit()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _answers(where: str) -> bool:
    try:
        return get(where, "/healthz")[0] == 200
    except OSError:
        return False


# -- the process -------------------------------------------------------------------------------


def test_off_unless_configured(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    assert exporters(running) == []


def test_a_dead_exporter_is_replaced(daemon: Callable[..., Daemon]) -> None:
    running = daemon(metrics=METRICS)
    (first,) = eventually(lambda: exporters(running))
    scrape(at(running))
    running.send(signal.SIGKILL, first)
    running.expect(r"exporter \(pid \d+\) killed by SIGKILL")
    running.allow("exporter: next try in")
    assert scrape(at(running)).sum("epolld_exporter_restarts_total") == 1
    assert exporters(running) != [first]
    assert len(running.wait_workers(2)) == 2


def test_no_scrape_is_refused_meanwhile(daemon: Callable[..., Daemon]) -> None:
    """A reload and an upgrade put another exporter on the same socket."""
    running = daemon(metrics=METRICS)
    (first,) = eventually(lambda: exporters(running))
    running.reload()
    scrape(at(running))
    (second,) = eventually(lambda: [each for each in exporters(running) if each != first])
    eventually(lambda: exporters(running) == [second], what="the old one has left")
    running.send(signal.SIGUSR2)
    while not running.find_log("generation 3"):
        scrape(at(running))
    eventually(lambda: len(exporters(running)) == 1 and exporters(running) != [second])
    scrape(at(running))


def test_metrics_come_move_and_go_with_a_reload(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    where = running.directory / "m.sock"
    running.reload({**running.config, "metrics": {"bind": f"unix:{where}"}})
    assert scrape(f"unix:{where}").sum("epolld_generation") == 2
    running.reload({**running.config, "metrics": {"bind": f"unix:{where}2"}})
    assert scrape(f"unix:{where}2").sum("epolld_generation") == 3
    assert not where.exists()
    running.reload({**running.config, "metrics": {}})
    eventually(lambda: not exporters(running))
    assert not Path(f"{where}2").exists()


def test_what_it_holds(daemon: Callable[..., Daemon]) -> None:
    """No listener of a service, no channel of a worker, nobody's pid file; workers not its own."""
    running = daemon(metrics=METRICS)
    (exporter,) = eventually(lambda: exporters(running))
    scrape(at(running))
    listener = _listening_inodes(exporter)
    assert len(listener) == 1
    for worker in running.wait_workers(2):
        assert not listener & _listening_inodes(worker.pid)
    assert not any("epolld.pid" in what for what in descriptors(exporter).values())


def _listening_inodes(pid: int) -> set[str]:
    listening = {
        f"socket:[{line.split()[9]}]"
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    return listening & set(descriptors(pid).values())


def test_it_becomes_the_user(daemon: Callable[..., Daemon]) -> None:
    needs.root()
    interpreter_for_all()
    running = daemon(master={"user": "nobody"}, metrics=METRICS)
    figures = scrape(at(running))
    (exporter,) = exporters(running)
    assert status(exporter)["Uid"].split() == status(running.workers()[0].pid)["Uid"].split()
    assert int(status(exporter)["CapEff"], 16) == 0
    assert figures.sum("epolld_process_open_fds", process="worker") > 0


def test_it_leaves_with_a_killed_master(daemon: Callable[..., Daemon]) -> None:
    running = daemon(metrics=METRICS)
    (exporter,) = eventually(lambda: exporters(running))
    scrape(at(running))
    running.send(signal.SIGKILL)
    running.wait_exit()
    running.exit_code = 0
    for left in running.runtime.iterdir():  # by a master that could not clean up
        left.unlink()
    eventually(lambda: exporter not in running.processes())
    running.expect("the master is dead")


# -- refusals ------------------------------------------------------------------------------------


def check(tmp_path: Path, metrics: str, **environ: str) -> str:
    """What --check says."""
    path = tmp_path / "epolld.yaml"
    path.write_text(f"services:\n- {{name: upper, bind: '127.0.0.1:0'}}\nmetrics: {metrics}\n")
    command = [sys.executable, "-m", "epolld", "--config", str(path), "--check"]
    environment = {**os.environ, **environ}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=20
    ).stdout


def test_only_this_machine_may_ask(tmp_path: Path) -> None:
    said = check(tmp_path, "{bind: '*:9188'}")
    assert "epolld.yaml:3:11: metrics.bind: *:9188 can be reached from outside" in said
    assert check(tmp_path, "{bind: ['[::1]:9188', 'unix:/run/x', '127.0.0.1:1']}") == "OK\n"
    assert check(tmp_path, "{}") == "OK\n"


def test_without_prometheus_client_the_remedy_is_named(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n: None if n == 'prometheus_client' else find(n)"
    )
    said = check(tmp_path, "{bind: '127.0.0.1:9188'}", PYTHONPATH=str(hidden))
    assert "epolld.yaml:3:11: metrics.bind: needs prometheus-client" in said
    assert f"run: {sys.executable} -m pip install prometheus-client\n" in said


# An installation that is broken, or that hangs; later it is the real one.
BROKEN = "raise ImportError('half an installation')\n"
HANGING = """
import os, sys, time
if os.path.exists("hang"):
    open("hanging", "w").close()
    time.sleep(60)
here = os.path.dirname(__file__)
sys.path[:] = [each for each in sys.path if os.path.abspath(each) != here]
del sys.modules[__name__]
import prometheus_client
"""


def test_an_exporter_that_cannot_boot_says_why_and_is_tried_again(
    make_daemon: Callable[[Config], Daemon],
) -> None:
    made = make_daemon({"metrics": METRICS})
    made.write_module("prometheus_client", BROKEN)
    made.start()
    assert made.client().ask(b"a") == b"A"
    made.wait_log(r"exporter \(pid \d+\) exited with status 70: ImportError: half an installation")
    made.expect("error exporter.*cannot boot", "exited with status 70")
    made.allow("next try in")
    (made.directory / "prometheus_client.py").unlink()
    assert (
        until(made, lambda f: f.sum("epolld_exporter_restarts_total")).sum("epolld_upgrades_total")
        == 0
    )


def test_an_exporter_that_hangs_at_its_boot_makes_way(
    make_daemon: Callable[[Config], Daemon],
) -> None:
    made = make_daemon({"metrics": METRICS})
    made.write_module("prometheus_client", HANGING)
    (made.directory / "hang").touch()
    made.start()
    eventually(lambda: (made.directory / "hanging").exists())
    (stuck,) = exporters(made) or [-1]
    (made.directory / "hang").unlink()
    made.reload()
    scrape(at(made))
    eventually(lambda: stuck not in made.processes() and len(exporters(made)) == 1)


def test_it_goes_on_in_the_rotated_log(make_daemon: Callable[[Config], Daemon]) -> None:
    made = make_daemon({})
    file, place = made.directory / "epolld.log", f"127.0.0.1:{free_port()}"
    logging = {"target": "file", "file": str(file)}
    made.write_config({"metrics": {"bind": place}, "logging": logging})
    made.launch()
    eventually(lambda: file.exists() and "ready: " in file.read_text(), 8)
    scrape(place)
    (exporter,) = exporters(made)
    file.rename(file.with_suffix(".1"))
    made.send(signal.SIGUSR1)
    eventually(lambda: str(file) in descriptors(exporter).values(), what="the new file is open")
    assert str(file.with_suffix(".1")) not in descriptors(exporter).values()
    made.stop()
    assert "stopped" in file.read_text()
