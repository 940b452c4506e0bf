"""The command `epolld`: reads the command line and composes the daemon.

The only place that knows both master and worker. What happens afterwards is master.py's.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from epolld import __version__
from epolld.commandline import Parser
from epolld.errors import ConfigError, EpolldError, ExitCode, UsageError

if TYPE_CHECKING:
    from epolld.config import Loaded, Overrides
    from epolld.host.controlsocket import ControlSocket
    from epolld.host.generation import Assignment
    from epolld.host.privileges import Identity

LOCAL_CONFIG = "etc/epolld.yaml"
SYSTEM_CONFIG = "/etc/epolld/epolld.yaml"

OPTIONAL = ("prometheus_client", "rich")  # modules of extras: an installation may lack them

REUSEPORT = (
    "a reload that keeps the address costs nothing; but clients that the kernel has put into this "
    "listener's queue are reset when it closes, at a stop or a reload that drops the address, even "
    "if another program listens on the same port"
)

NO_MESSAGES = (
    "has no effect: the protocol does not say where its messages are, as framings do, and others "
    "by a method message_under_way()"
)

EXIT_CODES = """\
exit codes:
  0   stopped as told; --check: OK; --daemonize: the workers are ready
  1   --check: the configuration has problems
  64  the command line is wrong
  69  cannot bind an address
  70  a worker did not become ready
  73  cannot write the pid file, the log file or the runtime directory
  75  already running
  77  cannot become the configured user or group
  78  the configuration has problems
