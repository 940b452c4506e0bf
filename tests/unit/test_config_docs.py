"""docs/configuration.md is what the schema says."""

import subprocess
import sys
from pathlib import Path

from epolld.config.kinds import Section, fields
from epolld.config.schema import Config

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    command = [sys.executable, "-m", "epolld.config.docs"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    remedy = "python -m epolld.config.docs > docs/configuration.md"
    assert PAGE.read_text() == printed, f"run: {remedy}"


def test_the_page_names_every_setting() -> None:
    text = PAGE.read_text()
    for section in fields(Config):
        assert f"\n## {section.name}\n" in text
        assert isinstance(section.kind, Section)
        for field in fields(section.kind.struct):
            if type(field.kind) is Section:
                assert f"\n### {section.name}.{field.name}\n" in text
                for inner in fields(field.kind.struct):
                    assert f"\n| `{inner.name}` | " in text
            else:
                assert f"\n| `{field.name}` | " in text
