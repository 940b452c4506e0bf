"""A tree of YAML nodes to a `Config`, with every problem found on the way.

Walks the schema and the tree side by side and converts leaf by leaf: a problem in one
leaf does not hide the next. Reads no file and knows no command line.
"""

import re
from typing import Any

import msgspec

from epolld import errors
from epolld.address import Address, TcpAddress, UnixAddress, parse_address
from epolld.config import scalars
from epolld.config.guard import AccessRule
from epolld.config.kinds import (
    Binds,
    Field,
    Kind,
    Listing,
    Mappings,
    Options,
    Section,
    Several,
    fields,
    suggest,
)
from epolld.config.marks import Mapping, Node, Place, Scalar, Sequence
from epolld.config.schema import Config, Logging, Metrics
from epolld.config.service import NAME, Bind, Service
from epolld.config.tls import Tls

_LISTING = Listing.expects
_ADDRESS = Binds.expects


def check(root: Node | None, file: str) -> tuple[Config | None, list[errors.Problem]]:
    """The configuration in `root`, or None and the problems, each once."""
    checker = _Checker()
    node = root if root is not None and not is_null(root) else Mapping(Place(file, 1, 1), [])
    config = checker.struct(Config, node, "")
    if isinstance(node, Mapping) and not config.services and not checker.seen_services:
        checker.fail(
            node.place,
            "services",
            "there are no services; add one, such as {name: upper, bind: 127.0.0.1:1688}",
        )
    problems = list(dict.fromkeys(checker.problems))
    return (None if problems else config), problems


def is_null(node: Node) -> bool:
    """Whether nothing was written, or null."""
    return isinstance(node, Scalar) and node.plain and node.text in scalars.NULLS


def merged_pairs(node: Mapping) -> list[tuple[Scalar, Node]]:
    """The pairs of `node`, with those of its merge keys (`<<: *base`) that it does not set."""
    own = [pair for pair in node.pairs if not _is_merge(pair[0])]
    if len(own) == len(node.pairs):
        return own
    known = {key.text for key, _ in own}
    for key, value in node.pairs:
        if not _is_merge(key):
            continue
        for source in value.items if isinstance(value, Sequence) else [value]:
            if isinstance(source, Mapping):
                for pair in merged_pairs(source):
                    if pair[0].text not in known:
                        known.add(pair[0].text)
                        own.append(pair)
    return own


def _is_merge(key: Scalar) -> bool:
    return key.plain and key.text == "<<"


def shape(node: Node) -> str:
    """What `node` is, for "expected ..., not ..."."""
    return {Scalar: "a single value", Sequence: "a list", Mapping: "a mapping"}[type(node)]


def join(path: str, name: str) -> str:
    """The path of `name` below `path`."""
    return f"{path}.{name}" if path else name


