"""epolld.config.rendering: what --print-config shows means the same when it is read."""

import pytest
import yaml
from config_strategies import configs, plain_data
from hypothesis import given, settings

from epolld.address import TcpAddress, UnixAddress
from epolld.config import Config, Service, load, render


@settings(deadline=None)  # the machine may be busy
@given(configs())
def test_a_rendered_configuration_reads_back_as_itself(
    tmp_path_factory: pytest.TempPathFactory, config: Config
) -> None:
    file = tmp_path_factory.getbasetemp() / "rendered.yaml"
    file.write_text(render(config), encoding="utf-8")
    assert load(str(file)).config == config


@settings(deadline=None)  # the machine may be busy
@given(plain_data)
def test_other_yaml_readers_read_our_text_as_text(value: object) -> None:
    bind = (TcpAddress("h", 1),)
    config = Config(services=(Service(name="a", bind=bind, options={"o": value}),))
    loaded = yaml.safe_load(render(config))["services"][0]["options"]["o"]
    if isinstance(value, str):
        assert loaded == value
    else:
        assert type(loaded) is type(value) or isinstance(value, float)


def test_how_it_looks() -> None:
    service = Service(
        name="upper",
        bind=(TcpAddress("0.0.0.0", 80), UnixAddress("/x", 0o660, "me"), TcpAddress("::1", 1)),
        options={"limit": 5, "words": ["yes", "a b"]},
        idle_timeout=90.0,
    )
    lines = render(Config(services=(service,))).splitlines()
    assert lines[:4] == ["master:", "  user: null", "  group: null", '  umask: "027"']
    first = lines.index("services:")
    assert lines[first : first + 13] == [
        "services:",
        "  - name: upper",
        "    protocol: upper",
        "    runtime: auto",
        "    threads: 16",
        "    options:",
        "      limit: 5",
        '      words: ["yes", "a b"]',
        "    bind:",
        '      - "*:80"',
        '      - {address: unix:/x, mode: "660", owner: me}',
        '      - "[::1]:1"',
        "    backlog: 1024",
    ]
    assert "    idle_timeout: 90s" in lines
    assert "  graceful_timeout: 30s" in lines
