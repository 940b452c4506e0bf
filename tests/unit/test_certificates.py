"""epolld.host.certificates: contexts from files, and every reason why there are none."""

import contextlib
import datetime
import os
import ssl
import subprocess
import sys
from pathlib import Path

import needs
import pytest
import yaml
from certificates import Authority

from epolld.config import Loaded, loads
from epolld.errors import ConfigError
from epolld.host.certificates import DAY, ServerTls, expiring, open_contexts


@pytest.fixture(name="ca")
def _ca(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def loaded(tls: dict[str, object]) -> Loaded:
    """A configuration with one service that speaks TLS; its settings stand on lines 5 and on."""
    service = {"name": "upper", "bind": "127.0.0.1:1", "tls": tls}
    return loads(yaml.safe_dump({"services": [service]}, sort_keys=False), "f.yaml")


def opened(tls: dict[str, object]) -> ServerTls:
    """What the settings open."""
    return open_contexts(loaded(tls))["upper"]


def problem(tls: dict[str, object]) -> str:
    """The one problem with the settings."""
    with pytest.raises(ConfigError) as caught:
        opened(tls)
    (found,) = caught.value.problems
    return str(found)


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after a handshake in memory: client's, server's. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    if name is None:
        client.check_hostname = False
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends


def test_a_pair(ca: Authority) -> None:
    tls = opened({**ca.issue("example.org")})
    client, server = handshake(tls.context, ca.client(), "example.org")
    assert client.version() == "TLSv1.3"
    assert server.server_name == "example.org"  # type: ignore[attr-defined]


def test_one_file_with_both(ca: Authority) -> None:
    pair = ca.issue("example.org")
    both = Path(pair["key"]).read_bytes() + Path(pair["certificate"]).read_bytes()
    tls = opened({"certificate": ca.write("both.pem", both)})
    handshake(tls.context, ca.client(), "example.org")


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("one.org", "one.org"),
        ("ONE.org", "one.org"),
        ("two.org", "two.org"),
        ("exact.two.org", "exact.two.org"),
        ("x.two.org", "*.two.org"),
        ("a.b.two.org", "one.org"),
        ("unknown", "one.org"),
        (None, "one.org"),
    ],
)
def test_the_certificate_of_the_name_that_is_asked_for(
    ca: Authority, asked: str | None, got: str
) -> None:
    others = [ca.issue("two.org", "*.two.org"), ca.issue("exact.two.org"), ca.issue("one.org")]
    tls = opened({**ca.issue("one.org", file="first"), "more_certificates": others})
    trusting = ca.client()
    trusting.check_hostname = False
    client, server = handshake(tls.context, trusting, asked)
    certificate = client.getpeercert()
    assert certificate is not None
    assert ("DNS", got) in certificate["subjectAltName"]
    assert (server.context is tls.context) is (got == "one.org")


def test_versions_ciphers_and_alpn(ca: Authority) -> None:
    pair = ca.issue("x")
    old = ca.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        handshake(opened({**pair, "minimum_version": "1.3"}).context, old, "x")
    cipher = "ECDHE-ECDSA-CHACHA20-POLY1305"
    old.set_alpn_protocols(["b", "a"])
    tls = opened({**pair, "ciphers": cipher, "alpn": ["a", "b"]})
    client, _ = handshake(tls.context, old, "x")
    assert client.cipher()[0] == cipher  # type: ignore[index]
    assert client.selected_alpn_protocol() == "a"
    assert tls.context.options & ssl.OP_NO_RENEGOTIATION
    assert tls.context.options & ssl.OP_NO_COMPRESSION


def test_certificates_of_clients(ca: Authority, tmp_path: Path) -> None:
    pair, mine = ca.issue("x"), ca.issue("me")
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    strangers = ca.client(other.issue("me"))
    required = opened({**pair, "client_certificates": "required", "ca": ca.file}).context
    optional = opened({**pair, "client_certificates": "optional", "ca": ca.file}).context
    for context in (required, optional):
        _, server = handshake(context, ca.client(mine), "x")
        assert ("DNS", "me") in server.getpeercert()["subjectAltName"]  # type: ignore[index]
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
            handshake(context, strangers, "x")
    assert handshake(optional, ca.client(), "x")[1].getpeercert() is None
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(required, ca.client(), "x")


