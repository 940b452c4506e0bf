"""Resource limits of the process."""

import resource


def raise_open_files() -> int:
    """Let the process open as many files as it may; returns how many.

    The soft limit (1024 as a rule) is for programs that use select(2), which cannot count
    further; epoll can, so the hard limit is right for us. Children inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
