"""EPOLLRDHUP, EPOLLHUP, EPOLLERR: the three ways to hear that the other side is leaving."""

import select
import socket
import struct

from shown import names, tcp_pair

NEVER_ASKED_FOR = 0  # ERR and HUP come all the same
epoll = select.epoll()


def show(what: str, server: socket.socket) -> None:
    print(f"{what}: {names(epoll.poll()[0][1])}")
    epoll.unregister(server)


client, server = tcp_pair()
client.shutdown(socket.SHUT_WR)  # "I have said all; I still listen"
epoll.register(server, select.EPOLLIN)
show("half-closed, asked for IN", server)
epoll.register(server, select.EPOLLIN | select.EPOLLRDHUP)
show("half-closed, asked for IN and RDHUP", server)

server.shutdown(socket.SHUT_WR)  # now both have said all
epoll.register(server, NEVER_ASKED_FOR)
show("closed by both, asked for nothing", server)

client, server = tcp_pair()
client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
client.close()  # with a reset instead of a goodbye
epoll.register(server, NEVER_ASKED_FOR)
show("reset, asked for nothing", server)
try:
    server.recv(1)
except ConnectionResetError as error:
    print("and recv says:", error.strerror)
