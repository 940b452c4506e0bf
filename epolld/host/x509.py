"""What a certificate says of itself: the names that it is for, and until when.

Reads DER (ITU-T X.690) just as far as these need, since Python's ssl shows what is in a peer's
certificate but not in one's own. Checks no signature and opens no file: OpenSSL judges whether a
certificate is any good.
"""

from __future__ import annotations

import binascii
import calendar
import re
from collections.abc import Iterator
from typing import NamedTuple

# Tags (X.680, 8.4), as the identifier octet stands in the encoding.
OCTET_STRING = 0x04
OBJECT = 0x06
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
SEQUENCE = 0x30
SET = 0x31
VERSION = 0xA0  # [0] of TBSCertificate (RFC 5280, 4.1)
EXTENSIONS = 0xA3  # [3]
DNS_NAME = 0x82  # [2] of GeneralName (RFC 5280, 4.2.1.6)

COMMON_NAME = bytes.fromhex("550403")  # 2.5.4.3
SUBJECT_ALT_NAME = bytes.fromhex("551d11")  # 2.5.29.17

_PEM = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([A-Za-z0-9+/=\s]*)"
    rb"-----END (?:X509 |TRUSTED )?CERTIFICATE-----"
)
_TIME = re.compile(rb"(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z")


class Facts(NamedTuple):
    """What is read from a certificate."""

    names: tuple[str, ...]  # in lower case; maybe with a leading "*."
    not_before: int  # seconds since the epoch
    not_after: int  # the last second in which it is valid


class Element(NamedTuple):
    """One DER element."""

    tag: int
    content: bytes


def read_pem(data: bytes) -> Facts:
    """The facts of the first certificate in PEM text. Raises ValueError."""
    found = _PEM.search(data)
    if found is None:
        raise ValueError("holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
    try:
        der = binascii.a2b_base64(found[1])
    except binascii.Error as error:
        raise ValueError(f"its base64 is damaged: {error}") from None
    return read_der(der)


def read_der(der: bytes) -> Facts:
    """The facts of a certificate in DER. Raises ValueError."""
    certificate = _expect(next(_elements(der), None), SEQUENCE)
    fields = list(_elements(_expect(next(_elements(certificate), None), SEQUENCE)))
    if fields and fields[0].tag == VERSION:
        del fields[0]
    if len(fields) < 6:  # serial number, algorithm, issuer, validity, subject, key
        raise ValueError("is no certificate: fields are missing")
    times = list(_elements(_expect(fields[3], SEQUENCE)))
    if len(times) != 2:
        raise ValueError("is no certificate: its validity is not two times")
    names = [name for field in fields[6:] if field.tag == EXTENSIONS for name in _dns_names(field)]
    if not names:  # as browsers did before RFC 6125, and self-made certificates still want it
        names = _common_names(_expect(fields[4], SEQUENCE))
    lower = tuple(dict.fromkeys(name.lower() for name in names))
    return Facts(lower, _time(times[0]), _time(times[1]))


def _elements(data: bytes) -> Iterator[Element]:
    """The elements that stand one after another in `data`. Raises ValueError."""
    at = 0
    while at < len(data):
        if at + 2 > len(data) or data[at] & 0x1F == 0x1F:  # tags of several octets do not occur
            raise ValueError("is no certificate: its DER is damaged")
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:  # the long form: so many octets of length follow
            size = length & 0x7F
            if not 1 <= size <= 4 or at + size > len(data):
                raise ValueError("is no certificate: its DER is damaged")
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise ValueError("is no certificate: its DER is cut off")
        yield Element(tag, data[at : at + length])
        at += length


def _expect(element: Element | None, tag: int) -> bytes:
    if element is None or element.tag != tag:
        raise ValueError("is no certificate: its DER has another form")
    return element.content


def _dns_names(extensions: Element) -> Iterator[str]:
    """The DNS names among the subject's alternative names."""
    for extension in _elements(_expect(next(_elements(extensions.content), None), SEQUENCE)):
        parts = list(_elements(_expect(extension, SEQUENCE)))
        if len(parts) < 2 or parts[0] != (OBJECT, SUBJECT_ALT_NAME):
            continue  # between the two there may be a BOOLEAN, "critical"
        names = _expect(next(_elements(_expect(parts[-1], OCTET_STRING)), None), SEQUENCE)
        for name in _elements(names):
            if name.tag == DNS_NAME:
                yield name.content.decode("ascii", "replace")


def _common_names(subject: bytes) -> list[str]:
    """The subject's common names."""
    found = []
    for relative in _elements(subject):
        for attribute in _elements(_expect(relative, SET)):
            parts = list(_elements(_expect(attribute, SEQUENCE)))
            if len(parts) == 2 and parts[0] == (OBJECT, COMMON_NAME):
                found.append(parts[1].content.decode("utf-8", "replace"))
    return found


def _time(element: Element) -> int:
    """UTCTime or GeneralizedTime as RFC 5280 wants them: with seconds, in Greenwich."""
    found = _TIME.fullmatch(element.content)
    if found is None or element.tag not in (UTC_TIME, GENERALIZED_TIME):
        raise ValueError("is no certificate: a time of its validity is in another form")
    year, month, day, hour, minute, second = map(int, found.groups())
    if element.tag == UTC_TIME:
        year += 1900 if year >= 50 else 2000
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61):
        raise ValueError("is no certificate: a time of its validity does not exist")
    return calendar.timegm((year, month, day, hour, minute, second))
