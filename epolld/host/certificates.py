"""Certificates and keys from the configured files into OpenSSL contexts, one for each service.

The master reads them, before anybody drops privileges and before the fork: so the workers need no
right to read a key, and share the keys of session tickets, by which a client resumes its session
in whichever worker accepts it. A reload makes new contexts; if a file cannot be used, it changes
nothing. Imported only where some service speaks TLS.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from epolld.config import Loaded
from epolld.config.tls import Certificate, Tls
from epolld.errors import ConfigError, Problem
from epolld.host import x509

# Each ticket costs the handshake a key derivation and a record, and a client that comes again needs
# one: it gets a new one then. OpenSSL's default is two, for browsers that open several connections.
TICKETS = 1

DAY = 86400.0
MAX_PEM = 1 << 20  # bytes of a file; longer ones hold something else

# OpenSSL's reasons that say what to do about it better than OpenSSL's words.
REMEDIES = {
    "KEY_VALUES_MISMATCH": "the key does not belong to the certificate; take the pair that was"
    " made together",
    "EE_KEY_TOO_SMALL": "its key is too short to be safe; make another, of 2048 bits or more",
    "CA_MD_TOO_WEAK": "its signature's hash is not safe any more; have it signed anew",
}


class ServerTls(msgspec.Struct, frozen=True, eq=False):
    """What a service needs to speak TLS."""

    context: ssl.SSLContext  # of the first certificate; chooses among the others by SNI
    settings: Tls
    ends: dict[str, int]  # by path of the setting: the certificate's last second since the epoch

    @property
    def ends_first(self) -> int:
        """The last second in which all of the service's certificates are valid."""
        return min(self.ends.values())


class _Unusable(Exception):
    """A file cannot be used: the setting that names it, and why."""

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(reason)
        self.setting = setting


def open_contexts(loaded: Loaded) -> dict[str, ServerTls]:
    """The contexts of all services that speak TLS, by name.

    Raises ConfigError with the place of every file that cannot be used.
    """
    found: dict[str, ServerTls] = {}
    problems = []
    for service in loaded.config.services:
        if service.tls is None:
            continue
        path = f"services.{service.name}.tls"
        try:
            found[service.name] = _open(service.tls)
        except _Unusable as error:
            problems.append(loaded.problem(f"{path}.{error.setting}", str(error)))
    if problems:
        raise ConfigError(problems)
    return found


def expiring(
    loaded: Loaded, contexts: dict[str, ServerTls], now: float | None = None
) -> list[Problem]:
    """A warning for each certificate that has ended, or that ends soon."""
    now = time.time() if now is None else now
    warnings = []
    for name, tls in contexts.items():
        for setting, end in tls.ends.items():
            left = end - now
            if left > tls.settings.expiry_warning:
                continue
            when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(end))
            message = (
                f"the certificate ends in {left / DAY:.0f} days, on {when}; renew it"
                if left >= 0
                else f"the certificate has ended on {when}, and clients refuse it; renew it"
            )
            warnings.append(loaded.problem(f"services.{name}.tls.{setting}", message))
    return warnings


def _open(settings: Tls) -> ServerTls:
    """Read all files of one service. Raises _Unusable."""
    first = Certificate(settings.certificate, settings.key)
    ends = {}
    contexts = []
    named: dict[str, ssl.SSLContext] = {}
    for prefix, pair in _pairs(first, settings.more_certificates):
        facts = _read_certificate(pair.certificate, f"{prefix}certificate")
        context = _configure(settings)
        _load_pair(context, pair, prefix)
        contexts.append(context)
        ends[f"{prefix}certificate"] = facts.not_after
        for name in facts.names:
            named.setdefault(name, context)
    contexts[0].sni_callback = _chooser(named)
    return ServerTls(contexts[0], settings, ends)


