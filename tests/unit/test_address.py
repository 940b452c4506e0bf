"""epolld.address: what is read, what is refused and with which remedy."""

import socket
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epolld.address import FdAddress, TcpAddress, UnixAddress, format_peer, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:1688", TcpAddress("127.0.0.1", 1688)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("my-host.example.:80", TcpAddress("my-host.example.", 80)),
        ("[::1]:1688", TcpAddress("::1", 1688)),
        ("[::]:80", TcpAddress("::", 80)),
        ("[fe80::1%eth0]:80", TcpAddress("fe80::1%eth0", 80)),
        ("*:1688", TcpAddress("0.0.0.0", 1688)),
        ("unix:/run/x.sock", UnixAddress("/run/x.sock")),
        ("unix:@x", UnixAddress("@x")),
        ("unix:/run/with: colon", UnixAddress("/run/with: colon")),
        ("fd:3", FdAddress(3)),
    ],
)
def test_an_address_is_read_and_gives_its_text_back(text: str, address: object) -> None:
    assert parse_address(text) == address
    assert str(parse_address(text)) == text


def test_ipv6_is_made_canonical() -> None:
    assert str(parse_address("[0:0:0:0:0:0:0:1]:80")) == "[::1]:80"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not an address; write host:port"),
        ("localhost", "is not an address; write host:port"),
        ("1688", r"write 127\.0\.0\.1:1688"),
        (":1688", r"write 127\.0\.0\.1:1688"),
        ("/run/x", "write unix:/run/x"),
        ("localhost:", "no port number"),
        ("localhost:http", "no port number"),
        ("localhost:-1", "no port number"),
        ("localhost:65536", "port 65536 is out of range"),
        ("localhost:\u0661", "no port number"),
        ("::1:80", r"in brackets, such as \[::1\]:1688"),
        ("[::g]:80", "is not an IPv6 address"),
        ("[::1%]:80", "is not an interface"),
        ("1.2.3:80", "is not an IPv4 address"),
        ("256.1.1.1:80", "is not an IPv4 address"),
        ("a b:80", "is not a host name"),
        ("-x:80", "is not a host name"),
        ("a..b:80", "is not a host name"),
        ("unix:", "is not absolute"),
        ("unix:run/x", "is not absolute"),
        ("unix:@", "is not absolute"),
        ("unix:/run/", "names a directory"),
        ("unix:/run/..", "names a directory"),
        ("unix:/" + "x" * 107, "at most 107 bytes, this one 108"),
        ("unix:/" + "é" * 54, "at most 107 bytes, this one 109"),
        ("unix:/a\0b", "NUL"),
        ("fd:", "no descriptor number"),
        ("fd:-1", "no descriptor number"),
    ],
)
def test_what_is_no_address_is_refused_with_a_remedy(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_address(text)


def test_the_longest_unix_path_is_what_the_kernel_takes() -> None:
    """Both kinds of 107 bytes fit in sun_path; the abstract one is bound to prove it."""
    address = parse_address("unix:@" + "x" * 106)
    assert isinstance(address, UnixAddress)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("\0" + address.path[1:])
        assert format_peer(sock.getsockname()) == str(address)


@settings(deadline=None)  # the machine may be busy
@given(
    st.one_of(
        st.text(),
        st.text(string.digits + "abc:.[]*%-@/", max_size=12),
        st.builds("{}:{}".format, st.ip_addresses(v=4), st.integers(0, 70000)),
        st.builds("[{}]:{}".format, st.ip_addresses(v=6), st.integers(0, 70000)),
        st.text().map("unix:/{}".format),
        st.text().map("fd:{}".format),
    )
)
def test_any_text_is_an_address_that_round_trips_or_a_value_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("sockaddr", "text"),
    [
        (("192.0.2.1", 5), "192.0.2.1:5"),
        (("::1", 5, 0, 0), "[::1]:5"),
        ("", "unix peer"),
        (b"", "unix peer"),
        (None, "unix peer"),
        ("/run/x", "unix:/run/x"),
        (b"\0name", "unix:@name"),
        (b"/run/\xff", "unix:/run/\\xff"),
    ],
)
def test_peers_for_people(sockaddr: object, text: str) -> None:
    assert format_peer(sockaddr) == text
