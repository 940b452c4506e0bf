"""The configuration: its schema, and the loader that finds every problem in one run.

`load` and the structs are what a start needs; the rest serves a reload's log
(`changes`, `needs_restart`), `--print-config` (`render`) and `--schema` (`json_schema`), and is
imported only then: each megabyte here is one in every worker.
"""

from typing import TYPE_CHECKING, Any

from epolld.config.loader import Loaded, load, loads
from epolld.config.overrides import Overrides
from epolld.config.schema import (
    METRICS,
    Config,
    Logging,
    Master,
    Workers,
    listening,
    worker_count,
)
from epolld.config.service import Service

if TYPE_CHECKING:
    from epolld.config.comparison import changes, movable_services, needs_restart
    from epolld.config.jsonschema import json_schema
    from epolld.config.rendering import render
    from epolld.config.secrets import hide_secrets

_LAZY = {
    "changes": "epolld.config.comparison",
    "hide_secrets": "epolld.config.secrets",
    "json_schema": "epolld.config.jsonschema",
    "movable_services": "epolld.config.comparison",
    "needs_restart": "epolld.config.comparison",
    "render": "epolld.config.rendering",
}

__all__ = [
    "METRICS",
    "Config",
    "Loaded",
    "Logging",
    "Master",
    "Overrides",
    "Service",
    "Workers",
    "changes",
    "hide_secrets",
    "json_schema",
    "listening",
    "load",
    "loads",
    "movable_services",
    "needs_restart",
    "render",
    "worker_count",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