class _Checker:
    def __init__(self) -> None:
        self.problems: list[errors.Problem] = []
        self.seen_services = False  # something was written there: its own problems suffice
        self._names: dict[str, Place] = {}
        self._bound: dict[Address, tuple[str, Place]] = {}

    def fail(self, place: Place, path: str, message: str) -> None:
        """Note a problem."""
        self.problems.append(errors.Problem(*place, path, message))

    def struct(self, struct: type[msgspec.Struct], node: Node, path: str) -> Any:
        """`node` as a `struct`; a field with a problem gets a stand-in."""
        values: dict[str, Any] = {}
        known = {field.name: field for field in fields(struct)}
        keys: dict[str, Scalar] = {}
        for name, (key, value) in self.pairs(node, path).items():
            field = known.get(name)
            if field is None:
                self.unknown(key, path, list(known))
                continue
            keys[name] = key
            values[name] = self.field(field, key, value, join(path, name))
        for field in known.values():
            if field.required and field.name not in values:
                values[field.name] = None if field.name == "name" else ()
                if isinstance(node, Mapping):
                    self.fail(node.place, join(path, field.name), _missing(field))
        built = struct(**values)
        if isinstance(built, Logging) and built.target == "file" and built.file is None:
            place = keys["target"].place if "target" in keys else node.place
            self.fail(place, join(path, "file"), "missing; target: file needs file: /path/to.log")
        if isinstance(built, Tls) and (built.ca is None) is not (
            built.client_certificates == "none"
        ):
            self.client_certificates(built, keys, path)
        if isinstance(built, AccessRule) and (built.allow is None) is (built.deny is None):
            self.fail(node.place, path, "expected either allow: NETWORK or deny: NETWORK")
        if (
            isinstance(built, Service)
            and built.proxy_protocol == "required"
            and not (built.proxy_trusted or "proxy_trusted" in keys)
        ):
            place = keys["proxy_protocol"].place
            message = "missing; add the proxies' networks, such as proxy_trusted: 10.0.0.0/24"
            self.fail(place, join(path, "proxy_trusted"), message)
        if isinstance(built, Metrics):
            for address in built.bind:
                if not _is_local(address):
                    self.fail(
                        keys["bind"].place,
                        join(path, "bind"),
                        f"{address} can be reached from outside, and figures are not for "
                        "everybody; write a loopback address such as 127.0.0.1:9188, or "
                        "unix:/path, and put a proxy in front of it",
                    )
        return built

    def client_certificates(self, tls: Tls, keys: dict[str, Scalar], path: str) -> None:
        """Whoever asks clients for certificates says whose, and who says whose asks."""
        if tls.ca is None:
            place = keys["client_certificates"].place
            message = f"missing; client_certificates: {tls.client_certificates} needs ca: /path.pem"
        else:
            place = keys["ca"].place
            message = "no client is asked; add client_certificates: required, or optional"
        self.fail(place, join(path, "ca"), message)

    def pairs(self, node: Node, path: str) -> dict[str, tuple[Scalar, Node]]:
        """A mapping's pairs by key; of duplicates the first counts."""
        if not isinstance(node, Mapping):
            if not is_null(node):
                self.fail(
                    node.place, path, f"expected a mapping (key: value lines), not {shape(node)}"
                )
            return {}
        for key, value in node.pairs:
            if _is_merge(key):
                self.merge_sources(value, join(path, "<<"))
        found: dict[str, tuple[Scalar, Node]] = {}
        for key, value in merged_pairs(node):
            first = found.setdefault(key.text, (key, value))[0]
            if first is not key:
                self.fail(
                    key.place,
                    join(path, key.text),
                    f"duplicate key {key.text!r}; first given on line {first.place.line}: "
                    "remove one",
                )
        return found

    def merge_sources(self, value: Node, path: str) -> None:
        """`<<` takes a mapping or a list of them."""
        for source in value.items if isinstance(value, Sequence) else [value]:
            if not isinstance(source, Mapping):
                self.fail(source.place, path, f"expected a mapping to merge, not {shape(source)}")

    def unknown(self, key: Scalar, path: str, known: list[str]) -> None:
        """A key that is not in the schema: say what may have been meant."""
        hint = suggest(key.text, known)
        if not hint:
            homes = [
                field.name
                for field in fields(Config)
                if isinstance(field.kind, Section)
                and key.text in {inner.name for inner in fields(field.kind.struct)}
            ]
            hint = f"; it belongs under {homes[0]!r}" if homes else f"; known: {', '.join(known)}"
        self.fail(key.place, join(path, key.text), f"unknown key {key.text!r}{hint}")

    def field(self, field: Field, key: Scalar, node: Node, path: str) -> Any:
        """The value of one field, or its default if there is a problem."""
        kind = field.kind
        if isinstance(kind, Listing):
            self.seen_services = not is_null(node) and getattr(node, "items", True) != []
            return self.services(node, path)
        if isinstance(kind, Binds):
            if not field.required and (is_null(node) or getattr(node, "items", True) == []):
                return field.default
            return self.binds(node, key, path)
        if isinstance(kind, Mappings):
            return tuple(self.struct(kind.struct, item, at) for item, at in _items(node, path))
        if isinstance(kind, Several):
            leaves = [self.leaf(kind.item, item, at) for item, at in _items(node, path)]
            return tuple(value for well, value in leaves if well)
        if isinstance(kind, Section) and not (is_null(node) and field.optional):
            return self.struct(kind.struct, node, path)
        if isinstance(kind, Options):
            return {
                name: self.plain_data(value, join(path, name))
                for name, (_, value) in self.pairs(node, path).items()
            }
        if is_null(node):
            if not field.optional:
                self.fail(key.place, path, f"the value is missing; expected {kind.expects}")
            return field.default
        read, value = self.leaf(kind, node, path)
        return value if read else field.default

    def leaf(self, kind: Kind, node: Node, path: str) -> tuple[bool, Any]:
        """Whether a scalar could be read, and its value."""
        if not isinstance(node, Scalar):
            self.fail(node.place, path, f"expected {kind.expects}, not {shape(node)}")
            return False, None
        try:
            return True, kind.read(node.text, node.plain)
        except ValueError as error:
            self.fail(node.place, path, str(error))
            return False, None

    def plain_data(self, node: Node, path: str) -> Any:
        """An option's value: whatever YAML can say."""
        if isinstance(node, Mapping):
            return {
                name: self.plain_data(value, join(path, name))
                for name, (_, value) in self.pairs(node, path).items()
            }
        if isinstance(node, Sequence):
            return [
                self.plain_data(item, join(path, str(index)))
                for index, item in enumerate(node.items)
            ]
        try:
            return scalars.resolve(node.text, node.plain)
        except ValueError as error:
            self.fail(node.place, path, str(error))
            return None

    def services(self, node: Node, path: str) -> tuple[Service, ...]:
        """The list of services; their names are unique."""
        if not isinstance(node, Sequence):
            if not is_null(node):
                self.fail(node.place, path, f"expected {_LISTING}, not {shape(node)}")
            return ()
        return tuple(
            self.service(item, path, label)
            for item, label in zip(node.items, service_labels(node), strict=True)
        )

    def service(self, node: Node, path: str, label: str) -> Service:
        """One service."""
        if is_null(node):
            self.fail(node.place, join(path, label), "the service is empty; expected a mapping")
        built: Service = self.struct(Service, node, join(path, label))
        if built.name:
            first = self._names.setdefault(built.name, node.place)
            if first is not node.place:
                self.fail(
                    node.place,
                    join(path, label),
                    f"the name {built.name!r} is taken by the service on line {first.line}; "
                    "choose another",
                )
        return built

    def binds(self, node: Node, key: Scalar, path: str) -> tuple[Address, ...]:
        """One address or a list of them."""
        items = node.items if isinstance(node, Sequence) else [node]
        if is_null(node) or not items:
            self.fail(key.place, path, f"the value is missing; expected {_ADDRESS}")
            return ()
        found = []
        for index, item in enumerate(items):
            where = join(path, str(index)) if isinstance(node, Sequence) else path
            address = self.address(item, where)
            if address is not None:
                self.bound_once(address, item.place, where)
                found.append(address)
        return tuple(found)

    def address(self, node: Node, path: str) -> Address | None:
        """One address, as text or as a mapping."""
        if isinstance(node, Sequence) or is_null(node):
            got = "a list" if isinstance(node, Sequence) else "nothing"
            self.fail(node.place, path, f"expected {_ADDRESS}, not {got}")
            return None
        if isinstance(node, Scalar):
            return self.address_text(node, path)
        bind: Bind = self.struct(Bind, node, path)
        source = self.pairs(node, path).get("address")
        if source is None or not isinstance(source[1], Scalar) or is_null(source[1]):
            return None
        address = self.address_text(source[1], join(path, "address"))
        rights = {
            name: value
            for name in ("mode", "owner", "group")
            if (value := getattr(bind, name)) is not None
        }
        if not rights or address is None:
            return address
        if not isinstance(address, UnixAddress) or address.path.startswith("@"):
            for name in rights:
                self.fail(
                    self.pairs(node, path)[name][0].place,
                    join(path, name),
                    f"{name!r} is for unix:/path sockets only; remove it",
                )
            return address
        return UnixAddress(address.path, **rights)

    def address_text(self, node: Scalar, path: str) -> Address | None:
        """The address in a scalar."""
        try:
            return parse_address(node.text)
        except ValueError as error:
            self.fail(node.place, path, str(error))
            return None

    def bound_once(self, address: Address, place: Place, path: str) -> None:
        """No two listeners on one address; port 0 is a new port each time."""
        if isinstance(address, TcpAddress) and not address.port:
            return
        # The socket file's mode and owner do not make it another address.
        same = UnixAddress(address.path) if isinstance(address, UnixAddress) else address
        if same in self._bound:
            where, first = self._bound[same]
            on_line = f" on line {first.line}" if first.line else ""
            self.fail(place, path, f"{address} is bound already by {where}{on_line}; remove one")
        else:
            self._bound[same] = (path, place)


