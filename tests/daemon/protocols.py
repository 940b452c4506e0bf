"""Protocols for the tests, as a user would write them."""

import ctypes
import logging
import os

from epolld import Protocol, Transport


class Who(Protocol):
    """Says which process serves, and then at each byte again."""

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport
        self.say()

    def data_received(self, data: bytes) -> None:
        self.say()

    def say(self) -> None:
        self.transport.write(b"%d\n" % os.getpid())


class Trouble(Who):
    """Does what it is told, and it is told bad things."""

    def data_received(self, data: bytes) -> None:
        getattr(self, data.decode().strip())()

    def spin(self) -> None:
        """Never come back."""
        while True:
            pass

    def block(self) -> None:
        """Never come back, and hold the interpreter's lock: a mutex is taken twice."""
        mutex = ctypes.create_string_buffer(64)
        lock = ctypes.PyDLL(None).pthread_mutex_lock
        lock(mutex)
        lock(mutex)


class Talker(Who):
    """Logs what it hears, at a level of no importance."""

    def data_received(self, data: bytes) -> None:
        logging.getLogger("talker").debug("heard %r", data)
        self.say()


class AnyOptions(Protocol):
    """Takes whatever it is configured with."""

    def __init__(self, **options: object) -> None:
        self.options = options


class Generous(Protocol):
    """Writes eight megabytes at once, and reads nothing."""

    def connection_made(self, transport: Transport) -> None:
        transport.pause_reading()
        transport.write(bytes(8 << 20))
