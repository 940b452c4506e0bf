"""epolld.config.loader: every problem in one run, each with its place; never a traceback."""

import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epolld.address import FdAddress, TcpAddress, UnixAddress
from epolld.config import Config, load
from epolld.config.tls import Certificate, Tls
from epolld.errors import ConfigError, ExitCode

DEFAULT = Path(__file__).parents[2] / "etc" / "epolld.yaml"
UPPER = "services:\n  - name: upper\n    bind: 127.0.0.1:1688\n"


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    return tmp_path / "epolld.yaml"


def config_of(file: Path, text: str) -> Config:
    """What `text` configures."""
    file.write_text(text)
    return load(str(file)).config


def problems_of(file: Path, text: str | bytes) -> list[str]:
    """The problems in `text`, as "line:column: path: message"."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load(str(file))
    assert caught.value.exit_code == ExitCode.CONFIG
    assert all(problem.file == str(file) for problem in caught.value.problems)
    return [str(problem).removeprefix(f"{file}:") for problem in caught.value.problems]


def test_the_default_file() -> None:
    config = load(str(DEFAULT)).config
    (upper,) = config.services
    assert (upper.name, upper.protocol) == ("upper", "upper")
    assert upper.bind == (TcpAddress("127.0.0.1", 1688),)
    assert config.workers.count == "auto"
    assert config.master == Config().master


def test_what_the_default_file_shows_commented_out_is_valid_and_says_the_defaults(
    file: Path,
) -> None:
    """Settings lose their "# "; prose does not look like a setting."""
    lines = []
    for line in DEFAULT.read_text().splitlines():
        body = line.lstrip(" #")
        indent = line[: line.find("#")] if line.lstrip().startswith("#") else ""
        shown = (
            line.lstrip().startswith("# ") and line.split("# ", 1)[1].split(":")[0].isidentifier()
        )
        if shown and not body.startswith(("bind:", "user:", "group:", "file:", "pidfile:")):
            line = indent + body
        lines.append(line.replace("# - {name", "- {name"))
    config = config_of(file, "\n".join(lines))
    names = ["upper", "echo", "discard", "daytime", "qotd", "chargen", "time"]
    assert [service.name for service in config.services] == names
    assert all(
        service.bind[0].port > 1024 and service.bind[0].host == "127.0.0.1"
        for service in config.services
        if isinstance(service.bind[0], TcpAddress)
    )
    assert config.master.runtime_directory == "/run/epolld"  # shown, and so taken
    assert config.workers == Config().workers
    assert config.services[0] == load(str(DEFAULT)).config.services[0]


def test_loading_the_default_file_takes_a_few_milliseconds() -> None:
    load(str(DEFAULT))  # imports
    best = min(_cpu_time_of_a_load() for _ in range(10))
    assert best < 0.010


def _cpu_time_of_a_load() -> float:
    begun = time.process_time()
    load(str(DEFAULT))
    return time.process_time() - begun


def test_a_load_without_problems_imports_nothing_that_it_does_not_need() -> None:
    script = (
        "import sys; before = set(sys.modules); "  # a measurement may have brought some
        "import epolld.config as c; assert 'yaml' not in sys.modules; "
        f"c.load({str(DEFAULT)!r}); "
        "print(sorted({'difflib', 'json', 'logging'} & (set(sys.modules) - before)))"
    )
    with os.popen(f'{sys.executable} -c "{script}"') as output:
        assert output.read() == "[]\n"


def test_all_problems_are_told_in_one_run_in_the_files_order(file: Path) -> None:
    text = """\
workers:
  count: 0
  graceful_timout: 30s
  boot_timeout: 1s
  boot_timeout: 2s
services:
  - name: upper
    bind: [127.0.0.1:99999, "[::1]:1688"]
    nodelay: yes
  - name: upper
