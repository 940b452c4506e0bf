"""epolld.config.schema: defaults, immutability and what `auto` stands for."""

import os

import pytest

from epolld.address import TcpAddress
from epolld.config import Config, Master, Service, Workers, worker_count
from epolld.config.kinds import Binds, Section, Several, fields


def test_the_defaults() -> None:
    config = Config()
    assert config.master.umask == 0o027
    assert config.workers == Workers("auto", 30.0, 10.0, 60.0, 16384)
    assert config.logging.level == "info"
    assert config.services == ()


def test_a_service_without_a_protocol_takes_its_name() -> None:
    bind = (TcpAddress("127.0.0.1", 1),)
    assert Service(name="upper", bind=bind).protocol == "upper"
    assert Service(name="x", protocol="echo", bind=bind).protocol == "echo"


def test_it_is_immutable() -> None:
    with pytest.raises(AttributeError):
        Config().master = Master()  # type: ignore[misc]


def test_auto_is_the_cores_that_this_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert worker_count(Workers()) == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert worker_count(Workers()) == len(allowed)
    assert worker_count(Workers(count=7)) == 7


def test_every_field_is_documented_and_every_default_is_one_that_is_read() -> None:
    waiting, seen = [Config], 0
    while waiting:
        for field in fields(waiting.pop()):
            seen += 1
            assert field.text.endswith("."), field.name
            if isinstance(field.kind, Section):
                waiting.append(field.kind.struct)  # type: ignore[arg-type]
                assert isinstance(field.kind, Binds) or not field.required
            elif isinstance(field.kind, Several):
                assert field.default == ()
            elif not field.required and field.default not in (None, "", {}):
                text = field.kind.write(field.default).strip('"')
                assert field.kind.read(text, True) == field.default, field.name
    assert seen > 30
