"""From a file and the command line to a `Config`, or to every problem in them at once.

The composition of this room: `marks` reads, `overrides` puts the command line over it,
`check` converts. Opens no socket and asks nothing of the host.
"""

import os

import msgspec

from epolld.config import marks
from epolld.config.check import check, merged_pairs, service_labels
from epolld.config.marks import Mapping, MarkedError, Node, Place, Sequence
from epolld.config.overrides import Overrides, apply
from epolld.config.schema import Config
from epolld.errors import ConfigError, Problem


class Loaded(msgspec.Struct, frozen=True, eq=False):
    """A configuration, and the way back to where it was written."""

    config: Config
    file: str
    _root: Node | None

    def problem(self, path: str, message: str) -> Problem:
        """A problem found later in `path`, such as "services.upper.options.foo", with its place.

        Without such a setting in the file, the place is that of what would hold it.
        """
        return Problem(*_locate(self._root, path.split("."), Place(self.file, 1, 1)), path, message)


_NO_OVERRIDES = Overrides()


def load(path: str, overrides: Overrides = _NO_OVERRIDES) -> Loaded:
    """The configuration in the file `path` with `overrides` over it.

    Raises ConfigError with all problems, UsageError if the overrides do not say which
    service they mean.
    """
    try:
        text = _read(path)
    except MarkedError as error:
        raise ConfigError([Problem(*error.place, "", error.message)]) from None
    return loads(text, path, overrides)


def loads(text: str, path: str, overrides: Overrides = _NO_OVERRIDES) -> Loaded:
    """As `load`, of text that is already there; `path` is what problems call it."""
    try:
        root = marks.parse(text, path)
    except MarkedError as error:
        raise ConfigError([Problem(*error.place, "", error.message)]) from None
    root, problems = apply(root, path, overrides)
    config, found = check(root, path)
    if config is None or problems:
        raise ConfigError(sorted(problems + found))
    return Loaded(config, path, root)


def _read(path: str) -> str:
    """The file's text. Raises MarkedError."""
    nowhere = Place(path, 0, 0)
    try:
        with open(path, "rb") as file:
            data = file.read(marks.MAX_BYTES + 1)
    except FileNotFoundError:
        raise MarkedError(
            nowhere, "there is no such file; name one with --config FILE, or create it"
        ) from None
    except IsADirectoryError:
        raise MarkedError(nowhere, "this is a directory; name a file in it") from None
    except PermissionError:
        raise MarkedError(
            nowhere, f"not readable by this user (number {os.geteuid()}); allow it with chmod"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise MarkedError(nowhere, f"cannot be read: {error}") from None
    if len(data) > marks.MAX_BYTES:
        raise MarkedError(nowhere, f"longer than {marks.MAX_BYTES >> 20} MiB; make it smaller")
    data = data.removeprefix(b"\xef\xbb\xbf")  # a byte order mark counts in no column
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise MarkedError(
            marks.place_behind(data[: error.start].decode(), path),
            f"the byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8",
        ) from None


def _locate(node: Node | None, parts: list[str], place: Place) -> Place:
    """The place of the deepest node on the way `parts`."""
    for part in parts:
        if isinstance(node, Mapping):
            found = next((pair for pair in merged_pairs(node) if pair[0].text == part), None)
            if found is None:
                break
            key, node = found
            place = key.place
        elif isinstance(node, Sequence):
            labels = service_labels(node)
            if part not in labels and not (part.isdecimal() and int(part) < len(labels)):
                break
            node = node.items[labels.index(part) if part in labels else int(part)]
            place = node.place
        else:
            break
    return place
