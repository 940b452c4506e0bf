"""The pages tell the truth where a machine can see it: examples run, links and files exist.

A fenced block whose first line is `# file: NAME` is a whole file. All files of a page lie in one
folder: Python modules are imported, `test_*.py` are run, YAML is given to `epolld --check` (it has
to be accepted, but for `wrong*.yaml`). A block behind `<!-- prints: ARGUMENTS -->` is what epolld
prints in that folder, which the page calls /srv/app. Lines of the log are quoted as the code has
them.
"""

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_FILES = [page for page in PAGES if "\n# file: " in page.read_text()]
FOLDER = "/srv/app"  # how pages call the folder of their files

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# file: ([\w.-]+)\n")
PRINTS = re.compile(r"^<!-- prints: (.*) -->\n```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
SOURCE = re.compile(r"`((?:epolld|net|master|worker|host|config|services)/[\w/]+\.py)`")


def write_files(page: Path, folder: Path) -> list[str]:
    """Write the files that a page shows into `folder`; returns their names, in order."""
    names = []
    for _, body in FENCED.findall(page.read_text()):
        if found := FILE.match(body):
            names.append(found[1])
            (folder / names[-1]).write_text(body)
    return names


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder`, with the epolld under test."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    text = FENCED.sub("", page.read_text())
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in HEADING.findall(text)}


def log_formats() -> list[str]:
    """What the daemon logs, as far as it begins with words of its own: the formats of all calls."""
    calls = (
        node
        for source in sorted((ROOT / "epolld").rglob("*.py"))
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log.")
    )
    texts = [a.value for call in calls for a in call.args[:1] if isinstance(a, ast.Constant)]
    return [text for text in texts if len(own_words(text)) >= 8]


def own_words(text: str) -> str:
    """A log format up to its first value."""
    return text.partition("%")[0]


def quoted_lines(page: Path) -> list[str]:
    """What may be lines of the log: those of blocks without a language, and code in the text."""
    text = page.read_text()
    lines = [line for kind, body in FENCED.findall(text) if not kind for line in body.splitlines()]
    return lines + SPAN.findall(FENCED.sub("", text))


def test_there_are_examples_to_run() -> None:
    assert ROOT / "docs" / "writing-protocols.md" in WITH_FILES


@pytest.mark.parametrize("page", WITH_FILES, ids=lambda page: page.name)
def test_the_examples_run(page: Path, tmp_path: Path) -> None:
    names = write_files(page, tmp_path)
    assert len(names) == len(set(names)), "two files of one name"
    modules = [name.removesuffix(".py") for name in names if name.endswith(".py")]
    if modules:
        done = run(tmp_path, "-W", "error", "-c", f"import {', '.join(modules)}")
        assert done.returncode == 0, done.stderr
    tests = [name for name in names if name.startswith("test_")]
    if tests:
        found = entry_points(group="pytest11", name="epolld")
        by_name = [] if found else ["-p", "epolld.testing.plugin"]  # see tests/conftest.py
        done = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *by_name, *tests)
        assert done.returncode == 0, done.stdout
    for name in names:
        if name.endswith(".yaml") and not name.startswith("wrong"):
            done = run(tmp_path, "-m", "epolld", "--config", name, "--check")
            assert done.stdout == "OK\n", done.stdout + done.stderr


@pytest.mark.parametrize("page", WITH_FILES, ids=lambda page: page.name)
def test_it_prints_what_the_page_says(page: Path, tmp_path: Path) -> None:
    write_files(page, tmp_path)
    for arguments, expected in PRINTS.findall(page.read_text()):
        printed = run(tmp_path, "-m", "epolld", *arguments.split()).stdout
        assert printed.replace(str(tmp_path), FOLDER) == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(FENCED.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):  # another machine's
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert target.is_relative_to(ROOT), f"{page.name} links out of the project: {link}"
        if fragment and target.suffix == ".md":
            assert fragment in anchors(target), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_of_the_log_are_those_of_the_code(page: Path) -> None:
    formats = log_formats()
    assert "reload done: generation %d, %d workers" in formats
    for line in quoted_lines(page):
        same = [text for text in formats if line.startswith(own_words(text))]
        patterns = [re.sub(r"%[\\\d.]*\w", ".+", re.escape(text)) for text in same]
        assert not same or any(re.fullmatch(p, line) for p in patterns), f"{line!r} is not {same}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_source_files_that_are_named_exist(page: Path) -> None:
    for name in SOURCE.findall(page.read_text()):
        path = ROOT / name if name.startswith("epolld/") else ROOT / "epolld" / name
        assert path.exists(), f"{page.name} names {name}"
