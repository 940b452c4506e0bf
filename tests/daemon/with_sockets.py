"""Runs a command with listening sockets as systemd passes them: numbers from 3 on, LISTEN_PID.

    with_sockets.py ADDRESS[,ADDRESS...] COMMAND...

An address is a port of 127.0.0.1, or the path of a Unix socket.
"""

import os
import socket
import sys

for number, address in enumerate(sys.argv[1].split(","), 3):
    if address.isdigit():
        sock = socket.create_server(("127.0.0.1", int(address)))
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(address)
        sock.listen()
    fd = sock.detach()
    if fd == number:
        os.set_inheritable(fd, True)
    else:
        os.dup2(fd, number, inheritable=True)
        os.close(fd)
os.environ["LISTEN_FDS"] = str(len(sys.argv[1].split(",")))
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
