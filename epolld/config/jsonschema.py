"""The configuration's JSON Schema, for editors that complete and check YAML (--schema).

Derived from `schema`; the loader does not use it, for its messages must name places.
"""

from typing import Any

import msgspec

from epolld.config.kinds import (
    Binds,
    Field,
    Listing,
    Mappings,
    Octal,
    Options,
    Section,
    fields,
)
from epolld.config.schema import Config
from epolld.config.service import Bind

# unix:/path, unix:@name, fd:N, [v6]:port, or host:port; the loader checks the rest.
_ADDRESS = (
    r"^(unix:[/@].+|fd:[0-9]+|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?\]:[0-9]{1,5}"
    r"|(\*|[A-Za-z0-9_.-]+):[0-9]{1,5})$"
)


def json_schema() -> dict[str, Any]:
    """The schema of a whole file, in draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "epolld configuration",
        **_struct(Config),
        "required": ["services"],
    }


def _struct(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """A mapping with the fields of `struct` and no others (editors resolve merge keys first)."""
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {field.name: _field(field) for field in fields(struct)},
    }
    required = [field.name for field in fields(struct) if field.required]
    if required:
        schema["required"] = required
    return schema


def _field(field: Field) -> dict[str, Any]:
    """One setting, with its description and default."""
    schema = _value(field)
    if field.optional or (isinstance(field.kind, Section | Options) and not field.required):
        schema = {"anyOf": [schema, {"type": "null"}]}  # nothing after the colon
    described = {"description": field.text, **schema}
    if not field.required and field.default is not None and not isinstance(field.kind, Section):
        described["default"] = _default(field)
    return described


def _value(field: Field) -> dict[str, Any]:
    """What may stand after the colon."""
    kind = field.kind
    if isinstance(kind, Listing):
        return {"type": "array", "minItems": 1, "items": _struct(kind.struct)}
    if isinstance(kind, Binds):
        one = {"anyOf": [_address(), _struct(Bind)]}
        least = 1 if field.required else 0
        return {"anyOf": [*one["anyOf"], {"type": "array", "minItems": least, "items": one}]}
    if isinstance(kind, Mappings):
        struct = _struct(kind.struct)
        return {"anyOf": [struct, {"type": "array", "items": struct}]}
    if isinstance(kind, Section):
        return _struct(kind.struct)
    if isinstance(kind, Options):
        return {"type": "object"}
    if field.name == "address":
        return _address()
    return kind.schema()


def _address() -> dict[str, Any]:
    return {"type": "string", "pattern": _ADDRESS}


def _default(field: Field) -> Any:
    """As an editor would insert it."""
    value = field.default
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, float) or isinstance(field.kind, Octal):
        return field.kind.write(value).strip('"')
    return value
