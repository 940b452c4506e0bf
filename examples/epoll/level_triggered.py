"""Level-triggered, the default: ready for as long as there is something to read."""

import select

from shown import ready, tcp_pair

client, server = tcp_pair()
epoll = select.epoll()
epoll.register(server, select.EPOLLIN)

client.send(b"hello")
print("5 bytes came:", ready(epoll))
print("and nobody has read:", ready(epoll))
server.recv(2)
print("2 of them read:", ready(epoll))
server.recv(3)
print("all read:", ready(epoll))
