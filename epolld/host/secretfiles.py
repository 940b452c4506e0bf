"""Secrets that the configuration names and does not hold: `password: {secret_file: /path}`.

An option with such a value gets what is in the file. So the secret stands neither in the
configuration nor in what --print-config, the log or the control socket show of it. A worker reads
the files before it becomes another user, so that only root need be able to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from epolld.config import Loaded
from epolld.errors import ConfigError

KEY = "secret_file"
MAX_SIZE = 65536  # bytes


def read_secrets(loaded: Loaded) -> dict[str, str]:
    """What is in each file that an option names, by path.

    Raises ConfigError with the places of all that cannot be read.
    """
    found: dict[str, str] = {}
    problems = []
    for place, path in _references(loaded):
        try:
            found[path] = _read(path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            problems.append(loaded.problem(place, f"{path}: {why}"))
    if problems:
        raise ConfigError(problems)
    return found


def with_secrets(options: dict[str, Any], secrets: dict[str, str]) -> dict[str, Any]:
    """The options, with the files' contents in place of their names."""
    return {name: _replaced(value, secrets) for name, value in options.items()}


def _replaced(value: Any, secrets: dict[str, str]) -> Any:
    if isinstance(value, dict):
        if _is_reference(value):
            return secrets[value[KEY]]
        return {name: _replaced(inner, secrets) for name, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, secrets) for inner in value]
    return value


def _is_reference(value: dict[str, Any]) -> bool:
    return len(value) == 1 and isinstance(value.get(KEY), str)


def _references(loaded: Loaded) -> Iterator[tuple[str, str]]:
    """The path of each option that holds a reference, and the file."""
    config = loaded.config
    for name, value in config.application.options.items():
        yield from ((f"application.options.{name}", path) for path in _within(value))
    for service in config.services:
        for name, value in service.options.items():
            place = f"services.{service.name}.options.{name}"
            yield from ((place, path) for path in _within(value))


def _within(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and _is_reference(value):
        yield value[KEY]
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _within(inner)


def _read(path: str) -> str:
    """The text of a file, without the line end that editors put there."""
    if not path.startswith("/"):
        raise ValueError("the path of a secret's file is absolute")
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise ValueError(f"longer than {MAX_SIZE} bytes")
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
