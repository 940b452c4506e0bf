"""A `Config` as YAML, with every default filled in: what --print-config shows.

Pure: loading the text gives an equal `Config`. Comments of the file are not kept, for
they belong to the file and not to what is in force.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from epolld.address import Address, UnixAddress
from epolld.config import scalars
from epolld.config.kinds import Binds, Field, Listing, Mappings, Options, Section, fields
from epolld.config.schema import Config
from epolld.config.service import Bind

_STEP = "  "


def render(config: Config) -> str:
    """`config` as YAML text, in the order of the schema."""
    return "\n".join(_struct_lines(config, "")) + "\n"


def show(field: Field, value: Any) -> str:
    """One setting's value on one line, for tables and log lines."""
    if value is None:
        return "null"
    if isinstance(field.kind, Binds):
        return ", ".join(_show_address(address) for address in value) or "[]"
    if isinstance(field.kind, Options):
        return _flow(value)
    if isinstance(field.kind, Mappings):
        return f"[{', '.join(map(_flow_struct, value))}]"
    return field.kind.write(value)


def _struct_lines(struct: msgspec.Struct, indent: str) -> Iterator[str]:
    """A `key: value` block for each field."""
    for field in fields(type(struct)):
        value = getattr(struct, field.name)
        kind = field.kind
        if value is None or isinstance(kind, Mappings):
            yield f"{indent}{field.name}: {show(field, value)}"
        elif isinstance(kind, Listing):
            yield from _list_lines(field.name, value, indent)
        elif isinstance(kind, Binds) and not value:
            yield f"{indent}{field.name}: []"
        elif isinstance(kind, Binds):
            yield f"{indent}{field.name}:"
            for address in value:
                yield f"{indent}{_STEP}- {_bind(address)}"
        elif isinstance(kind, Section):
            yield f"{indent}{field.name}:"
            yield from _struct_lines(value, indent + _STEP)
        elif isinstance(kind, Options) and value:
            yield f"{indent}{field.name}:"
            for key, option in value.items():
                yield f"{indent}{_STEP}{scalars.quote(key)}: {_flow(option)}"
        else:
            yield f"{indent}{field.name}: {show(field, value)}"


def _list_lines(name: str, structs: tuple[msgspec.Struct, ...], indent: str) -> Iterator[str]:
    """A block for each struct, the first line of each with a dash."""
    yield f"{indent}{name}:" if structs else f"{indent}{name}: []"
    for struct in structs:
        dash = f"{indent}{_STEP}- "
        for line in _struct_lines(struct, " " * len(dash)):
            yield dash + line[len(dash) :] if dash.strip() else line
            dash = " " * len(dash)


def _show_address(address: Address) -> str:
    """An address, with its rights in words where it has any."""
    rights = [
        f"{field.name} {field.kind.write(value)}"
        for field in fields(Bind)
        if (value := getattr(address, field.name, None)) is not None
    ]
    return f"{address} ({', '.join(rights)})" if rights else str(address)


def _bind(address: Address) -> str:
    """An address as a scalar, or as a mapping where it has rights."""
    text = scalars.quote(str(address))
    if not isinstance(address, UnixAddress):
        return text
    rights = [
        f"{field.name}: {field.kind.write(value)}"
        for field in fields(Bind)
        if (value := getattr(address, field.name, None)) is not None
    ]
    return f"{{address: {text}, {', '.join(rights)}}}" if rights else text


def _flow_struct(struct: msgspec.Struct) -> str:
    """A struct in flow style."""
    pairs = [f"{f.name}: {show(f, getattr(struct, f.name))}" for f in fields(type(struct))]
    return f"{{{', '.join(pairs)}}}"


def _flow(value: Any) -> str:
    """An option's value in flow style."""
    if isinstance(value, dict):
        inner = ", ".join(f"{scalars.quote(key)}: {_flow(item)}" for key, item in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    return scalars.write(value)
