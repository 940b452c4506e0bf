"""epolld under a real systemd: what the operator does, and what happens to it.

Judges what inside.py saw in tests/systemd-box; all tests share one boot.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

# The first test waits for the box, and for pip outside of it the first time.
pytestmark = pytest.mark.timeout(420)

Seen = dict[str, Any]

SYSTEMD = Path(__file__).parents[2] / "systemd"


def step(seen: Seen, name: str) -> dict[str, Any]:
    """The facts of a step that went to its end."""
    facts: dict[str, Any] = seen[name]
    if "error" in facts:
        pytest.fail(f"{facts['error']}\n{facts['unit']}\n{facts['journal']}")
    return facts


def succeeded(command: dict[str, Any]) -> bool:
    """Whether a command ended well; shows in the failing assertion what it said."""
    assert command["code"] == 0, command["err"] + command["out"]
    return True


def test_install_sets_up_everything_and_enables_nothing(seen: Seen) -> None:
    facts = step(seen, "install")
    assert succeeded(facts["run"])
    assert "wrote /etc/epolld/epolld.yaml" in facts["run"]["err"]
    assert "upper" in facts["config"]
    assert facts["user"].split(":")[0] == "epolld"
    assert facts["user"].strip().endswith("nologin")
    assert facts["enabled"] == ["disabled", "disabled"]
    assert facts["folders"] == ["epolld 750", "epolld 750"]


def test_install_again_keeps_the_configuration(seen: Seen) -> None:
    facts = step(seen, "install again")
    assert succeeded(facts["run"])
    assert "kept /etc/epolld/epolld.yaml" in facts["run"]["err"]
    assert facts["config"].endswith("# mine\n")


def test_start_returns_when_it_serves(seen: Seen) -> None:
    facts = step(seen, "start")
    assert succeeded(facts["run"])
    assert facts["unit"]["ActiveState"] == "active"
    assert facts["answer"] == "HELLO\n"


def test_status_tells_who_serves_what(seen: Seen) -> None:
    facts = step(seen, "start")
    assert f"Main PID: {facts['unit']['MainPID']} " in facts["status"]
    assert 'Status: "' in facts["status"]
    assert "generation 1" in facts["unit"]["StatusText"]


def test_the_status_line_has_live_figures(seen: Seen) -> None:
    assert "1 connections" in step(seen, "start")["live figures"]


def test_the_operators_command_finds_the_daemon(seen: Seen) -> None:
    facts = step(seen, "start")
    assert facts["control"] == "epolld 600"
    assert succeeded(facts["ctl"])
    assert str(json.loads(facts["ctl"]["out"])["pid"]) == facts["unit"]["MainPID"]


def test_all_processes_run_as_the_service_user(seen: Seen) -> None:
    facts = step(seen, "start")
    assert len(facts["titles"]) >= 2
    assert all(line.startswith("epolld epolld: ") for line in facts["titles"])


def test_the_runtime_directory_holds_the_pid_file(seen: Seen) -> None:
    facts = step(seen, "start")
    assert facts["pidfile"] == facts["unit"]["MainPID"]
    assert facts["runtime mode"] == "0o750"


def test_the_unit_is_as_closed_as_promised(seen: Seen) -> None:
    overall = step(seen, "start")["security"].splitlines()[-1]
    assert float(overall.split(":")[1].split()[0]) <= 1.5, overall


def test_reload_makes_a_new_generation_of_the_same_master(seen: Seen) -> None:
    facts = step(seen, "reload")
    assert succeeded(facts["run"])
    assert "generation 2" in facts["unit at once"]["StatusText"]  # reload waits for the outcome
    assert "generation 2" in facts["line"]
    assert "generation 2" in facts["unit"]["StatusText"]
    assert facts["unit"]["MainPID"] == facts["before"]["MainPID"]
    assert facts["answer"] == "HELLO\n"
    assert facts["open one"] == "STILL HERE\n"


def test_reload_of_a_wrong_file_changes_nothing_and_says_where(seen: Seen) -> None:
    facts = step(seen, "reload broken")
    assert facts["run"]["code"] != 0
    for place in ("2:10: workers.count", "3:57: services.upper.backlog"):
        assert f"/etc/epolld/epolld.yaml:{place}: " in facts["journal"]
        assert f"epolldctl: /etc/epolld/epolld.yaml:{place}: " in facts["journal"]
    assert "2:10: workers.count: " in facts["unit at once"]["StatusText"]
    assert "/etc/epolld/epolld.yaml:2:10: workers.count: " in facts["line"]
    assert facts["answer"] == "HELLO\n"
    assert facts["unit"]["ActiveState"] == "active"
    assert facts["unit"]["MainPID"] == facts["before"]["MainPID"]
    assert "generation 2 goes on" in facts["line"]


def test_privileged_ports_unix_sockets_and_log_files_work_in_the_hardened_unit(seen: Seen) -> None:
    facts = step(seen, "reload everything")
    assert facts["tcp"] == facts["unix"] == "HELLO\n"
    assert facts["port 7"] == "hello\n"
    assert "reload done" in facts["log"]


def test_the_watchdog_is_fed(seen: Seen) -> None:
    facts = step(seen, "watchdog")
    assert succeeded(facts["run"])
    assert facts["unit"]["NRestarts"] == "0"


def test_a_killed_worker_is_replaced_and_the_unit_stays_up(seen: Seen) -> None:
    facts = step(seen, "worker killed")
    assert facts["answer"] == "HELLO\n"
    assert facts["unit"]["MainPID"] == facts["before"]["MainPID"]
    assert facts["unit"]["NRestarts"] == facts["before"]["NRestarts"]


def test_a_killed_master_is_started_anew(seen: Seen) -> None:
    facts = step(seen, "master killed")
    assert facts["answer"] == "HELLO\n"
    assert int(facts["unit"]["NRestarts"]) == int(facts["before"]["NRestarts"]) + 1
    assert facts["left"] == []


def test_the_watchdog_ends_a_hung_master_and_another_starts(seen: Seen) -> None:
    facts = step(seen, "master hung")
    assert "atchdog" in facts["line"]
    assert facts["answer"] == "HELLO\n"
    assert int(facts["unit"]["NRestarts"]) == int(facts["before"]["NRestarts"]) + 1


def test_an_upgrade_keeps_the_main_process_the_watchdog_and_live_connections(seen: Seen) -> None:
    facts = step(seen, "upgrade")
    assert succeeded(facts["run"])
    assert "upgraded from epolld" in facts["line"]
    assert "reload done" in facts["reload"]
    assert facts["open one"] == "STILL HERE\n"
    assert facts["answer"] == "HELLO\n"
    assert facts["unit"]["MainPID"] == facts["before"]["MainPID"]
    assert facts["unit"]["NRestarts"] == facts["before"]["NRestarts"]
    assert facts["unit"]["SubState"] == "running"


def test_an_upgrade_whose_trial_fails_changes_nothing(seen: Seen) -> None:
    facts = step(seen, "upgrade broken")
    assert "/etc/epolld/epolld.yaml:2:10: workers.count: " in facts["line"]
    assert facts["answer"] == "HELLO\n"
    assert facts["unit"]["MainPID"] == facts["before"]["MainPID"]


def test_a_restart_refuses_nobody(seen: Seen) -> None:
    facts = step(seen, "restart")
    assert facts["state then"] == "deactivating"
    assert len(facts["answers"]) >= 50
    assert set(facts["answers"]) == {"HELLO\n"}
    assert facts["unit"]["MainPID"] != facts["before"]["MainPID"]


def test_a_restart_under_load_loses_nobody(seen: Seen) -> None:
    facts = step(seen, "restart under load")
    assert len(facts["answers"]) >= 20
    assert set(facts["answers"]) == {"HELLO\n"}


def test_a_restart_with_another_address_gives_up_the_old_one(seen: Seen) -> None:
    facts = step(seen, "restart elsewhere")
    assert succeeded(facts["run"])
    assert facts["answer"] == "HELLO\n"
    assert facts["old refuses"]


def test_an_address_that_came_over_a_restart_goes_at_a_reload(seen: Seen) -> None:
    facts = step(seen, "reload elsewhere")
    assert facts["answer"] == facts["answer after a restart"] == "HELLO\n"
    assert facts["old refuses"]
    assert facts["old refuses after a restart"]


def test_metrics_without_the_library_are_refused_with_the_remedy(seen: Seen) -> None:
    facts = step(seen, "metrics refused")
    assert facts["run"]["code"] != 0
    assert "/etc/epolld/epolld.yaml:3:11: metrics.bind: needs prometheus-client" in facts["journal"]
    assert "run: /opt/epolld/bin/python -m pip install prometheus-client" in facts["journal"]


def test_the_exporter_answers_in_the_hardened_unit(seen: Seen) -> None:
    facts = step(seen, "metrics")
    assert succeeded(facts["pip"])
    assert succeeded(facts["run"])
    assert facts["healthz"] == facts["readyz"] == [200, "ok\n"]
    assert succeeded(facts["probe"])
    assert "epolld epolld: exporter" in facts["titles"]


def test_the_hardened_unit_hides_no_figure(seen: Seen) -> None:
    figures = step(seen, "metrics")["figures"]
    for figure in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds"):
        for process in ("master", "exporter", "worker"):
            name = f'epolld_process_{figure}{{process="{process}",'
            assert re.search(rf"^{re.escape(name)}.* \d", figures, re.MULTILINE), name
    for figure in ("length", "limit"):
        assert f'epolld_accept_queue_{figure}{{address="127.0.0.1:1688",' in figures


def test_workers_have_no_capability(seen: Seen) -> None:
    """The exporter has the master's: without it, it could not see it (ProtectProc=invisible)."""
    able = {title for title, mask in step(seen, "metrics")["capabilities"].items() if mask}
    assert able == {"epolld: master", "epolld: exporter"}


