"""The contract with users: what epolld calls when something happens on a connection.

It is asyncio's `Protocol` to the letter (https://docs.python.org/3/library/asyncio-protocol.html),
so a class that follows asyncio's documentation runs here unchanged, whether or not it inherits
from this one. Order of the calls:

    connection_made  (data_received)*  eof_received?  connection_lost

with `pause_writing` and `resume_writing`, in turn, anywhere between the first and the last.
Exceptions are fenced: one that leaves a callback is logged with the callback's name and the
peer, ends its own connection, and touches nobody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epolld.net.transport import Transport


class Protocol:
    """Base for stream protocols: one instance a connection, made when it is accepted.

    Every method has a sensible default, so a subclass writes only what it needs. Subclasses
    that declare `__slots__` save about 100 bytes a connection.
    """

    __slots__ = ("transport",)

    transport: Transport

    def connection_made(self, transport: Transport) -> None:
        """A client is connected; the default keeps `transport` as `self.transport`."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Some bytes came, at least one; TCP keeps no message boundaries."""

    def eof_received(self) -> bool | None:
        """The peer will send no more (it half-closed, or it is gone).

        Return true to keep the connection open for writing: then ending it is up to you. The
        default closes it, after what is buffered for writing has been sent.
        """
        return None

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection has ended; called exactly once for each `connection_made`.

        `exc` is None after a regular end (EOF, `close()`, `abort()`), else what broke it: an
        OSError of the network, TimeoutError, or the exception that a callback let through.
        """

    def pause_writing(self) -> None:
        """The write buffer went over its high-water mark: please write no more for now."""

    def resume_writing(self) -> None:
        """The write buffer has drained to its low-water mark: writing may go on."""

    # What follows is epolld's own, and asyncio has nothing like it.

    def freeze(self) -> bytes | None:
        """The connection is to move to another worker: return your state, or None for "not now".

        Called between two events. Once bytes were returned this object hears no more, not even
        `connection_lost`: one that is made anew in the other worker gets them in `thaw`. (Should
        that worker die in this very moment, the connection stays and this object goes on.) None:
        it is asked again until the drain deadline. Unread input and unsent output travel by
        themselves. Take yourself off any list through which others write to this connection:
        what they write from here on is lost.

        The default moves what plainly has no state (b""): a class that keeps nothing but
        `transport`, in `__slots__` or otherwise, and that leaves `connection_made` and
        `connection_lost` alone. All others stay, unless they say here what to take along.
        """
        return b"" if keeps_nothing(self, Protocol) else None

    def thaw(self, state: bytes) -> None:
        """Go on with a connection that has moved here; called in place of `connection_made`.

        `self.transport` is set already. `state` is what `freeze` returned, maybe by an older
        version of this class or with other options: raise an exception to refuse it. That is
        logged and closes the connection.
        """

    def draining(self) -> bool | None:
        """The daemon stops or reloads and this connection cannot move: say goodbye and close.

        The default leaves it to the daemon, which closes a connection once it is idle. A class
        that overrides this decides itself when to close, until workers.graceful_timeout; if it
        returns true, it leaves that to the daemon, too.
        """
        return True


def keeps_nothing(protocol: Protocol, base: type[Protocol]) -> bool:
    """Whether the class of `protocol` plainly has no state but that of `base`, which is ours.

    That is: no slots, no attributes, and neither a `connection_made` nor a `connection_lost`.
    """
    cls = type(protocol)
    own = [each for each in cls.__mro__ if not each.__module__.startswith("epolld.net.")]
    return (
        cls.connection_made is base.connection_made
        and cls.connection_lost is base.connection_lost
        and not any(vars(each).get("__slots__") for each in own)
        and not getattr(protocol, "__dict__", None)
    )
