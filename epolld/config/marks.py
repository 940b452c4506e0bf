"""YAML text to a tree of nodes that know their place in the file.

Works on the parser's events, not on PyYAML's composer: so limits hold while the text is
read (a "billion laughs" document is refused at once), duplicate keys survive for the
checker, and scalars keep their text. No tag is ever followed, so no object is ever made.
It does not know what a configuration is.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

MAX_BYTES = 1 << 20  # of a document: a thousand services fit in a tenth of it
MAX_NODES = 100_000  # with each alias counted as what it stands for
MAX_DEPTH = 50  # of nesting, aliases followed; the checker recurses

# What YAML calls not printable: a raw one would end the parser with an error without a place.
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # as YAML's parsers count them
_BRACKETED = re.compile(r"\[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\]:\d")


class Place(NamedTuple):
    """Where a node was written; line 0 for a command-line option, which `file` then names."""

    file: str
    line: int  # from 1
    column: int  # from 1


class Scalar:
    """A leaf. `plain`: without quotes."""

    __slots__ = ("place", "plain", "text")
    height = 0
    size = 1

    def __init__(self, place: Place, text: str, plain: bool = True) -> None:
        self.place, self.text, self.plain = place, text, plain


class Sequence:
    """A list."""

    __slots__ = ("height", "items", "place", "size")

    def __init__(self, place: Place, items: "list[Node]") -> None:
        self.place, self.items = place, items
        self.size = 1  # nodes below and itself, aliases followed
        self.height = 0  # levels below


class Mapping:
    """Pairs in the order of the text, duplicates included."""

    __slots__ = ("height", "pairs", "place", "size")

    def __init__(self, place: Place, pairs: "list[tuple[Scalar, Node]]") -> None:
        self.place, self.pairs = place, pairs
        self.size = 1
        self.height = 0


Node = Scalar | Sequence | Mapping


class MarkedError(Exception):
    """The text is not YAML, or more than we read."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place, self.message = place, message


def parse(text: str, file: str, fixed: Place | None = None) -> Node | None:
    """The tree in `text`, None if there is no document; `fixed` is then every node's place.

    Raises MarkedError.
    """
    import yaml  # 10 ms: only who reads a file pays for it

    if found := _NOT_PRINTABLE.search(text):
        place = fixed or place_behind(text[: found.start()], file)
        raise MarkedError(place, f"the character {found[0]!r} is not allowed in YAML; remove it")
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Builder(file, fixed).build(yaml.parse(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        place = fixed or Place(file, line + 1, column + 1)
        raise MarkedError(place, _explain(error, text, line, column)) from None
    except yaml.YAMLError as error:
        raise MarkedError(fixed or Place(file, 1, 1), f"not YAML: {error}") from None


def place_behind(text: str, file: str) -> Place:
    """Where the file goes on behind `text`."""
    ends = [found.end() for found in _LINE_END.finditer(text)]
    return Place(file, len(ends) + 1, len(text) - (ends[-1] if ends else 0) + 1)


def _explain(error: Any, text: str, line: int, column: int) -> str:
    """The parser's message, with a remedy for the usual mistakes."""
    if "nesting depth" in (error.problem or ""):  # newer parsers have a limit of their own
        return f"nested deeper than {MAX_DEPTH} levels"
    lines = _LINE_END.split(text)
    here = lines[line] if line < len(lines) else ""
    message = f"not YAML: {error.problem or 'syntax error'}"
    if error.context:
        message += f" ({error.context})"
    if "\t" in here[: column + 1]:
        message += "; a tab cannot indent YAML: use spaces"
    elif "*:" in here or _BRACKETED.search(here):
        message += "; an address that begins with * or [ needs quotes around it"
    return message


class _Open:
    """A collection whose end has not come yet; `key` waits for its value."""

    __slots__ = ("anchor", "key", "node")

    def __init__(self, node: Sequence | Mapping, anchor: str | None) -> None:
        self.node, self.anchor = node, anchor
        self.key: Scalar | None = None


class _Builder:
    """Builds the tree from events, with a stack of its own instead of recursion."""

    def __init__(self, file: str, fixed: Place | None) -> None:
        self._file = file
        self._fixed = fixed
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._root: Node | None = None
        self._total = 0

    def build(self, events: Iterator[Any]) -> Node | None:
        """The root of the only document."""
        documents = 0
        for event in events:
            name = type(event).__name__  # one look-up serves the C and the Python parser
            if name == "ScalarEvent":
                self._refuse_tag(event)
                node = Scalar(self._place(event), event.value, not event.style)
                self._add(node, event)
                self._name(node, event.anchor)
            elif name in ("MappingStartEvent", "SequenceStartEvent"):
                self._open(event, name == "MappingStartEvent")
            elif name in ("MappingEndEvent", "SequenceEndEvent"):
                self._close(event)
            elif name == "AliasEvent":
                self._add(self._target(event), event)
            elif name == "DocumentStartEvent":
                documents += 1
                if documents > 1:
                    self._fail(event, "a second document begins here; keep one in the file")
        return self._root

    def _place(self, event: Any) -> Place:
        if self._fixed:
            return self._fixed
        mark = event.start_mark
        return Place(self._file, mark.line + 1, mark.column + 1)

    def _fail(self, event: Any, message: str) -> None:
        raise MarkedError(self._place(event), message)

    def _refuse_tag(self, event: Any) -> None:
        if event.tag:
            self._fail(event, f"the tag {event.tag!r} is not allowed; write a plain value")

    def _name(self, node: Node, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = node

    def _target(self, event: Any) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:  # an anchor around the alias is not known before its end: no circles
            self._fail(event, f"the alias *{event.anchor} has no anchor &{event.anchor} above it")
            raise AssertionError
        return node

    def _open(self, event: Any, mapping: bool) -> None:
        self._refuse_tag(event)
        if len(self._stack) >= MAX_DEPTH:
            self._fail(event, f"nested deeper than {MAX_DEPTH} levels")
        if self._stack and self._waits_for_key():
            self._fail(event, "a key must be text, not a list or a mapping")
        place = self._place(event)
        node: Sequence | Mapping = Mapping(place, []) if mapping else Sequence(place, [])
        self._stack.append(_Open(node, event.anchor))

    def _close(self, event: Any) -> None:
        """The collection is whole: its size and height are known, aliases may name it."""
        done = self._stack.pop()
        self._total -= done.node.size - 1  # its children counted already; _add counts it whole
        self._add(done.node, event)
        self._name(done.node, done.anchor)

    def _waits_for_key(self) -> bool:
        top = self._stack[-1]
        return isinstance(top.node, Mapping) and top.key is None

    def _add(self, node: Node, event: Any) -> None:
        """Put a finished node into the innermost open collection."""
        self._total += node.size
        if self._total > MAX_NODES:
            self._fail(event, f"more than {MAX_NODES} values, aliases counted; make it smaller")
        if len(self._stack) + node.height > MAX_DEPTH:
            self._fail(event, f"nested deeper than {MAX_DEPTH} levels, aliases followed")
        if not self._stack:
            self._root = node
            return
        top = self._stack[-1]
        parent = top.node
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if isinstance(parent, Sequence):
            parent.items.append(node)
        elif top.key is not None:
            parent.pairs.append((top.key, node))
            top.key = None
        elif isinstance(node, Scalar):
            # An alias as a key keeps its own place.
            top.key = Scalar(self._place(event), node.text, node.plain)
        else:
            self._fail(event, "a key must be text, not a list or a mapping")