"""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="epolld",
        description="A pre-fork server daemon for every protocol that is not HTTP.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--config",
        metavar="FILE",
        help=f"the configuration (default: {LOCAL_CONFIG} where it exists, else {SYSTEM_CONFIG})",
    )
    add(
        "--dev",
        metavar="PROTOCOL",
        help="for developing: serve package.module:Handler with one worker and no configuration, at"
        " 127.0.0.1:1688 or --bind, and reload when its code changes",
    )
    add("--check", action="store_true", help="validate; print OK or every problem; exit 0 or 1")
    add("--print-config", action="store_true", help="print what is in force, as YAML")
    add("--schema", action="store_true", help="print the JSON Schema of the configuration")
    add("--workers", type=int, metavar="N", help="how many workers")
    add("--bind", action="append", default=[], metavar="ADDRESS", help="where the service listens")
    add("--service", metavar="NAME", help="serve only this service, or this protocol")
    add("--set", action="append", default=[], metavar="PATH=VALUE", help="override any setting")
    add("--daemonize", action="store_true", help="go to the background once the workers are ready")
    add("--pidfile", metavar="FILE", help="where to write the master's pid")
    add("--log-level", metavar="LEVEL", help="debug, info, warning or error")
    add("--version", action="version", version=f"epolld {__version__}")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = make_parser().parse_args(argv)
    try:
        if arguments.schema:
            return _print_schema()
        if arguments.dev is not None:
            return _develop(arguments)
        return _run(arguments, os.path.abspath(arguments.config or _default_config()))
    except EpolldError as error:
        for line in str(error).splitlines():
            print(f"epolld: {line}", file=sys.stderr)
        return error.exit_code


def _run(arguments: argparse.Namespace, path: str) -> int:
    """Do what is asked for with the configuration at `path`."""
    overrides = _overrides(arguments)
    if arguments.check:
        return _check(path, overrides)
    if arguments.print_config:
        return _print_config(path, overrides)
    return _serve(path, overrides, arguments.daemonize)


def _develop(arguments: argparse.Namespace) -> int:
    """Run with a configuration that is made up."""
    from epolld import dev

    for option in ("config", "service", "daemonize"):
        if getattr(arguments, option):
            raise UsageError(f"--dev goes without --{option}")
    with dev.configuration() as path:
        return _run(arguments, path)


def _default_config() -> str:
    return LOCAL_CONFIG if os.path.exists(LOCAL_CONFIG) else SYSTEM_CONFIG


def _overrides(arguments: argparse.Namespace) -> Overrides:
    from epolld.config import Overrides

    return Overrides(
        workers=arguments.workers,
        bind=tuple(arguments.bind),
        service=arguments.service,
        dev=arguments.dev,
        set=tuple(arguments.set),
        pidfile=arguments.pidfile,
        log_level=arguments.log_level,
    )


def _print_schema() -> int:
    import json

    from epolld.config import json_schema

    print(json.dumps(json_schema(), indent=2))
    return ExitCode.OK


def _print_config(path: str, overrides: Overrides) -> int:
    from epolld.config import load, render

    print(render(load(path, overrides).config), end="")
    return ExitCode.OK


def _load(path: str, overrides: Overrides) -> Loaded:
    """The configuration, if what it asks for is installed; raises ConfigError."""
    from epolld.config import load

    loaded = load(path, overrides)
    if loaded.config.metrics.bind:
        import importlib.util

        if importlib.util.find_spec("prometheus_client") is None:
            message = (
                "needs prometheus-client, which is not installed; "
                f"run: {sys.executable} -m pip install prometheus-client"
            )
            raise ConfigError([loaded.problem("metrics.bind", message)])
    return loaded


def _check(path: str, overrides: Overrides) -> int:
    """Validate everything that a start would find out, short of binding."""
    from epolld.errors import PrivilegeError

    try:
        loaded = _load(path, overrides)
        if loaded.config.master.working_directory:
            os.chdir(loaded.config.master.working_directory)  # where modules are looked for
        problems = _check_services(loaded) + _check_certificates(loaded)
        try:
            _identity(loaded)
        except PrivilegeError as error:
            problems.append(str(loaded.problem("master.user", str(error))))
        try:
            _control_group(loaded)
        except PrivilegeError as error:
            problems.append(str(loaded.problem("master.control_group", str(error))))
    except ConfigError as error:
        problems = [str(problem) for problem in error.problems]
    else:
        for service in loaded.config.services:
            if service.reuseport:
                _warn(loaded, f"services.{service.name}.reuseport", REUSEPORT)
    problems += _check_upgrade()
    for problem in problems:
        print(problem)
    if problems:
        return ExitCode.PROBLEMS
    print("OK")
    return ExitCode.OK


def _warn(loaded: Loaded, place: str, message: str) -> None:
    """Of something that is no mistake."""
    print(f"warning: {loaded.problem(place, message)}", file=sys.stderr)


def _check_services(loaded: Loaded) -> list[str]:
    """Import what the services name; this process is not the daemon, so user code may run."""
    from epolld.host.secretfiles import read_secrets
    from epolld.services.handlers import tells_of_messages
    from epolld.worker.boot import import_all

    try:
        handlers = import_all(loaded, read_secrets(loaded)).handlers
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    for service in loaded.config.services:
        if service.message_timeout and not tells_of_messages(*handlers[service.name]):
            _warn(loaded, f"services.{service.name}.message_timeout", NO_MESSAGES)
    return []


def _check_certificates(loaded: Loaded) -> list[str]:
    """Read certificates and keys; warns of those that end soon, which is no problem yet."""
    from epolld.host.generation import Generation, open_tls

    try:
        tls = open_tls(loaded)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    for warning in Generation(0, loaded, (), None, tls).expiring():
        print(f"warning: {warning}", file=sys.stderr)
    return []


def _check_upgrade() -> list[str]:
    """As the trial run of an upgrade: can this program take over from the one that asks?"""
    from epolld.master import upgrade

    asked = os.environ.get(upgrade.FORMAT_VARIABLE)
    if asked is None:
        return []
    if asked != str(upgrade.FORMAT):
        return [f"this program cannot take over state of format {asked}, only {upgrade.FORMAT}"]
    return _import_all()


def _import_all() -> list[str]:
    """Import the whole program, for what is broken in it shall show before it is executed."""
    import importlib
    import pkgutil

    import epolld

    problems = []
    for module in pkgutil.walk_packages(epolld.__path__, "epolld."):
        if not module.name.endswith("__main__") and not module.name.startswith("epolld.testing"):
            try:
                importlib.import_module(module.name)
            except Exception as error:
                if isinstance(error, ModuleNotFoundError) and error.name in OPTIONAL:
                    continue  # who uses it without having it is told so elsewhere
                problems.append(f"cannot import {module.name}: {type(error).__name__}: {error}")
    return problems


def _identity(loaded: Loaded) -> Identity | None:
    """Whom the workers become; raises PrivilegeError."""
    from epolld.host import privileges

    master = loaded.config.master
    return privileges.plan(master.user, master.group, os.geteuid())


def _control_group(loaded: Loaded) -> int | None:
    """The group that may command the daemon; raises PrivilegeError."""
    from epolld.host import privileges

    group = loaded.config.master.control_group
    return None if group is None else privileges.find_group("master.control_group", group)


def _open_control(directory: str, group: int | None) -> ControlSocket:
    """The control socket; raises PathError, AlreadyRunningError."""
    import logging

    from epolld.host import controlsocket

    if group is not None and not controlsocket.open_to(directory, group):
        logging.getLogger("epolld.control").warning(
            "master.control_group: its members cannot enter %s; chgrp it, or chmod g+x", directory
        )
    return controlsocket.open_socket(directory, group)


def _export(assignment: Assignment) -> int:
    """An exporter's life. Imported by that process alone: the workers shall not inherit it."""
    from epolld.exporter.main import main as live

    return live(assignment)


