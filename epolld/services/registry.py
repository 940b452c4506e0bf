"""From a name in the configuration to what makes protocols: imports and checks, at boot.

Whatever can be wrong with a service's `protocol` and `options` is found here, before the first
connection. It knows neither YAML nor places in files: callers add where a name was written.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from epolld.errors import EpolldError, ExitCode
from epolld.services.handlers import Runtime, lacking, lacking_application, runtime_of

if TYPE_CHECKING:
    import inspect

# By name, so that only what the configuration uses is imported.
BUILT_IN = {
    "chargen": "epolld.services.chargen:Chargen",
    "daytime": "epolld.services.daytime:Daytime",
    "discard": "epolld.services.discard:Discard",
    "echo": "epolld.services.echo:Echo",
    "qotd": "epolld.services.qotd:Qotd",
    "time": "epolld.services.time:Time",
    "upper": "epolld.services.upper:Upper",
}


class ServiceError(EpolldError):
    """A service's protocol cannot be had; the text says why and what to do."""

    exit_code = ExitCode.BOOT_FAILED


class OptionError(EpolldError):
    """A service's options do not fit its protocol; `problems` holds (option, message) of each."""

    exit_code = ExitCode.CONFIG

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"option {name}: {message}" for name, message in problems))
        self.problems = problems


def resolve(name: str, runtime: Runtime | None = None) -> Callable[..., Any]:
    """Return what `name` stands for: a built-in service, or `package.module:Name`.

    Imports the module, so user code runs. The name may lie inside others (`module:Outer.Inner`).
    It is a class of protocols or of blocking handlers, a coroutine function, or a function that
    returns a protocol; `runtime` says how to run it where that cannot be seen (None: find out).
    Raises ServiceError.
    """
    found, place = _find(BUILT_IN.get(name, name))
    if isinstance(found, type) and (trouble := lacking(found, runtime or runtime_of(found))):
        raise ServiceError(f"{place} {trouble}")
    return found


def resolve_application(name: str) -> Callable[..., Any]:
    """Return the class of applications `name`, or the function that makes one, as `resolve`."""
    found, place = _find(name)
    if isinstance(found, type) and (trouble := lacking_application(found)):
        raise ServiceError(f"{place} {trouble}")
    return found


def _find(target: str) -> tuple[Callable[..., Any], str]:
    """Import what `package.module:Name` stands for; also the words for it."""
    module_name, colon, path = target.partition(":")
    if not colon:
        raise ServiceError(_explain_unknown(target))
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise ServiceError(f"{target!r} is not of the form package.module:Class")
    found: Any = _import(module_name)
    place = module_name
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [known for known in dir(found) if not known.startswith("__")]
            hint = suggest(part, names)
            raise ServiceError(f"{place} has no attribute {part!r}{hint}") from None
        place = f"{module_name}:{part}" if place == module_name else f"{place}.{part}"
    if not callable(found):
        kind = type(found).__name__
        raise ServiceError(f"{place} is a {kind}; name a class (or a function) of protocols")
    return found, place


def make_factory(
    handler: Callable[..., Any], options: Mapping[str, Any], passed: int = 0
) -> Callable[..., Any]:
    """Return what is called for each new connection: `handler`, with `options` applied.

    The options are checked against its signature and, where these are simple, its annotations;
    the first `passed` arguments are the connection's. Without options it is `handler` itself, for
    it is called for every connection. Raises OptionError with all that is wrong.
    """
    if not options and getattr(handler, "__init__", None) is object.__init__:
        return handler
    parameters = _parameters(handler, passed)
    problems = _missing(parameters, options)
    arguments = {}
    for name, value in options.items():
        try:
            arguments[name] = _convert(name, value, parameters)
        except ValueError as error:
            problems.append((name, str(error)))
    if problems:
        raise OptionError(problems)
    return partial(handler, **arguments) if arguments else handler


