"""The options of `epolld` that do not start the daemon, and those that override the file."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml
from harness import Config, Daemon, free_port

Run = Callable[..., subprocess.CompletedProcess[str]]
SHIPPED = Path(__file__).parents[2] / "etc/epolld.yaml"


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], str]:
    """Writes a configuration; returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "some.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_version(run: Run) -> None:
    done = run("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"epolld \d\S*\n", done.stdout)


def test_help_names_options_and_exit_codes(run: Run) -> None:
    text = run("--help").stdout
    for option in ("config", "check", "print-config", "schema", "workers", "bind", "service",
                   "set", "daemonize", "pidfile", "log-level", "version"):  # fmt: skip
        assert f"--{option}" in text
    for code in (0, 1, 64, 69, 70, 73, 75, 77, 78):
        assert re.search(rf"^  {code} ", text, re.MULTILINE), code


def test_check_is_ok_with_the_shipped_file(run: Run) -> None:
    done = run("--check", "--config", str(SHIPPED))
    assert (done.returncode, done.stdout, done.stderr) == (0, "OK\n", "")


def test_check_tells_every_problem_with_its_place(run: Run, config: Callable[[str], str]) -> None:
    file = config(
        "workers:\n"
        "  cuont: 4\n"
        "  boot_timeout: soon\n"
        "  boot_timeout: 3s\n"
        "servics: []\n"
        "services:\n"
        "  - name: upper\n"
        "    bind: 127.0.0.1:99999\n"
    )
    done = run("--check", "--config", file)
    assert done.returncode == 1
    assert not done.stderr
    problems = done.stdout.splitlines()
    for place, part in (
        ("2:3", "workers.cuont: unknown key 'cuont'; did you mean 'count'"),
        ("3:17", "workers.boot_timeout: "),
        ("4:3", "workers.boot_timeout: duplicate key"),
        ("5:1", "servics: unknown key 'servics'; did you mean 'services'"),
        ("8:11", "services.upper.bind: "),
    ):
        assert any(line.startswith(f"{file}:{place}: {part}") for line in problems), (place, done)
    assert len(problems) == 5


def test_check_imports_what_services_name(run: Run, config: Callable[[str], str]) -> None:
    file = config(
        "services:\n"
        "  - name: mine\n"
        "    protocol: no_such_module:P\n"
        "    bind: 127.0.0.1:0\n"
        "  - name: daytime\n"
        "    options:\n"
        "      colour: red\n"
        "    bind: 127.0.0.1:0\n"
        "  - name: unheard\n"
        "    bind: 127.0.0.1:0\n"
    )
    done = run("--check", "--config", file)
    assert done.returncode == 1
    first, second, third = done.stdout.splitlines()
    assert first.startswith(f"{file}:3:5: services.mine.protocol: there is no module 'no_such_")
    assert re.match(rf"{re.escape(file)}:7:7: services\.daytime\.options\.colour: ", second)
    assert re.match(rf"{re.escape(file)}:9:\d: services\.unheard\.protocol: ", third)


def test_check_without_a_file(run: Run) -> None:
    done = run("--check", "--config", "/no/such.yaml")
    assert done.returncode == 1
    assert done.stdout.startswith("/no/such.yaml: there is no such file")


def test_print_config_round_trip(run: Run, config: Callable[[str], str], tmp_path: Path) -> None:
    file = config(
        "master: {user: nobody, umask: '077', title: other}\n"
        "workers: {count: 3, stuck_timeout: 90s, graceful_timeout: 1500ms}\n"
        "services:\n"
        "  - name: mine\n"
        "    protocol: upper\n"
        "    bind: ['[::1]:0', {address: unix:/tmp/x.sock, mode: '660'}]\n"
        "  - {name: quote, protocol: qotd, options: {quotes: ['0x1f', 'null']}, bind: '*:0'}\n"
        "logging: {format: json}\n"
    )
    done = run("--print-config", "--config", file)
    assert (done.returncode, done.stderr) == (0, "")
    printed = yaml.safe_load(done.stdout)
    assert printed["workers"]["count"] == 3
    assert printed["workers"]["boot_timeout"]  # defaults are filled in
    assert printed["services"][1]["options"] == {"quotes": ["0x1f", "null"]}
    again = tmp_path / "again.yaml"
    again.write_text(done.stdout)
    assert run("--print-config", "--config", str(again)).stdout == done.stdout


def test_print_config_shows_overrides(run: Run) -> None:
    done = run(
        *("--print-config", "--config", str(SHIPPED), "--workers", "7", "--log-level", "debug"),
        *("--bind", "127.0.0.1:1", "--bind", "[::1]:2", "--pidfile", "/tmp/other.pid"),
        *("--set", "workers.stuck_timeout=5m", "--set", "services.upper.backlog=9"),
    )
    printed = yaml.safe_load(done.stdout)
    assert printed["workers"]["count"] == 7
    assert printed["workers"]["stuck_timeout"] == "5m"
    assert printed["logging"]["level"] == "debug"
    assert printed["master"]["pidfile"] == "/tmp/other.pid"
    assert printed["services"][0]["bind"] == ["127.0.0.1:1", "[::1]:2"]
    assert printed["services"][0]["backlog"] == 9


def test_schema_describes_the_shipped_file(run: Run) -> None:
    done = run("--schema")
    assert done.returncode == 0
    schema = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(SHIPPED.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": [{"name": "upper", "bnid": "127.0.0.1:1"}]}, schema)


def test_daemon_with_overrides(make_daemon: Callable[[Config], Daemon]) -> None:
    port = free_port()
    made = make_daemon({"workers": {"count": 3}})
    pidfile = made.directory / "my.pid"
    made.start(
        *("--workers", "1", "--service", "echo", "--bind", f"127.0.0.1:{port}"),
        *("--pidfile", str(pidfile), "--log-level", "debug", "--set", "master.title=mine"),
    )
    made.wait_workers(1)
    assert made.client(f"127.0.0.1:{port}").ask(b"a") == b"a"
    assert int(pidfile.read_text()) == made.pid
    assert made.find_log("debug master")
    made.hang_up()
    # They hold over a reload, too.
    made.reload()
    made.wait_workers(1, generation=2)
    made.stop()
    assert not pidfile.exists()


def test_check_tells_what_reuseport_costs(run: Run, config: Callable[[str], str]) -> None:
    file = config("services: [{name: upper, bind: '127.0.0.1:0', reuseport: true}]")
    done = run("--check", "--config", file)
    assert (done.returncode, done.stdout) == (0, "OK\n")
    assert "services.upper.reuseport: a reload that keeps the address costs nothing" in done.stderr


HANDLERS = """
import epolld

class Lines(epolld.LineProtocol):
    def __init__(self, *, color="red"):
        pass

class Own(epolld.Protocol):
    def message_under_way(self):
        return None

async def handle(reader, writer):
    pass

def make():
    return Lines()
"""


def test_check_tells_where_message_timeout_has_no_effect(
    run: Run, config: Callable[[str], str]
) -> None:
    services = [
        {"name": name, "protocol": protocol, "bind": "127.0.0.1:0", "message_timeout": "1s"}
        for name, protocol in (
            *(("upper", "upper"), ("handle", "handlers:handle"), ("lines", "handlers:Lines")),
            *(("own", "handlers:Own"), ("make", "handlers:make")),
        )
    ]
    services[2]["options"] = {"color": "blue"}
    file = config(yaml.safe_dump({"services": services}))
    Path(file).with_name("handlers.py").write_text(HANDLERS)
    done = run("--check", "--config", file)
    assert (done.returncode, done.stdout) == (0, "OK\n")
    found = re.findall(r"warning: .*:\d+:\d+: services\.(\w+)\.message_timeout: ", done.stderr)
    assert found == ["upper", "handle"]
