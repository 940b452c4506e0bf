"""epolld.config.jsonschema: editors accept what the loader accepts, and mark what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_strategies import configs
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from epolld.config import Config, json_schema, render

DEFAULT = Path(__file__).parents[2] / "etc" / "epolld.yaml"
VALIDATOR = Draft202012Validator(json_schema())


def errors(text: str) -> list[Any]:
    """What an editor would mark in `text`."""
    return list(VALIDATOR.iter_errors(yaml.safe_load(text)))


def test_it_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(json_schema())
    assert json.loads(json.dumps(json_schema())) == json_schema()


def test_the_default_file_is_valid() -> None:
    assert errors(DEFAULT.read_text()) == []


@settings(deadline=None)  # the machine may be busy
@given(configs())
def test_what_is_rendered_is_valid(config: Config) -> None:
    assert errors(render(config)) == []


SERVICE = "services: [{name: a, bind: 'x:1'}]\n"


@pytest.mark.parametrize(
    "text",
    [
        SERVICE,
        SERVICE + "master:\nworkers: {graceful_timeout: 30, stuck_timeout: 1m30s}",
        SERVICE + "master: {umask: 027, user: 1000}",
        "services: [{name: a, bind: ['[::1]:1', 'unix:@x', {address: 'fd:3'}]}]",
        "services: [{name: a, bind: '*:1', options: {x: {y: [1]}}}]",
        "services: [{name: a, protocol: 'my.pkg:Class', bind: {address: unix:/x, mode: 660}}]",
    ],
)
def test_valid(text: str) -> None:
    assert errors(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "services: []",
        SERVICE + "wrokers: {}",
        SERVICE + "workers: {graceful_timout: 30s}",
        SERVICE + "workers: {graceful_timeout: 30 s}",
        SERVICE + "workers: {graceful_timeout: -1}",
        SERVICE + "workers: {boot_timeout: 0}",
        SERVICE + "workers: {count: 0}",
        SERVICE + "workers: {count: many}",
        SERVICE + "logging: {level: inof}",
        SERVICE + "master: {pidfile: x}",
        SERVICE + "master: {umask: '8'}",
        "services: [{name: a}]",
        "services: [{name: a b, bind: 'x:1'}]",
        "services: [{name: a, bind: 1688}]",
        "services: [{name: a, bind: 'unix:x'}]",
        "services: [{name: a, bind: {adress: 'x:1'}}]",
        "services: [{name: a, bind: 'x:1', nodelay: 'yes'}]",
    ],
)
def test_invalid(text: str) -> None:
    assert errors(text)


def test_every_property_has_a_description() -> None:
    waiting, seen = [json_schema()], 0
    while waiting:
        node = waiting.pop()
        for name, inner in node.get("properties", {}).items():
            assert inner["description"], name
            seen += 1
        children = [*node.get("properties", {}).values(), *node.get("anyOf", [])]
        waiting += [*children, *([node["items"]] if "items" in node else [])]
    assert seen > 30
    level = json_schema()["properties"]["logging"]["anyOf"][0]["properties"]["level"]
    assert level["enum"] == ["debug", "info", "warning", "error"]
    assert level["default"] == "info"
