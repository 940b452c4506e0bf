"""A configuration file that is edited and damaged, and a master that reloads it again and again.

What stands in the file is in force, or what stood there last that was right is: then each problem
is told with its place in the file, `file:line:column: path: message`, and never as a traceback.
What is in force is the same once written out, and differs from before in what the log says.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_strategies import configs
from fake_processes import Kernel, TurnedLoop
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from epolld import channel as words
from epolld.config import Config, changes, hide_secrets, load, loads, needs_restart, render
from epolld.errors import ConfigError
from epolld.host.generation import Generation
from epolld.host.listeners import Inherited
from epolld.master.master import Master
from epolld.master.reload import Outcome

SMALL = """\
workers: {count: 2, graceful_timeout: 5s}
services:
  - &base
    name: upper
    bind: [127.0.0.1:1688, {address: "unix:/run/upper.sock", mode: "660"}]
    limits: {connections: 10, write_buffer: 64k}
    access: [{allow: 10.0.0.0/8}, {deny: all}]
  - <<: *base
    name: second
    bind: "[::1]:1689"
    options: {text: "yes", numbers: [1, 2.5, -3], deep: {er: null}}
logging: {level: info}
"""

TOKEN = re.compile(rb"\n *|[\w./@%+-]+|.", re.DOTALL)
PIECES = [  # that mean something in YAML, or to us
    *(
        b"\t",
        b"\n",
        b"  ",
        b"- ",
        b": ",
        b"#",
        b"[",
        b"]",
        b"{",
        b"}",
        b"'",
        b'"',
        b"|",
        b">",
        b"?",
    ),
    *(b"&a ", b"*a", b"<<: *base", b"!x ", b"!!python/object/apply:os.abort []", b"%YAML 1.1\n"),
    *(b"---\n", b"...\n", b",", b"\\", b"\x00", b"\x7f", b"\r", b"\xc2\x85", b"\xe2\x80\xa8"),
    *(b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xf0\x9f\x98\x80"),
]
VALUES = [  # that are wrong in most places
    *(b"null", b"~", b"''", b"yes", b"010", b"0x10", b"1e3", b".inf", b".nan", b"-1", b"12:30:45"),
    *(b"[]", b"{}", b"[[]]", b"{a: b}", b"[null]", b"{null: null}", b"? [a] : b", b"a: b"),
    *(b"9" * 30, b"9" * 5000, b"1" + b"0" * 400 + b".5", b"1e999999999", b"9" * 20 + b"s"),
    *(
        b"[" * 60 + b"]" * 60,
        b"{a: " * 60 + b"1" + b"}" * 60,
        b"[" * 5000,
        b"- " * 5000,
        b"x" * 9000,
    ),
]

places = st.floats(0, 1, exclude_max=True)
pieces = st.sampled_from(PIECES) | st.sampled_from(VALUES) | st.binary(max_size=4)


@pytest.fixture(autouse=True)
def _nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Addresses, certificates and logs are those of a made-up host; a generation is one worker."""
    monkeypatch.setattr("epolld.master.reload.open_listeners", lambda *_: ())
    monkeypatch.setattr("epolld.master.reload.open_tls", lambda loaded: {})
    monkeypatch.setattr("epolld.master.reload._configure_logs", lambda generation: None)
    monkeypatch.setattr("epolld.master.staff.worker_count", lambda workers: 1)
    monkeypatch.setattr("epolld.host.generation.Generation.counts_clients", lambda self: False)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class AnyEdit(RuleBasedStateMachine):
    """A file and its master."""

    @initialize(config=st.none() | configs())
    def start(self, config: Config | None) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name, "it.yaml")
        self.good = (SMALL if config is None else render(config)).encode()  # what stood there last
        self.file.write_bytes(self.good)
        self.loop, self.kernel = TurnedLoop(), Kernel()
        self.outcomes: list[Outcome] = []
        first = Generation(1, load(str(self.file)), (), None)
        self.master = Master(
            lambda: load(str(self.file)),
            first,
            Inherited(()),
            lambda _: 0,
            lambda _: 0,
            self.loop,
            self.kernel,
        )
        self.master._reloads.start(first)
        self.settle()

    def settle(self) -> None:
        """All boot at once, and leave at once when they are told to."""
        for _ in range(3):
            for process in self.kernel.alive():
                process.say(words.Ready())
                process.hear()
                if process.leaving:
                    process.end(0)
            self.loop.turn()

    # -- edits -----------------------------------------------------------------------------------

    def tokens(self) -> list[bytes]:
        """The file in pieces that mean something."""
        return TOKEN.findall(self.file.read_bytes())

    @rule(config=configs())
    def writes_another(self, config: Config) -> None:
        self.file.write_bytes(render(config).encode())
        assert load(str(self.file)).config == config
        assert self.reload()

    @rule(at=places, piece=pieces)
    def inserts(self, at: float, piece: bytes) -> None:
        tokens = self.tokens()
        tokens.insert(int(at * len(tokens)), piece)
        self.file.write_bytes(b"".join(tokens))
        self.reload()

    @rule(at=places, value=pieces)
    def replaces(self, at: float, value: bytes) -> None:
        tokens = self.tokens()
        if tokens:
            tokens[int(at * len(tokens))] = value
        self.file.write_bytes(b"".join(tokens))
        self.reload()

    @rule(at=places, count=st.sampled_from([1, 1, 3, 50]))
    def deletes(self, at: float, count: int) -> None:
        tokens = self.tokens()
        first = int(at * len(tokens))
        del tokens[first : first + count]
        self.file.write_bytes(b"".join(tokens))
        self.reload()

    @rule(at=places, to=places)
    def moves_a_line(self, at: float, to: float) -> None:
        lines = self.file.read_bytes().splitlines(keepends=True) or [b""]
        line = lines.pop(int(at * len(lines)))
        lines.insert(int(to * len(lines)), line)
        self.file.write_bytes(b"".join(lines))
        self.reload()

    @rule(at=places, count=st.sampled_from([1, 2, 5]))
    def doubles_lines(self, at: float, count: int) -> None:
        lines = self.file.read_bytes().splitlines(keepends=True)
        first = int(at * len(lines))
        lines[first:first] = lines[first : first + count]
        self.file.write_bytes(b"".join(lines))
        self.reload()

    @rule(at=places)
    def is_half_written(self, at: float) -> None:
        data = self.file.read_bytes()
        self.file.write_bytes(data[: int(at * len(data))])
        self.reload()

    @rule()
    def undoes(self) -> None:
        self.file.write_bytes(self.good)
        assert self.reload()

    # -- what a reload makes of it -----------------------------------------------------------------

    def reload(self) -> bool:
        """As by HUP; whether it worked."""
        before = self.in_force()
        self.master._reloads.await_next(self.outcomes.append)
        self.master._reloads.request()
        self.settle()
        outcome = self.outcomes.pop()
        if outcome.ok:
            self.good = self.file.read_bytes()
            assert self.in_force() == load(str(self.file)).config
            assert outcome.changes == changes(before, self.in_force())
            assert bool(outcome.changes) == (before != self.in_force())
            assert len(outcome.warnings) == len(needs_restart(before, self.in_force()))
        else:
            assert self.in_force() == before
            self.problems_have_places(outcome)
        return outcome.ok

    def in_force(self) -> Config:
        return self.master._staff.generation.config

    def problems_have_places(self, outcome: Outcome) -> None:
        with pytest.raises(ConfigError) as caught:
            load(str(self.file))
        problems = caught.value.problems
        assert problems == sorted(problems)
        assert outcome.problems == [str(problem) for problem in problems]
        text = self.file.read_bytes().decode(errors="replace").removeprefix("\ufeff")
        lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)
        for problem in problems:
            assert str(problem).startswith(f"{self.file}:{problem.line}:{problem.column}: ")
            assert problem.message
            assert str(problem).isprintable(), "one line, whatever is in the file"
            assert 1 <= problem.line <= len(lines) + 1
            line = lines[problem.line - 1] if problem.line <= len(lines) else ""
            assert 1 <= problem.column <= len(line) + 1

    @invariant()
    def nothing_is_lost_in_writing(self) -> None:
        assert not self.loop.faults
        config = self.in_force()
        assert loads(render(config), "again.yaml").config == config
        assert isinstance(render(hide_secrets(config)), str)

    def teardown(self) -> None:
        if not hasattr(self, "master"):
            return
        self.master.stop_fast()
        self.settle()
        assert self.loop.told_to_stop
        self.loop.close()
        self.folder.cleanup()


class TestAnyEdit(AnyEdit.TestCase):
    settings = settings(max_examples=15, stateful_step_count=15, deadline=None)


@pytest.mark.long
@pytest.mark.timeout(900)
class TestManyEdits(AnyEdit.TestCase):
    settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
