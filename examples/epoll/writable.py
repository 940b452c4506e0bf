"""EPOLLOUT: there is room in the socket's send buffer, which is nearly always so."""

import select

from shown import ready, tcp_pair

client, server = tcp_pair()
server.setblocking(False)
epoll = select.epoll()
epoll.register(server, select.EPOLLOUT)
print("a new connection:", ready(epoll), "(a loop that always asks for it never sleeps)")

sent = 0
while epoll.poll(0.05):
    sent += server.send(bytes(65536))
print("the client does not read, and the buffers are full:", ready(epoll))

while sent:
    sent -= len(client.recv(65536))
print("it has read everything:", ready(epoll))
