"""What the units and docs/operations.md promise agrees with the code; needs no systemd."""

import configparser
import re
from pathlib import Path

import pytest

from epolld.address import parse_address
from epolld.config.loader import load
from epolld.config.schema import Workers
from epolld.errors import ExitCode
from epolld.units import parse_duration

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs/operations.md").read_text()


def unit(name: str) -> configparser.ConfigParser:
    """A unit file; of a setting that stands there twice, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    parser.read(PROJECT / "systemd" / name)
    return parser


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    return unit("epolld.service")["Service"]


def test_the_page_lists_all_exit_codes_and_no_other() -> None:
    section = PAGE.split("## Exit codes")[1].split("\n## ")[0]
    listed = [int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)]
    assert listed == sorted(ExitCode)


def test_systemd_does_not_repeat_what_stays_wrong(service: configparser.SectionProxy) -> None:
    codes = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert codes == {ExitCode.USAGE, ExitCode.CONFIG}


def test_systemd_is_more_patient_than_the_daemon(service: configparser.SectionProxy) -> None:
    defaults = Workers()
    assert parse_duration(service["TimeoutStartSec"]) > defaults.boot_timeout
    assert parse_duration(service["TimeoutStopSec"]) > defaults.graceful_timeout
    assert int(service["LimitNOFILE"]) > defaults.max_connections


def test_the_units_start_what_the_installation_installs(service: configparser.SectionProxy) -> None:
    script = (PROJECT / "scripts/install").read_text()
    prefix, config = re.findall(r"^readonly PREFIX=(\S+) CONFIG=(\S+)$", script, re.MULTILINE)[0]
    assert service["ExecStart"] == f"{prefix}/bin/epolld --config {config}"


def test_the_socket_unit_fits_the_shipped_configuration() -> None:
    socket = unit("epolld.socket")["Socket"]
    shipped = load(str(PROJECT / "etc/epolld.yaml")).config.services[0]
    assert socket["FileDescriptorName"] == shipped.name
    assert int(socket["Backlog"]) == shipped.backlog
    assert shipped.bind == (parse_address(socket["ListenStream"]),)
