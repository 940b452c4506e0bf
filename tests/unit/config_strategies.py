"""Hypothesis strategies for whole configurations, all valid."""

import string

from hypothesis import strategies as st

from epolld.address import Address, FdAddress, TcpAddress, UnixAddress
from epolld.config import Config, Logging, Master, Service, Workers
from epolld.config.guard import MAX_RATE, AccessRule, Limits, Rlimits
from epolld.config.kinds import MAX_INT
from epolld.config.schema import MAX_WORKERS, Application, Metrics
from epolld.config.tls import MAX_HANDSHAKES, Certificate, Tls
from epolld.networks import parse_network

printable = st.text(
    st.characters(exclude_categories=("Cs",), min_codepoint=0x20).filter(lambda c: c != "\x7f"),
    min_size=1,
    max_size=12,
)
paths = printable.map(lambda text: "/" + text)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True)
protocols = st.one_of(names, st.builds("{0}.{0}:{0}".format, st.sampled_from(["a", "b_1"])))
durations = st.one_of(st.integers(0, 10**6).map(float), st.floats(0, 10**6))
counts = st.integers(1, MAX_INT)
maybe = st.none
socket_files = st.builds(
    UnixAddress,
    st.text(string.ascii_letters + " :#'\"{}é", min_size=1, max_size=20).map(lambda s: f"/{s}"),
    maybe() | st.integers(0, 0o777),
    maybe() | printable,
    maybe() | printable,
)
addresses: st.SearchStrategy[Address] = st.one_of(
    st.builds(TcpAddress, st.ip_addresses(v=4).map(str), st.integers(0, 65535)),
    st.builds(TcpAddress, st.sampled_from(["::1", "::", "localhost"]), st.integers(0, 65535)),
    st.builds(FdAddress, st.integers(0, 999)),
    st.builds(UnixAddress, names.map(lambda name: f"@{name}")),
    socket_files,
)
text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
plain_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | text
    | st.sampled_from(
        ["yes", "null", "1", "012", "1e3", "~", "", "<<", ".inf", "a: b", "#", "12:30"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
certificates = st.builds(Certificate, certificate=paths, key=maybe() | paths)
asked = st.sampled_from(["optional", "required"])
tls_settings = st.fixed_dictionaries(
    {
        "certificate": paths,
        "key": maybe() | paths,
        "more_certificates": st.lists(certificates, max_size=2).map(tuple),
        "minimum_version": st.sampled_from(["1.2", "1.3"]),
        "ciphers": maybe() | printable,
        "alpn": st.lists(st.text(string.printable[:94], min_size=1), max_size=2).map(tuple),
        "handshake_timeout": durations.filter(bool),
        "max_handshakes": st.integers(1, MAX_HANDSHAKES),
        "starttls": st.booleans(),
        "expiry_warning": durations,
    }
)
clients = st.just({}) | st.fixed_dictionaries({"client_certificates": asked, "ca": paths})
tls = st.builds(lambda own, theirs: Tls(**own, **theirs), tls_settings, clients)
networks = st.sampled_from(["all", "unix", "10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::"]).map(
    parse_network
)
access = st.lists(
    networks.map(lambda n: AccessRule(allow=n)) | networks.map(lambda n: AccessRule(deny=n)),
    max_size=3,
).map(tuple)
sizes = st.integers(0, 2**40)
limits = st.builds(
    Limits,
    connections=st.integers(0, MAX_INT),
    client_connections=st.integers(0, MAX_INT),
    client_rate=st.integers(0, MAX_RATE),
    refusal=maybe() | st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=9),
    write_buffer=sizes,
    write_buffer_soft=sizes,
    write_buffer_soft_time=durations.filter(bool),
)
rlimits = st.builds(
    Rlimits,
    address_space=maybe() | sizes,
    core=maybe() | sizes,
    file_size=maybe() | sizes,
    open_files=maybe() | st.integers(16, MAX_INT),
    processes=maybe() | st.integers(0, MAX_INT),
)
proxying = st.just({}) | st.fixed_dictionaries(
    {
        "proxy_protocol": st.just("required"),
        "proxy_trusted": st.lists(networks, min_size=1, max_size=2).map(tuple),
        "proxy_timeout": durations.filter(bool),
    }
)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Any valid configuration."""
    used = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    pool = draw(st.lists(addresses, min_size=3, max_size=6, unique_by=_identity))
    services = tuple(
        Service(
            name=name,
            protocol=draw(protocols),
            options=draw(st.dictionaries(text, plain_data, max_size=3)),
            bind=tuple(pool[index :: len(used)]),
            backlog=draw(counts),
            idle_timeout=draw(durations),
            nodelay=draw(st.booleans()),
            keepalive=draw(st.booleans()),
            reuseport=draw(st.booleans()),
            v6only=draw(st.booleans()),
            access_log=draw(st.booleans() | paths),
            tls=draw(maybe() | tls),
            access=draw(access),
            first_byte_timeout=draw(durations),
            message_timeout=draw(durations),
            write_timeout=draw(durations),
            max_age=draw(durations),
            limits=draw(limits),
            **draw(proxying),
        )
        for index, name in enumerate(used)
    )
    return Config(
        Master(
            user=draw(maybe() | printable),
            group=draw(maybe() | printable),
            umask=draw(st.integers(0, 0o777)),
            pidfile=draw(maybe() | paths),
            runtime_directory=draw(maybe() | paths),
            working_directory=draw(maybe() | paths),
            title=draw(printable),
            no_new_privs=draw(st.booleans()),
            chroot=draw(maybe() | paths),
            capabilities=draw(st.sampled_from([(), ("CAP_NET_RAW",), ("CAP_CHOWN", "CAP_KILL")])),
        ),
        Workers(
            count=draw(st.just("auto") | st.integers(1, MAX_WORKERS)),
            graceful_timeout=draw(durations),
            boot_timeout=draw(durations.filter(bool)),
            stuck_timeout=draw(durations),
            max_connections=draw(counts),
            max_buffered=draw(sizes),
            max_lag=draw(durations),
            rlimits=draw(rlimits),
        ),
        services,
        Logging(
            level=draw(st.sampled_from(["debug", "info", "warning", "error"])),
            target=draw(st.sampled_from(["stderr", "syslog", "file"])),
            file=draw(paths),
            format=draw(st.sampled_from(["text", "json"])),
        ),
        Metrics(
            draw(
                st.sampled_from(
                    [(), (TcpAddress("127.1.2.3", 70),), (UnixAddress("@longer-than-those-drawn"),)]
                )
            )
        ),
        application=Application(
            type=draw(maybe() | st.just("my.module:App")),
            options=draw(st.dictionaries(text, plain_data, max_size=3)),
        ),
    )


def _identity(address: Address) -> object:
    return address.path if isinstance(address, UnixAddress) else address
