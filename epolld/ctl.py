"""The command `epolldctl`: asks a running daemon, or has it do something.

Reads the command line, and joins the conversation (console/conversation.py) to what is printed
(console/tables.py). The protocol itself is in docs/control.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from epolld import __version__, units
from epolld.commandline import Parser
from epolld.console import completion, conversation, tables
from epolld.console.conversation import ControlError, Daemon, ExitCode

SOCKET_VARIABLE = "EPOLLD_CONTROL"

EXIT_CODES = """\
exit codes:
  0   done
  1   the daemon did not do it; it said why
  64  the command line is wrong
  69  no daemon there, or it ended before it had answered
  75  no answer in time
  76  what came is no answer
  77  not allowed: neither root, nor the daemon's user, nor of master.control_group
  78  reload, upgrade: the configuration is refused; every problem stands on a line
"""

Act = Callable[[Daemon, argparse.Namespace], None]


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="epolldctl",
        description="Ask a running epolld, or have it do something.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"epolldctl {__version__}")
    _add_common(parser, None)
    common = Parser(add_help=False)
    _add_common(common, argparse.SUPPRESS)  # the same after the command, where people put them
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, act: Act, help: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help, parents=[common])
        added.set_defaults(act=act)
        return added

    command("status", _status, "how it stands as a whole")
    command("workers", _workers, "every worker process")
    command("services", _services, "what is served, and where")
    _add_selection(command("connections", _connections, "the connections of all workers"))
    kill = command("kill", _kill, "end connections at once")
    kill.add_argument("id", nargs="*", metavar="ID", help="as `connections` shows it")
    _add_selection(kill)
    kill.add_argument("--all", action="store_true", help="end all connections")
    command("reload", _change, "read configuration and code anew; wait for the outcome")
    command("upgrade", _change, "execute the program anew in place; wait for the outcome")
    stop = command("stop", _stop, "stop, and wait for the end")
    stop.add_argument("--fast", action="store_true", help="at once, without draining")
    command("suspend", _simple, "retire all workers; clients wait in the queues")
    command("resume", _simple, "serve again after suspend")
    scale = command("scale", _scale, "change the number of workers; kept over reloads")
    scale.add_argument("workers", type=int, metavar="N", help="how many")
    level = command("log-level", _log_level, "log from this level on, until the next reload")
    level.add_argument("level", choices=("debug", "info", "warning", "error"))
    command("reopen-logs", _simple, "open the log file anew, after it was rotated")
    command("dump", _dump, "the stacks of every worker")
    command("config", _config, "the configuration in force, its secrets hidden")
    for name, act, help in (
        ("top", _top, "a live screen (needs rich)"),
        ("watch", _watch, "status and workers again and again, a JSON object a line"),
    ):
        added = command(name, act, help)
        added.add_argument(
            "--interval", type=_duration, default=1.0, metavar="TIME", help="between two looks (1s)"
        )
    added = command("completion", _completion, "print a script that completes epolldctl in a shell")
    added.add_argument("shell", choices=completion.SHELLS)
    return parser


def _add_common(parser: argparse.ArgumentParser, default: Any) -> None:
    """Options that may stand before the command and after it."""
    add = parser.add_argument
    add("--socket", metavar="PATH", default=default, help="the daemon's control socket")
    add(
        "--config", metavar="FILE", default=default, help="that of the daemon of this configuration"
    )
    add("--instance", metavar="NAME", default=default, help="of epolld@NAME.service")
    add(
        "--timeout",
        metavar="TIME",
        type=_duration,
        default=default,
        help="for an answer (10s; none for reload, upgrade, stop)",
    )
    add("--json", action="store_true", default=default or False, help="print what the daemon says")


def _add_selection(parser: argparse.ArgumentParser) -> None:
    """Options that choose connections."""
    add = parser.add_argument
    add("--service", metavar="NAME", default="", help="of this service")
    add("--peer", metavar="NETWORK", action="append", default=[], help="from there; repeatable")
    add("--worker", metavar="N", type=int, help="of the worker with this number")
    add("--idle", metavar="TIME", type=_duration, default=0.0, help="silent for so long, at least")


def _duration(text: str) -> float:
    try:
        return units.parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = make_parser().parse_args(argv)
    try:
        if arguments.command == "completion":
            _completion(None, arguments)
        else:
            arguments.act(Daemon(_socket(arguments), arguments.timeout), arguments)
        sys.stdout.flush()
    except ControlError as error:
        if arguments.json:
            _print_json(error.answer)
        for line in str(error).splitlines():
            print(f"epolldctl: {line}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `epolldctl connections | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return ExitCode.OK


def _socket(arguments: argparse.Namespace) -> str:
    """Where the daemon is that is meant."""
    from epolld.host import controlsocket, runtimedir

    if arguments.socket:
        return str(arguments.socket)
    directory = None
    if arguments.instance:
        directory = f"/run/epolld-{arguments.instance}"
    elif arguments.config:
        directory = runtimedir.find(_runtime_directory(arguments.config), os.environ, os.geteuid())
    elif os.environ.get(SOCKET_VARIABLE):
        return os.environ[SOCKET_VARIABLE]
    if directory:
        return os.path.join(directory, controlsocket.NAME)
    return conversation.find(os.environ, os.geteuid())


def _runtime_directory(config: str) -> str | None:
    """What a configuration file says of it."""
    from epolld.config import load
    from epolld.errors import EpolldError

    try:
        return load(config).config.master.runtime_directory
    except EpolldError as error:
        raise ControlError(ExitCode.CONFIG, str(error)) from None


# -- the commands ----------------------------------------------------------------------------------


def _show(arguments: argparse.Namespace, result: Any, lines: Iterable[str]) -> None:
    """Print a result, for programs or for people."""
    if arguments.json:
        _print_json(result)
    else:
        for line in lines:
            print(line)


def _print_json(value: Any) -> None:
    print(json.dumps(value), flush=True)


def _one(daemon: Daemon, command: str, patient: bool = False, **fields: Any) -> Any:
    """The result of a command that answers with one line."""
    (result,) = daemon.ask(command, patient, **fields)
    return result


def _status(daemon: Daemon, arguments: argparse.Namespace) -> None:
    result = _one(daemon, "status")
    _show(arguments, result, tables.status(result))


def _workers(daemon: Daemon, arguments: argparse.Namespace) -> None:
    result = _one(daemon, "workers")
    _show(arguments, result, tables.workers(result))


def _services(daemon: Daemon, arguments: argparse.Namespace) -> None:
    result = _one(daemon, "services")
    _show(arguments, result, tables.services(result))


def _selection(arguments: argparse.Namespace) -> dict[str, Any]:
    chosen = {
        "service": arguments.service,
        "peers": arguments.peer,
        "worker": arguments.worker,
        "idle": arguments.idle,
    }
    return {name: value for name, value in chosen.items() if value not in ("", [], None, 0.0)}


def _connections(daemon: Daemon, arguments: argparse.Namespace) -> None:
    """Printed as they come; as JSON, one object a line."""
    if not arguments.json:
        print(tables.connections_head())
    _list_connections(daemon.ask("connections", **_selection(arguments)), arguments)


def _kill(daemon: Daemon, arguments: argparse.Namespace) -> None:
    chosen = _selection(arguments)
    if arguments.id:
        chosen["ids"] = arguments.id
    if not chosen and not arguments.all:
        raise ControlError(ExitCode.USAGE, "kill: say which connections, or --all")
    _list_connections(daemon.ask("kill", all=arguments.all, **chosen), arguments)


def _list_connections(parts: Iterable[Any], arguments: argparse.Namespace) -> None:
    last: Any = None
    for part in parts:
        if isinstance(part, list):
            for each in part:
                print(json.dumps(each) if arguments.json else tables.connection(each))
        else:
            last = part
    _complain(last["missing"])


def _complain(missing: list[Any]) -> None:
    """Say which workers did not answer; the command has failed then."""
    if missing:
        raise ControlError(ExitCode.FAILED, "\n".join(tables.missing(missing)))


def _change(daemon: Daemon, arguments: argparse.Namespace) -> None:
    result = _one(daemon, arguments.command, patient=True)
    _show(arguments, result, tables.change(result))


def _stop(daemon: Daemon, arguments: argparse.Namespace) -> None:
    for result in daemon.ask("stop", patient=True, fast=arguments.fast):
        _show(arguments, result, [])
    _show(arguments, {"state": "stopped"}, ["stopped"])


def _simple(daemon: Daemon, arguments: argparse.Namespace) -> None:
    result = _one(daemon, arguments.command)
    _show(arguments, result, [result["state"]] if "state" in result else [])


def _scale(daemon: Daemon, arguments: argparse.Namespace) -> None:
    result = _one(daemon, "scale", workers=arguments.workers)
    _show(arguments, result, [f"workers wanted: {result['workers_wanted']}"])


def _log_level(daemon: Daemon, arguments: argparse.Namespace) -> None:
    _show(arguments, _one(daemon, "log-level", level=arguments.level), [])


def _dump(daemon: Daemon, arguments: argparse.Namespace) -> None:
    stacks: list[Any] = []
    for part in daemon.ask("dump"):
        if isinstance(part, list):
            stacks += part
        else:
            missing = part["missing"]
    text = (
        f"worker {each['worker']} (pid {each['pid']}, generation {each['generation']}):\n"
        f"{each['stacks']}"
        for each in stacks
    )
    _show(arguments, {"workers": stacks, "missing": missing}, text)
    _complain(missing)


def _config(daemon: Daemon, arguments: argparse.Namespace) -> None:
    result = _one(daemon, "config")
    _show(arguments, result, [result["yaml"].rstrip("\n")])


def _watch(daemon: Daemon, arguments: argparse.Namespace) -> None:
    for result in daemon.ask("watch", patient=True, interval=arguments.interval):
        _print_json(result)


def _top(daemon: Daemon, arguments: argparse.Namespace) -> None:
    from epolld.console import top

    if arguments.json:
        _watch(daemon, arguments)
    else:
        top.show(daemon.ask("watch", patient=True, interval=arguments.interval))


def _completion(_daemon: Daemon | None, arguments: argparse.Namespace) -> None:
    print(completion.script(arguments.shell, make_parser()), end="")


if __name__ == "__main__":
    sys.exit(main())
