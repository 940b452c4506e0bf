"""The models build on what the other tests have: wires, movers and strategies."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / "net"), str(TESTS / "unit")]
