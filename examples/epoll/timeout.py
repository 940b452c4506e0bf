"""poll(timeout, maxevents): how long to wait, and how much to hear at once."""

import select
import time

from shown import tcp_pair

epoll = select.epoll()
client, server = tcp_pair()
epoll.register(client, select.EPOLLOUT)
epoll.register(server, select.EPOLLOUT)

print("both are ready:", len(epoll.poll()))
print("but we want one at a time:", len(epoll.poll(maxevents=1)))
# What did not fit is first in line at the next call: nobody starves.
print("the next call tells the other:", epoll.poll(maxevents=1) != epoll.poll(maxevents=1))

epoll.unregister(client)
epoll.unregister(server)
print("0 looks and returns:", epoll.poll(0))
began = time.monotonic()
epoll.poll(0.0001)
print("0.1 ms is rounded up to 1 ms, never down:", time.monotonic() - began >= 0.001)
# poll() or poll(None) or poll(-1) wait for ever. A signal does not end the wait: since Python 3.5
# it runs the handler and waits on for what is left of the time.
