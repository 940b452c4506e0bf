"""A protocol that tells what its process may do, and tries what it is told."""

import os
import subprocess

from epolld import Protocol


class Tells(Protocol):
    """Answers with what it found, or with the name of the error."""

    def data_received(self, data: bytes) -> None:
        try:
            found = getattr(self, data.decode().strip())()
        except OSError as error:
            found = type(error).__name__
        self.transport.write(f"{found}\n".encode())

    def root(self) -> str:
        """What is in the root directory."""
        return " ".join(sorted(os.listdir("/")))

    def whoami(self) -> str:
        """The user's number."""
        return str(os.getuid())

    def become_root(self) -> str:
        """Try to."""
        os.setuid(0)
        return "root again"

    def escape(self) -> str:
        """Try to leave the root directory by entering another."""
        os.chroot("/")
        return "escaped"

    def inherited(self) -> str:
        """What a program finds open that this process executes, however carelessly."""
        done = subprocess.run(["ls", "/proc/self/fd"], capture_output=True, close_fds=False)
        return done.stdout.decode().replace("\n", " ")

    def fork(self) -> str:
        """Try to."""
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return "forked"