logging: []
umask: 027
"""
    assert problems_of(file, text) == [
        "2:10: workers.count: 0 is out of range; expected auto or a whole number from 1 to 1024",
        "3:3: workers.graceful_timout: unknown key 'graceful_timout'; "
        "did you mean 'graceful_timeout'?",
        "5:3: workers.boot_timeout: duplicate key 'boot_timeout'; first given on line 4: "
        "remove one",
        "8:12: services.0.bind.0: port 99999 is out of range; write a number from 0 to 65535",
        "9:14: services.0.nodelay: expected true or false, not 'yes'; write true",
        "10:5: services.1: the name 'upper' is taken by the service on line 7; choose another",
        "10:5: services.1.bind: missing; add bind: 127.0.0.1:1688",
        "11:10: logging: expected a mapping (key: value lines), not a list",
        "12:1: umask: unknown key 'umask'; it belongs under 'master'",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1:1: services: there are no services"),
        ("# nothing\n", "1:1: services: there are no services"),
        ("services: []\n", "1:1: services: there are no services"),
        ("services:\n", "1:1: services: there are no services"),
        ("- a\n", "1:1: expected a mapping (key: value lines), not a list"),
        ("hello\n", "1:1: expected a mapping (key: value lines), not a single value"),
        ("services: {upper: 1}\n", "1:11: services: expected a list of mappings"),
        ("services: [upper]\n", "1:12: services.0: expected a mapping"),
        ("services: [~]\n", "1:12: services.0: the service is empty"),
        ("services: [{bind: a:1}]\n", "1:12: services.0.name: missing; add name: upper"),
        (b"a: \xff\n", "1:4: the byte 0xff is not UTF-8"),
        ("é: ".encode() + b"\xe9\n", "1:4: the byte 0xe9 is not UTF-8"),
        ("a:\n\tb: 1\n", "2:1: not YAML"),
        ("a: [\n", "2:1: not YAML"),
        ("a: 1\n---\na: 2\n", "2:1: a second document"),
        ("a: 1\nb: \0\n", "2:4: the character '\\x00' is not allowed"),
    ],
)
def test_files_without_a_service(file: Path, text: str | bytes, problem: str) -> None:
    assert any(found.startswith(problem) for found in problems_of(file, text))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("master: {umask: 8}", "1:17: master.umask: expected permission bits in octal"),
        ("master: {umask: 1000}", "1:17: master.umask: expected permission bits in octal"),
        ("master: {pidfile: run/x}", "1:19: master.pidfile: expected an absolute path"),
        ("master: {title: }", "1:10: master.title: the value is missing"),
        ("master: {title: [a]}", "1:17: master.title: expected a title without control"),
        ("workers: 4", "1:10: workers: expected a mapping (key: value lines), not a single"),
        ("workers: {count: '4'}", "1:18: workers.count: expected auto or a whole number"),
        ("workers: {count: 010}", "1:18: workers.count: expected auto or a whole number"),
        ("workers: {count: 4.5}", "1:18: workers.count: expected auto or a whole number"),
        ("workers: {count: 9999999999999999999999}", "1:18: workers.count: expected auto or"),
        ("workers: {count: many}", "1:18: workers.count: expected auto or a whole number"),
        ("workers: {boot_timeout: 0}", "1:25: workers.boot_timeout: 0 is too short"),
        ("workers: {stuck_timeout: -1s}", "1:26: workers.stuck_timeout: a duration cannot be neg"),
        ("workers: {stuck_timeout: 12:30}", "1:26: workers.stuck_timeout: '12:30' is not a dur"),
        ("workers: {max_connections: 0}", "1:28: workers.max_connections: 0 is out of range"),
        ("workers: {stuck_timeout: {a: 1}}", "1:26: workers.stuck_timeout: expected a duration"),
        ("logging: {level: inof}", "did you mean 'info'?"),
        ("logging: {target: file}", "1:11: logging.file: missing; target: file needs"),
        ("loging: {}", "1:1: loging: unknown key 'loging'; did you mean 'logging'?"),
        ("<<: 1", "1:5: <<: expected a mapping to merge, not a single value"),
    ],
)
def test_wrong_values(file: Path, text: str, problem: str) -> None:
    (found,) = problems_of(file, f"{text}\n{UPPER}")
    assert problem in found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{name: a b, bind: x:1}", "1:19: services.0.name: expected a name of letters"),
        ("{name: 7, bind: x:1}", "services.0.name: expected a name of letters"),
        ("{name: a}", "1:12: services.a.bind: missing; add bind: 127.0.0.1:1688"),
        ("{name: a, bind: }", "1:22: services.a.bind: the value is missing"),
        ("{name: a, bind: []}", "1:22: services.a.bind: the value is missing"),
        ("{name: a, bind: [[x:1]]}", "1:29: services.a.bind.0: expected an address"),
        ("{name: a, bind: [x:1, x:1]}", "1:34: services.a.bind.1: x:1 is bound already by"),
        ("{name: a, bind: 1688}", "write 127.0.0.1:1688 for this machine only"),
        ("{name: a, bind: {address: x:1, mode: 600}}", "'mode' is for unix:/path sockets"),
        ("{name: a, bind: {address: 'unix:@x', owner: u}}", "'owner' is for unix:/path sockets"),
        ("{name: a, bind: {address: unix:/x, mode: rw}}", "bind.mode: expected permission bits"),
        ("{name: a, bind: {mode: 600}}", "services.a.bind.address: missing"),
        ("{name: a, bind: {adress: x:1}}", "did you mean 'address'?"),
        ("{name: a, bind: x:1, protocol: a.b}", "services.a.protocol: expected a built-in"),
        ("{name: a, bind: x:1, options: [1]}", "services.a.options: expected a mapping"),
        ("{name: a, bind: x:1, options: {b: yes}}", "services.a.options.b: 'yes' can be read"),
        ("{name: a, bind: x:1, options: {b: 012}}", "services.a.options.b: '012' can be read"),
        ("{name: a, bind: x:1, options: {b: {c: 1, c: 2}}}", "options.b.c: duplicate key 'c'"),
        ("{name: a, bind: x:1, backlog: 0}", "services.a.backlog: 0 is out of range"),
        ("{name: a, bind: x:1, keepalive: 'true'}", "expected true or false, not 'true'"),
        ("{name: a, bind: x:1, proxy_protocol: required}", "a.proxy_trusted: missing; add the"),
        ("{name: a, bind: x:1, proxy_trusted: 10.1.0.0/8}", "bits set after the first 8"),
        ("{name: a, bind: x:1, access: [{allow: all, deny: all}]}", "access.0: expected either"),
        ("{name: a, bind: x:1, access: [{}]}", "a.access.0: expected either allow: NETWORK or"),
        ("{name: a, bind: x:1, access: [allow all]}", "a.access.0: expected a mapping"),
        ("{name: a, bind: x:1, limits: {client_connections: -1}}", "out of range"),
    ],
)
def test_wrong_services(file: Path, text: str, problem: str) -> None:
    found = problems_of(file, f"services: [{text}]\n")
    assert any(problem in one for one in found), found


def test_two_services_on_one_address(file: Path) -> None:
    text = "services:\n- {name: a, bind: '*:1'}\n- {name: b, bind: '0.0.0.0:1'}\n"
    assert problems_of(file, text) == [
        "3:19: services.b.bind: *:1 is bound already by services.a.bind on line 2; remove one"
    ]
    text = "services:\n- {name: a, bind: unix:/x}\n- {name: b, bind: {address: unix:/x, mode: 600}}"
    assert len(problems_of(file, text)) == 1
    assert config_of(file, "services: [{name: a, bind: ['h:0', 'h:0']}]\n").services


def test_every_form_of_bind(file: Path) -> None:
    text = """\
