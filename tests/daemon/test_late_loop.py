"""max_lag: a worker whose loop is late leaves new clients to the others, and comes back."""

from collections.abc import Callable

from harness import Daemon

BUSY = '''
import os, time
from epolld import Protocol

class Busy(Protocol):
    """Keeps its worker busy, for 0.3 s again and again, until it is told to rest."""

    def connection_made(self, transport):
        self.transport = transport
        transport.write(b"%d\\n" % os.getpid())

    def data_received(self, data):
        self.working = data == b"work"
        if self.working:
            self.work()

    def work(self):
        if self.working:
            time.sleep(0.3)
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
    first.sock.sendall(b"work")
    running.wait_log(r"its event loop is \S+s late > 0.15s \(workers.max_lag\)")
    others = [running.client() for _ in range(6)]
    assert pid not in {client.line() for client in others}
    first.sock.sendall(b"rest")
    assert first.line() == b"done"
    running.wait_log("it keeps up again")
    running.expect("workers.max_lag")
