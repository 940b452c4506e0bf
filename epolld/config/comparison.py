"""What differs between two configurations, in words: for the log at a reload.

Pure: compares values, decides nothing.
"""

from collections.abc import Iterator

import msgspec

from epolld.config.kinds import Binds, Listing, Mappings, Section, fields
from epolld.config.rendering import show
from epolld.config.schema import Config
from epolld.config.secrets import hide

WRITTEN_AS_VALUES = (Binds, Mappings)  # of the sections, those that a value stands for


def changes(old: Config, new: Config) -> list[str]:
    """Lines such as "workers.count: 2 → 4" and "services.echo: added", in the schema's order."""
    lines: list[str] = []
    for section in fields(Config):
        before, after = getattr(old, section.name), getattr(new, section.name)
        if not isinstance(section.kind, Listing):
            lines += _struct_changes(before, after, section.name)
            continue
        was = {service.name: service for service in before}
        now = {service.name: service for service in after}
        lines += [f"{section.name}.{name}: removed" for name in was if name not in now]
        for name, service in now.items():
            path = f"{section.name}.{name}"
            if name in was:
                lines += _struct_changes(was[name], service, path)
            else:
                lines.append(f"{path}: added")
    return lines


def needs_restart(old: Config, new: Config) -> list[str]:
    """The paths that differ and that a reload cannot change: all of the master's."""
    return [
        f"master.{field.name}"
        for field in fields(type(old.master))
        if getattr(old.master, field.name) != getattr(new.master, field.name)
    ]


def _struct_changes(old: msgspec.Struct, new: msgspec.Struct, path: str) -> Iterator[str]:
    """A line for each field that differs."""
    for field in fields(type(old)):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if isinstance(before, msgspec.Struct) and isinstance(after, msgspec.Struct):
            yield from _struct_changes(before, after, f"{path}.{field.name}")
            continue
        if before == after:
            continue
        if isinstance(field.kind, Section) and not isinstance(field.kind, WRITTEN_AS_VALUES):
            yield f"{path}.{field.name}: {'removed' if after is None else 'added'}"
            continue
        before, after = hide(before), hide(after)
        if before == after:
            yield f"{path}.{field.name}: a secret has changed"
        else:
            yield f"{path}.{field.name}: {show(field, before)} → {show(field, after)}"


def movable_services(old: Config, new: Config) -> list[str]:
    """The services whose live connections a worker of `new` can go on with.

    Those that are still there with the same protocol, run in the same way; its code and options
    may have changed, and its `thaw` says whether it can live with that. With TLS, half of a
    connection is in OpenSSL's memory: none can move, nor a plain one to where TLS is spoken.
    """
    now = {s.name: (s.protocol, s.runtime) for s in new.services if not s.tls}
    return [
        s.name for s in old.services if not s.tls and now.get(s.name) == (s.protocol, s.runtime)
    ]
