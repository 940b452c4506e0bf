"""epolld.config.overrides: the command line over the file, and its problems."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epolld.address import TcpAddress, UnixAddress
from epolld.config import Config, Overrides, Service, load
from epolld.config.marks import MAX_DEPTH
from epolld.errors import ConfigError, ExitCode, UsageError

FILE = """\
services:
  - name: shout
    protocol: upper
    bind: 127.0.0.1:1688
    options: {x: {y: 1}, z: [1, 2]}
  - name: echo
    bind: 127.0.0.1:1607
"""


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> str:
    path = tmp_path / "epolld.yaml"
    path.write_text(FILE)
    return str(path)


def config_of(file: str, *settings: str) -> Config:
    """What is in force with some `--set`."""
    return load(file, Overrides(set=settings)).config


def problems_of(file: str, overrides: Overrides) -> list[str]:
    """The problems with `overrides`."""
    with pytest.raises(ConfigError) as caught:
        load(file, overrides)
    return [str(problem) for problem in caught.value.problems]


def names(config: Config) -> list[str]:
    """The services in force."""
    return [service.name for service in config.services]


def test_the_short_options(file: str) -> None:
    overrides = Overrides(workers=3, pidfile="/run/x.pid", log_level="debug")
    config = load(file, overrides).config
    assert config.workers.count == 3
    assert config.master.pidfile == "/run/x.pid"
    assert config.logging.level == "debug"
    assert names(config) == ["shout", "echo"]


def test_a_relative_pidfile_is_the_shells(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(file, Overrides(pidfile="x.pid")).config.master.pidfile == f"{tmp_path}/x.pid"


def test_set_reaches_services_by_name_and_by_index(file: str) -> None:
    config = config_of(
        file,
        "services.echo.idle_timeout=5s",
        "services.0.options.x.y=2",
        "services.shout.options.z.0=7",
        "services.shout.options.new.deep=a",
        "master.umask=077",
        'services.echo.bind=["[::1]:1", {address: unix:/x, mode: 0600}]',
    )
    shout, echo = config.services
    assert echo.idle_timeout == 5.0
    assert shout.options == {"x": {"y": 2}, "z": [7, 2], "new": {"deep": "a"}}
    assert config.master.umask == 0o077
    assert echo.bind == (TcpAddress("::1", 1), UnixAddress("/x", 0o600))


def test_the_last_set_counts(file: str) -> None:
    assert config_of(file, "workers.count=1", "workers.count=2").workers.count == 2


def test_set_can_replace_the_services(file: str) -> None:
    assert names(config_of(file, "services=[{name: time, bind: x:1}]")) == ["time"]


def test_a_set_into_an_alias_changes_one_side_only(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(
        "services:\n- {name: a, bind: x:1, options: &o {k: [1]}}\n"
        "- {name: b, bind: x:2, options: *o}\n"
    )
    a, b = config_of(str(file), "services.b.options.k.0=2").services
    assert (a.options, b.options) == ({"k": [1]}, {"k": [2]})


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            Overrides(set=("workers.cuont=3",)),
            "--set: workers.cuont: unknown key 'cuont'; did you mean 'count'?",
        ),
        (
            Overrides(set=("wrokers.count=3",)),
            "--set: wrokers: unknown key 'wrokers'; did you mean 'workers'?",
        ),
        (
            Overrides(set=("services.ehco.backlog=3",)),
            "--set: services.ehco.backlog: there is no 'ehco' in this list; did you mean 'echo'?",
        ),
        (
            Overrides(set=("services.9.backlog=3",)),
            "--set: services.9.backlog: there is no '9' in this list; there are: shout, echo",
        ),
        (
            Overrides(set=("workers",)),
            "--set: workers: expected path=value, such as workers.count=4",
        ),
        (
            Overrides(set=("workers..x=1",)),
            "--set: workers..x=1: expected path=value, such as workers.count=4",
        ),
        (
            Overrides(set=("workers.count=",)),
            "--set: workers.count: the value is missing; expected auto or a whole number "
            "from 1 to 1024",
        ),
        (
            Overrides(set=("workers.count.x=1",)),
            "--set: workers.count: expected auto or a whole number from 1 to 1024, not a mapping",
        ),
        (
            Overrides(workers=0),
            "--workers: workers.count: 0 is out of range; expected auto or a whole number "
            "from 1 to 1024",
        ),
        (
            Overrides(log_level="inof"),
            "--log-level: logging.level: expected debug, info, warning or error, not 'inof'; "
            "did you mean 'info'?",
        ),
        (
            Overrides(service="echo", bind=("1688",)),
            "--bind: services.echo.bind.0: '1688' has no host; write 127.0.0.1:1688 for this "
            "machine only, *:1688 for every interface",
        ),
        (
            Overrides(service="echo", bind=("null",)),
            "--bind: services.echo.bind.0: 'null' is not an address; write host:port, [v6]:port, "
            "*:port, unix:/path or fd:N",
        ),
    ],
)
def test_problems_name_the_option(file: str, overrides: Overrides, problem: str) -> None:
    assert problems_of(file, overrides) == [problem]


@pytest.mark.parametrize(
    ("text", "overrides", "problem"),
    [
        ("[a, list]", Overrides(workers=3), "f.yaml:1:1: expected a mapping"),
        (
            "workers: [3]",
            Overrides(workers=3),
            "--workers: workers.count: there is no 'count' in this list",
        ),
        (
            "workers: {count: 1}",
            Overrides(set=("services.x.backlog=3",)),
            "--set: services.x.backlog: there is no service 'x'; the file has none",
        ),
        (
            "services: none of them",
            Overrides(service="echo"),
            "f.yaml:1:11: services: expected a list of mappings",
        ),
        (
            "services: none of them",
            Overrides(bind=("*:1",)),
            "f.yaml:1:11: services: expected a list of mappings",
        ),
        (
            "services: []",
            Overrides(set=("master.a.b.c.d=" + "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2),)),
            "--set: master.a.b.c.d: nested deeper than",
        ),
    ],
)
def test_files_with_nothing_to_override(
    tmp_path: Path, text: str, overrides: Overrides, problem: str
) -> None:
    """What is wrong with the file is told, and no traceback."""
    path = tmp_path / "f.yaml"
    path.write_text(text)
    assert problem in "\n".join(problems_of(str(path), overrides))


@pytest.mark.parametrize("value", ["[::1]:80", "*:80"])
def test_addresses_that_yaml_takes_for_something_else(file: str, value: str) -> None:
    (problem,) = problems_of(file, Overrides(set=(f"services.echo.bind={value}",)))
    assert problem.startswith("--set: services.echo.bind: not YAML")
    assert "needs quotes" in problem


def test_problems_of_the_file_and_of_the_command_line_come_together(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(FILE + "workers: {coutn: 1}\n")
    overrides = Overrides(set=("workers.count=x", "services.no.x=1"), log_level="x")
    assert len(problems_of(str(file), overrides)) == 4


def test_service_by_name_then_by_protocol_then_new(file: str) -> None:
    assert names(load(file, Overrides(service="echo")).config) == ["echo"]
    assert names(load(file, Overrides(service="upper")).config) == ["shout"]
    new = load(file, Overrides(service="time", bind=("h:1",))).config.services
    assert new == (Service(name="time", bind=(TcpAddress("h", 1),)),)
    (own,) = load(file, Overrides(service="my.pkg:Class", bind=("h:1",))).config.services
    assert (own.name, own.protocol) == ("Class", "my.pkg:Class")


def test_service_and_set_go_together(file: str) -> None:
    overrides = Overrides(
        service="time", bind=("h:1",), set=("services.time.backlog=5", "services.0.backlog=6")
    )
    (service,) = load(file, overrides).config.services
    assert service.backlog == 5


def test_service_works_without_services_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    for text in ("", "services:\n", "workers: {count: 1}\n"):
        file.write_text(text)
        assert names(load(str(file), Overrides(service="echo", bind=("h:1",))).config) == ["echo"]


def test_bind_replaces_all_addresses_of_the_one_service(file: str) -> None:
    (echo,) = load(file, Overrides(service="echo", bind=("*:7", "unix:/x"))).config.services
    assert echo.bind == (TcpAddress("0.0.0.0", 7), UnixAddress("/x"))


def test_an_unknown_service_without_an_address_may_be_a_mistake(file: str) -> None:
    told = r"--service time: \S+ has no such service \(it has: shout, echo\); .* add --bind"
    with pytest.raises(UsageError, match=told):
        load(file, Overrides(service="time"))
    bound = load(file, Overrides(service="time", set=("services.time.bind=h:1",)))
    assert names(bound.config) == ["time"]


def test_dev_serves_at_an_address_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("workers: {count: 1}\n")
    (service,) = load(str(file), Overrides(dev="package.module:Handler")).config.services
    assert (service.name, service.bind) == ("Handler", (TcpAddress("127.0.0.1", 1688),))
    problem = "--dev: services.service.protocol: expected a built-in service's name or "
    assert problems_of(str(file), Overrides(dev="no such thing"))[0].startswith(problem)


def test_bind_wants_to_know_which_service(file: str) -> None:
    with pytest.raises(UsageError, match=r"has 2 \(shout, echo\); add --service NAME") as caught:
        load(file, Overrides(bind=("h:1",)))
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_protocol_that_two_services_have_is_ambiguous(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(FILE + "  - {name: loud, protocol: upper, bind: x:1}\n")
    with pytest.raises(UsageError, match=r"several services match \(shout, loud\)"):
        load(str(file), Overrides(service="upper"))


def test_the_way_back_to_a_place_knows_the_command_line(file: str) -> None:
    loaded = load(file, Overrides(set=("services.echo.options.a=1",)))
    assert str(loaded.problem("services.echo.options.a", "no")) == (
        "--set: services.echo.options.a: no"
    )
    assert str(loaded.problem("services.shout.options.x", "no")).startswith(f"{file}:5:15: ")


PATHS = st.sampled_from(
    ["workers.count", "services", "services.0", "services.echo.bind", "services.shout.options.z.1"]
)


@given(st.one_of(st.text(), st.builds("{}={}".format, st.one_of(PATHS, st.text()), st.text())))
def test_any_set_gives_a_config_or_problems(
    tmp_path_factory: pytest.TempPathFactory, assignment: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "overridden.yaml"
    file.write_text(FILE)
    with contextlib.suppress(ConfigError):
        assert load(str(file), Overrides(set=(assignment,), workers=1)).config.workers.count == 1
