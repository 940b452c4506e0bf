"""The settings under a service's `tls`: certificates, and what is asked of clients.

Shape only, as in schema.py. What stands in the files is read by host/certificates.py.
"""

from typing import Annotated, Literal

import msgspec

from epolld.config.kinds import (
    Choice,
    Duration,
    Flag,
    Mappings,
    Path,
    Setting,
    Several,
    Text,
    Whole,
)

MAX_HANDSHAKES = 1_000_000  # more is a typing mistake

KeyFile = Annotated[
    str | None,
    Setting(
        Path("an absolute path"),
        "The PEM file of its key, without a password. Without it: in the certificate's file.",
    ),
]


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate with its chain, and its key."""

    certificate: Annotated[
        str,
        Setting(
            Path("an absolute path"),
            "A PEM file: the certificate, then the certificates between it and the root.",
        ),
    ]
    key: KeyFile = None


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Encrypts a service's connections; without this section they are plain."""

    certificate: Annotated[
        str,
        Setting(
            Path("an absolute path"),
            "A PEM file: the certificate, then the certificates between it and the root. Read by "
            "the master, before it drops privileges, at a start and at each reload.",
        ),
    ]
    key: KeyFile = None
    more_certificates: Annotated[
        tuple[Certificate, ...],
        Setting(
            Mappings(Certificate),
            "Certificates of other names. A client gets the one of the name that it asks for "
            "(SNI), else `certificate`.",
        ),
    ] = ()
    client_certificates: Annotated[
        Literal["none", "optional", "required"],
        Setting(
            Choice("none", "optional", "required"),
            "Whether clients are asked for a certificate; one that `ca` has not signed ends the "
            "handshake.",
        ),
    ] = "none"
    ca: Annotated[
        str | None,
        Setting(
            Path("an absolute path"),
            "A PEM file of the authorities that sign clients' certificates.",
        ),
    ] = None
    minimum_version: Annotated[
        Literal["1.2", "1.3"],
        Setting(Choice("1.2", "1.3"), "The oldest version of TLS that is spoken."),
    ] = "1.2"
    ciphers: Annotated[
        str | None,
        Setting(
            Text("OpenSSL's names of ciphers, with ':' between them"),
            "The ciphers of TLS 1.2, as for `openssl ciphers`. Without it: those that Python "
            "holds safe. Those of TLS 1.3 are OpenSSL's.",
        ),
    ] = None
    alpn: Annotated[
        tuple[str, ...],
        Setting(
            Several(Text("a protocol's name such as imap or h2", r"[\x21-\x7e]{1,255}")),
            "Names of application protocols for ALPN, the preferred one first. Without it: none.",
        ),
    ] = ()
    handshake_timeout: Annotated[
        float,
        Setting(Duration(zero=False), "How long a client may take until TLS is established."),
    ] = 10.0
    max_handshakes: Annotated[
        int,
        Setting(
            Whole(1, MAX_HANDSHAKES),
            "How many handshakes may be under way in a worker, which does about two in a "
            "millisecond. One more ends the one that has waited longest.",
        ),
    ] = 2048
    starttls: Annotated[
        bool,
        Setting(
            Flag(),
            "Connections begin in plain text; the protocol decides when to call "
            "`transport.start_tls()`.",
        ),
    ] = False
    expiry_warning: Annotated[
        float,
        Setting(
            Duration(),
            "`--check` and the log warn of a certificate that ends within this time.",
        ),
    ] = 30 * 86400.0
