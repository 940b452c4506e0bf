"""`epolld --dev package.module:Handler`: a configuration for developing, made up for one run.

One worker, all log lines, tracebacks, and a reload at each change of the code. It is a file like
any other, in a folder that is removed in the end; so the rest of the program knows nothing of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator

BIND = "127.0.0.1:1688"

TEXT = """\
master:
  runtime_directory: {folder}
workers:
  count: 1
  reload_on_change: true
  graceful_timeout: 2s        # old code does not stay for long
logging:
  level: debug
  format: console
services:
  - name: {name}
    protocol: {protocol}
    bind: {bind}
"""


@contextlib.contextmanager
def configuration(protocol: str) -> Iterator[str]:
    """The path of a configuration that serves `protocol`; removed when the `with` is left."""
    folder = tempfile.mkdtemp(prefix="epolld-dev-")
    maker = os.getpid()
    try:
        path = os.path.join(folder, "epolld.yaml")
        with open(path, "w") as file:
            file.write(
                TEXT.format(
                    folder=os.path.join(folder, "run"),
                    name=service_name(protocol),
                    protocol=quoted(protocol),
                    bind=BIND,
                )
            )
        yield path
    finally:
        if os.getpid() == maker:  # not in a worker
            shutil.rmtree(folder, ignore_errors=True)


def service_name(protocol: str) -> str:
    """What the service is called: `Handler` for package.module:Handler."""
    last = re.split(r"[:.]", protocol)[-1]
    return last if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", last) else "dev"


def quoted(text: str) -> str:
    """As a YAML text, whatever is in it: the checker shall say what is wrong with it."""
    return "'" + text.replace("'", "''") + "'"
