"""Runs what cannot be undone in a process of its own."""

import os
from collections.abc import Callable


def in_child(work: Callable[[], object]) -> str:
    """Run `work` in a forked child; repr of what it returned, or the error."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(write_fd, repr(work()).encode())
        except BaseException as error:
            os.write(write_fd, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd, "rb") as file:
        text = file.read().decode()
    os.waitpid(pid, 0)
    return text
