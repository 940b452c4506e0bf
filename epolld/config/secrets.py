"""What may not be shown: option values whose names say that they are secret. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from epolld.config.schema import Config

HIDDEN = "<hidden>"
SECRET = re.compile(
    r"pass(word|wd|phrase|code)?$|secret|token|credential|private|(^|_|-)(api|access)?_?-?key$",
    re.IGNORECASE,
)


def hide_secrets(config: Config) -> Config:
    """The same configuration, with HIDDEN in place of each secret."""
    services = [
        msgspec.structs.replace(service, options=hide(service.options))
        for service in config.services
    ]
    return msgspec.structs.replace(config, services=tuple(services))


def hide(value: Any) -> Any:
    """The same value, with HIDDEN in place of what stands under the name of a secret."""
    if isinstance(value, dict):
        return {
            name: HIDDEN if SECRET.search(str(name)) and item is not None else hide(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [hide(item) for item in value]
    return value
