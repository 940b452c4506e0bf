"""What is done inside the box: install, start, reload, break, stop and remove the real thing.

Runs as root under the box's systemd, with the system's python3 and nothing else. Does, and prints
what it saw as one JSON object, a member a step; judges nothing: that is test_systemd.py's. A step
that goes wrong leaves its traceback under "error", and the next one goes on.

    inside.py PROJECT    the project's folder
"""

import json
import os
import re
import signal
import socket
import sys
from pathlib import Path

from looking import (
    ADDRESS,
    PATIENCE,
    another_master,
    ask,
    call,
    capabilities,
    hear,
    journal,
    last_fed,
    main_pid,
    page,
    port_refuses,
    processes,
    run,
    seen,
    serves,
    show,
    step,
    systemctl,
    titles,
    wait_for,
    wait_for_journal,
    workers,
)

PROJECT = Path(sys.argv[1])
CONFIG = Path("/etc/epolld/epolld.yaml")
ELSEWHERE = ("127.0.0.1", 1689)

# Port 7 needs the capability, the Unix socket the runtime directory, the file the logs' directory.
EVERYTHING = """
master: {}
workers: {count: 3}
services:
  - {name: upper, bind: ["127.0.0.1:1688", "unix:/run/epolld/upper.sock"]}
  - {name: echo, bind: "127.0.0.1:7"}
logging: {target: file, file: /var/log/epolld/epolld.log}
"""
BROKEN = "workers:\n  count: many\nservices: [{name: upper, bind: 127.0.0.1:1688, backlog: no}]\n"
TWO_SOCKETS = """
services:
  - {name: upper, bind: "127.0.0.1:1688"}
  - {name: echo, bind: "127.0.0.1:7"}
"""
ECHO_SOCKET = """
[Socket]
ListenStream=127.0.0.1:7
FileDescriptorName=echo
Service=epolld.service
"""
SECOND = """
master: {title: second, control_group: epolld}
services:
  - {name: upper, bind: "127.0.0.1:1690"}
"""
METRICS = """
services: [{name: upper, bind: "127.0.0.1:1688"}]
metrics: {bind: ["127.0.0.1:9188", "unix:/run/epolld/metrics.sock"]}
"""
LIVE = r'^epolld_connections{service="upper",.*} 1.0$'
CONTROL = Path("/run/epolld/control.sock")


def install() -> None:
    """Twice: over what an interrupted one left, then over a whole one, the configuration edited."""
    with step("install") as facts:
        os.umask(0o077)  # as careful roots have it: the service user must get in all the same
        Path("/opt/epolld/bin").mkdir(parents=True)
        Path("/opt/epolld/bin/python").touch(0o755)
        facts["run"] = run(str(PROJECT / "scripts/install"))
        os.umask(0o022)
        facts["config"] = CONFIG.read_text()
        facts["user"] = run("getent", "passwd", "epolld")["out"]
        facts["enabled"] = systemctl("is-enabled", "epolld", "epolld.socket")["out"].split()
        folders = ("/var/lib/epolld", "/var/log/epolld")
        facts["folders"] = run("stat", "-c", "%U %a", *folders)["out"].splitlines()
    with step("install again") as facts:
        CONFIG.write_text(CONFIG.read_text() + "# mine\n")
        facts["run"] = run(str(PROJECT / "scripts/install"))
        facts["config"] = CONFIG.read_text()


def start() -> None:
    """As the README says, with a client that is not ours."""
    with step("start") as facts:
        facts["run"] = systemctl("start", "epolld")
        facts["unit"] = show()  # at once: READY was waited for
        facts["answer"] = run("nc", "-N", "-w", "5", *map(str, ADDRESS), text="hello\n")["out"]
        facts["status"] = systemctl("status", "--no-pager", "epolld")["out"]
        facts["titles"] = titles()
        facts["control"] = run("stat", "-c", "%U %a", str(CONTROL))["out"].strip()
        facts["ctl"] = run("epolldctl", "status", "--json")
        with socket.create_connection(ADDRESS, timeout=PATIENCE):
            facts["live figures"] = wait_for(
                "a connection in the status line",
                lambda: ", 1 connections" in (text := show()["StatusText"]) and text,
            )
        facts["runtime"] = sorted(os.listdir("/run/epolld"))
        facts["runtime mode"] = oct(os.stat("/run/epolld").st_mode & 0o777)
        facts["pidfile"] = Path("/run/epolld/epolld.pid").read_text().strip()
        facts["security"] = run("systemd-analyze", "security", "--no-pager", "epolld")["out"]


