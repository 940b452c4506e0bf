"""The logger of a connection: text for people, facts for machines."""

import json
import logging
from typing import Any

import pytest

from epolld import get_logger
from epolld.logline import format_json


class Connection:
    """Something with facts."""

    facts: dict[str, Any] = {  # noqa: RUF012
        "service": "upper",
        "connection_id": 7,
        "peername": ("fe80::1%eth0", 4711, 0, 2),
    }

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.facts.get(name, default)


def test_messages_name_service_and_peer(caplog: pytest.LogCaptureFixture) -> None:
    logger = get_logger(Connection(), "mine")
    logger.warning("got %d of 100%%", 3)
    logger.error("100%")  # no arguments: no format
    try:
        raise ValueError
    except ValueError:
        logger.exception("failed")
    head = "upper: [fe80::1%eth0]:4711: "
    assert caplog.messages == [f"{head}got 3 of 100%", f"{head}100%", f"{head}failed"]
    assert {record.name for record in caplog.records} == {"mine"}
    assert caplog.records[-1].exc_info


def test_facts_are_fields_in_json(caplog: pytest.LogCaptureFixture) -> None:
    get_logger(Connection()).warning("text", extra={"more": 1})
    (record,) = caplog.records
    context = json.loads(format_json(record))["context"]
    assert context == {"service": "upper", "connection": 7, "peer": "[fe80::1%eth0]:4711"}
    assert record.__dict__["more"] == 1


def test_what_is_not_logged_costs_no_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    class Costly:
        def __str__(self) -> str:
            raise AssertionError

    get_logger(Connection()).debug(Costly())
    assert caplog.messages == []
