"""Resource limits of the process."""

import resource

RESERVE = 64  # descriptors that a worker needs beside connections and listeners


def raise_open_files() -> int:
    """Let the process open as many files as it may; returns how many.

    The soft limit (1024 as a rule) is for programs that use select(2), which cannot count
    further; epoll can, so the hard limit is right for us. Children inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def warn_of_shortage(max_connections: int, listeners: int) -> str:
    """A sentence if a worker may not open as many files as it may hold connections, else ""."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + listeners + RESERVE
    if limit == resource.RLIM_INFINITY or limit >= wanted:
        return ""
    return (
        f"workers.max_connections is {max_connections}, but a process may open only {limit} files;"
        f" raise LimitNOFILE (ulimit -n) to {wanted}"
    )
