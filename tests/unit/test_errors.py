"""Exit codes and the text of problems."""

import os

import pytest

from epolld.errors import ConfigError, EpolldError, ExitCode, Problem


def subclasses() -> list[type[EpolldError]]:
    # Other modules refine these; what their errors end with is one of the same codes.
    return [cls for cls in EpolldError.__subclasses__() if cls.__module__ == "epolld.errors"]


def test_every_error_ends_with_a_failure_of_its_own() -> None:
    codes = [cls.exit_code for cls in subclasses()]
    assert ExitCode.OK not in codes
    assert len(set(codes)) == len(codes)
    assert len(codes) >= 7


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("USAGE", "EX_USAGE"),
        ("CANNOT_BIND", "EX_UNAVAILABLE"),
        ("BOOT_FAILED", "EX_SOFTWARE"),
        ("CANNOT_WRITE", "EX_CANTCREAT"),
        ("ALREADY_RUNNING", "EX_TEMPFAIL"),
        ("NO_PRIVILEGE", "EX_NOPERM"),
        ("CONFIG", "EX_CONFIG"),
    ],
)
def test_codes_are_those_of_sysexits(code: str, name: str) -> None:
    assert ExitCode[code] == getattr(os, name)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (
            Problem("a.yaml", 3, 7, "workers.count", "is no number"),
            "a.yaml:3:7: workers.count: is no number",
        ),
        (Problem("a.yaml", 3, 7, "", "is empty"), "a.yaml:3:7: is empty"),
        (Problem("--set", 0, 0, "x", "unknown"), "--set: x: unknown"),
    ],
)
def test_a_problem_reads_as_compilers_write_them(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_problems_sort_by_place() -> None:
    later, sooner = Problem("f", 10, 1, "b", "m"), Problem("f", 9, 5, "z", "m")
    assert sorted([later, sooner]) == [sooner, later]


def test_a_config_error_tells_all_problems() -> None:
    problems = [Problem("f", n, 1, "p", f"m{n}") for n in (1, 2)]
    error = ConfigError(problems)
    assert str(error) == "f:1:1: p: m1\nf:2:1: p: m2"
    assert error.problems == problems
