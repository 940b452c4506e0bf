"""epolld.host.x509: the facts of certificates, against another implementation, and any damage."""

import datetime
from pathlib import Path

import pytest
import trustme
from cryptography import x509 as oracle
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from epolld.host.x509 import read_der, read_pem

CA = trustme.CA()
ISSUED = CA.issue_cert("Example.ORG", "*.example.org", "192.0.2.1", common_name="ignored")
PEM = ISSUED.cert_chain_pems[0].bytes()
DER = oracle.load_pem_x509_certificate(PEM).public_bytes(Encoding.DER)
SYSTEM = Path("/etc/ssl/certs/ca-certificates.crt")


def test_names_and_times() -> None:
    facts = read_pem(b"# a comment before it\n" + PEM + CA.cert_pem.bytes())
    assert facts.names == ("example.org", "*.example.org")
    certificate = oracle.load_pem_x509_certificate(PEM)
    assert facts.not_before == certificate.not_valid_before_utc.timestamp()
    assert facts.not_after == certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize("year", [1999, 2049, 2050, 2150])
def test_both_forms_of_a_time(year: int) -> None:
    """Up to 2049 the year has two digits, from 2050 on four (RFC 5280, 4.1.2.5)."""
    end = datetime.datetime(year, 12, 31, 23, 59, 58, tzinfo=datetime.UTC)
    start = datetime.datetime(1990, 1, 1, tzinfo=datetime.UTC)
    issued = CA.issue_cert("x", not_before=start, not_after=end)
    assert read_pem(issued.cert_chain_pems[0].bytes()).not_after == end.timestamp()


def test_without_alternative_names_the_common_name_counts() -> None:
    facts = read_pem(CA.cert_pem.bytes())  # the authority's own has none at all
    assert facts.names == ()
    key, start = ec.generate_private_key(ec.SECP256R1()), datetime.datetime(2020, 1, 1)
    name = oracle.Name([oracle.NameAttribute(oracle.NameOID.COMMON_NAME, "Old.example")])
    builder = oracle.CertificateBuilder(name, name, key.public_key(), 1, start, start)
    pem = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    assert read_pem(pem).names == ("old.example",)


@pytest.mark.filterwarnings("ignore::Warning")  # old ones, of which the oracle disapproves
def test_the_systems_own_certificates() -> None:
    """Real ones, of many makers; where the package ca-certificates is not there, none."""
    system = SYSTEM.read_bytes() if SYSTEM.exists() else b""
    for block in system.split(b"-----END CERTIFICATE-----\n")[:-1]:
        pem = block + b"-----END CERTIFICATE-----\n"
        certificate = oracle.load_pem_x509_certificate(pem)
        facts = read_pem(pem)
        assert facts.not_before == certificate.not_valid_before_utc.timestamp()
        assert facts.not_after == certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "holds no certificate in PEM form"),
        (PEM[:-30], "holds no certificate in PEM form"),
        (ISSUED.private_key_pem.bytes(), "holds no certificate in PEM form"),
        (PEM.replace(b"\n", b"\nA", 1).replace(b"=", b""), "base64 is damaged|is no certificate"),
    ],
)
def test_what_is_no_pem(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_pem(data)


def element(tag: int, content: bytes) -> bytes:
    """One element of DER."""
    size = len(content)
    return bytes([tag, size] if size < 128 else [tag, 0x82, size >> 8, size & 255]) + content


def certificate(validity: bytes = b"", fields: int = 6) -> bytes:
    """A certificate with hardly anything in it."""
    parts = [element(0x02, b"1"), element(0x30, b""), element(0x30, b""), element(0x30, validity)]
    parts += [element(0x30, b"")] * 2
    return element(0x30, element(0x30, b"".join(parts[:fields])))


@pytest.mark.parametrize(
    ("der", "reason"),
    [
        (certificate(fields=5), "fields are missing"),
        (certificate(element(0x17, b"300101000000Z")), "its validity is not two times"),
        (certificate(element(0x17, b"301301000000Z") * 2), "a time .* does not exist"),
        (certificate(element(0x17, b"300101250000Z") * 2), "a time .* does not exist"),
        (certificate(element(0x17, b"3001010000Z") * 2), "in another form"),
    ],
)
def test_what_is_no_certificate(der: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_der(der)


def test_a_certificate_with_hardly_anything_in_it() -> None:
    """What the damaged ones above are made from is sound."""
    facts = read_der(certificate(element(0x17, b"300101000000Z") * 2))
    assert facts.not_after == 1893456000


def test_damaged_base64() -> None:
    with pytest.raises(ValueError, match="its base64 is damaged"):
        read_pem(b"-----BEGIN CERTIFICATE-----\nMIIBC\n-----END CERTIFICATE-----\n")


@given(st.data())
def test_damage_is_a_value_error_or_does_not_matter(data: st.DataObject) -> None:
    damaged = bytearray(DER)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(DER) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(DER)))
    for der in (bytes(damaged), bytes(damaged[:end])):
        try:
            read_der(der)
        except ValueError:
            continue


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(ValueError, match="is no certificate"):
        read_der(data)
