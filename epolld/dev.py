"""`epolld --dev package.module:Handler`: a configuration for developing, made up for one run.

One worker, all log lines, tracebacks, and a reload at each change of the code. It is a file like
any other, in a folder that is removed in the end; so the rest of the program knows nothing of it.
The service comes from the command line (`Overrides.dev`), which so is what errors name.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator

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
"""


@contextlib.contextmanager
def configuration() -> Iterator[str]:
    """The path of a configuration without services; removed when the `with` is left."""
    folder = tempfile.mkdtemp(prefix="epolld-dev-")
    maker = os.getpid()
    try:
        path = os.path.join(folder, "epolld.yaml")
        with open(path, "w") as file:
            file.write(TEXT.format(folder=os.path.join(folder, "run")))
        yield path
    finally:
        if os.getpid() == maker:  # not in a worker
            shutil.rmtree(folder, ignore_errors=True)
