"""The access logs of one worker: which service writes to which."""

from __future__ import annotations

import os

from epolld.accesslog import AccessLog, open_log
from epolld.host.generation import Assignment
from epolld.net.loop import EventLoop
from epolld.net.service import Service
from epolld.net.transport import Transport

AccessLogs = dict[bool | str, AccessLog]  # by the setting `access_log`


def open_access_logs(assignment: Assignment) -> AccessLogs:
    """The access logs of all services; raises PathError.

    While there is still the right to open them, as the daemon's log.
    """
    config = assignment.generation.config
    wanted = {each.access_log for each in config.services if each.access_log}
    os.umask(config.master.umask)
    return {target: open_log(target, config.logging.format) for target in wanted}


def log_ends(service: Service, access_log: AccessLog, loop: EventLoop) -> None:
    """Write a line for each connection of this service that ends."""

    def on_end(transport: Transport, cause: str) -> None:
        access_log.write(
            service.name,
            transport.describe_peer(),
            transport.id,
            loop.now - transport.opened,
            transport.bytes_in,
            transport.bytes_out,
            cause,
        )

    service.on_end = on_end
