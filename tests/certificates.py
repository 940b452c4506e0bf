"""Certificates for tests, made by trustme: files that a configuration can name, and contexts of
clients that trust them. Knows nothing of what is tested with them."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

import trustme


class Authority:
    """A certificate authority with a folder for what it issues."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.folder = folder
        self.file = self.write("ca.pem", self._ca.cert_pem.bytes())

    def write(self, name: str, data: bytes) -> str:
        """Put a file into the folder; returns its path."""
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o644)
        return str(path)

    def issue(self, *names: str, ends: datetime | None = None, file: str = "") -> dict[str, str]:
        """A certificate for `names`; returns the settings that name its files."""
        issued = self._ca.issue_cert(*names, not_after=ends)
        file = file or names[0].replace("*", "star")
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        return {
            "certificate": self.write(f"{file}.pem", chain),
            "key": self.write(f"{file}.key", issued.private_key_pem.bytes()),
        }

    def client(self, pair: dict[str, str] | None = None) -> ssl.SSLContext:
        """The context of a client that trusts us, maybe with a certificate of its own.

        With `suppress_ragged_eofs=False`, its sockets tell an end without close_notify.
        """
        context = ssl.create_default_context(cafile=self.file)
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        if pair is not None:
            context.load_cert_chain(pair["certificate"], pair["key"])
        return context
