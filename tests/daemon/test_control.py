"""The control socket: what its commands answer and do. Who may use it: test_control_access.py."""

import json
import signal
from collections.abc import Callable
from typing import Any

from control import Control
from harness import Config, Daemon, upper_at
from processes import descriptors, eventually, title


def test_it_tells_how_it_stands(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    client = running.client()
    client.ask(b"a")
    control = Control(running)
    status = control.ask("status", id="first")
    assert (status["pid"], status["state"]) == (running.pid, "serving")
    assert (status["generation"], status["workers_ready"], status["connections"]) == (1, 2, 1)
    workers = control.ask("workers")
    assert {each["pid"] for each in workers} == {each.pid for each in running.workers()}
    assert sum(each["connections"] for each in workers) == 1
    assert all(each["memory"] > 1_000_000 for each in workers)
    (service,) = control.ask("services")
    assert service["service"] == "upper"
    assert service["listeners"] == [{"address": running.address(), "waiting": 0, "backlog": 1024}]
    client.close()
    eventually(lambda: control.ask("services")[0]["closed"] == {"eof": 1})
    (service,) = control.ask("services")
    assert (service["connections"], service["accepted"], service["refused"]) == (0, 1, {})
    # Bytes are added up in the worker's tick.
    eventually(lambda: control.ask("services")[0]["bytes_in"] == 1)
    assert control.ask("services")[0]["bytes_out"] == 1
    control.close()


def test_the_id_comes_back_and_requests_may_queue_up(daemon: Callable[..., Daemon]) -> None:
    control = Control(daemon())
    for number in (1, "two", 3):
        control.send("status", id=number)
    assert [control.line()["id"] for _ in range(3)] == [1, "two", 3]
    control.close()


def test_a_client_may_end_its_direction_first(daemon: Callable[..., Daemon]) -> None:
    control = Control(daemon())
    control.sock.sendall(b'{"command": "status"}')  # without an end of line, even
    control.sock.shutdown(1)
    assert control.line()["ok"]
    assert control.line() == {}
    control.close()


def test_what_is_no_request_is_told_so(daemon: Callable[..., Daemon]) -> None:
    control = Control(daemon())
    for line in (b"[]", b"{", b'{"command": "fly"}', b'{"command": "status", "x": 1}', b"\xff"):
        control.sock.sendall(line + b"\n")
        answer = control.line()
        assert (answer["ok"], answer["error"]) == (False, "bad_request"), answer
    assert control.ask("status")
    control.close()


def test_connections_of_all_workers(daemon: Callable[..., Daemon]) -> None:
    running = daemon(services=[upper_at(), {"name": "echo", "bind": "127.0.0.1:0"}])
    clients = [running.client() for _ in range(20)]
    other = running.client(running.address("echo"))
    for client in [*clients, other]:
        client.ask(b"hello")
    control = Control(running)
    found, last = control.parts("connections")
    assert last["result"] == {"count": 21, "missing": []}
    assert {each["worker"] for each in found} <= {0, 1}
    assert len({each["id"] for each in found}) == 21
    mine = "{}:{}".format(*other.sock.getsockname())
    (echo,) = [each for each in found if each["peer"] == mine]
    assert (echo["service"], echo["bytes_in"], echo["bytes_out"]) == ("echo", 5, 5)
    assert (echo["state"], echo["generation"], echo["unsent"]) == ("open", 1, 0)
    assert 0 <= echo["idle"] <= echo["age"] < 60
    for conditions, count in (
        ({"service": "echo"}, 1),
        ({"ids": [echo["id"], "1"]}, 1),
        ({"peers": ["127.0.0.0/8"]}, 21),
        ({"peers": ["192.0.2.0/24", "2001:db8::1"]}, 0),
        ({"worker": 0}, sum(each["worker"] == 0 for each in found)),
        ({"idle": 3600}, 0),
        ({"service": "upper", "peers": ["127.0.0.1"], "idle": 0}, 20),
    ):
        assert len(control.parts("connections", **conditions)[0]) == count, conditions
    for wrong in ({"service": "nothing"}, {"peers": ["fe80::/200"]}, {"ids": ["x"]}):
        assert control.parts("connections", **wrong)[1]["error"] == "bad_request"
    control.close()


def test_kill_ends_the_chosen_and_nobody_else(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    clients = [running.client() for _ in range(6)]
    for client in clients:
        client.ask(b"x")
    control = Control(running)
    found, _ = control.parts("connections")
    by_peer = {each["peer"]: each for each in found}
    victim = by_peer["{}:{}".format(*clients[3].sock.getsockname())]
    killed, last = control.parts("kill", ids=[victim["id"]])
    assert [each["id"] for each in killed] == [victim["id"]]
    assert last["result"]["count"] == 1
    assert clients[3].is_ended()
    rest = clients[:3] + clients[4:]
    assert all(client.ask(b"y") == b"Y" for client in rest)
    assert control.parts("kill")[1]["error"] == "bad_request"
    assert control.parts("kill", peers=["127.0.0.1/32"])[1]["result"]["count"] == 5
    assert all(client.is_ended() for client in rest)
    control.close()


def test_old_generations_are_listed_too(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    client = running.client()
    client.ask(b"a")
    running.reload()  # the live connection moves: it is the new generation's
    control = Control(running)
    eventually(lambda: [each["generation"] for each in control.parts("connections")[0]] == [2])
    assert control.parts("connections")[0][0]["bytes_in"] >= 0
    control.close()


def test_reload_waits_and_tells_what_changed(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    control = Control(running)
    running.write_config({"workers": {"count": 3}})
    result = control.ask("reload")
    assert (result["generation"], result["workers"]) == (2, 3)
    assert result["changes"] == ["workers.count: 2 → 3"]
    running.write_config({"workers": {"count": 3}, "master": {"title": "other"}})
    result = control.ask("reload")
    assert result["warnings"] == ["master.title has changed, which takes effect at a restart"]
    running.expect("master.title has changed")
    control.close()


def test_a_refused_reload_tells_every_reason(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    control = Control(running)
    running.write_text("workers: {cuont: 2}\nservices:\n- {name: 9, bind: nowhere}\n")
    control.send("reload")
    answer = control.line()
    assert not answer["ok"]
    assert (answer["error"], answer["exit_code"], answer["generation"]) == ("failed", 78, 1)
    file = running.config_file
    assert [line.split(": ")[0] for line in answer["problems"]] == [
        f"{file}:1:11",
        f"{file}:3:10",
        f"{file}:3:19",
    ]
    assert answer["message"].startswith(f"reload failed: {file}:1:11: workers.cuont: ")
    assert not control.ask("status")["last_reload"]["ok"]
    running.expect("reload failed", r"epolld.yaml:\d")
    control.close()


def test_a_worker_that_cannot_boot_fails_the_reload(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    control = Control(running)
    bad = {"name": "bad", "protocol": "nowhere:Nothing", "bind": "127.0.0.1:0"}
    running.write_config({"services": [upper_at(), bad]})
    control.send("reload")
    answer = control.line()
    assert answer["exit_code"] == 78
    assert "nowhere" in answer["problems"][0]
    running.expect("reload failed", "nowhere", "exited with status 78")
    control.close()


def test_all_who_ask_hear_the_outcome(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    clients = [Control(running) for _ in range(5)]
    for client in clients:
        client.send("reload")
    answers = [client.line() for client in clients]
    assert all(answer["ok"] for answer in answers)
    for client in clients:
        client.close()


def test_an_upgrade_answers_from_the_new_program(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    control, other = Control(running), Control(running)
    client = running.client()
    client.ask(b"a")
    result = control.ask("upgrade", id=9)
    assert (result["generation"], result["workers"]) == (2, 2)
    assert other.line() == {}  # who asked for nothing was let go
    assert control.ask("status")["pid"] == running.pid  # the same connection goes on
    assert client.ask(b"b") == b"B"
    again = Control(running)  # and so does the socket
    assert again.ask("upgrade")["generation"] == 3
    for each in (control, other, again):
        each.close()


def test_a_failed_upgrade_tells_why(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    control = Control(running)
    running.write_text("workers: {cuont: 2}\nservices: [{name: upper}]\n")
    control.send("upgrade")
    answer = control.line()
    assert (answer["ok"], answer["generation"]) == (False, 1)
    assert any(":1:11: workers.cuont" in line for line in answer["problems"])
    running.expect("upgrade failed")
    control.close()


def test_stop_drains_and_the_end_is_heard(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    client = running.client()
    client.ask(b"a")
    control, late = Control(running), Control(running)
    control.send("stop")
    assert control.line()["result"] == {"state": "stopping"}
    assert late.ask("status")["state"] == "stopping"
    late.send("reload")
    assert late.line()["error"] == "refused"
    assert client.ask(b"b") == b"B"
    client.close()
    assert control.line() == {}
    assert running.wait_exit() == 0
    assert not (running.runtime / "control.sock").exists()
    control.close()
    late.close()


def test_stop_fast_waits_for_nobody(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    client = running.client()
    client.ask(b"a")
    control = Control(running)
    control.send("stop", fast=True)
    control.line()
    assert control.line() == {}
    assert running.wait_exit() == 0
    control.close()


def test_suspend_and_resume(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    control = Control(running)
    control.send("resume")
    assert control.line()["error"] == "refused"
    assert control.ask("suspend") == {"state": "suspended"}
    eventually(lambda: not running.workers(), what="no worker")
    queued = running.client()
    queued.sock.sendall(b"q")
    control.ask("resume")
    assert queued.read(1) == b"Q"
    running.wait_workers(2, generation=1)  # nothing was read anew
    control.close()


def test_scale(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    control = Control(running)
    assert control.ask("scale", workers=4) == {"workers_wanted": 4}
    running.wait_workers(4)
    running.reload()
    running.wait_workers(4, generation=2)
    assert control.ask("scale", workers=1) == {"workers_wanted": 1}
    running.wait_workers(1)
    control.close()


def test_the_log_level_reaches_all_processes_until_a_reload(
    make_daemon: Callable[[Config], Daemon],
) -> None:
    service = {"name": "talker", "protocol": "protocols:Talker", "bind": "127.0.0.1:0"}
    running = make_daemon({"services": [service], "logging": {"level": "info"}}).start()
    control = Control(running)
    control.ask("log-level", level="debug")
    assert control.ask("status")["log_level"] == "debug"
    client = running.client(running.address("talker"))
    client.line()
    client.ask(b"quiet", 1)
    control.ask("scale", workers=3)  # a new one logs like the others
    running.wait_workers(3)
    running.wait_log("debug master.*started")
    running.reload()
    assert control.ask("status")["log_level"] == "info"
    control.close()


def test_stacks_of_workers_and_of_who_does_not_answer(daemon: Callable[..., Daemon]) -> None:
    service = {"name": "who", "protocol": "protocols:Trouble", "bind": "127.0.0.1:0"}
    running = daemon(services=[service])
    control = Control(running)
    stacks, last = control.parts("dump")
    assert {each["pid"] for each in stacks} == {each.pid for each in running.workers()}
    assert all("in run\n" in each["stacks"] for each in stacks)
    assert not any("master" in each["stacks"] for each in stacks)
    assert last["result"] == {"missing": []}
    client = running.client(running.address("who"))
    stuck = int(client.line())
    client.sock.sendall(b"block")

    def silent() -> list[dict[str, Any]]:
        """Who did not answer; at first the worker may be faster than its client."""
        found: list[dict[str, Any]] = control.parts("dump")[1]["result"]["missing"]
        return found

    (missing,) = eventually(silent)
    assert missing["pid"] == stuck
    assert "no answer" in missing["reason"]
    running.wait_log(r"protocols.py.* in block")
    running.allow("^  File", "hread 0x", "^$", "Extension modules", "next try")
    running.send(signal.SIGKILL, stuck)
    running.expect("killed by SIGKILL")
    running.wait_workers(2)
    control.close()


def test_a_worker_that_dies_amid_the_question_is_named(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    control = Control(running)
    while not all(each["connections"] for each in control.ask("workers")):
        running.client().ask(b"x")
    first, second = running.workers()
    running.send(signal.SIGSTOP, first.pid)
    control.send("connections")
    assert control.line()["result"][0]["pid"] == second.pid  # so both were asked
    running.send(signal.SIGKILL, first.pid)
    last = control.line()["result"]
    assert [each["pid"] for each in last["missing"]] == [first.pid]
    assert "SIGKILL" in last["missing"][0]["reason"]
    running.expect("killed by SIGKILL")
    running.allow("next try")
    running.wait_workers(2)
    control.close()


def test_the_configuration_without_its_secrets(daemon: Callable[..., Daemon]) -> None:
    options = {"greeting": "hi", "password": "hunter2", "deep": {"api_key": "abc"}}
    service = {"name": "any", "protocol": "protocols:AnyOptions", "bind": "127.0.0.1:0"}
    running = daemon(services=[{**service, "options": options}])
    control = Control(running)
    text = control.ask("config")["yaml"]
    assert "greeting: hi" in text
    assert "hunter2" not in text
    assert "abc" not in text
    running.write_config({"services": [{**service, "options": {**options, "password": "other"}}]})
    assert control.ask("reload")["changes"] == ["services.any.options: a secret has changed"]
    control.close()


def test_watch_tells_again_and_again(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    control = Control(running)
    control.send("watch", interval=0.1)
    first, second = (control.line()["result"] for _ in range(2))
    assert second["time"] > first["time"]
    assert len(first["workers"]) == first["status"]["workers_ready"] == 2
    control.close()


def test_nothing_of_it_is_left_in_the_workers(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    control = Control(running)
    control.ask("scale", workers=3)  # forked while a client is there
    running.wait_workers(3)
    own = set(descriptors(running.pid).values())
    for worker in running.workers():
        theirs = set(descriptors(worker.pid).values())
        shared = {name for name in own & theirs if name.startswith("socket:")}
        assert len(shared) == 1, title(worker.pid)  # the listener
    control.close()


def test_the_answer_is_one_line_whatever_is_in_it(daemon: Callable[..., Daemon]) -> None:
    control = Control(daemon())
    control.sock.sendall(json.dumps({"command": "a\nb\u2028"}).encode() + b"\n")
    assert control.line()["error"] == "bad_request"
    control.sock.sendall(b'{"command": "status"}\r\n\r\n \n{"command": "status"}\n')
    assert control.line()["ok"]
    assert control.line()["ok"]
    control.close()


def test_an_upgrade_while_suspended(daemon: Callable[..., Daemon]) -> None:
    running = daemon()
    operator = Control(running)
    operator.ask("suspend")
    assert operator.ask("upgrade")["generation"] == 1
    running.wait_log("upgraded from")
    assert operator.ask("status")["state"] == "suspended"
    operator.ask("resume")
    assert running.client().ask(b"a") == b"A"
    operator.close()


def test_a_long_list_comes_in_parts(daemon: Callable[..., Daemon]) -> None:
    """More connections than a worker looks at in one turn, and than fit into one message."""
    running = daemon(workers={"count": 1})
    clients = [running.client() for _ in range(300)]
    operator = Control(running)
    assert operator.ask("status")["state"] == "serving"

    def listed() -> bool:
        items, _ = operator.parts("connections")
        return len({item["id"] for item in items}) == len(clients)

    eventually(listed)
    impatient = Control(running)
    impatient.send("connections")
    impatient.close()  # nobody wants to know any more
    eventually(listed)
    operator.close()
