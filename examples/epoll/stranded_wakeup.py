"""The stranded wake-up: the one worker that was woken does not accept, and the others sleep."""

import os
import select
import signal
import socket

from workers import forked, wait_until_asleep

listener = socket.create_server(("127.0.0.1", 0))


def work(number: int) -> None:
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
    signal.signal(signal.SIGALRM, lambda *_: join_again(epoll))  # the tick of a real worker
    epoll.poll()
    if number == 0:
        os._exit(1)  # woken, and dead before it accepts
    connection, _ = listener.accept()
    connection.send(b"worker %d" % number)


def join_again(epoll: select.epoll) -> None:
    """The cure: to register polls the file again, and so tells what woke somebody else."""
    epoll.unregister(listener)
    epoll.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)


with forked(2, work) as pids, socket.create_connection(listener.getsockname()) as client:
    os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOWAIT)
    wait_until_asleep(pids[1])
    answer = select.select([client], [], [], 0.2)[0]
    print("the first worker was woken and died; the client has an answer:", bool(answer))
    os.kill(pids[1], signal.SIGALRM)
    print("the second one registered again; the client is served by", client.recv(100).decode())
