"""docs/api.md is what the docstrings say, of all that is public."""

import importlib
import subprocess
import sys
from pathlib import Path

import epolld
import epolld.testing

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "api.md"


def test_the_page_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "api_docs.py")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    remedy = "python scripts/api_docs.py > docs/api.md"
    assert PAGE.read_text() == printed, f"run: {remedy}"


def test_all_public_names_are_on_it() -> None:
    headings = {line[4:] for line in PAGE.read_text().splitlines() if line.startswith("### ")}
    public = {f"epolld.{name}" for name in epolld.__all__ if not name.startswith("__")}
    public |= {f"epolld.testing.{name}" for name in epolld.testing.__all__}
    assert public - headings <= {"epolld.testing.Config"}  # a mapping
    for name in headings:
        if not name.startswith("fixture"):
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name