def _items(node: Node, path: str) -> list[tuple[Node, str]]:
    """One value or a list of them, each with its path."""
    if isinstance(node, Sequence):
        return [(item, join(path, str(index))) for index, item in enumerate(node.items)]
    return [] if is_null(node) else [(node, path)]


def _is_local(address: Address) -> bool:
    """Whether only this machine can reach it."""
    if isinstance(address, TcpAddress):
        return address.host in ("localhost", "::1") or address.host.startswith("127.")
    return isinstance(address, UnixAddress)


def _missing(field: Field) -> str:
    example = {
        "bind": "bind: 127.0.0.1:1688",
        "name": "name: upper",
        "certificate": "certificate: /path/to.pem",
    }.get(field.name)
    return f"missing; add {example or field.name + ': ' + field.kind.expects}"


def service_labels(node: Sequence) -> list[str]:
    """What each service is called in paths: its name, or its index where the name is no help."""
    names = [service_text(item, "name") for item in node.items]
    return [
        name if name and re.fullmatch(NAME, name) and names.count(name) == 1 else str(index)
        for index, name in enumerate(names)
    ]


def service_text(node: Node, key: str) -> str | None:
    """The text of a scalar setting of a service, if it has one."""
    if isinstance(node, Mapping):
        for found, value in merged_pairs(node):
            if found.text == key and isinstance(value, Scalar) and not is_null(value):
                return value.text
    return None