def reload() -> None:
    """One that works, one that may not; the open connection outlives both."""
    original = CONFIG.read_text()
    with step("reload") as facts, socket.create_connection(ADDRESS, timeout=PATIENCE) as open_one:
        before, facts["before"], old = journal(), show(), workers()
        facts["run"] = systemctl("reload", "epolld")
        facts["unit at once"] = show()
        facts["line"] = wait_for_journal("reload done.*", before)
        wait_for("the old workers' end", lambda: not set(old) & set(workers()))
        facts["unit"] = wait_for("running", lambda: (u := show())["SubState"] == "running" and u)
        facts["answer"] = serves()
        open_one.sendall(b"still here\n")
        facts["open one"] = open_one.recv(4096).decode()
    with step("reload broken") as facts:
        CONFIG.write_text(BROKEN)
        before, facts["before"] = journal(), show()
        facts["run"] = systemctl("reload", "epolld")
        facts["unit at once"] = show()
        facts["line"] = wait_for_journal("reload failed.*", before)
        facts["journal"] = journal()[len(before) :]
        facts["answer"] = serves()
        facts["unit"] = wait_for("running", lambda: (u := show())["SubState"] == "running" and u)
    with step("reload everything") as facts:
        CONFIG.write_text(EVERYTHING)
        facts["run"] = systemctl("reload", "epolld")
        wait_for("the new socket", Path("/run/epolld/upper.sock").exists)
        facts["tcp"] = serves()
        facts["unix"] = ask("/run/epolld/upper.sock")
        facts["port 7"] = ask(("127.0.0.1", 7))
        facts["titles"] = titles()
        facts["log"] = Path("/var/log/epolld/epolld.log").read_text()
    CONFIG.write_text(original)


def kill() -> None:
    """First a worker, then the master; watched more closely than the unit says, to see it soon, but
    not so closely that on a busy machine the new program of an upgrade comes too late.
    """
    with step("watchdog") as facts:
        drop_in = Path("/etc/systemd/system/epolld.service.d/watchdog.conf")
        drop_in.parent.mkdir()
        drop_in.write_text("[Service]\nWatchdogSec=4s\n")
        systemctl("daemon-reload")
        facts["run"] = systemctl("restart", "epolld")
        started = last_fed()
        wait_for("the watchdog to be fed", lambda: last_fed() > started)
        facts["unit"] = show()
    with step("worker killed") as facts:
        facts["before"], old = show(), workers()
        os.kill(old[0], signal.SIGKILL)
        wait_for("a new worker", lambda: len(workers()) == len(old) and old[0] not in workers())
        facts["answer"] = serves()
        facts["unit"] = show()
    with step("master killed") as facts:
        facts["before"], old = show(), processes()
        os.kill(main_pid(facts["before"]), signal.SIGKILL)
        facts["unit"] = wait_for("another master", lambda: another_master(facts["before"]))
        facts["answer"] = serves()
        facts["left"] = sorted(set(old) & set(processes()))
    with step("master hung") as facts:
        facts["before"], before = show(), journal()
        os.kill(main_pid(facts["before"]), signal.SIGSTOP)
        facts["line"] = wait_for_journal(".*[Ww]atchdog.*", before)
        facts["unit"] = wait_for("another master", lambda: another_master(facts["before"]))
        facts["answer"] = serves()


def upgrade() -> None:
    """The watchdog is still on its short leash, and a connection is open."""
    original = CONFIG.read_text()
    with step("upgrade") as facts, socket.create_connection(ADDRESS, timeout=PATIENCE) as open_one:
        before, facts["before"], old = journal(), show(), processes()
        facts["run"] = systemctl("kill", "--kill-who=main", "--signal=USR2", "epolld")
        facts["line"] = wait_for_journal("upgraded from.*", before)
        facts["reload"] = wait_for_journal("reload (done|failed).*", before)
        wait_for("the old workers' end", lambda: len(set(old) & set(processes())) == 1)
        open_one.sendall(b"still here\n")
        facts["open one"] = open_one.recv(4096).decode()
        facts["answer"] = ask(ADDRESS)
        since = last_fed()
        wait_for("the watchdog to be fed twice", lambda: last_fed() > since + 1_000_000)
        facts["unit"] = show()
    with step("upgrade broken") as facts:
        CONFIG.write_text(BROKEN)
        before, facts["before"] = journal(), show()
        systemctl("kill", "--kill-who=main", "--signal=USR2", "epolld")
        facts["line"] = wait_for_journal("upgrade failed.*", before)
        facts["answer"] = ask(ADDRESS)
        facts["unit"] = show()
    CONFIG.write_text(original)


