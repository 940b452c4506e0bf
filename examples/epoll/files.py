"""What can be waited for: everything that can make one wait. A file on a disk cannot."""

import os
import select

epoll = select.epoll()
with open(__file__) as file:
    print("select says: always ready:", bool(select.select([file], [], [], 0)[0]))
    try:
        epoll.register(file, select.EPOLLIN)
    except PermissionError as error:
        print("epoll says:", error.strerror)

# A pipe can, and so can what Linux has made a descriptor of: a counter, a process, a timer.
reader, writer = os.pipe()
counter = os.eventfd(0)
process = os.pidfd_open(os.getpid())
for fd in (reader, counter, process):
    epoll.register(fd, select.EPOLLIN)
os.write(writer, b"hello")
os.eventfd_write(counter, 1)
print("ready:", sorted(fd for fd, _ in epoll.poll()) == [reader, counter])
