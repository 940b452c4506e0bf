"""epolld.config.marks: places, and what is refused while the text is read."""

import time

import pytest
import yaml

from epolld.config import marks
from epolld.config.marks import Mapping, MarkedError, Scalar, Sequence, parse


@pytest.fixture(params=["C", "Python"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with libyaml's parser and with PyYAML's own."""
    if request.param == "Python":
        monkeypatch.delattr(yaml, "CSafeLoader")
    elif not hasattr(yaml, "CSafeLoader"):
        pytest.skip("PyYAML was built without libyaml")


def refusal(text: str) -> tuple[int, int, str]:
    """Line, column and message with which `text` is refused."""
    with pytest.raises(MarkedError) as caught:
        parse(text, "f")
    return caught.value.place.line, caught.value.place.column, caught.value.message


def test_nodes_know_their_places_and_keep_their_text() -> None:
    root = parse("a: 027\nb:\n  - 'x'\n  - {é: 12:30}\n", "f")
    assert isinstance(root, Mapping)
    (a, octal), (b, items) = root.pairs
    assert (a.text, a.place) == ("a", ("f", 1, 1))
    assert isinstance(octal, Scalar)
    assert (octal.text, octal.plain, octal.place) == ("027", True, ("f", 1, 4))
    assert b.place == ("f", 2, 1)
    assert isinstance(items, Sequence)
    quoted, inner = items.items
    assert isinstance(quoted, Scalar)
    assert (quoted.text, quoted.plain) == ("x", False)
    assert isinstance(inner, Mapping)
    value = inner.pairs[0][1]
    assert isinstance(value, Scalar)
    assert (value.text, value.place) == ("12:30", ("f", 4, 9))


@pytest.mark.parametrize("text", ["", "# only a comment\n", "\n\n"])
def test_no_document_is_no_tree(text: str) -> None:
    assert parse(text, "f") is None


def test_duplicate_keys_survive() -> None:
    root = parse("a: 1\na: 2\n", "f")
    assert isinstance(root, Mapping)
    assert [key.text for key, _ in root.pairs] == ["a", "a"]


def test_an_alias_is_the_node_itself() -> None:
    root = parse("a: &x [1]\nb: *x\n", "f")
    assert isinstance(root, Mapping)
    assert root.pairs[0][1] is root.pairs[1][1]


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("a: [1\nb: 2\n", 2, 2, "not YAML"),
        ("a:\n\tb: 1\n", 2, 1, "a tab cannot indent YAML: use spaces"),
        ("a: 1\n---\nb: 1\n", 2, 1, "second document"),
        ("a: !!python/object/apply:os.system [id]\n", 1, 4, "tag"),
        ("a: !x 1\n", 1, 4, "tag"),
        ("b: *nowhere\n", 1, 4, "no anchor"),
        ("a: &x [*x]\n", 1, 8, "no anchor"),
        ("? [1]\n: 2\n", 1, 3, "a key must be text"),
        ("ab: \x01\n", 1, 5, "not allowed in YAML"),
        ("b: *:1688\n", 1, 5, "needs quotes"),
        ("b: [::1]:1688\n", 1, None, "needs quotes"),  # the two parsers differ
    ],
)
def test_what_is_refused_says_where(text: str, line: int, column: int | None, reason: str) -> None:
    at_line, at_column, message = refusal(text)
    assert reason in message
    assert (at_line, at_column) == (line, column or at_column)


def bomb(levels: int) -> str:
    """The "billion laughs": each level holds the one above nine times."""
    lines = ["l0: &l0 [ha, ha]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*l{level - 1}"] * 9)
        lines.append(f"l{level}: &l{level} [{aliases}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb(40), "values, aliases counted"),
        ("[" * 100_000, "nested deeper"),
        ("{a: " * 100_000, "nested deeper"),
        ("- " * 100_000, "nested deeper"),
        ("a0: &a0 []\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 400)), "deeper"),
        ("[" + "1," * 200_000 + "]", "values, aliases counted"),
    ],
)
def test_bombs_are_refused_at_once(text: str, reason: str) -> None:
    begun = time.process_time()
    assert reason in refusal(text)[2]
    assert time.process_time() - begun < 20  # the pure parser's figure; without limits: never


def test_the_limits_leave_room() -> None:
    deep = "[" * marks.MAX_DEPTH + "]" * marks.MAX_DEPTH
    assert parse(deep, "f") is not None
    assert parse("[" + "1," * (marks.MAX_NODES // 100) + "]", "f") is not None


def test_nesting_does_not_count_a_value_twice() -> None:
    items = "1," * (marks.MAX_NODES // 10)
    assert parse("[" * 30 + items + "]" * 30, "f") is not None
