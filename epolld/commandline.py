"""What the command lines of `epolld`, `epolldctl` and `epolld-client` have in common."""

import argparse
import sys
from typing import NoReturn

from epolld.errors import ExitCode


class Parser(argparse.ArgumentParser):
    """argparse, with the documented exit code for a command line that is wrong (64)."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}\n")