def test_the_key_of_another_certificate(ca: Authority) -> None:
    mixed = {**ca.issue("a"), "key": ca.issue("b")["key"]}
    told = problem(mixed)
    assert told.startswith("f.yaml:6:5: services.upper.tls.key: ")
    assert "the key does not belong to the certificate" in told


def test_files_that_are_not_there_or_not_whole(ca: Authority) -> None:
    pair = ca.issue("a")
    whole, key = (Path(pair[name]).read_bytes() for name in ("certificate", "key"))
    half = ca.write("half.pem", whole[:-100])
    told = problem({**pair, "certificate": half})
    assert told.startswith(f"f.yaml:5:5: services.upper.tls.certificate: {half} holds no cert")
    chain = ca.write("chain.pem", whole + Path(ca.file).read_bytes()[:-100])
    assert "are they written completely?" in problem({**pair, "certificate": chain})
    assert "are they written completely?" in problem(
        {**pair, "key": ca.write("half.key", key[:-60])}
    )
    assert "holds no private key" in problem({**pair, "key": ca.write("empty", b"")})
    assert "holds no private key" in problem({"certificate": pair["certificate"]})
    assert "there is no file /nowhere" in problem({**pair, "key": "/nowhere"})
    assert "cannot be read: Is a directory" in problem({**pair, "certificate": "/"})
    long = ca.write("long", b"x" * (2 << 20))
    assert "is longer than 1 MiB" in problem({**pair, "certificate": long})


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(ca: Authority) -> None:
    pair = ca.issue("a")
    locked = str(ca.folder / "locked")
    command = [needs.tool("openssl"), "ec", "-in", pair["key"], "-out", locked]
    command += ["-aes256", "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True)
    assert "is protected by a password; remove it with" in problem({**pair, "key": locked})


def test_each_problem_has_its_place(ca: Authority) -> None:
    good = ca.issue("a")
    told = problem({**good, "more_certificates": [good, {**good, "key": "/nowhere"}]})
    assert "services.upper.tls.more_certificates.1.key: there is no file" in told
    assert told.startswith("f.yaml:11:7: ")
    told = problem({**good, "ciphers": "NONSENSE"})
    assert "services.upper.tls.ciphers: OpenSSL knows no cipher in 'NONSENSE'" in told
    told = problem({**good, "client_certificates": "required", "ca": good["key"]})
    assert f"services.upper.tls.ca: {good['key']} holds no certificate" in told


def test_a_warning_before_the_end_and_after(ca: Authority) -> None:
    end = datetime.datetime(2040, 5, 1, 12, tzinfo=datetime.UTC)
    later = ca.issue("b", ends=end + datetime.timedelta(days=1))
    settings = loaded({**ca.issue("a", ends=end), "more_certificates": [later]})
    contexts = open_contexts(settings)
    assert contexts["upper"].ends_first == end.timestamp()
    assert expiring(settings, contexts, end.timestamp() - 32 * DAY) == []
    (told,) = expiring(settings, contexts, end.timestamp() - 30 * DAY)
    place = "f.yaml:5:5: services.upper.tls.certificate: "
    words = "the certificate ends in 30 days, on 2040-05-01 12:00:00 UTC; renew it"
    assert str(told) == place + words
    told, second = expiring(settings, contexts, end.timestamp() + 1)
    words = "the certificate has ended on 2040-05-01 12:00:00 UTC, and clients refuse it; renew it"
    assert str(told) == place + words
    assert "more_certificates.0.certificate: the certificate ends in 1 days" in str(second)


def test_openssl_is_not_loaded_without_need() -> None:
    script = (
        "import sys; from epolld.config import loads; from epolld.host.generation import open_tls;"
        "import epolld.worker.worker, epolld.master.master;"
        "print(open_tls(loads('services: [{name: a, bind: fd:3}]', 'f')), 'ssl' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert printed.stdout == "{} False\n"
