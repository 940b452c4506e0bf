"""The key-value cache: by redis-cli and redis-benchmark, and its parser in memory."""

import subprocess
from collections.abc import Callable, Iterator

import keyvalue
import needs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epolld.testing import Daemon, connect


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    keyvalue.values.clear()
    keyvalue.deadlines.clear()


@pytest.fixture
def redis(serve: Callable[..., Daemon]) -> Callable[..., str]:
    """Runs a program of redis-tools against the example."""
    port = serve("keyvalue").address().rpartition(":")[2]

    def redis(program: str, *arguments: str, said: bytes = b"") -> str:
        path = needs.tool(program, "redis-tools")
        done = subprocess.run(
            [path, "-p", port, *arguments], input=said, capture_output=True, timeout=30, check=True
        )
        return done.stdout.decode()

    return redis


def test_redis_cli(redis: Callable[..., str]) -> None:
    commands = b"""PING
SET colour blue
GET colour
SET short lived EX 100
TTL short
GET nothing
INCR visits
INCR visits
INCR colour
EXPIRE visits 50
EXPIRE nothing 50
DEL colour visits nothing
GET
FLUSHALL
SELECT 0
"""
    assert redis("redis-cli", said=commands).split("\n") == [
        "PONG",
        "OK",
        "blue",
        "OK",
        "100",
        "",
        "1",
        "2",
        "ERR value is not an integer or out of range",
        "",
        "1",
        "0",
        "2",
        "ERR wrong number of arguments for 'GET' command",
        "",
        "ERR unknown command 'FLUSHALL'",
        "",
        "OK",
        "",
    ]
    assert "db0:keys=1,expires=1" in redis("redis-cli", "INFO")
    assert redis("redis-cli", "-x", "SET", "big", said=b"\r\n*x" * 50_000) == "OK\n"
    assert redis("redis-cli", "GET", "big").strip() == ("\r\n*x" * 50_000).strip()


def test_redis_benchmark(redis: Callable[..., str]) -> None:
    said = redis("redis-benchmark", "-P", "16", "-t", "ping,set,get", "-n", "5000", "-q", "--csv")
    tests = [line.split(",")[0] for line in said.splitlines()]
    assert [*filter(None, tests)][-4:] == ['"PING_INLINE"', '"PING_MBULK"', '"SET"', '"GET"']
    assert redis("redis-cli", "GET", "key:__rand_int__") == "VXK\n"


def test_keys_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(keyvalue.time, "monotonic", lambda: now)
    peer = connect(keyvalue.KeyValue)
    peer.ask(b"SET a 1 EX 10\r\nSET b 1\r\n")
    now = 109.0
    assert peer.ask(b"GET a\r\nTTL a\r\nTTL b\r\n") == b"$1\r\n1\r\n:2\r\n:-1\r\n"
    now = 110.0
    assert peer.ask(b"GET a\r\nTTL a\r\nDEL a b\r\n") == b"$-1\r\n:-2\r\n:1\r\n"


def encoded(arguments: list[bytes]) -> bytes:
    """A command as clients send it."""
    bulks = b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in arguments)
    return b"*%d\r\n%b" % (len(arguments), bulks)


ANY = st.binary(max_size=40) | st.text("\r\n$*1a").map(str.encode) | st.just(b"x" * 3000)


@given(st.lists(ANY | st.none(), max_size=6), st.data())
def test_commands_in_any_pieces(texts: list[bytes | None], data: st.DataObject) -> None:
    """None is a command in a line of its own."""
    said = b"".join(b"PING \r\n" if x is None else encoded([b"PING", x]) for x in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=6)))
    pieces = [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True) if a < b]
    peer = connect(keyvalue.KeyValue)
    assert peer.ask(*pieces) == b"".join(keyvalue.ping(text or b"") for text in texts)
    assert not peer.protocol._rest


@pytest.mark.parametrize(
    "said",
    [
        b"*0\r\n",
        b"*x\r\n",
        b"*9999999\r\n",
        b"*1\r\n:4\r\n",
        b"*1\r\n$-4\r\n",
        b"*1\r\n$1\r\nab\r\n",
    ],
)
def test_what_is_no_resp(said: bytes) -> None:
    peer = connect(keyvalue.KeyValue)
    assert peer.ask(b"PING\r\n" + said + b"\r\n").startswith(b"+PONG\r\n-ERR Protocol error: ")
    assert peer.ended == "EOF"


def test_what_is_too_big_is_refused_before_it_is_kept() -> None:
    peer = connect(keyvalue.KeyValue)
    assert b"too big" in peer.ask(b"*1\r\n$%d\r\nabc" % keyvalue.MAX_SIZE)
    assert peer.ended
    peer = connect(keyvalue.KeyValue)
    peer.send(b"x" * keyvalue.MAX_SIZE)
    assert b"too big" in peer.ask(b"xy")


def test_a_command_moves_in_the_middle() -> None:
    peer = connect(keyvalue.KeyValue)
    said = encoded([b"SET", b"key", b"x" * 5000])
    peer.send(said[:3000])
    assert peer.move()
    assert peer.ask(said[3000:]) == b"+OK\r\n"