def suggest(name: str, known: Collection[str]) -> str:
    """`; did you mean 'upper'?` for a name close to a known one, else nothing."""
    import difflib  # only ever needed on the way to an error

    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _explain_unknown(name: str) -> str:
    """Why a name without a colon is not a service."""
    if "." in name:
        module, _, attribute = name.rpartition(".")
        return f"{name!r} has no colon; write package.module:Class, such as {module}:{attribute}"
    return (
        f"there is no built-in service {name!r}{suggest(name, BUILT_IN)} "
        f"(built-in: {', '.join(BUILT_IN)}; your own: package.module:Class)"
    )


# -- importing ---------------------------------------------------------------------------------


def _import(module_name: str) -> object:
    """Import a module of the user's; ServiceError tells a missing one from a broken one."""
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a module may do anything, sys.exit() too
        if isinstance(error, ModuleNotFoundError) and _is_prefix(error.name, module_name):
            raise ServiceError(
                f"there is no module {error.name!r}"
                + (f", wanted by {module_name}" if error.name != module_name else "")
                + "; install it into epolld's Python environment, or add its folder to PYTHONPATH"
            ) from error
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ServiceError(f"cannot import {module_name}: {_place(error)}{reason}") from error


def _is_prefix(missing: str | None, module_name: str) -> bool:
    """Whether it is the named module itself (or a package above it) that is missing."""
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")


def _place(error: BaseException) -> str:
    """`file:line: ` of the innermost user code in which `error` happened, if it was in any."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: "
    place = ""
    step: TracebackType | None = error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if file not in (__file__, importlib.__file__) and not file.startswith("<frozen importlib"):
            place = f"{file}:{step.tb_lineno}: "
        step = step.tb_next
    return place


# -- options -----------------------------------------------------------------------------------


def _parameters(handler: Callable[..., Any], passed: int) -> Mapping[str, inspect.Parameter]:
    """What can be passed to `handler` by name, annotations evaluated where they can be.

    Not the first `passed` ones: what a connection brings along is no option.
    """
    import inspect  # a megabyte in every worker that most services do not need

    if getattr(handler, "__init__", None) is object.__init__:
        return {}  # and if it has a `__new__`, that takes none for itself: see net/framing.py
    try:
        parameters = inspect.signature(handler, eval_str=True).parameters
    except ValueError:  # C code that does not tell
        return {"options": inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)}
    except Exception:  # a name that exists for type checkers only: do without
        parameters = inspect.signature(handler).parameters
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [name for name, each in parameters.items() if each.kind in by_position][:passed]
    return {name: each for name, each in parameters.items() if name not in taken}


def _missing(
    parameters: Mapping[str, inspect.Parameter], options: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """A problem for each parameter that must be given and is not."""
    problems = []
    for name, parameter in parameters.items():
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if parameter.kind is parameter.POSITIONAL_ONLY and not optional:
            problems.append((name, "is positional-only, so no option can set it"))
        elif not optional and name not in options:
            problems.append((name, "is required"))
    return problems


def _convert(name: str, value: object, parameters: Mapping[str, inspect.Parameter]) -> Any:
    """The value to pass for an option. Raises ValueError with what is wrong."""
    settable = {
        known: parameter.annotation
        for known, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    if name in settable:
        return _checked(value, settable[name]) if _is_simple(settable[name]) else value
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return value
    takes = f"(there are: {', '.join(settable)})" if settable else "(there are none)"
    raise ValueError(f"there is no such option{suggest(name, settable)} {takes}")


def _checked(value: object, annotation: Any) -> Any:
    """`value` as what `annotation` says. Raises ValueError where it is of another type."""
    import msgspec

    try:
        return msgspec.convert(value, annotation, strict=True)
    except msgspec.ValidationError:
        raise  # a ValueError: "Expected `int`, got `str`"
    except TypeError:  # a combination that msgspec does not support, such as a union of lists
        return value


def _is_simple(annotation: Any) -> bool:
    """Whether YAML has values for it: scalars, lists, mappings, None, and unions of these."""
    from types import NoneType, UnionType
    from typing import Literal, Union, get_args, get_origin

    if annotation in (str, int, float, bool, list, tuple, dict, None, NoneType):
        return True
    origin = get_origin(annotation)
    if origin is Literal:
        return True
    return origin in (list, tuple, dict, Union, UnionType) and all(
        each is ... or each is Any or _is_simple(each) for each in get_args(annotation)
    )
