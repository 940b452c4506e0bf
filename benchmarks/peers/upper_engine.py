"""upper on epolld's engine alone, in one process without a master. Argument: the port.

For callgrind, which does not know all the system calls that a master makes. What a message costs
is the same: a worker serves it with exactly these parts.
"""

import socket
import sys

from epolld.net.acceptor import Gate
from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.services.upper import Upper


def main() -> None:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
    listener.setblocking(False)
    loop = EventLoop()
    Gate(loop).add(listener, Service(loop, "upper", Upper))
    print("ready", flush=True)
    loop.run()


if __name__ == "__main__":
    main()
