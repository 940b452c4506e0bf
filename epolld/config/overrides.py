"""The command line's settings, put over the file's before anything is checked.

They are grafted into the tree of nodes, each with the option as its place, so that the
one checker judges both. Nodes may be shared by aliases: a graft copies the way down to
the changed place and leaves the old tree as it was.
"""

import os
import re

import msgspec

from epolld import errors
from epolld.config import marks
from epolld.config.check import is_null, merged_pairs, service_labels, service_text
from epolld.config.kinds import suggest
from epolld.config.marks import Mapping, Node, Place, Scalar, Sequence

DEV_BIND = "127.0.0.1:1688"  # where --dev serves without --bind


class Overrides(msgspec.Struct, frozen=True):
    """What the command line says over the file."""

    workers: int | None = None
    bind: tuple[str, ...] = ()  # replaces the bind of the one service in force
    service: str | None = None  # serve only this one: a name, else a protocol
    dev: str | None = None  # serve this protocol, as --dev does
    set: tuple[str, ...] = ()  # "path=value", the value in YAML
    pidfile: str | None = None
    log_level: str | None = None


def apply(
    root: Node | None, file: str, overrides: Overrides
) -> tuple[Node | None, list[errors.Problem]]:
    """`root` with the overrides in it, and those that could not be put there.

    Raises UsageError if --bind or --service does not say which service it means.
    """
    if overrides == Overrides():
        return root, []
    if root is None or is_null(root):
        root = Mapping(Place(file, 1, 1), [])
    if not isinstance(root, Mapping):
        return root, []  # the checker says what is wrong with it
    problems: list[errors.Problem] = []
    if overrides.dev:
        root = _with_service(root, overrides.dev, Place("--dev", 0, 0), DEV_BIND)
    if overrides.service:
        root = _with_service(root, overrides.service, Place("--service", 0, 0))
    for assignment in overrides.set:
        try:
            root = _set(root, assignment)
        except _NoPlaceError as error:
            problems.append(error.problem)
    for option, path, value in (
        ("--workers", "workers.count", overrides.workers),
        # Relative to the shell's directory, as every command line's paths are.
        ("--pidfile", "master.pidfile", overrides.pidfile and os.path.abspath(overrides.pidfile)),
        ("--log-level", "logging.level", overrides.log_level),
    ):
        if value is not None:
            place = Place(option, 0, 0)
            plain = isinstance(value, int)
            try:
                root = _graft(root, path.split("."), Scalar(place, str(value), plain), path)
            except _NoPlaceError as error:
                problems.append(error.problem)
    if overrides.service:
        root = _with_service(root, overrides.service, Place("--service", 0, 0))
        root = _only(root, overrides.service, file, bool(overrides.bind))
    if overrides.bind:
        root = _bind(root, overrides.bind)
    return root, problems


class _NoPlaceError(Exception):
    """A setting's path leads nowhere."""

    def __init__(self, place: Place, path: str, message: str) -> None:
        self.problem = errors.Problem(*place, path, message)


def _set(root: Node, assignment: str) -> Node:
    """Apply one `path=value`."""
    place = Place("--set", 0, 0)
    path, equals, text = assignment.partition("=")
    path = path.strip()
    if not equals or not all(path.split(".")):
        raise _NoPlaceError(place, assignment, "expected path=value, such as workers.count=4")
    try:
        value = marks.parse(text, "--set", fixed=place)
    except marks.MarkedError as error:
        raise _NoPlaceError(place, path, error.message) from None
    if len(path.split(".")) + (value.height if value else 0) > marks.MAX_DEPTH:
        raise _NoPlaceError(place, path, f"nested deeper than {marks.MAX_DEPTH} levels")
    return _graft(root, path.split("."), value or Scalar(place, ""), path)


def _graft(node: Node | None, parts: list[str], value: Node, path: str) -> Node:
    """A copy of `node` in which `value` stands at `parts`; `path` is the whole way, to tell."""
    if not parts:
        return value
    part, rest = parts[0], parts[1:]
    if isinstance(node, Sequence):
        index = _index(node, part, value.place, path)
        items = list(node.items)
        items[index] = _graft(items[index], rest, value, path)
        return Sequence(node.place, items)
    trail = path.split(".")
    if trail[0] == "services" and len(trail) - len(parts) == 1:  # a list, with nothing in it yet
        raise _NoPlaceError(value.place, path, f"there is no service {part!r}; the file has none")
    pairs = merged_pairs(node) if isinstance(node, Mapping) else []
    place = node.place if isinstance(node, Mapping) else value.place
    for index, (key, old) in enumerate(pairs):
        if key.text == part:
            # Duplicates of this key stay, for the checker to find.
            pairs[index] = (key, _graft(old, rest, value, path))
            return Mapping(place, pairs)
    return Mapping(place, [*pairs, (Scalar(value.place, part), _graft(None, rest, value, path))])


