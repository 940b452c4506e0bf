"""What the examples share: events by name, and two ends of a TCP connection."""

import select
import socket

NAMES = ("EPOLLIN", "EPOLLOUT", "EPOLLERR", "EPOLLHUP", "EPOLLRDHUP", "EPOLLET", "EPOLLONESHOT")


def names(events: int) -> str:
    """`EPOLLIN|EPOLLHUP` for 0x11."""
    return "|".join(name for name in NAMES if events & getattr(select, name)) or "nothing"


def ready(poller: select.epoll) -> str:
    """What is ready, or `nothing` if that lasts for 50 ms."""
    return ", ".join(names(events) for _, events in poller.poll(0.05)) or "nothing"


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of one connection: what a client has, and what the server's accept returned."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]
