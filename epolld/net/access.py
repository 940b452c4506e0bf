"""Who may connect: rules in order, the first that fits decides. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from epolld.networks import Client, Network

Rule = tuple[bool, Network]  # whether it allows, and whom


def is_allowed(client: Client, rules: Sequence[Rule]) -> bool:
    """Whether the rules let `client` in.

    Whom no rule names gets the opposite of the last one: after a list of those who may, nobody
    else may; after a list of those who may not, everybody else may.
    """
    for allow, network in rules:
        if client in network:
            return allow
    return not rules[-1][0] if rules else True
