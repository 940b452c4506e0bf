"""The stair of rooms: no circle among the modules, no arrow that the design forbids.

Reads the sources and runs none of them. Lazy imports inside functions count. Those under
TYPE_CHECKING count as arrows too, but not for circles: they are never run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[2] / "epolld"

LEAVES = {
    "errors",
    "units",
    "address",
    "log",
    "logline",
    "logsink",
    "causes",
    "ledger",
    "metrics",
    "accesslog",
    "floods",
    "totals",
    "scoreboard",
    "channel",
    "networks",
    "clientcounts",
    "commandline",
}
BUILT_ON = LEAVES | {"config", "host", "net"}

# What each room may import besides itself. Leaves are rooms of one file.
MAY_IMPORT = {
    **{leaf: {"errors"} for leaf in LEAVES},
    "ledger": {"causes"},
    "accesslog": {"log"},
    "totals": {"causes", "ledger", "scoreboard"},
    "scoreboard": {"causes", "ledger"},
    "metrics": {"ledger"},
    "log": {"errors", "floods", "logline", "logsink"},
    "logsink": {"errors", "logline"},
    "errors": set[str](),
    "config": LEAVES,
    "host": LEAVES | {"config"},
    "net": LEAVES,
    "runtime": LEAVES | {"net"},
    "services": LEAVES | {"net"},
    "worker": BUILT_ON | {"runtime", "services"},
    "master": BUILT_ON,
    "client": LEAVES,
    "probe": set[str](),
    "testing": LEAVES | {"net"},  # of nobody's but the users' tests
    "exporter": BUILT_ON,
    "dev": set[str](),
    "cli": BUILT_ON | {"dev", "runtime", "services", "worker", "master", "exporter"},
    "console": LEAVES | {"host"},
    "ctl": LEAVES | {"config", "console", "host"},
    "__main__": {"cli"},
    "__init__": {"net", "runtime"},  # the public names, for users
}
EVERYBODY = {"__init__"}  # `from epolld import __version__`


class Arrow(NamedTuple):
    """One module imports another; both by dotted name within the package."""

    source: str
    target: str
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


def modules_of(package: Path) -> dict[str, Path]:
    """All modules by dotted name within the package; a folder's `__init__` by the folder's."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[-1] == "__init__" and len(parts) > 1:
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


def arrows_of(package: Path) -> list[Arrow]:
    """Every import of one module of the package by another."""
    modules = modules_of(package)
    arrows = []
    for name, path in modules.items():
        for node, typing_only in imports_in(ast.parse(path.read_text())):
            found = targets(node, name, path, package.name, set(modules))
            arrows += [Arrow(name, target, typing_only) for target in found]
    return arrows


