"""upper on the standard library's socketserver: a thread a connection."""

import sys
from socketserver import BaseRequestHandler, ThreadingTCPServer


class Upper(BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data.upper())


class Server(ThreadingTCPServer):
    request_queue_size = 1024
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Upper) as server:
        print("ready", flush=True)
        server.serve_forever()
