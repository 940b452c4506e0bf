"""All examples: what is promised of each."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_its_configuration_is_right(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "epolld", "--config", f"{name}.yaml", "--check"],
        cwd=EXAMPLES,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "OK\n", done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_page_names_it(name: str) -> None:
    assert f"({name}.py)" in (EXAMPLES / "README.md").read_text()
    assert (Path(__file__).parent / f"test_{name}.py").exists(), "each has a test"


def test_the_ports_are_all_different() -> None:
    texts = [path.read_text() for path in EXAMPLES.glob("*.yaml")]
    ports = [port for text in texts for port in re.findall(r"bind: \S+:(\d+)", text)]
    assert len(ports) == len(set(ports)) >= len(NAMES)
