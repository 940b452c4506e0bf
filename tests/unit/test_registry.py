"""The registry: names become protocols, and every mistake is a sentence before the first client."""

import asyncio
import functools
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from epolld.errors import ExitCode
from epolld.net.protocol import Protocol
from epolld.services.registry import BUILT_IN, OptionError, ServiceError, make_factory, resolve


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that writes a module of the user's, importable under the name it returns."""
    monkeypatch.syspath_prepend(tmp_path)
    number = 0

    def write(source: str) -> str:
        nonlocal number
        number += 1
        name = f"users_{tmp_path.name}_{number}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


def refusal(name: str) -> str:
    with pytest.raises(ServiceError) as caught:
        resolve(name)
    assert caught.value.exit_code == ExitCode.BOOT_FAILED
    return str(caught.value)


def option_problems(protocol: Any, **options: Any) -> dict[str, str]:
    with pytest.raises(OptionError) as caught:
        make_factory(protocol, options)
    assert caught.value.exit_code == ExitCode.CONFIG
    problems = caught.value.problems
    assert len(dict(problems)) == len(problems)
    return dict(problems)


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in(name: str) -> None:
    protocol = resolve(name)
    assert isinstance(protocol, type)
    assert issubclass(protocol, Protocol)
    assert "__dict__" not in dir(protocol())  # slots all the way down


