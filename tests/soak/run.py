"""The soak: all loads and all mischief at once, for minutes or for hours, and a verdict.

    scripts/soak --minutes 60

Clients that come anew and that stay, over TCP and TLS, fast and slow, and a crowd above a limit;
meanwhile reloads, upgrades, kills, stops, wrong configurations. Writes a report and a picture, and
fails if a client was lost that may not be lost: only a kill, which no program survives, and for
TLS the drain of a reload may end a connection; nobody is refused, waits in vain, or gets a wrong
answer.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / room) for room in ("", "daemon", "faults"))]

import picture  # noqa: E402
from accounts import EARLY_END, MARKED, RESET, Load, Trouble, at_rest  # noqa: E402
from certificates import Authority  # noqa: E402
from clients import REFUSAL, Crowd, SlowLoad  # noqa: E402
from harness import Config, Daemon  # noqa: E402
from mischief import Mischief  # noqa: E402
from processes import eventually  # noqa: E402
from record import Record  # noqa: E402

ROOT = HERE.parents[1]
LATE = 0.5  # seconds after a kill within which clients of it have noticed, slow ones too
MIB = 1 << 20
# What the log may say of all this.
SAID = (
    "killed by SIGKILL", "next try in", "not YAML", "reload failed", "upgrade refused",
    "upgrade failed", "WINCH ignored", "told to stop before", "above the limit", "more like this",
    "loop is late", "late", "exited with status", "exporter",
)  # fmt: skip


def configuration(authority: Authority) -> Config:
    """Three workers; a service for each kind of client."""
    return {
        "workers": {"count": 3, "graceful_timeout": "5s", "recycle_connections": 5000},
        "services": [
            MARKED,
            {"name": "ample", "protocol": "served:Ample", "bind": "127.0.0.1:0"},
            {**MARKED, "name": "secure", "tls": authority.issue("localhost")},
            {**MARKED, "name": "limited",
             "limits": {"client_connections": 3, "refusal": REFUSAL.decode()}},
        ],
    }  # fmt: skip


def explained(trouble: Trouble, kills: dict[int, float], secure: bool) -> bool:
    """Whether a client may have met this."""
    if trouble.word not in (RESET, EARLY_END):
        return False
    if secure and trouble.kind == "living" and trouble.word == EARLY_END:
        return True  # TLS does not move: a reload ends it, in an orderly way
    # Of the killed one's, or one that had just arrived there, from the queue or an older worker.
    return trouble.pid in kills or any(0 <= trouble.when - at < LATE for at in kills.values())


def main() -> int:
    """Run, write the report, and return the exit status."""
    parser = argparse.ArgumentParser(description="All loads and all mischief at once.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--report", type=Path, default=ROOT / "build" / "soak")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="epolld-soak-") as folder:
        return soak(Path(folder), options.minutes, options.seed, options.report)


def soak(folder: Path, minutes: float, seed: int, report: Path) -> int:
    """One soak, with its daemon in `folder`."""
    (folder / "ca").mkdir()
    authority = Authority(folder / "ca")
    running = Daemon(folder, configuration(authority))
    troubles: list[str] = []
    loads: dict[str, Load] = {}
    try:
        running.start()
        before = at_rest(running)
        tls = authority.client()
        loads = {
            "plain": Load(running.address("marked"), new=3, living=8, pause=0.01),
            "slow": SlowLoad(running.address("ample"), new=0, living=6, pause=0.05),
            "secure": Load(running.address("secure"), new=2, living=4, pause=0.03, tls=tls),
            "limited": Crowd(running.address("limited"), new=2, living=6, pause=0.05),
        }
        record, mischief = Record(running), Mischief(running, seed)
        for name, load in loads.items():
            load.start(everybody=name != "limited")
        record.start()
        mischief.until(time.monotonic() + 60 * minutes)
        time.sleep(1)
        for load in loads.values():
            load.stop()
        record.stop()
        for name, load in loads.items():
            troubles += judge(name, load, mischief)
        running.reload()
        at_rest(running)  # not while the reload's older workers are still there
        while (count := len(running.workers())) > 3:  # that TTIN added, and TTOU came too early
            running.send(signal.SIGTTOU)
            eventually(lambda: len(running.workers()) < count, what="fewer workers")
        before.must_return(running, 10)
        troubles += judge_courses(record)
        running.allow(*SAID)
        running.finish()
    except AssertionError as error:
        troubles.append(str(error))
    finally:
        for load in loads.values():
            load.stop()
        running.kill()
    text = describe(minutes, seed, loads, mischief, record, troubles)
    report.mkdir(parents=True, exist_ok=True)
    (report / "report.txt").write_text(text)
    (report / "log.txt").write_text("\n".join(running.lines) + "\n")
    title = f"a soak of {minutes:g} min, seed {seed}"
    (report / "soak.svg").write_text(picture.draw(record.samples, mischief.marks, title))
    print(text, f"report, log and picture: {report}", sep="")
    return bool(troubles)


def judge(name: str, load: Load, mischief: Mischief) -> list[str]:
    """What these clients have met and should not have."""
    known = [t for t in load.troubles if explained(t, mischief.kills, name == "secure")]
    if name == "limited":
        known = [t for t in load.troubles if t.word in (RESET, EARLY_END)]
    strange = [trouble for trouble in load.troubles if trouble not in known]
    found = [f"{name}: {trouble}" for trouble in strange[:10]]
    if not load.served():
        found.append(f"{name}: nobody was served")
    return found


def judge_courses(record: Record) -> list[str]:
    """Nothing grows: the last quarter of the run beside the first."""
    samples = record.samples
    if len(samples) < 20:
        return [f"only {len(samples)} samples"]
    quarter = len(samples) // 4
    first, last = samples[:quarter], samples[-quarter:]

    def grown(name: str) -> tuple[float, float]:
        return tuple(statistics.median(getattr(s, name) for s in part) for part in (first, last))

    found = []
    before, after = grown("master_memory")
    if after > before * 1.25 + 4 * MIB:
        found.append(f"the master grew from {before / MIB:.1f} to {after / MIB:.1f} MiB")
    before, after = grown("master_descriptors")
    if after > before + 10:
        found.append(f"the master had {before:.0f} descriptors, in the end {after:.0f}")
    return found


def describe(
    minutes: float,
    seed: int,
    loads: dict[str, Load],
    mischief: Mischief,
    record: Record,
    troubles: list[str],
) -> str:
    """The report."""
    lines = [f"soak: {minutes:g} minutes, seed {seed}", ""]
    lines += [f"  {count:5} x {name}" for name, count in mischief.done.most_common()]
    lines.append("")
    for name, load in loads.items():
        met = Counter(t.word for t in load.troubles)
        rest = ", ".join(f"{count} {word}" for word, count in met.items()) or "nothing else"
        lines.append(f"  {name:8} {load.served():8} answers; {rest}; slowest {load.slowest:.2f} s")
    top = max(record.samples, key=lambda sample: sample.worker_memory, default=None)
    if top is not None:
        lag = max(sample.lag for sample in record.samples)
        lines += [
            "",
            f"  at most {max(s.connections for s in record.samples)} connections, "
            f"{top.worker_memory / MIB:.0f} MiB in {top.workers} workers, lag {lag * 1000:.0f} ms",
        ]
    lines += ["", *(f"LOST: {each}" for each in troubles)]
    lines.append("verdict: " + (f"{len(troubles)} troubles" if troubles else "nothing was lost"))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
