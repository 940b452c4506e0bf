"""What a setting may hold: how its text is read, written back, described and checked.

Works from the text of a YAML scalar, not from what YAML 1.1 makes of it, so that
`umask: 027` is octal and `12:30` is no number. It knows neither files nor places.
"""

import functools
import re
from typing import Any, NamedTuple

import msgspec

from epolld import units
from epolld.config import scalars

MAX_INT = 2**31 - 1  # what listen(2) and the counters of the scoreboard hold

_OCTAL = re.compile(r"(?:0o)?[0-7]{1,4}", re.ASCII)


class Kind:
    """A kind of value written as one scalar."""

    expects = "text"  # for "expected ..., not a list"

    def read(self, text: str, plain: bool) -> Any:
        """The value; `plain` says that `text` has no quotes. Raises ValueError with a remedy."""
        raise NotImplementedError

    def write(self, value: Any) -> str:
        """The YAML text that reads as `value`."""
        return scalars.quote(str(value))

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of what is read."""
        return {"type": "string"}


class Text(Kind):
    """Text, of a given form where `pattern` is set."""

    def __init__(self, expects: str = "text", pattern: str = r"[^\x00-\x1f\x7f]+") -> None:
        self.expects = expects
        self.pattern = pattern

    def read(self, text: str, plain: bool) -> str:
        """`text` itself, whatever YAML would make of it: `user: 1000` is "1000"."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"expected {self.expects}, not {text!r}")
        return text

    def schema(self) -> dict[str, Any]:
        """A number is fine too: it is read as text."""
        return {"type": ["string", "integer"], "pattern": f"^(?:{self.pattern})$"}


class Path(Text):
    """An absolute path: the daemon's working directory is not the shell's."""

    def __init__(self, expects: str) -> None:
        super().__init__(expects, r"/[^\x00-\x1f\x7f]*")


class Whole(Kind):
    """A whole number from `least` to `most`."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        self.expects = f"a whole number from {least} to {most}"

    def read(self, text: str, plain: bool) -> int:
        """Decimal digits only: other forms mean different numbers to different YAML readers."""
        if not scalars.DECIMAL.fullmatch(text) or len(text) > 20:
            raise ValueError(f"expected {self.expects}, not {text!r}")
        if not plain:
            raise ValueError(f"expected {self.expects}, not text; remove the quotes")
        value = int(text)
        if not self.least <= value <= self.most:
            raise ValueError(f"{value} is out of range; expected {self.expects}")
        return value

    def write(self, value: int) -> str:
        """Its digits."""
        return str(value)

    def schema(self) -> dict[str, Any]:
        """With the bounds."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


class Count(Whole):
    """A whole number, or `auto`."""

    def __init__(self, least: int, most: int) -> None:
        super().__init__(least, most)
        self.expects = f"auto or a whole number from {least} to {most}"

    def read(self, text: str, plain: bool) -> Any:
        """The number, or "auto"."""
        return text if text == "auto" else super().read(text, plain)

    def schema(self) -> dict[str, Any]:
        """Either."""
        return {"anyOf": [{"const": "auto"}, super().schema()]}


class Flag(Kind):
    """true or false, and no other spelling."""

    expects = "true or false"

    def read(self, text: str, plain: bool) -> bool:
        """Refuses yes, no, on and off: YAML 1.2 reads them as text."""
        if plain and text in ("true", "false"):
            return text == "true"
        meant = scalars.OTHER_FLAGS.get(text.lower())
        if meant:
            raise ValueError(f"expected true or false, not {text!r}; write {meant}")
        raise ValueError(f"expected true or false, not {text!r}")

    def write(self, value: bool) -> str:
        """The spelling that is read."""
        return "true" if value else "false"

    def schema(self) -> dict[str, Any]:
        """A boolean."""
        return {"type": "boolean"}


class FlagOrPath(Flag):
    """true, false, or an absolute path, which is true and says where to."""

    expects = "true, false or an absolute path"

    def read(self, text: str, plain: bool) -> Any:
        """The flag or the path."""
        if text.startswith("/"):
            return Path(self.expects).read(text, plain)
        if text in ("true", "false") or text.lower() in scalars.OTHER_FLAGS:
            return super().read(text, plain)
        raise ValueError(f"expected {self.expects}, not {text!r}")

    def write(self, value: Any) -> str:
        """As it is read."""
        return scalars.quote(value) if isinstance(value, str) else super().write(value)

    def schema(self) -> dict[str, Any]:
        """Either."""
        return {"anyOf": [super().schema(), {"type": "string", "pattern": "^/"}]}


class Choice(Kind):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.expects = f"{', '.join(words[:-1])} or {words[-1]}"

    def read(self, text: str, plain: bool) -> str:
        """One of the words, with a suggestion for a misspelt one."""
        if text not in self.words:
            raise ValueError(f"expected {self.expects}, not {text!r}{suggest(text, self.words)}")
        return text

    def schema(self) -> dict[str, Any]:
        """An enum."""
        return {"enum": list(self.words)}


