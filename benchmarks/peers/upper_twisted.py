"""upper on Twisted: a Protocol and an endpoint, as its documentation writes servers."""

import sys

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol


class Upper(Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data.upper())


if __name__ == "__main__":
    port = int(sys.argv[1])
    endpoint = TCP4ServerEndpoint(reactor, port, backlog=1024, interface="127.0.0.1")
    endpoint.listen(Factory.forProtocol(Upper)).addCallback(lambda _: print("ready", flush=True))
    reactor.run()
