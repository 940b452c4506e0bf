"""What a child process says over its channel, as the keepers of workers and exporters hear it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from epolld import channel as words
from epolld.channel import Channel, ChannelClosed
from epolld.net.loop import EventLoop

log = logging.getLogger("epolld.master")


def hear(loop: EventLoop, channel: Channel, who: object) -> Iterator[words.AnyMessage]:
    """All that has been said by now; what makes no sense is logged as that of `who`.

    A child that has closed its end is listened to no more: its pidfd tells the rest.
    """
    while True:
        try:
            received = channel.receive()
        except ChannelClosed:
            loop.unregister(channel.fileno())
            return
        except ValueError as error:
            log.error("%s: %s", who, error)
            continue
        if received is None:
            return
        message, descriptors = received
        for fd in descriptors:  # none is expected
            os.close(fd)
        yield message
