"""Clients that only the soak has: slow ones, and a crowd above a limit."""

from __future__ import annotations

import re
import socket
import time

from accounts import Load

REFUSAL = b"too many\n"


class SlowLoad(Load):
    """Sends its questions in pieces and reads the long answers (`served:Ample`) bit by bit."""

    def _ask(self, sock: socket.socket, number: int) -> int:
        question = b"question %d\n" % number
        for piece in (question[:3], question[3:-1], question[-1:]):
            sock.sendall(piece)
            time.sleep(0.02)
        answer = bytearray()
        while not answer.endswith(b"\n"):
            if not (more := sock.recv(20_000)):
                raise EOFError(f"the end in place of answer {number}, after {len(answer)} bytes")
            answer += more
            time.sleep(0.01)
        match = re.fullmatch(rb"(\d+) QUESTION (\d+) \.{200000}\n", answer)
        if match is None or int(match[2]) != number:
            raise ValueError(f"{bytes(answer[:60])!r} answers question {number}")
        return int(match[1])


class Crowd(Load):
    """More clients than a limit allows: each is served, or sent away with the words for it."""

    sent_away = 0

    def _ask(self, sock: socket.socket, number: int) -> int:
        try:
            return super()._ask(sock, number)
        except ValueError as error:
            if REFUSAL[:-1].decode() not in str(error):
                raise
        except ConnectionError:  # the question met a connection that was over
            pass
        self.sent_away += 1
        raise SentAway

    def judge(self) -> None:
        """Being sent away is what the limit is for."""
        self.troubles = [each for each in self.troubles if "SentAway" not in each.text]
        super().judge()


class SentAway(EOFError):
    """The limit has done its work."""
