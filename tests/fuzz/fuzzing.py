"""Fuzz with atheris, each target in a process of its own: fuzzing.py [--minutes N] [NAME ...]

With coverage as its guide, libFuzzer changes inputs until one breaks the target's promise. What it
finds is written to build/fuzz/TARGET/: mend the fault, and move the file to
tests/fuzz/found/TARGET/, where it stays as a test.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NAMES = ("addresses", "certificate", "configuration", "control", "framings", "proxy", "units")
BUILD = Path(__file__).resolve().parents[2] / "build" / "fuzz"


def fuzz(name: str) -> None:
    """In this process, with the arguments of libFuzzer in sys.argv; does not come back."""
    import atheris

    with atheris.instrument_imports(include=["epolld", "targets"]):
        import targets
    corpus = BUILD / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(targets.seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    target = targets.TARGETS[name]
    atheris.Setup([*sys.argv, str(corpus)], lambda data: target(bytes(data)))
    atheris.Fuzz()


def start(name: str, seconds: float) -> tuple[int, str]:
    """Fuzz a target in a process of its own; its exit code and what it said."""
    folder = BUILD / name
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, __file__, f"-artifact_prefix={folder}/", f"-max_total_time={seconds:.0f}",
         "-max_len=4096", "-timeout=10", "-rss_limit_mb=2048"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env=os.environ | {"EPOLLD_FUZZ": name}, cwd=folder,
    )  # fmt: skip
    return done.returncode, done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the parsers of epolld.")
    parser.add_argument("--minutes", type=float, default=1, help="for each target (1)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (all)")
    options = parser.parse_args()
    names = options.names or list(NAMES)
    if unknown := set(names) - set(NAMES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    bad = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, (code, said) in zip(
            names, pool.map(lambda name: start(name, options.minutes * 60), names), strict=True
        ):
            lines = said.strip().splitlines() or ["(silent)"]
            print(f"{name}: {lines[-1] if not code else 'FAILED'}", flush=True)
            if code:
                bad += 1
                print("\n".join(lines[-40:]), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    if "EPOLLD_FUZZ" in os.environ:
        fuzz(os.environ["EPOLLD_FUZZ"])
    else:
        sys.exit(main())
