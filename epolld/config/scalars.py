"""YAML scalars as the 1.2 core schema reads them, and how to write text that reads back.

For values that no schema types (a protocol's options). What YAML 1.1 and 1.2 read
differently (yes, 010) is refused, not guessed. Knows neither files nor places.
"""

import re

DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
NULLS = ("", "~", "null", "Null", "NULL")
OTHER_FLAGS = {
    **dict.fromkeys(("yes", "y", "on", "true", "1"), "true"),
    **dict.fromkeys(("no", "n", "off", "false", "0"), "false"),
}
MAX_NUMBER = 100  # characters; longer digits would only cost time

_FLAGS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_AMBIGUOUS_FLAGS = {"yes", "no", "on", "off", "y", "n"}
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_INF = re.compile(r"([-+]?)\.(?:inf|Inf|INF)", re.ASCII)
# Text that needs no quotes in any YAML reader: no indicator, no blank, begins with a letter
# or "/", and no word that some version of YAML reads as something else.
_BARE = re.compile(r"[A-Za-z/][A-Za-z0-9_./@%+-]*(?::[A-Za-z0-9_./@%+-]+)*", re.ASCII)
_WORDS = {"true", "false", "null", "nan", "inf", *_AMBIGUOUS_FLAGS}


def resolve(text: str, plain: bool) -> str | int | float | bool | None:
    """The value of a scalar. Raises ValueError, with a remedy, for an ambiguous one."""
    if not plain:
        return text
    if text in NULLS:
        return None
    if text in _FLAGS:
        return _FLAGS[text]
    if text.lower() in _AMBIGUOUS_FLAGS and len(text) > 1:
        meant = OTHER_FLAGS[text.lower()]
        raise ValueError(f'{text!r} can be read in two ways; write {meant}, or "{text}" for text')
    if _LEADING_ZERO.fullmatch(text):
        raise ValueError(
            f"{text!r} can be read in two ways; write 0o{text.lstrip('+-0')} for octal, "
            f'or "{text}" for text'
        )
    if infinite := _INF.fullmatch(text):
        return float(infinite[1] + "inf")
    if text in (".nan", ".NaN", ".NAN"):
        return float("nan")
    return _number(text)


def _number(text: str) -> str | int | float:
    """`text` as a number, if it is one."""
    based = _BASED.fullmatch(text)
    if not based and not _FLOAT.fullmatch(text):
        return text
    if len(text) > MAX_NUMBER:
        raise ValueError("this number is too long; put it in quotes if it is meant as text")
    if based:
        return int(text, 0)
    return int(text) if DECIMAL.fullmatch(text) else float(text)


def write(value: str | int | float | bool | None) -> str:
    """The YAML text that `resolve` reads as `value`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value).replace("inf", ".inf").replace("nan", ".nan")
    return quote(value) if isinstance(value, str) else str(value)


def quote(text: str) -> str:
    """`text` as a YAML scalar: bare where every reader takes it as text, else in quotes."""
    if _BARE.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