def imports_in(tree: ast.AST, typing_only: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """All import statements at any depth, and whether they stand under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, typing_only
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                yield from imports_in(ast.Module([statement], []), True)
            for statement in node.orelse:
                yield from imports_in(ast.Module([statement], []), typing_only)
        else:
            yield from imports_in(node, typing_only)


def targets(node: ast.stmt, name: str, path: Path, top: str, modules: set[str]) -> Iterator[str]:
    """The package's modules that an import statement names."""
    if isinstance(node, ast.Import):
        whole = [alias.name for alias in node.names]
        members: list[str] = []
    else:
        assert isinstance(node, ast.ImportFrom)
        base = node.module or ""
        if node.level:  # relative: a package's __init__ is one level deeper than its name
            here = [top, *name.split(".")] if name != "__init__" else [top]
            up = node.level - (path.name == "__init__.py")
            here = here[: len(here) - up] if up else here
            base = ".".join([*here, *filter(None, [node.module])])
        whole, members = [base], [alias.name for alias in node.names]
    for dotted in whole:
        if dotted != top and not dotted.startswith(top + "."):
            continue
        inside = dotted[len(top) + 1 :]
        named = {".".join(filter(None, [inside, member])) for member in members} & modules
        yield from named
        if len(named) < len(members) or not members:  # names that the module itself defines
            yield inside if inside in modules else "__init__"


def forbidden(arrows: list[Arrow], may_import: dict[str, set[str]]) -> list[str]:
    """The arrows from one room to another that the table does not allow."""
    bad = []
    for arrow in arrows:
        source, target = arrow.source.split(".")[0], arrow.target.split(".")[0]
        allowed = may_import.get(source, set()) | EVERYBODY | {source}
        if target not in allowed:
            bad.append(str(arrow))
    return bad


def circle(arrows: list[Arrow]) -> list[str]:
    """Modules that import each other in a circle, by the shortest way found; [] if none do."""
    edges: dict[str, set[str]] = {}
    for arrow in arrows:
        if not arrow.typing_only and arrow.source != arrow.target:
            edges.setdefault(arrow.source, set()).add(arrow.target)
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name not in done:
            for target in sorted(edges.get(name, ())):
                if found := visit(target, [*way, name]):
                    return found
            done.add(name)
        return []

    for name in sorted(edges):
        if found := visit(name, []):
            return found
    return []


def test_every_room_is_in_the_table() -> None:
    rooms = {name.split(".")[0] for name in modules_of(PACKAGE)}
    assert rooms <= set(MAY_IMPORT), "a new room needs a line in MAY_IMPORT and in the design"


def test_no_forbidden_arrow() -> None:
    assert forbidden(arrows_of(PACKAGE), MAY_IMPORT) == []


def test_no_circle() -> None:
    assert circle(arrows_of(PACKAGE)) == []


def test_master_and_worker_never_meet() -> None:
    for arrow in arrows_of(PACKAGE):
        rooms = {arrow.source.split(".")[0], arrow.target.split(".")[0]}
        assert rooms != {"master", "worker"}, arrow


def test_the_walk_sees_the_package() -> None:
    found = set(map(str, arrows_of(PACKAGE)))
    assert "worker.admission -> net.acceptor" in found
    assert "net.protocol -> net.transport" in found  # under TYPE_CHECKING
    assert len(modules_of(PACKAGE)) > 40


# -- the checker itself, on a package made for it -----------------------------------------------

TABLE = {"low": set[str](), "high": {"low"}}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package in which `high` may import `low`."""
    root = tmp_path / "fake"
    for room in ("low", "high"):
        (root / room).mkdir(parents=True)
        (root / room / "__init__.py").touch()
    (root / "__init__.py").touch()
    (root / "low" / "a.py").write_text("import os\n")
    (root / "high" / "b.py").write_text("from fake.low import a\n")
    return root


def test_a_clean_package_passes(package: Path) -> None:
    assert list(map(str, arrows_of(package))) == ["high.b -> low.a"]
    assert forbidden(arrows_of(package), TABLE) == []
    assert circle(arrows_of(package)) == []


@pytest.mark.parametrize(
    "line",
    [
        "from fake.high import b",
        "from fake.high.b import x",
        "import fake.high.b",
        "from ..high import b",
        "from ..high.b import x",
        "def f():\n    from fake.high import b",
        "try:\n    import fake.high.b\nexcept ImportError:\n    pass",
    ],
)
def test_a_circle_and_the_arrow_in_it_are_found(package: Path, line: str) -> None:
    (package / "low" / "a.py").write_text(line)
    assert forbidden(arrows_of(package), TABLE) == ["low.a -> high.b"]
    assert circle(arrows_of(package)) == ["high.b", "low.a", "high.b"]


def test_typing_only_counts_as_an_arrow_but_makes_no_circle(package: Path) -> None:
    (package / "low" / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fake.high import b\n"
    )
    assert forbidden(arrows_of(package), TABLE) == ["low.a -> high.b"]
    assert circle(arrows_of(package)) == []


def test_a_circle_of_three_is_found(package: Path) -> None:
    (package / "high" / "b.py").write_text("from fake.high import c")
    (package / "high" / "c.py").write_text("from . import d")
    (package / "high" / "d.py").write_text("from .b import x")
    assert circle(arrows_of(package)) == ["high.b", "high.c", "high.d", "high.b"]