def _serve(path: str, overrides: Overrides, daemonize: bool) -> int:
    """Be the daemon. In this order: read, bind, detach, write the pid file, fork."""
    from epolld import log as logs
    from epolld.config import listening
    from epolld.host import confinement, daemon, limits, runtimedir, systemd
    from epolld.host.generation import Generation, open_tls
    from epolld.host.listeners import Inherited, open_listeners
    from epolld.host.pidfile import PidFile
    from epolld.master import upgrade
    from epolld.master.master import Master
    from epolld.worker import worker

    saved = upgrade.restore(os.environ)
    os.environ.pop(upgrade.VARIABLE, None)
    daemon.fill_standard_descriptors()
    try:
        loaded = _load(path, overrides) if saved is None else upgrade.restore_config(saved)
    except ConfigError:
        if saved is None:
            raise
        loaded = _load(path, overrides)  # the one in force has settings that we do not know
    settings, logging = loaded.config.master, loaded.config.logging
    logs.configure(logging.level, logging.target, logging.format, logging.file)
    os.umask(settings.umask)
    limits.raise_open_files()
    identity = _identity(loaded)
    confinement.forbid_new_privileges(settings.no_new_privs)
    control_group = _control_group(loaded)
    notifier = systemd.Notifier.from_environ(os.environ)
    interval = systemd.watchdog_interval(os.environ, os.getpid())
    origin = upgrade.Origin(path, os.getcwd(), systemd.supervision(os.environ), saved)
    report = control = None
    if saved is not None:
        inherited = Inherited(upgrade.inherited_sockets(saved))
        try:
            tls = open_tls(loaded)
        except ConfigError:
            tls = {}  # the workers go on; the reload that follows says why there are no new ones
        first = upgrade.restore_generation(saved, loaded, inherited, identity, tls)
        pidfile = PidFile.adopt(saved.pidfile, saved.pidfile_fd)
        control = upgrade.restore_control(saved)
        systemd.forget(os.environ)
    else:
        tls = open_tls(loaded)
        inherited = Inherited(systemd.listen_fds(os.environ, os.getpid()))
        listeners = open_listeners(listening(loaded.config), {}, inherited)
        first = Generation(1, loaded, listeners, identity, tls)
        directory = runtimedir.find(settings.runtime_directory, os.environ, os.geteuid())
        runtimedir.prepare(directory, control_group)
        systemd.forget(os.environ)
        if daemonize:
            keep = [*(each.sock.fileno() for each in listeners), *inherited.descriptors()]
            report = daemon.detach(keep, settings.umask, settings.working_directory or "/")
        pidfile = PidFile(settings.pidfile or os.path.join(directory, "epolld.pid"))
    if settings.working_directory or daemonize:
        os.chdir(settings.working_directory or "/")

    def on_started(reason: str, code: int) -> None:
        if report is None:
            return
        if reason:
            report.failed(code, reason)
        else:
            report.ready()

    try:
        if saved is None:
            pidfile.acquire()
            control = _open_control(directory, control_group)
        master = Master(lambda: _load(path, overrides), first, inherited, worker.main, _export)
        place = None if control is None else (control, control_group)
        return master.run(pidfile, notifier, interval, origin, place, on_started)
    except EpolldError as error:
        on_started(str(error), error.exit_code)
        raise
    finally:
        for listener in first.listeners:
            listener.remove()
        if control is not None:
            control.remove()
        pidfile.release()
