"""max_lag: a worker whose loop is late leaves new clients to the others, and comes back."""

from collections.abc import Callable

from harness import Daemon

BUSY = '''
import os, time
from epolld import Protocol

class Busy(Protocol):
    """Keeps its worker busy for as many milliseconds as it is told, again and again."""

    def connection_made(self, transport):
        self.transport = transport
        transport.write(b"%d\\n" % os.getpid())

    def data_received(self, data):
        self.rounds = int(data)
        self.work()

    def work(self):
        time.sleep(0.3)
        self.rounds -= 1
        if self.rounds:
            self.transport.call_later(0.01, self.work)
        else:
            self.transport.write(b"done\\n")
'''


def test_others_take_new_clients_until_it_keeps_up(make_daemon: Callable[..., Daemon]) -> None:
    service = {"name": "busy", "protocol": "busy:Busy", "bind": "127.0.0.1:0"}
    running = make_daemon({"services": [service], "workers": {"max_lag": "150ms"}})
    running.write_module("busy", BUSY)
    running.start()
    first = running.client()
    pid = first.line()
    first.sock.sendall(b"4")
    running.wait_log(r"its event loop is \S+s late > 0.15s \(workers.max_lag\)")
    others = [running.client() for _ in range(6)]
    assert pid not in {client.line() for client in others}
    assert first.line() == b"done"
    running.wait_log("it keeps up again")
    running.expect("workers.max_lag")