class Duration(Kind):
    """Seconds, as `30s`; `zero`: 0 is allowed (it usually means never)."""

    expects = "a duration such as 30s, 5m or 500ms"

    def __init__(self, zero: bool = True) -> None:
        self.zero = zero

    def read(self, text: str, plain: bool) -> float:
        """Seconds."""
        seconds = units.parse_duration(text)
        if not seconds and not self.zero:
            raise ValueError(f"{text} is too short; expected more than 0, such as 10s")
        return seconds

    def write(self, value: float) -> str:
        """With its unit."""
        return units.format_duration(value)

    def schema(self) -> dict[str, Any]:
        """A pattern for the text; a plain number is seconds."""
        number = r"[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?"
        parts = "".join(f"({number}{unit})?" for unit in ("d", "h", "m", "s", "ms"))
        least = {"minimum": 0} if self.zero else {"exclusiveMinimum": 0}
        return {
            "anyOf": [
                {"type": "string", "pattern": f"^(?=.)({number}|{parts})$"},
                {"type": "number", **least},
            ]
        }


class Size(Kind):
    """Bytes, as `64k`."""

    expects = "a size such as 4096, 64k or 1m"

    def read(self, text: str, plain: bool) -> int:
        """Bytes."""
        return units.parse_size(text)

    def write(self, value: int) -> str:
        """With its unit."""
        return units.format_size(value)

    def schema(self) -> dict[str, Any]:
        """A pattern for the text; a plain number is bytes."""
        return {
            "anyOf": [
                {"type": "string", "pattern": "^[0-9]+[kKmMgGtT]?([iI]?[bB])?$"},
                {"type": "integer", "minimum": 0},
            ]
        }


class Octal(Kind):
    """Permission bits: 027, "027", 0o27 and 27 are all octal, as for chmod."""

    expects = "permission bits in octal, such as 027"

    def read(self, text: str, plain: bool) -> int:
        """The bits."""
        if not _OCTAL.fullmatch(text) or int(text, 8) > 0o777:
            raise ValueError(f"expected {self.expects} (000 to 777), not {text!r}")
        return int(text, 8)

    def write(self, value: int) -> str:
        """In quotes, so that every YAML reader leaves it alone."""
        return f'"{value:03o}"'

    def schema(self) -> dict[str, Any]:
        """A pattern; an unquoted one is a number to YAML."""
        return {
            "anyOf": [
                {"type": "string", "pattern": "^(0o)?[0-7]{1,4}$"},
                {"type": "integer", "minimum": 0},
            ]
        }


class Section(Kind):
    """A mapping with the fields of a struct."""

    expects = "a mapping (key: value lines)"

    def __init__(self, struct: type[msgspec.Struct]) -> None:
        self.struct = struct


class Listing(Section):
    """A list of mappings, each with the fields of a struct."""

    expects = "a list of mappings (lines that begin with '- ')"


class Options(Kind):
    """A mapping of anything, for the protocol."""

    expects = "a mapping (key: value lines)"


class Binds(Section):
    """One address or several; each as text or as a mapping with the fields of a struct."""

    expects = "an address such as 127.0.0.1:1688, or a list of them"


class Mappings(Section):
    """Mappings, each with the fields of a struct: one, or a list of them."""

    expects = "a mapping (key: value lines), or a list of them"


class Several(Kind):
    """Values of one kind: one, or a list of them."""

    def __init__(self, item: Kind) -> None:
        self.item = item
        self.expects = f"{item.expects}, or a list of them"

    def write(self, value: tuple[Any, ...]) -> str:
        """In flow style."""
        return f"[{', '.join(map(self.item.write, value))}]"

    def schema(self) -> dict[str, Any]:
        """Either."""
        one = self.item.schema()
        return {"anyOf": [one, {"type": "array", "items": one}]}


class Setting(NamedTuple):
    """Documentation and kind of a field, for use in `Annotated`."""

    kind: Kind
    text: str


class Field(NamedTuple):
    """One field of a struct, as the checker, the renderer and the page see it."""

    name: str
    kind: Kind
    text: str
    default: Any
    required: bool

    @property
    def optional(self) -> bool:
        """Whether it may be left empty (null)."""
        return not self.required and self.default is None


@functools.cache
def fields(struct: type[msgspec.Struct]) -> tuple[Field, ...]:
    """The fields of `struct`, in its order."""
    found = []
    for info in msgspec.structs.fields(struct):
        kind, text = info.type.__metadata__[0]
        default = info.default
        if info.default_factory is not msgspec.NODEFAULT:
            default = info.default_factory()
        found.append(Field(info.name, kind, text, default, info.required))
    return tuple(found)


def suggest(word: str, known: "tuple[str, ...] | list[str]") -> str:
    """ "; did you mean 'x'?" where a known word is like `word`, else ""."""
    import difflib  # only on the way to an error

    close = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else ""
