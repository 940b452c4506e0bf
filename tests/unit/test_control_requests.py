"""master/requests.py: what a line may ask, and what is said about any other."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epolld.master import requests
from epolld.master.requests import COMMANDS, Connections, Kill, Scale, Status, Watch, parse


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_known_by_its_name(command: str) -> None:
    needed: dict[str, Any] = {"scale": {"workers": 2}, "log-level": {"level": "debug"}}
    line = json.dumps({"command": command, "id": 7, **needed.get(command, {})}).encode()
    request = parse(line)
    assert type(request) is COMMANDS[command]
    assert request.id == 7


def test_what_a_request_holds() -> None:
    assert parse(b' {"command":"status"}\r') == Status()
    assert parse(b'{"command":"scale","workers":3}') == Scale(workers=3)
    assert parse(b'{"command":"watch"}') == Watch(interval=1.0)
    line = b'{"command":"connections","peers":["192.0.2.0/24"],"worker":0,"idle":1.5}'
    assert parse(line) == Connections(peers=["192.0.2.0/24"], worker=0, idle=1.5)
    assert parse(b'{"command":"kill","ids":["7"]}') == Kill(ids=["7"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b"{}", "missing required field `command`"),
        (b'{"command":"fly"}', "commands are config, connections, dump"),
        (b'{"command":"status","color":1}', "unknown field `color`"),
        (b'{"command":"scale"}', "missing required field `workers`"),
        (b'{"command":"scale","workers":0}', "$.workers"),
        (b'{"command":"scale","workers":true}', "$.workers"),
        (b'{"command":"log-level","level":"loud"}', "$.level"),
        (b'{"command":"kill","ids":[7]}', "$.ids[0]"),
        (b'{"command":"kill","ids":["-7"]}', "$.ids[0]"),
        (b'{"command":"connections","idle":-1}', "$.idle"),
        (b'{"command":"watch","interval":0}', "$.interval"),
        (b'{"command":"status","id":[1]}', "$.id"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 60000, ""),
    ],
)
def test_what_is_wrong_is_told(line: bytes, words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- its text is what is tested
        parse(line)
    assert words in str(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_complaint(line: bytes) -> None:
    try:
        request = parse(line)
    except ValueError:
        return
    assert isinstance(request, requests.Request)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


FIELDS = ("id", "ids", "peers", "service", "idle", "workers", "fast", "level", "all")


@given(
    st.fixed_dictionaries(
        {"command": st.sampled_from(sorted(COMMANDS))},
        optional=dict.fromkeys(
            ("id", "ids", "peers", "service", "idle", "workers", "fast", "level", "all"), JSON
        ),
    )
)
def test_any_fields_are_a_request_or_a_complaint(fields: dict[str, Any]) -> None:
    line = json.dumps(fields).encode()
    try:
        request = parse(line)
    except ValueError:
        return
    # What was understood says the same again.
    assert parse(msgspec.json.encode(request)) == request
