"""The configuration: its schema, and the loader that finds every problem in one run.

`load` and the structs are what a start needs; the rest serves a reload's log
(`changes`, `needs_restart`), `--print-config` (`render`) and `--schema` (`json_schema`).
"""

from epolld.config.comparison import changes, movable_services, needs_restart
from epolld.config.jsonschema import json_schema
from epolld.config.loader import Loaded, load, loads
from epolld.config.overrides import Overrides
from epolld.config.rendering import render
from epolld.config.schema import Config, Logging, Master, Service, Workers, worker_count

__all__ = [
    "Config",
    "Loaded",
    "Logging",
    "Master",
    "Overrides",
    "Service",
    "Workers",
    "changes",
    "json_schema",
    "load",
    "loads",
    "movable_services",
    "needs_restart",
    "render",
    "worker_count",
]
