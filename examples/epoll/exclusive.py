"""EPOLLEXCLUSIVE: of many who wait for one file, wake one. What it may be combined with."""

import select
import socket

listener = socket.create_server(("127.0.0.1", 0))
epoll = select.epoll()
epoll.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
print("register with EPOLLIN: fine")

try:
    epoll.modify(listener, select.EPOLLIN)
except OSError as error:
    print("modify:", error.strerror, "(to pause is to unregister)")

epoll.unregister(listener)
for name in ("EPOLLRDHUP", "EPOLLONESHOT", "EPOLLPRI"):
    try:
        epoll.register(listener, select.EPOLLEXCLUSIVE | getattr(select, name))
    except OSError as error:
        print(f"register with {name}:", error.strerror)
