"""Draws live connections per worker over time across five reloads.

    python benchmarks/plot_reload.py

Starts epolld with four workers under the load of the `handover` measure, sends HUP five times and
looks every 20 ms (every 2 ms around the reload that is shown larger) at who holds how many
connections. Writes docs/pictures/reload.svg and reload.png. Only reads the server's /proc: the
number of open descriptors less those that a worker has without any connection.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import loads
import pictures
import processes
import servers

WORKERS, IDLE, BUSY, RATE, THINK_US = 4, 10_000, 50, 1_000, 5_000
RELOADS, SHOWN = 5, 3  # the reload that is shown larger, counted from 1
APART = 1.5  # seconds between two reloads
EVERY, CLOSELY = 0.020, 0.002  # seconds between two looks


@dataclass
class Course:
    """One worker's connections over time; times in seconds of the monotonic clock."""

    generation: int
    times: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


class Observer:
    """Looks at all workers again and again, in a thread."""

    def __init__(self, master: int, others: int) -> None:
        self.courses: dict[int, Course] = {}  # by pid
        self.every = EVERY
        self._master = master
        self._others = others  # descriptors of a worker that are no connections
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self.every):
            for pid in _children(self._master):
                if pid not in self.courses and (
                    match := re.search(
                        r"worker \d+ gen (\d+)( \(waiting\))?$", processes.title(pid)
                    )
                ):
                    self.courses[pid] = Course(int(match[1]))  # its boot is over
                if pid in self.courses:
                    self._look(pid, self.courses[pid])

    def _look(self, pid: int, course: Course) -> None:
        count = max(0, processes.descriptors(pid) - self._others)
        course.times.append(time.monotonic())
        course.counts.append(count)


def _children(pid: int) -> list[int]:
    try:
        text = (processes.PROC / f"{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def observe() -> tuple[list[Course], list[float], dict[str, Any]]:
    """Reload under load: the courses, when each HUP was sent, and the load's report."""
    signals = []
    with servers.running("epolld", workers=WORKERS, core=None) as server:
        others = min(processes.descriptors(pid) for pid in server.workers())
        with loads.steady(server.port, idle=IDLE, busy=BUSY, rate=RATE, think_us=THINK_US) as load:
            observer = Observer(server.pid, others)
            observer.start()
            time.sleep(APART)
            load.report()
            for number in range(1, RELOADS + 1):
                if number == SHOWN:
                    observer.every = CLOSELY
                    time.sleep(0.1)
                seen = len(server.lines)
                signals.append(time.monotonic())
                os.kill(server.pid, signal.SIGHUP)
                server.wait_line("reload done", seen)
                time.sleep(APART)
                observer.every = EVERY
            report = load.report()
            observer.stop()
    return list(observer.courses.values()), signals, report


def draw(courses: list[Course], signals: list[float], report: dict[str, Any]) -> None:
    """Both pictures: all reloads above, one of them larger below."""
    with pictures.figure("reload", 2, 1, size=(10, 7.5)) as (whole, close):
        _draw(whole, close, courses, signals, report)


def _draw(
    whole: Any, close: Any, courses: list[Course], signals: list[float], report: dict[str, Any]
) -> None:
    begin, shown = signals[0] - 1.0, signals[SHOWN - 1]
    for axes, origin, scale in ((whole, begin, 1), (close, shown, 1000)):
        _draw_courses(axes, courses, origin, scale)
        for moment in signals:
            axes.axvline((moment - origin) * scale, color="black", linestyle=":", linewidth=1)
        axes.set_ylabel("live connections of a worker")
        axes.set_ylim(0, 1.28 * max(max(course.counts, default=0) for course in courses))
    end = max(course.times[-1] for course in courses if course.times)
    failures = sum(report["failures"].values())
    whole.set_title(
        f"Five reloads: {IDLE:,} idle and {BUSY} busy connections, {RATE:,} newcomers a second\n"
        f"{report['messages']:,} answers, {failures} failures, "
        f"longest pause of a busy client {report['busy_max_us'] / 1000:.0f} ms",
        fontsize=12,
    )
    whole.set_xlim(0, end - begin)
    whole.set_xlabel("seconds (dotted: HUP)")
    whole.legend(ncols=RELOADS + 1, loc="upper center", fontsize=9, framealpha=1)
    close.set_title(f"Reload {SHOWN}, larger: each line is one worker", fontsize=12)
    close.set_xlim(-50, _until(courses, shown) * 1000 + 50)
    close.set_xlabel("milliseconds since HUP")
    close.legend(
        handles=[line for line in close.lines if _generation_of(line) in (SHOWN, SHOWN + 1)],
        loc="upper center",
        ncols=2,
        fontsize=9,
    )


def _draw_courses(axes: Any, courses: list[Course], origin: float, scale: float) -> None:
    """One line a worker, coloured by its generation, which is named once."""
    named: set[int] = set()
    for course in courses:
        number = course.generation
        axes.plot(
            [(moment - origin) * scale for moment in course.times],
            course.counts,
            color=pictures.COLOURS[(number - 1) % 6],
            linewidth=1.4,
            label=f"{'_' if number in named else ''}generation {number}",  # "_": not in a legend
        )
        named.add(number)


def _generation_of(line: Any) -> int:
    """The generation that a line's label names; 0 if it has none for a legend."""
    word, _, number = line.get_label().partition(" ")
    return int(number) if word == "generation" else 0


def _until(courses: list[Course], shown: float) -> float:
    """Seconds after the HUP until the last worker of the old generation was gone."""
    old = [course.times[-1] for course in courses if course.generation == SHOWN and course.times]
    return max(old) - shown


def main() -> None:
    servers.raise_descriptor_limit()
    servers.build()
    pictures.import_pyplot()  # before the work, not after it
    draw(*observe())


if __name__ == "__main__":
    main()