def restart() -> None:
    """Clients come all the time; the address changes at a restart, and at a reload after one."""
    original = CONFIG.read_text()
    with step("restart") as facts, socket.create_connection(ADDRESS, timeout=PATIENCE) as open_one:
        facts["before"] = show()
        systemctl("restart", "--no-block", "epolld")
        wait_for("the drain", lambda: "draining" in " ".join(titles()))
        # The old workers listen no more, and the new ones are not there: systemd holds the socket.
        clients = [call(ADDRESS) for _ in range(50)]
        facts["state then"] = show()["ActiveState"]
        open_one.close()
        while show()["ActiveState"] != "active":
            clients.append(call(ADDRESS))
        facts["answers"] = [hear(client) for client in clients]
        facts["unit"] = show()
    with step("restart under load") as facts:
        facts["before"], clients = show(), []
        systemctl("restart", "--no-block", "epolld")
        while (unit := show())["MainPID"] == facts["before"]["MainPID"] or (
            unit["ActiveState"] != "active"
        ):
            clients += [call(ADDRESS) for _ in range(20)]
        facts["answers"] = [hear(client) for client in clients]
    with step("restart elsewhere") as facts:
        CONFIG.write_text(original.replace("127.0.0.1:1688", "127.0.0.1:1689"))
        facts["run"] = systemctl("restart", "epolld")
        facts["answer"] = ask(ELSEWHERE)
        facts["old refuses"] = port_refuses()
    with step("reload elsewhere") as facts:
        systemctl("restart", "epolld")  # so that the socket comes out of the store
        CONFIG.write_text(original)
        before = journal()
        systemctl("reload", "epolld")
        wait_for_journal("reload done.*", before)
        facts["answer"] = ask(ADDRESS)
        facts["old refuses"] = port_refuses(ELSEWHERE)
        systemctl("restart", "epolld")
        facts["answer after a restart"] = ask(ADDRESS)
        facts["old refuses after a restart"] = port_refuses(ELSEWHERE)
    CONFIG.write_text(original)


def metrics() -> None:
    """Asked for at a reload, at first in vain; then at a start."""
    original = CONFIG.read_text()
    with step("metrics refused") as facts:
        CONFIG.write_text(METRICS)
        before = journal()
        facts["run"] = systemctl("reload", "epolld")
        facts["journal"] = journal()[len(before) :]
    with step("metrics") as facts:
        facts["pip"] = run("/opt/epolld/bin/pip", "install", "prometheus-client")
        facts["run"] = systemctl("reload", "epolld")
        with socket.create_connection(ADDRESS, timeout=PATIENCE):
            facts["figures"] = wait_for(
                "a connection in the figures",
                lambda: re.search(LIVE, text := page("/metrics")[1], re.MULTILINE) and text,
            )
        facts["titles"] = titles()  # it has answered, so it is called what it is
        facts["healthz"], facts["readyz"] = page("/healthz"), page("/readyz")
        probe = ("/opt/epolld/bin/python", "-m", "epolld.probe")
        facts["probe"] = run(*probe, "unix:/run/epolld/metrics.sock", "/readyz")
        facts["capabilities"] = capabilities()
    with step("metrics at a start") as facts:
        facts["run"] = systemctl("restart", "epolld")
        facts["answer"], facts["healthz"] = ask(ADDRESS), page("/healthz")
    CONFIG.write_text(original)
    systemctl("restart", "epolld")


def stop() -> None:
    """First with a client that has not ended yet, then with none."""
    with step("drain") as facts, socket.create_connection(ADDRESS, timeout=PATIENCE) as open_one:
        open_one.sendall(b"before\n")
        facts["before"] = open_one.recv(4096).decode()
        systemctl("stop", "--no-block", "epolld")
        facts["unit"] = wait_for("the drain", lambda: "draining" in " ".join(titles()) and show())
        open_one.sendall(b"last words\n")
        facts["answer"] = open_one.recv(4096).decode()
        late = call(ADDRESS)  # systemd still has the socket: a start might follow
        open_one.close()
        wait_for("the end", lambda: show()["ActiveState"] == "inactive")
        facts["late"] = hear(late)
        facts["refuses"] = port_refuses()
    with step("stop") as facts:
        systemctl("start", "epolld")
        pids = processes()
        facts["run"] = systemctl("stop", "epolld")
        facts["unit"] = show()
        facts["left"] = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        facts["runtime"] = os.path.exists("/run/epolld")
        facts["refuses"] = port_refuses()


def start_broken() -> None:
    """A configuration that is wrong at the start is not tried again and again."""
    original = CONFIG.read_text()
    with step("start broken") as facts:
        CONFIG.write_text(BROKEN)
        before = journal()
        facts["run"] = systemctl("start", "epolld")
        facts["unit"] = show()
        facts["journal"] = journal()[len(before) :]
    CONFIG.write_text(original)
    systemctl("reset-failed", "epolld")