def test_a_built_in_imports_only_itself() -> None:
    program = (
        "import sys; from epolld.services.registry import resolve, make_factory;"
        "make_factory(resolve('upper'), {});"
        "print([m for m in sys.modules if m.startswith('epolld.services.')][-2:])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert shown == "['epolld.services.registry', 'epolld.services.upper']\n"


def test_users_classes(module: Any) -> None:
    name = module(
        "import asyncio\n"
        "class Plain(asyncio.Protocol): pass\n"
        "class Outer:\n"
        "    class Inner(asyncio.Protocol): pass\n"
        "def build(): return Plain()\n"
    )
    plain = resolve(f"{name}:Plain")
    assert isinstance(plain, type)
    assert issubclass(plain, asyncio.Protocol)
    assert resolve(f"{name}:Outer.Inner").__qualname__ == "Outer.Inner"
    assert isinstance(resolve(f"{name}:build")(), plain)


def test_unknown_built_in() -> None:
    text = refusal("uper")
    assert "'uper'" in text
    assert "did you mean 'upper'?" in text
    assert all(name in text for name in BUILT_IN)


def test_forgotten_colon() -> None:
    assert "such as my.package:Class" in refusal("my.package.Class")


@pytest.mark.parametrize("name", ["module:", ":Class", "my module:Class", "a..b:C", "a:b:c", ":"])
def test_malformed(name: str) -> None:
    assert "package.module:Class" in refusal(name)


def test_missing_module() -> None:
    assert "there is no module 'no_such_thing';" in refusal("no_such_thing:Class")
    assert "there is no module 'no_such_thing', wanted by no_such_thing.a" in refusal(
        "no_such_thing.a:Class"
    )
    assert "there is no module 'epolld.zzz';" in refusal("epolld.zzz:Class")


def test_module_missing_inside(module: Any) -> None:
    name = module("\nimport no_such_thing\n")
    text = refusal(f"{name}:Class")
    assert f"cannot import {name}: " in text
    assert f"{name}.py:2: ModuleNotFoundError: No module named 'no_such_thing'" in text


def test_broken_module_names_the_innermost_place(module: Any) -> None:
    inner = module("def fail():\n    return {}['key']\n")
    outer = module(f"import {inner}\n\n{inner}.fail()\n")
    assert f"{inner}.py:2: KeyError: 'key'" in refusal(f"{outer}:Class")


def test_syntax_error(module: Any) -> None:
    name = module("x = 1\nclass\n")
    assert f"{name}.py:2: SyntaxError" in refusal(f"{name}:Class")


def test_error_of_the_import_itself_has_no_place(tmp_path: Path, module: Any) -> None:
    module("")  # puts tmp_path on the path
    (tmp_path / "truncated.pyc").write_bytes(importlib.util.MAGIC_NUMBER + bytes(12))
    text = refusal("truncated:Class")
    assert text.startswith("cannot import truncated: EOFError: ")


def test_module_that_exits(module: Any) -> None:
    assert "SystemExit: 3" in refusal(f"{module('raise SystemExit(3)')}:Class")


def test_missing_attribute(module: Any) -> None:
    name = module("import asyncio\nclass Server:\n    class Talker(asyncio.Protocol): pass\n")
    assert f"{name} has no attribute 'Sever'; did you mean 'Server'?" in refusal(f"{name}:Sever")
    text = refusal(f"{name}:Server.Talk")
    assert f"{name}:Server has no attribute 'Talk'; did you mean 'Talker'?" in text


def test_not_a_protocol(module: Any) -> None:
    name = module("number = 3\nclass Half:\n    def data_received(self, data): pass\n")
    assert f"{name}:number is a int" in refusal(f"{name}:number")
    text = refusal(f"{name}:Half")
    assert "lacks connection_made, eof_received" in text
    assert "data_received" not in text


# -- options -----------------------------------------------------------------------------------


class Typed(Protocol):
    def __init__(
        self,
        size: int,
        *,
        ratio: float = 1.0,
        names: "list[str] | None" = None,
        flag: bool = False,
        sizes: dict[str, int] | None = None,
        other: "asyncio.Lock | None" = None,
    ) -> None:
        self.arguments = (size, ratio, names, flag, sizes, other)


def test_factory_without_options_is_the_class_itself() -> None:
    class Own(Protocol):
        def __init__(self, a: int = 1, *, b: int = 2) -> None:
            pass

    for protocol in (Protocol, asyncio.Protocol, Own):
        assert make_factory(protocol, {}) is protocol  # type: ignore[arg-type]


def test_options_reach_the_protocol() -> None:
    factory = make_factory(Typed, {"size": 3, "ratio": 2, "names": ["a"], "flag": True})
    made: Any = factory()
    assert made.arguments == (3, 2.0, ["a"], True, None, None)
    assert isinstance(made.arguments[1], float)
    assert factory() is not made


def test_all_problems_at_once() -> None:
    problems = option_problems(Typed, ratoi=1, names=["a", 2], flag=1, sizes={"a": "b"})
    assert problems["size"] == "is required"
    assert problems["ratoi"].startswith("there is no such option; did you mean 'ratio'? (there are")
    assert problems["names"] == "Expected `str`, got `int` - at `$[1]`"
    assert problems["flag"] == "Expected `bool`, got `int`"
    assert problems["sizes"] == "Expected `int`, got `str` - at `$[...]`"
    assert len(problems) == 5


def test_text_is_no_number() -> None:
    assert option_problems(Typed, size="3") == {"size": "Expected `int`, got `str`"}
    assert option_problems(Typed, size=None) == {"size": "Expected `int`, got `null`"}


def test_annotations_that_are_not_simple_are_not_checked() -> None:
    made: Any = make_factory(Typed, {"size": 1, "other": "anything"})()
    assert made.arguments[-1] == "anything"

    def build(a: "NoSuchName", b: int = 0) -> Protocol:  # type: ignore[name-defined] # noqa: F821
        return Protocol()

    assert isinstance(make_factory(build, {"a": 1})(), Protocol)


def test_required_option_missing_without_any_option() -> None:
    class KeywordOnly(Protocol):
        def __init__(self, *, key: str) -> None:
            pass

    class Inherited(KeywordOnly):
        pass

    class Decorated(Protocol):
        @functools.wraps(Typed.__init__)
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            pass

    class Positional(Protocol):
        def __init__(self, key: str, /) -> None:
            pass

    def build(key: str) -> Protocol:
        return Protocol()

    assert option_problems(Typed) == {"size": "is required"}
    assert option_problems(Decorated) == {"size": "is required"}
    for protocol in (KeywordOnly, Inherited, build):
        assert option_problems(protocol) == {"key": "is required"}
    assert "positional-only" in option_problems(Positional)["key"]


def test_options_for_a_protocol_without_any() -> None:
    text = option_problems(resolve("upper"), format="x")["format"]
    assert text == "there is no such option (there are none)"


def test_options_for_a_framing_without_any() -> None:
    """Though it has a `__new__` that lets those of a subclass pass."""
    from epolld import LineProtocol

    class Limited(LineProtocol):
        def __init__(self, *, limit: int) -> None:
            self.limit = limit

    assert make_factory(LineProtocol, {}) is LineProtocol
    assert make_factory(Limited, {"limit": 7})().limit == 7
    with pytest.raises(OptionError, match="limt"):
        make_factory(LineProtocol, {"limt": 7})


def test_keyword_arguments_of_any_name() -> None:
    class Open(Protocol):
        def __init__(self, **options: Any) -> None:
            self.options = options

    made: Any = make_factory(Open, {"a": 1, "b": "2"})()
    assert made.options == {"a": 1, "b": "2"}


def test_options_of_the_built_in() -> None:
    make_factory(resolve("daytime"), {"format": "%Y"})
    make_factory(resolve("qotd"), {"file": "/x", "quotes": ["a"]})
    assert "Expected `array | null`" in option_problems(resolve("qotd"), quotes="a")["quotes"]
