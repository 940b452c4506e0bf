"""fileno(): an epoll object is a descriptor, too, and so can be waited for in another one."""

import select

from shown import ready, tcp_pair

client, server = tcp_pair()
inner, outer = select.epoll(), select.epoll()
inner.register(server, select.EPOLLIN)
outer.register(inner.fileno(), select.EPOLLIN)

print("nothing came:", ready(outer))
client.send(b"hello")
print("the inner one has news:", ready(outer))
server.recv(5)
print("they are read:", ready(outer))
