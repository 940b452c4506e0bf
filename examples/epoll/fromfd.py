"""fromfd(): a second Python object for the same epoll object in the kernel.

So it is after a fork: parent and child hold two descriptors of one interest list, and who changes
it changes it for both. A child closes its copy and never unregisters through it.
"""

import os
import select

from shown import ready, tcp_pair

client, server = tcp_pair()
client.send(b"hello")

epoll = select.epoll()
same = select.epoll.fromfd(os.dup(epoll.fileno()))
epoll.register(server, select.EPOLLIN)
print("registered by one, seen by the other:", ready(same))

if (child := os.fork()) == 0:
    epoll.unregister(server)  # the mistake
    os._exit(0)
os.waitpid(child, 0)
print("unregistered by the child:", ready(epoll))
