"""A service that shows what its worker holds: the objects, by type, and how much is in containers.

For a worker that shall hold, after a million connections, what it held after a hundred thousand.
"""

from __future__ import annotations

import gc
import json
import sys
from collections import Counter, deque

from epolld import Protocol

CONTAINERS = (dict, list, set, deque, bytearray)


class Looking(Protocol):
    """Answers each message with one line of JSON."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        gc.collect()
        gc.unfreeze()  # what a worker has from its start on is there, too
        everything = gc.get_objects()
        gc.freeze()
        objects: Counter[str] = Counter()
        held: Counter[str] = Counter()
        for each in everything:
            kind = type(each)
            objects[f"{kind.__module__}.{kind.__qualname__}"] += 1
            if isinstance(each, CONTAINERS):
                held[kind.__qualname__] += len(each)
        found = {"objects": objects, "held": held, "blocks": sys.getallocatedblocks()}
        self.transport.write(json.dumps(found).encode() + b"\n")
