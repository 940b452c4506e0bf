"""EPOLLONESHOT: reported once, then disarmed until modify() arms it again.

For threads that share one epoll object: while one of them serves a connection, no other is woken
for it. A loop of one thread has no use for it.
"""

import select

from shown import ready, tcp_pair

client, server = tcp_pair()
epoll = select.epoll()
epoll.register(server, select.EPOLLIN | select.EPOLLONESHOT)

client.send(b"one")
print("3 bytes came:", ready(epoll))
client.send(b"two")
print("3 more came:", ready(epoll))
epoll.modify(server, select.EPOLLIN | select.EPOLLONESHOT)
print("armed again:", ready(epoll))