def test_the_exporter_is_there_from_the_start_on(seen: Seen) -> None:
    facts = step(seen, "metrics at a start")
    assert succeeded(facts["run"])
    assert facts["answer"] == "HELLO\n"
    assert facts["healthz"] == [200, "ok\n"]


def test_stop_lets_open_connections_end(seen: Seen) -> None:
    facts = step(seen, "drain")
    assert facts["before"] == "BEFORE\n"
    assert facts["unit"]["ActiveState"] == "deactivating"
    assert facts["answer"] == "LAST WORDS\n"


def test_who_comes_during_a_stop_is_not_left_waiting(seen: Seen) -> None:
    facts = step(seen, "drain")
    assert "reset" in facts["late"]
    assert facts["refuses"]


def test_stop_leaves_nothing(seen: Seen) -> None:
    facts = step(seen, "stop")
    assert succeeded(facts["run"])
    assert (facts["unit"]["ActiveState"], facts["unit"]["Result"]) == ("inactive", "success")
    assert facts["left"] == []
    assert not facts["runtime"]
    assert facts["refuses"]


def test_a_wrong_configuration_is_not_tried_again_and_again(seen: Seen) -> None:
    facts = step(seen, "start broken")
    assert facts["run"]["code"] != 0
    # Not "activating (auto-restart)".
    assert facts["unit"]["ActiveState"] == "failed"
    assert facts["unit"]["ExecMainStatus"] == "78"
    assert "/etc/epolld/epolld.yaml:2:10: workers.count: " in facts["journal"]


