"""A callback that never comes back, under load: reported with stacks and peer, killed, replaced."""

from collections.abc import Callable

from accounts import MARKED, under_load
from harness import Daemon

TROUBLE = {"name": "trouble", "protocol": "protocols:Trouble", "bind": "127.0.0.1:0"}
STACKS = ("^$", "^Current thread", "^Thread", '^  File "', "^Extension modules: ", "next try in")


def test_reported_killed_replaced(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[MARKED, TROUBLE], workers={"stuck_timeout": "1s"})
    with under_load(running, living=6) as load:
        client = running.client(running.address("trouble"))
        pid = int(client.line())
        host, port = client.sock.getsockname()
        client.send(b"spin")
        running.wait_log(rf"pid {pid}, .* killed by SIGABRT", 10)
        running.wait_workers(2)
        load.wait_served(50)
        # Its own, who were waiting for it; nobody else's.
        load.may(reset=8, early_end=8)
        assert {trouble.pid for trouble in load.troubles} <= {pid, 0}
    running.expect(
        rf"error master.* worker \d \(pid {pid}, .*: silent for \ds > 1s \(stuck_timeout\)",
        "Fatal Python error: Aborted",
        r'File ".*/protocols\.py", line \d+ in spin',
        rf"critical worker\[{pid}\]: .* was serving {host}:{port} \(trouble\) when it was aborted",
        "killed by SIGABRT",
    )
    running.allow(*STACKS)
