"""For developing: asks the master for a reload when a file of the user's code has changed.

A worker knows which modules it has imported, and the master imports none, so the worker watches.
What it did not get to import, because something before it was broken, mostly lies beside what it
did: so the folders are watched whole.
"""

from __future__ import annotations

import logging
import os
import signal
import site
import sys
import sysconfig
from collections.abc import Callable

import epolld
from epolld.net.loop import EventLoop

log = logging.getLogger("epolld.worker")

LOOK = 0.25  # seconds between two looks

# A file's time comes from a clock that ticks a few times slower than the one that we read.
COARSE = 20_000_000  # ns

Stamp = tuple[int, int, int]  # time of change in ns, size, inode


class CodeWatch:
    """Looks at the files now and then; `born` is when the worker began to import, in ns.

    Stops looking when `is_wanted()` is false.
    """

    def __init__(self, loop: EventLoop, born: int, is_wanted: Callable[[], bool]) -> None:
        self._loop = loop
        self._master = os.getppid()
        self._is_wanted = is_wanted
        self._seen = self._stamps()
        # Changed between the import and now: what runs may be older.
        born -= COARSE
        self._changed = next((path for path, at in self._seen.items() if at[0] >= born), "")

    def look(self) -> None:
        """Compare; when a change is over, ask for the reload."""
        if not self._is_wanted() or os.getppid() != self._master:
            return
        self._loop.call_later(LOOK, self.look)
        before, self._seen = self._seen, self._stamps()
        folders = {os.path.dirname(path) for path in before}
        different = [
            path
            for path in sorted(before.keys() | self._seen.keys())
            # A folder that was not known yet: something in it has just been imported.
            if before.get(path) != self._seen.get(path) and os.path.dirname(path) in folders
        ]
        if different:
            self._changed = different[0]  # there may be more to come: an editor, a checkout
        elif self._changed:
            log.info("%s has changed: asking for a reload", self._changed)
            self._changed = ""
            os.kill(self._master, signal.SIGHUP)

    def _stamps(self) -> dict[str, Stamp]:
        """All modules in the folders of those that were imported and are the user's."""
        found: dict[str, Stamp] = {}
        for folder in user_folders():
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.endswith(".py"):
                            stat = entry.stat()
                            found[entry.path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            except OSError:  # removed meanwhile
                continue
        return found


def user_folders() -> set[str]:
    """The folders of the modules that are neither Python's, nor installed, nor ours."""
    own = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    own += [*site.getsitepackages(), site.getusersitepackages(), os.path.dirname(epolld.__file__)]
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    folders = {os.path.dirname(os.path.abspath(file)) for file in files if isinstance(file, str)}
    return {f for f in folders if not any(f"{f}/".startswith(f"{path}/") for path in own)}