services:
  - name: a
    bind:
      - "*:80"
      - "[::1]:80"
      - unix:/run/plain
      - {address: unix:/run/x, mode: 0660, owner: 1000, group: www-data}
      - {address: localhost:81}
      - fd:3
"""
    assert config_of(file, text).services[0].bind == (
        TcpAddress("0.0.0.0", 80),
        TcpAddress("::1", 80),
        UnixAddress("/run/plain"),
        UnixAddress("/run/x", 0o660, "1000", "www-data"),
        TcpAddress("localhost", 81),
        FdAddress(3),
    )


@pytest.mark.parametrize("text", ["027", '"027"', "0o27", "27", "0027"])
def test_octal_is_octal_in_every_spelling(file: Path, text: str) -> None:
    assert config_of(file, f"master: {{umask: {text}}}\n{UPPER}").master.umask == 0o027


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:30", "12:30"),
        ("1", 1),
        ("-1.5", -1.5),
        ("1e3", 1000.0),
        ("0x10", 16),
        ("0o17", 15),
        ("true", True),
        ("'yes'", "yes"),
        ("~", None),
        ("2001-01-01", "2001-01-01"),
        (".inf", float("inf")),
        ("[1, {a: b}]", [1, {"a": "b"}]),
        ("1_000", "1_000"),
    ],
)
def test_options_are_plain_data(file: Path, text: str, value: object) -> None:
    config = config_of(file, f"services: [{{name: a, bind: x:1, options: {{o: {text}}}}}]\n")
    assert config.services[0].options == {"o": value}


def test_sections_left_empty_mean_their_defaults(file: Path) -> None:
    text = f"master:\nworkers: ~\nlogging:\n  # all commented out\n{UPPER}"
    assert config_of(file, text) == config_of(file, UPPER)


def test_tls(file: Path) -> None:
    text = UPPER + "    tls: {certificate: /a, minimum_version: 1.3, alpn: [h2, 1.2], "
    text += "more_certificates: {certificate: /b, key: /c}, client_certificates: none, ca: }\n"
    (upper,) = config_of(file, text).services
    assert upper.tls == Tls(
        certificate="/a",
        minimum_version="1.3",
        alpn=("h2", "1.2"),
        more_certificates=(Certificate("/b", "/c"),),
    )
    (upper,) = config_of(file, UPPER + "    tls:\n").services
    assert upper.tls is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{key: /x}", "missing; add certificate: /path/to.pem"),
        ("{certificate: x.pem}", "expected an absolute path, not 'x.pem'"),
        ("{certificate: /x, client_certificates: optional}", "optional needs ca: /path.pem"),
        ("{certificate: /x, ca: /y}", "no client is asked; add client_certificates: required, or"),
        ("{certificate: /x, more_certificates: [/y]}", "expected a mapping (key: value lines)"),
        ("{certificate: /x, alpn: ['', y]}", "expected a protocol's name such as imap or h2"),
        ("{certificate: /x, minimum_version: 1.1}", "expected 1.2 or 1.3, not '1.1'"),
        ("{certificate: /x, handshake_timeout: 0}", "0 is too short"),
        ("[/x]", "expected a mapping (key: value lines), not a list"),
    ],
)
def test_wrong_tls(file: Path, text: str, problem: str) -> None:
    (told,) = problems_of(file, UPPER + f"    tls: {text}\n")
    assert problem in told
    assert told.startswith("4:")
    assert ": services.upper.tls" in told


def test_aliases_and_merge_keys(file: Path) -> None:
    text = """\
