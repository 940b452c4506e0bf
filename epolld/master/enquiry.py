"""Questions to the workers, and their answers as they come: a worker may be slow, stuck or dead.

A question goes to a few workers at a time. Who is silent for too long is named in the end, and
nobody waits for him.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from epolld import channel as words
from epolld.master.pool import State, WorkerHandle
from epolld.net.loop import EventLoop
from epolld.net.timers import Timer

AT_A_TIME = 2  # workers asked at once: what they tell is held, and takes processor time
PATIENCE = 2.0  # seconds for a worker to say anything


class Missing(msgspec.Struct, frozen=True):
    """A worker that gave no answer, or no whole one."""

    worker: int
    pid: int
    reason: str


class Enquiry:
    """One question to many workers.

    `on_answer(worker, answer)` is called for each; `on_over(missing)` once, in the end. `has_room`
    says whether answers in parts may go on; `resume()` is called when there is room again.
    """

    def __init__(
        self,
        owner: Enquiries,
        number: int,
        question: words.AnyMessage,
        workers: Iterable[WorkerHandle],
        on_answer: Callable[[WorkerHandle, words.AnyAnswer], object],
        on_over: Callable[[list[Missing]], object],
        has_room: Callable[[], bool],
    ) -> None:
        self._owner = owner
        self._number = number
        self._question = question
        self._left = deque(workers)
        self._asked: dict[WorkerHandle, Timer] = {}  # who owes an answer, until when
        self._paused: list[WorkerHandle] = []  # who has more to say
        self._missing: list[Missing] = []
        self._on_answer = on_answer
        self._on_over = on_over
        self._has_room = has_room

    def begin(self) -> None:
        """Ask the first few."""
        while self._left and len(self._asked) + len(self._paused) < AT_A_TIME:
            self._ask(self._left.popleft(), self._question)
        self._look_whether_over()

    def resume(self) -> None:
        """There is room for more."""
        while self._paused and self._has_room():
            self._ask(self._paused.pop(), words.WalkOn(self._number))
        self._look_whether_over()

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        self._owner.forget(self._number)
        for worker, timer in self._asked.items():
            timer.cancel()
            worker.channel.send(words.WalkNoMore(self._number))
        for worker in self._paused:
            worker.channel.send(words.WalkNoMore(self._number))

    def take(self, worker: WorkerHandle, answer: words.AnyAnswer) -> None:
        """A worker says something."""
        timer = self._asked.pop(worker, None)
        if timer is None:
            return  # late
        timer.cancel()
        more = isinstance(answer, words.Walked) and not answer.last
        self._on_answer(worker, answer)
        if more:
            self._paused.append(worker)
            self.resume()
        else:
            self.begin()

    def lose(self, worker: WorkerHandle, reason: str) -> None:
        """A worker will not say anything any more."""
        timer = self._asked.pop(worker, None)
        if timer is not None:
            timer.cancel()
        elif worker in self._paused:
            self._paused.remove(worker)
        elif worker in self._left:
            self._left.remove(worker)
        else:
            return
        self._missing.append(Missing(worker.slot, worker.pid, reason))
        self.begin()

    def _ask(self, worker: WorkerHandle, question: words.AnyMessage) -> None:
        def silent() -> None:
            worker.channel.send(words.WalkNoMore(self._number))
            self.lose(worker, f"no answer within {PATIENCE:g}s")

        self._asked[worker] = self._owner.loop.call_later(PATIENCE, silent)
        worker.channel.send(question)  # if it cannot be sent, the worker is silent

    def _look_whether_over(self) -> None:
        busy = self._left or self._asked or self._paused
        if not busy and self._owner.forget(self._number):
            self._on_over(self._missing)


class Enquiries:
    """All questions that are under way."""

    def __init__(self, loop: EventLoop) -> None:
        self.loop = loop
        self._numbers = itertools.count(1)
        self._open: dict[int, Enquiry] = {}

    def ask(
        self,
        question: Callable[[int], words.AnyMessage],
        workers: Iterable[WorkerHandle],
        on_answer: Callable[[WorkerHandle, words.AnyAnswer], object],
        on_over: Callable[[list[Missing]], object],
        has_room: Callable[[], bool] = lambda: True,
    ) -> Enquiry:
        """Ask all `workers` that live; `question` makes the message from the enquiry's number."""
        number = next(self._numbers)
        able = [w for w in workers if w.state in (State.READY, State.DRAINING)]
        message = question(number)
        enquiry = Enquiry(self, number, message, able, on_answer, on_over, has_room)
        self._open[number] = enquiry
        self.loop.call_soon(enquiry.begin)
        return enquiry

    def on_answer(self, worker: WorkerHandle, answer: words.AnyAnswer) -> None:
        """A worker answers; to a question that nobody asked, or any more, it is ignored."""
        enquiry = self._open.get(answer.number)
        if enquiry is not None:
            enquiry.take(worker, answer)

    def on_gone(self, worker: WorkerHandle, how: str) -> None:
        """A worker has ended."""
        for enquiry in list(self._open.values()):
            enquiry.lose(worker, how)

    def forget(self, number: int) -> bool:
        """It is over; False if it was already."""
        return self._open.pop(number, None) is not None
