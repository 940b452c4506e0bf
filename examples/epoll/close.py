"""close(): of the epoll object, and of what is registered in it."""

import os
import select

from shown import ready, tcp_pair

client, server = tcp_pair()
client.send(b"hello")
epoll = select.epoll()
epoll.register(server, select.EPOLLIN)

# The interest list holds open files and not numbers: closing one of two descriptors of a file
# does not remove it, and events come for a number that is nobody's. After a fork there are two.
copy = os.dup(server.fileno())
number = server.detach()
os.close(number)
print("closed, but a copy is open:", epoll.poll(0) == [(number, select.EPOLLIN)])
try:
    epoll.unregister(number)
except OSError as error:
    print("too late to unregister:", error.strerror)

os.close(copy)
print("the last copy closed:", ready(epoll))

epoll.close()
print("closed:", epoll.closed)
try:
    epoll.poll(0)
except ValueError as error:
    print(error)
