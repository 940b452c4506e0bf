"""epolld.config.comparison: the lines that a reload logs."""

from msgspec.structs import replace

from epolld.address import TcpAddress, UnixAddress
from epolld.config import (
    Config,
    Master,
    Service,
    Workers,
    changes,
    movable_services,
    needs_restart,
)
from epolld.config.tls import Certificate, Tls

UPPER = Service(name="upper", bind=(TcpAddress("127.0.0.1", 1688),))
ECHO = Service(name="echo", bind=(TcpAddress("127.0.0.1", 1607),))
OLD = Config(services=(UPPER, ECHO))


def test_nothing_changed() -> None:
    assert changes(OLD, Config(services=(UPPER, ECHO))) == []
    assert needs_restart(OLD, OLD) == []


def test_each_change_is_a_line_in_the_schemas_order() -> None:
    upper = replace(
        UPPER,
        bind=(TcpAddress("::1", 1), UnixAddress("/x", mode=0o660, owner="me")),
        idle_timeout=5.0,
        options={"a": [1, "b"]},
        nodelay=False,
    )
    new = Config(
        master=Master(user="epolld", umask=0o77),
        workers=Workers(count=4, graceful_timeout=0.5),
        services=(upper, Service(name="time", bind=ECHO.bind)),
    )
    assert changes(OLD, new) == [
        "master.user: null → epolld",
        'master.umask: "027" → "077"',
        "workers.count: auto → 4",
        "workers.graceful_timeout: 30s → 500ms",
        "services.echo: removed",
        "services.upper.options: {} → {a: [1, b]}",
        'services.upper.bind: 127.0.0.1:1688 → [::1]:1, unix:/x (mode "660", owner me)',
        "services.upper.idle_timeout: 0s → 5s",
        "services.upper.nodelay: true → false",
        "services.time: added",
    ]
    assert needs_restart(OLD, new) == ["master.user", "master.umask"]


def test_the_order_of_services_is_no_change() -> None:
    assert changes(OLD, Config(services=(ECHO, UPPER))) == []


def test_tls_comes_changes_and_goes() -> None:
    tls = Tls(certificate="/a.pem")
    other = Tls(certificate="/b.pem", more_certificates=(Certificate("/c"),), alpn=("h2", "x"))
    plain, first, second = (Config(services=(replace(UPPER, tls=t),)) for t in (None, tls, other))
    assert changes(plain, first) == ["services.upper.tls: added"]
    assert changes(first, plain) == ["services.upper.tls: removed"]
    assert changes(first, second) == [
        "services.upper.tls.certificate: /a.pem → /b.pem",
        "services.upper.tls.more_certificates: [] → [{certificate: /c, key: null}]",
        "services.upper.tls.alpn: [] → [h2, x]",
    ]
    assert movable_services(plain, plain) == ["upper"]
    assert movable_services(plain, first) == []
    assert movable_services(first, plain) == []
    assert movable_services(first, first) == []