services:
  - &base {name: a, bind: x:1, idle_timeout: 5s, nodelay: false}
  - {<<: *base, name: b, bind: x:2, nodelay: true}
"""
    a, b = config_of(file, text).services
    assert (b.name, b.idle_timeout, b.nodelay) == ("b", 5.0, True)
    assert (a.name, a.nodelay) == ("a", False)


def test_a_byte_order_mark_is_no_problem(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + UPPER.encode())
    assert load(str(file)).config.services
    assert problems_of(file, b"\xef\xbb\xbfx: 1\n" + UPPER.encode())[0].startswith("1:1: x: ")
    assert problems_of(file, b"\xef\xbb\xbfx: \xff\n")[0].startswith("1:4: the byte 0xff")


def test_a_problem_is_one_line_whatever_is_in_the_file(file: Path) -> None:
    text = UPPER + '    options: {"a\\n\\e[31mb é": 1, "a\\n\\e[31mb é": 2}\n'
    (told,) = problems_of(file, text)
    assert told.startswith("4:34: services.upper.options.a\\n\\x1b[31mb é: duplicate key")
    assert told.isprintable()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x85", "\u2028"])
def test_all_places_count_lines_as_yaml_does(file: Path, end: str) -> None:
    for bad in (b"b: \xff", b"b: \x01", b"b: *x"):
        file.write_bytes(f"# é{end}a: 1{end}".encode() + bad)
        assert problems_of(file, file.read_bytes())[0].startswith("3:4: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "missing.yaml", "no such file; name one with --config"),
        (tmp_path, "this is a directory"),
        (tmp_path / "nul\0", "cannot be read"),
        (Path("/proc/self/mem"), "cannot be read"),
        (Path("/dev/zero"), "longer than 1 MiB"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(str(path))
        assert reason in str(caught.value)
        assert str(caught.value).startswith(str(path).replace("\0", r"\x00"))


@pytest.mark.skipif(not Path("/proc/self/setgroups").exists(), reason="needs Linux")
def test_a_file_that_this_user_may_not_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # root may read everything
    with pytest.raises(ConfigError, match=r"not readable by this user \(number \d+\)"):
        load(str(file))


def test_a_problem_found_later_is_located(file: Path) -> None:
    file.write_text("services:\n  - name: upper\n    options:\n      foo: 1\n    bind: x:1\n")
    loaded = load(str(file))
    for path, place in (
        ("services.upper.options.foo", "4:7"),
        ("services.0.options.foo", "4:7"),
        ("services.upper.options.bar", "3:5"),
        ("services.upper.protocol", "2:5"),
        ("services.lower", "1:1"),
        ("workers.count", "1:1"),
    ):
        assert str(loaded.problem(path, "no")) == f"{file}:{place}: {path}: no"


DAMAGE = ["\t", "\n", "  ", "- ", ": ", "#", "[", "]", "{", "}", "&a ", "*a", "<<: ", "!x ", "'"]


@settings(deadline=None)  # the machine may be busy
@given(
    st.data(),
    st.lists(
        st.one_of(st.sampled_from(DAMAGE), st.text(max_size=3), st.binary(max_size=3)), max_size=4
    ),
)
def test_any_damage_to_the_default_file_gives_a_config_or_located_problems(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, pieces: list[str | bytes]
) -> None:
    # Without comments, so that damage hits something.
    lines = [line.split("  #")[0] for line in DEFAULT.read_text().splitlines()]
    content = "\n".join(line for line in lines if not line.lstrip().startswith("#")).encode()
    for piece in pieces:
        at = data.draw(st.integers(0, len(content)))
        skipped = data.draw(st.integers(0, 5))
        content = content[:at] + _bytes(piece) + content[at + skipped :]
    file = tmp_path_factory.getbasetemp() / "damaged.yaml"
    file.write_bytes(content)
    try:
        loaded = load(str(file))
    except ConfigError as error:
        problems = error.problems
    else:
        assert loaded.config.services
        return
    assert problems == sorted(problems)
    assert all(problem.line > 0 and problem.message for problem in problems)


def _bytes(piece: str | bytes) -> bytes:
    return piece if isinstance(piece, bytes) else piece.encode("utf-8", "surrogatepass")