def test_the_first_client_starts_a_socket_activated_daemon(seen: Seen) -> None:
    facts = step(seen, "socket")
    assert succeeded(facts["run"])
    assert facts["before"]["ActiveState"] == "inactive"
    assert facts["answer"] == "HELLO\n"
    assert "reload done" in facts["reload"]
    assert facts["answer after reload"] == "HELLO\n"
    assert facts["unit"]["ActiveState"] == "active"
    assert succeeded(facts["stop"])
    assert facts["answer again"] == "HELLO\n"
    assert succeeded(facts["stop all"])
    assert facts["refuses"]


def test_several_named_sockets_start_the_daemon_and_outlive_it(seen: Seen) -> None:
    facts = step(seen, "sockets")
    assert succeeded(facts["run"])
    assert facts["before"]["ActiveState"] == "inactive"
    assert (facts["echo"], facts["upper"]) == ("hello\n", "HELLO\n")
    assert facts["unit"]["ActiveState"] == "active"
    assert (facts["echo after stop"], facts["upper after stop"]) == ("hello\n", "HELLO\n")
    assert facts["after kill"] == ["HELLO\n", "hello\n"]


def test_instances_live_beside_each_other(seen: Seen) -> None:
    facts = step(seen, "instance")
    assert succeeded(facts["run"])
    assert facts["answers"] == ["HELLO\n", "HELLO\n"]
    assert json.loads(facts["ctl"]["out"])["config"] == "/etc/epolld/second.yaml"
    assert succeeded(facts["reload"])
    assert json.loads(facts["generation"]["out"])["generation"] == 2
    assert json.loads(facts["first"]["out"])["generation"] == 1
    overall = facts["security"].splitlines()[-1]
    assert float(overall.split(":")[1].split()[0]) <= 1.5, overall
    assert succeeded(facts["stop"])
    assert facts["first lives"] == "HELLO\n"


def test_operators_are_those_of_the_group(seen: Seen) -> None:
    facts = step(seen, "instance")
    assert succeeded(facts["operator"])
    assert "serving: generation 2" in facts["operator"]["out"]
    assert facts["stranger"]["code"] == 77


def test_the_template_is_the_unit_with_other_names() -> None:
    """epolld@.service has every line of epolld.service, and no other."""

    def lines(name: str) -> list[str]:
        text = (SYSTEMD / name).read_text()
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    expected = [
        re.sub(r"(Directory=|/run/)epolld\b", r"\1epolld-%i", line)
        .replace("/epolld.yaml", "/%i.yaml")
        .replace("stream protocols", "stream protocols (%i)")
        for line in lines("epolld.service")
    ]
    assert lines("epolld@.service") == expected


def test_uninstall_leaves_the_configuration_and_the_user(seen: Seen) -> None:
    facts = step(seen, "uninstall")
    assert succeeded(facts["run"])
    assert facts["left"] == facts["there"] == []
    assert facts["config"].endswith("# mine\n")
    assert facts["user"]
    assert succeeded(facts["again"])


def test_nothing_was_forbidden_that_the_daemon_needs(seen: Seen) -> None:
    text = seen["journal"]["text"]
    assert "Traceback" not in text
    assert "Operation not permitted" not in text
    assert "Permission denied" not in text
