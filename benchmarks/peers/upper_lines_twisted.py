"""Peer: the line server as Twisted's documentation writes one, on its own choice of reactor."""

import sys

from twisted.internet import protocol, reactor
from twisted.protocols.basic import LineReceiver


class Upper(LineReceiver):
    """Answers each line with the line in upper case."""

    delimiter = b"\n"

    def lineReceived(self, line):
        self.sendLine(line.upper())


if __name__ == "__main__":
    factory = protocol.Factory.forProtocol(Upper)
    reactor.listenTCP(int(sys.argv[1]), factory, backlog=1024, interface="127.0.0.1")
    reactor.callWhenRunning(print, "ready", flush=True)
    reactor.run()