def activate() -> None:
    """The socket is there before the daemon, and stays there when it goes."""
    with step("socket") as facts:
        facts["run"] = systemctl("start", "epolld.socket")
        facts["before"] = show()
        facts["answer"] = ask(ADDRESS)
        # Clients are served before systemd has read READY=1, and till then it refuses a reload.
        wait_for("the unit to be active", lambda: show()["ActiveState"] == "active")
        before = journal()
        systemctl("reload", "epolld")
        facts["reload"] = wait_for_journal("reload (done|failed).*", before)
        facts["answer after reload"] = ask(ADDRESS)
        facts["unit"] = show()
        # What comes while the service is down waits in the socket's queue.
        facts["stop"] = systemctl("stop", "epolld")
        facts["answer again"] = ask(ADDRESS)
        facts["stop all"] = systemctl("stop", "epolld.socket", "epolld")
        facts["refuses"] = port_refuses()


def activate_many() -> None:
    """Two sockets with names; either one starts the daemon, and gets an answer after a kill."""
    original = CONFIG.read_text()
    with step("sockets") as facts:
        CONFIG.write_text(TWO_SOCKETS)
        Path("/etc/systemd/system/epolld-echo.socket").write_text(ECHO_SOCKET)
        systemctl("daemon-reload")
        facts["run"] = systemctl("start", "epolld.socket", "epolld-echo.socket")
        facts["before"] = show()
        facts["echo"], facts["upper"] = ask(("127.0.0.1", 7)), ask(ADDRESS)
        # Workers answer a moment before the master tells systemd that all is ready.
        wait_for("the unit to be active", lambda: show()["ActiveState"] == "active")
        facts["unit"] = show()
        systemctl("stop", "epolld")
        facts["upper after stop"], facts["echo after stop"] = ask(ADDRESS), ask(("127.0.0.1", 7))
        before, orphans = show(), processes()
        os.kill(main_pid(before), signal.SIGKILL)
        # A worker that systemd has not killed yet may accept, and take its client with it.
        wait_for("the orphans' end", lambda: not set(orphans) & set(processes()))
        clients = [call(ADDRESS), call(("127.0.0.1", 7))]  # not refused: the sockets are there
        wait_for("another master", lambda: another_master(before))
        facts["after kill"] = [hear(client) for client in clients]
        facts["used"] = run("epolldctl", "services")["out"]
        systemctl("stop", "epolld.socket", "epolld-echo.socket", "epolld")
    CONFIG.write_text(original)


def instance() -> None:
    """Another one beside the first, with a configuration of its own."""
    with step("instance") as facts:
        systemctl("start", "epolld")
        CONFIG.with_name("second.yaml").write_text(SECOND)
        facts["run"] = systemctl("start", "epolld@second")
        facts["answers"] = [ask(ADDRESS), ask(("127.0.0.1", 1690))]
        facts["ctl"] = run("epolldctl", "--instance", "second", "status", "--json")
        facts["reload"] = systemctl("reload", "epolld@second")
        facts["generation"] = run("epolldctl", "--instance", "second", "status", "--json")
        facts["first"] = run("epolldctl", "status", "--json")
        for name, groups in (("operator", "--groups=epolld"), ("stranger", "--clear-groups")):
            somebody = ("setpriv", "--reuid=nobody", "--regid=nogroup", groups)
            facts[name] = run(*somebody, "epolldctl", "--instance", "second", "status")
        security = run("systemd-analyze", "security", "--no-pager", "epolld@second")
        facts["security"] = security["out"]
        facts["stop"] = systemctl("stop", "epolld@second")
        facts["first lives"] = ask(ADDRESS)
        systemctl("stop", "epolld")


def uninstall() -> None:
    """While it runs."""
    with step("uninstall") as facts:
        systemctl("start", "epolld")
        pids = processes()
        facts["run"] = run(str(PROJECT / "scripts/install"), "--uninstall")
        facts["left"] = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        places = ("/opt/epolld", "/etc/systemd/system/epolld.service", "/run/epolld")
        places += ("/etc/systemd/system/epolld.socket", "/etc/sysusers.d/epolld.conf")
        places += ("/etc/systemd/system/epolld@.service", "/etc/tmpfiles.d/epolld.conf")
        places += ("/usr/local/bin/epolldctl",)
        facts["there"] = [place for place in places if os.path.lexists(place)]
        facts["config"] = CONFIG.read_text()
        facts["user"] = run("getent", "passwd", "epolld")["out"]
        facts["again"] = run(str(PROJECT / "scripts/install"), "--uninstall")


def main() -> None:
    """All steps, in the only order in which they make sense."""
    for act in (install, start, reload, kill, upgrade, restart, metrics, stop, start_broken):
        act()
    for act in (activate, activate_many, instance):
        act()
    seen["journal"] = {"text": journal()}
    uninstall()
    json.dump(seen, sys.stdout)


main()
