"""Scripts that complete `epolldctl` in a shell, made from its command line. Pure."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

SHELLS = ("bash", "zsh")

BASH = """\
# epolldctl: completion for bash. To use it: eval "$(epolldctl completion bash)"
_epolldctl() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command= each
    case $before in
    {files}) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    esac
    for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $each in {commands}) command=$each; break ;; esac
    done
    case $command in
{cases}
    *) mapfile -t COMPREPLY < <(compgen -W "{everything}" -- "$word") ;;
    esac
}}
complete -F _epolldctl epolldctl
"""
BASH_CASE = '    {name}) mapfile -t COMPREPLY < <(compgen -W "{words}" -- "$word") ;;'

ZSH = """\
#compdef epolldctl
# epolldctl: completion for zsh. To use it: eval "$(epolldctl completion zsh)"
_epolldctl() {{
    local -a commands
    local curcontext=$curcontext state line
    commands=(
{commands}
    )
    _arguments -C \\
{options}
        '1:command:->command' \\
        '*::argument:->argument'
    case $state in
    command) _describe command commands ;;
    argument)
        case $line[1] in
{cases}
        esac ;;
    esac
}}
compdef _epolldctl epolldctl
"""


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for a shell; ValueError for one that is not among SHELLS."""
    commands = _commands(parser)
    if shell == "bash":
        return _bash(parser, commands)
    if shell == "zsh":
        return _zsh(parser, commands)
    raise ValueError(f"no completion for {shell!r}, only for {', '.join(SHELLS)}")


def _bash(
    parser: argparse.ArgumentParser, commands: dict[str, tuple[argparse.ArgumentParser, str]]
) -> str:
    cases = [
        BASH_CASE.format(name=name, words=" ".join(_words(each)))
        for name, (each, _) in commands.items()
    ]
    files = sorted({f for _, names in _with_file(parser) for f in names})
    return BASH.format(
        files="|".join(files),
        commands="|".join(commands),
        cases="\n".join(cases),
        everything=" ".join([*commands, *_words(parser)]),
    )


def _zsh(
    parser: argparse.ArgumentParser, commands: dict[str, tuple[argparse.ArgumentParser, str]]
) -> str:
    described = [f"        '{name}:{_quote(help)}'" for name, (_, help) in commands.items()]
    cases = []
    for name, (each, _) in commands.items():
        arguments = [*_zsh_options(each), *(f"'*:{name}:({w})'" for w in _choices(each))]
        cases.append(f"        {name}) _arguments {' '.join(arguments)} ;;")
    return ZSH.format(
        commands="\n".join(described),
        options="\n".join(f"        {each} \\" for each in _zsh_options(parser)),
        cases="\n".join(cases),
    )


def _zsh_options(parser: argparse.ArgumentParser) -> list[str]:
    found = []
    for action in _options(parser):
        for name in action.option_strings:
            value = "" if action.nargs == 0 else f":{(action.metavar or action.dest)}:"
            if value and action.metavar in ("PATH", "FILE"):
                value += "_files"
            found.append(f"'{name}[{_quote(action.help or '')}]{value}'")
    return found


def _quote(text: str) -> str:
    """A description within single quotes, where brackets and colons mean something."""
    for sign in "[]:'":
        text = text.replace(sign, " ")
    return " ".join(text.split())


def _commands(
    parser: argparse.ArgumentParser,
) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """Each command's parser and description."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help or "" for each in action._choices_actions}
            return {name: (each, helps.get(name, "")) for name, each in action.choices.items()}
    return {}


def _options(parser: argparse.ArgumentParser) -> Iterable[argparse.Action]:
    return (action for action in parser._actions if action.option_strings)


def _with_file(parser: argparse.ArgumentParser) -> Iterable[tuple[argparse.Action, list[str]]]:
    for action in _options(parser):
        if action.metavar in ("PATH", "FILE"):
            yield action, list(action.option_strings)


def _words(parser: argparse.ArgumentParser) -> list[str]:
    """Options, and the words that an argument may be."""
    words = [name for action in _options(parser) for name in action.option_strings]
    return [*words, *" ".join(_choices(parser)).split()]


def _choices(parser: argparse.ArgumentParser) -> list[str]:
    """The words of each argument that has a choice of them."""
    return [
        " ".join(map(str, action.choices))
        for action in parser._actions
        if action.choices
        and not action.option_strings
        and not isinstance(action, argparse._SubParsersAction)
    ]