def _pairs(first: Certificate, more: tuple[Certificate, ...]) -> Iterator[tuple[str, Certificate]]:
    """Each pair with what stands before its settings in their paths."""
    yield "", first
    for index, pair in enumerate(more):
        yield f"more_certificates.{index}.", pair


def _configure(settings: Tls) -> ssl.SSLContext:
    """A context without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    versions = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
    context.minimum_version = versions[settings.minimum_version]
    # A client could have us do handshakes without end on one connection (CVE-2011-1473).
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = TICKETS
    if settings.ciphers is not None:
        try:
            context.set_ciphers(settings.ciphers)
        except ssl.SSLError:
            raise _Unusable(
                "ciphers", f"OpenSSL knows no cipher in {settings.ciphers!r}; see `openssl ciphers`"
            ) from None
    if settings.alpn:
        context.set_alpn_protocols(list(settings.alpn))
    if settings.ca is not None:
        _read(settings.ca, "ca")
        try:
            context.load_verify_locations(settings.ca)
        except (ssl.SSLError, OSError) as error:
            reason = "holds no certificate in PEM form, or a damaged one"
            raise _Unusable("ca", f"{settings.ca} {reason} ({_words(error)})") from None
    if settings.client_certificates == "optional":
        context.verify_mode = ssl.CERT_OPTIONAL
    elif settings.client_certificates == "required":
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_pair(context: ssl.SSLContext, pair: Certificate, prefix: str) -> None:
    """Load a certificate, its chain and its key. Raises _Unusable."""
    place = f"{prefix}certificate" if pair.key is None else f"{prefix}key"
    key = pair.key or pair.certificate
    if b"PRIVATE KEY-----" not in _read(key, place):
        raise _Unusable(place, f"{key} holds no private key in PEM form; name its file with key:")
    asked = False

    def no_password() -> str:
        nonlocal asked
        asked = True  # nobody is there to type it
        return ""

    try:
        context.load_cert_chain(pair.certificate, pair.key, no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        if asked:
            reason = f"{key} is protected by a password; remove it with `openssl pkey`"
        else:
            reason = REMEDIES.get(getattr(error, "reason", None) or "", "")
            reason = f"{pair.certificate} and {key}: " + (
                reason or f"OpenSSL cannot use them ({_words(error)}); are they written completely?"
            )
        raise _Unusable(place, reason) from None


def _read_certificate(path: str, setting: str) -> x509.Facts:
    """What the first certificate in a file says of itself. Raises _Unusable."""
    data = _read(path, setting)
    try:
        return x509.read_pem(data)
    except ValueError as error:
        raise _Unusable(setting, f"{path} {error}") from None


def _read(path: str, setting: str) -> bytes:
    """A file's content. Raises _Unusable in the words of an operator."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_PEM + 1)
    except FileNotFoundError:
        raise _Unusable(setting, f"there is no file {path}") from None
    except PermissionError:
        raise _Unusable(
            setting, f"{path} is not readable by this user (number {os.geteuid()})"
        ) from None
    except OSError as error:
        raise _Unusable(setting, f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_PEM:
        raise _Unusable(setting, f"{path} is longer than {MAX_PEM >> 20} MiB, and no PEM file")
    return data


def _words(error: Exception) -> str:
    """What OpenSSL says, without the place in Python's own source."""
    return (getattr(error, "reason", None) or str(error)).partition(" (_ssl.c")[0]


def _chooser(named: dict[str, ssl.SSLContext]) -> Callable[[Any, str | None, Any], None]:
    """OpenSSL's question at the beginning of a handshake: whose certificate? (RFC 6066, 3)."""

    def choose(connection: Any, name: str | None, _context: Any) -> None:
        if name is None:
            return
        name = name.lower()
        connection.server_name = name
        # A name of its own comes before one with a wildcard, which stands for one label.
        chosen = named.get(name) or named.get(f"*.{name.partition('.')[2]}")
        if chosen is not None:  # else the first certificate, as all servers do
            connection.context = chosen

    return choose
