"""Clients for the reload benchmark: some come and go, some stay, all check every byte.

`churn.py PORT SHORT LONG`: SHORT clients connect, ask, check and close in a loop; LONG ones
ask again and again over one connection. It prints `running` once each has had an answer, goes
on until a line comes on stdin, and prints one JSON object: how often what happened, and the answers
of each tenth of a second from `began` on, which is a time of the monotonic clock.

An end of stream where no request is under way is a goodbye, not an error: HTTP's keep-alive
clients, too, must live with it. The client then connects anew.
"""

from __future__ import annotations

import collections
import json
import socket
import sys
import threading
import time

TIMEOUT = 10.0  # seconds for an answer
EVERY = 0.1  # seconds in which answers are counted together
PAUSE = 0.001  # seconds between requests, so that clients meet a reload in every state


class Clients:
    """All clients, and the tally that they share."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.tally: collections.Counter[str] = collections.Counter()
        self.began = time.monotonic()
        self.course: collections.Counter[int] = collections.Counter()  # answers, by tenth
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.answered = threading.Semaphore(0)

    def count(self, what: str) -> None:
        with self.lock:
            self.tally[what] += 1

    def come_and_go(self, number: int) -> None:
        """A connection for each request."""
        turn = 0
        while not self.stopping.is_set():
            turn += 1
            connection = self.connect(number)
            if connection is not None:
                with connection:
                    if self.ask(connection, number, turn) and turn == 1:
                        self.answered.release()
            time.sleep(PAUSE)

    def stay(self, number: int) -> None:
        """One connection for all requests; a new one only when it was lost."""
        connection: socket.socket | None = None
        turn = 0
        while not self.stopping.is_set():
            connection = connection or self.connect(number)
            if connection is None:
                continue
            if self.said_goodbye(connection):
                self.count("goodbye")
                connection.close()
                connection = None
                continue
            turn += 1
            if not self.ask(connection, number, turn):
                connection.close()
                connection = None
            elif turn == 1:
                self.answered.release()
            time.sleep(PAUSE)
        if connection is not None:
            connection.close()

    def connect(self, number: int) -> socket.socket | None:
        """A connection from an address of the client's own, or None (counted)."""
        try:
            source = (f"127.0.1.{1 + number}", 0)
            return socket.create_connection(("127.0.0.1", self.port), TIMEOUT, source)
        except OSError as error:
            self.count(_kind(error))
            return None

    def ask(self, connection: socket.socket, number: int, turn: int) -> bool:
        """One request and its answer; whether it came whole and right."""
        request = f"client {number} asks {turn} ".encode().ljust(64, b"x")
        try:
            connection.sendall(request)
            answer = b""
            while len(answer) < len(request):
                part = connection.recv(4096)
                if not part:
                    self.count("early_end")
                    return False
                answer += part
        except OSError as error:
            self.count(_kind(error))
            return False
        right = answer == request.upper()
        self.count("messages" if right else "wrong")
        with self.lock:
            self.course[int((time.monotonic() - self.began) / EVERY)] += 1
        return right

    def said_goodbye(self, connection: socket.socket) -> bool:
        """Whether the server has ended the stream while nothing was asked."""
        # With a timeout Python waits for something to read, whatever the flags are.
        connection.settimeout(0)
        try:
            return connection.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return False  # ask() will meet it and count it
        finally:
            connection.settimeout(TIMEOUT)


def _kind(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "reset"
    return "timeout" if isinstance(error, TimeoutError) else "other"


def main() -> None:
    port, short, long = (int(argument) for argument in sys.argv[1:4])
    clients = Clients(port)
    threads = [threading.Thread(target=clients.come_and_go, args=(n,)) for n in range(short)]
    threads += [threading.Thread(target=clients.stay, args=(short + n,)) for n in range(long)]
    for thread in threads:
        thread.start()
    for _ in threads:
        if not clients.answered.acquire(timeout=TIMEOUT):
            break  # the tally tells why
    print("running", flush=True)
    sys.stdin.readline()
    clients.stopping.set()
    for thread in threads:
        thread.join()
    names = ("messages", "goodbye", "refused", "reset", "early_end", "wrong", "timeout", "other")
    report: dict[str, object] = {name: clients.tally[name] for name in names}
    whole = max(clients.course, default=0)  # the last tenth is not
    course = [clients.course[number] for number in range(whole)]
    report |= {"began": clients.began, "every": EVERY, "course": course}
    print(json.dumps(report), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
