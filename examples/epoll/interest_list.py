"""register, modify, unregister: the three changes to the interest list, which the kernel keeps."""

import select

from shown import names, tcp_pair

client, server = tcp_pair()
epoll = select.epoll()

client.send(b"hello")
print("nobody registered:", epoll.poll(0))

epoll.register(server, select.EPOLLIN)
[(fd, events)] = epoll.poll()
print("registered:", fd == server.fileno(), names(events))

epoll.modify(server, select.EPOLLIN | select.EPOLLOUT)
print("modified:", names(epoll.poll()[0][1]))

try:
    epoll.register(server, select.EPOLLIN)
except FileExistsError as error:
    print("registered twice:", error.strerror)

epoll.unregister(server)
print("unregistered:", epoll.poll(0))

try:
    epoll.modify(server, select.EPOLLIN)
except FileNotFoundError as error:
    print("modified what is not there:", error.strerror)
