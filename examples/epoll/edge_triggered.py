"""EPOLLET, edge-triggered: reported once when something comes, and not again for what is left."""

import contextlib
import select

from shown import ready, tcp_pair

client, server = tcp_pair()
server.setblocking(False)
epoll = select.epoll()
epoll.register(server, select.EPOLLIN | select.EPOLLET)

client.send(b"hello")
print("5 bytes came:", ready(epoll))
server.recv(2)
print("2 of them read:", ready(epoll), "(3 bytes lie there, and nobody will tell)")
client.send(b"!")
print("1 more came:", ready(epoll))

# So who uses EPOLLET reads until the kernel says EAGAIN: one more system call a message.
text = b""
with contextlib.suppress(BlockingIOError):
    while True:
        text += server.recv(2)
print("read until EAGAIN:", text)
