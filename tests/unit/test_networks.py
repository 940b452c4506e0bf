"""Networks: parsed, printed, and who is in them."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epolld.net.access import is_allowed
from epolld.networks import Client, Network, client_of, parse_network


@pytest.mark.parametrize(
    "text", ["all", "unix", "192.0.2.7", "10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32", "::1"]
)
def test_printed_as_written(text: str) -> None:
    assert str(parse_network(text)) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a network"),
        ("localhost", "not a network"),
        ("10.0.0/8", "not a network"),
        ("010.0.0.0/8", "not a network"),
        ("10.0.0.0/33", "0 to 32"),
        ("10.0.0.0/-1", "0 to 32"),
        ("10.0.0.0/", "0 to 32"),
        ("10.0.0.0/٣", "0 to 32"),
        ("::/129", "0 to 128"),
        ("10.1.2.3/8", "write 10.0.0.0/8"),
        ("fe80::1%eth0", "not a network"),
        ("::ffff:10.0.0.0/104", "write it as IPv4"),
    ],
)
def test_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_network(text)


@given(st.ip_addresses(), st.integers(0, 128), st.ip_addresses())
def test_contains_what_the_ipaddress_module_says(
    base: ipaddress.IPv4Address, bits: int, other: ipaddress.IPv4Address
) -> None:
    theirs = ipaddress.ip_network((base, min(bits, base.max_prefixlen)), strict=False)
    if theirs.version == 6 and theirs.network_address.ipv4_mapped:
        return
    ours = parse_network(str(theirs))
    for address in (base, other):
        if address.version == 4 or not address.ipv4_mapped:
            assert (client_of((str(address), 1)) in ours) == (address in theirs)


def test_the_same_client_in_any_clothes() -> None:
    assert (
        client_of(("::ffff:192.0.2.7", 1, 0, 0))
        == client_of(("192.0.2.7", 2))
        == Client(4, 0xC0000207)
    )
    assert client_of(("fe80::1%lo", 1, 0, 1)) == client_of(("fe80::1", 1, 0, 1))
    assert client_of("") == client_of(b"\0name") == client_of("/run/x") == Client(0, 0)


def rules(*texts: str) -> list[tuple[bool, Network]]:
    return [(text[0] == "+", parse_network(text[1:])) for text in texts]


@pytest.mark.parametrize(
    ("access", "peer", "allowed"),
    [
        ((), "192.0.2.7", True),
        (("+192.0.2.0/24",), "192.0.2.7", True),
        (("+192.0.2.0/24",), "192.0.3.7", False),
        (("-192.0.2.0/24",), "192.0.2.7", False),
        (("-192.0.2.0/24",), "192.0.3.7", True),
        (("-192.0.2.7", "+192.0.2.0/24", "-all"), "192.0.2.7", False),
        (("-192.0.2.7", "+192.0.2.0/24", "-all"), "192.0.2.8", True),
        (("+192.0.2.0/24", "-192.0.2.7"), "192.0.2.7", True),
        (("+0.0.0.0/0",), "2001:db8::1", False),
        (("-::/0",), "::ffff:192.0.2.7", True),
        (("+unix",), "", True),
        (("+unix",), "192.0.2.7", False),
        (("+0.0.0.0/0",), "", False),
        (("+all",), "", True),
    ],
)
def test_the_first_rule_that_fits_decides(
    access: tuple[str, ...], peer: str, allowed: bool
) -> None:
    client = client_of((peer, 1) if peer else "")
    assert is_allowed(client, rules(*access)) is allowed