def _index(node: Sequence, part: str, place: Place, path: str) -> int:
    """Which item of a list `part` means: an index, or a service's name."""
    labels = service_labels(node)
    if part in labels:
        return labels.index(part)
    if part.isascii() and part.isdigit() and len(part) < 9 and int(part) < len(node.items):
        return int(part)
    hint = suggest(part, labels) or f"; there are: {', '.join(labels) or 'none'}"
    raise _NoPlaceError(place, path, f"there is no {part!r} in this list{hint}")


def _services(root: Mapping) -> Sequence | None:
    """The list of services, None if something else stands there."""
    for key, value in root.pairs:
        if key.text == "services":
            if isinstance(value, Sequence):
                return value
            return Sequence(key.place, []) if is_null(value) else None
    return Sequence(root.place, [])


def _replace_services(root: Mapping, items: list[Node], place: Place) -> Node:
    return _graft(root, ["services"], Sequence(place, items), "services")


def _chosen(items: list[Node], wanted: str) -> list[int]:
    """The services that --service means: of that name, else of that protocol."""
    named = [i for i, item in enumerate(items) if service_text(item, "name") == wanted]
    return named or [i for i, item in enumerate(items) if service_text(item, "protocol") == wanted]


def _with_service(root: Node, wanted: str, place: Place, bind: str = "") -> Node:
    """`root`, with a new service of the protocol `wanted` if it has none such."""
    services = _services(root) if isinstance(root, Mapping) else None
    if services is None or not isinstance(root, Mapping) or _chosen(services.items, wanted):
        return root
    # Protocols may be anything: the checker shall say what is wrong with them, not with the name.
    name = re.split(r"[:.]", wanted)[-1]
    name = name if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) else "service"
    texts = {"name": name, "protocol": wanted, **({"bind": bind} if bind else {})}
    pairs: list[tuple[Scalar, Node]] = [
        (Scalar(place, key), Scalar(place, text, False)) for key, text in texts.items()
    ]
    return _replace_services(root, [*services.items, Mapping(place, pairs)], services.place)


def _only(root: Node, wanted: str, file: str, bound: bool) -> Node:
    """`root` with the service `wanted` alone; `bound`: the command line says where it listens."""
    services = _services(root) if isinstance(root, Mapping) else None
    if services is None or not isinstance(root, Mapping):
        return root
    chosen = [services.items[i] for i in _chosen(services.items, wanted)]
    if len(chosen) > 1:
        labels = service_labels(Sequence(services.place, chosen))
        raise errors.UsageError(
            f"--service {wanted}: several services match ({', '.join(labels)}); give one's name"
        )
    [service] = chosen
    new = service.place.file == "--service"
    if new and not bound and not _has(service, "bind"):
        labels = service_labels(Sequence(services.place, services.items[:-1]))
        raise errors.UsageError(
            f"--service {wanted}: {file} has no such service (it has: "
            f"{', '.join(labels) or 'none'}); to serve the built-in service or class of that name, "
            f"add --bind {DEV_BIND}"
        )
    return _replace_services(root, chosen, services.place)


def _has(node: Node, name: str) -> bool:
    return isinstance(node, Mapping) and any(key.text == name for key, _ in node.pairs)


def _bind(root: Node, addresses: tuple[str, ...]) -> Node:
    """`root` with the one service in force bound to `addresses`."""
    services = _services(root) if isinstance(root, Mapping) else None
    if services is None or not isinstance(root, Mapping):
        return root
    if len(services.items) != 1:
        names = ", ".join(service_labels(services)) or "none"
        raise errors.UsageError(
            f"--bind needs one service in force, the configuration has {len(services.items)} "
            f"({names}); add --service NAME"
        )
    place = Place("--bind", 0, 0)
    bind = Sequence(place, [Scalar(place, address, False) for address in addresses])
    item = _graft(services.items[0], ["bind"], bind, "bind")
    return _replace_services(root, [item], services.place)
