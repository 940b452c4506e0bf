"""What has been counted, by names: for another program whose scoreboard has another layout.

After an upgrade in place to a version that counts otherwise, the old table cannot be read. So the
totals travel by name, and the new program takes those that it knows. What old workers count from
then on until they leave, nobody sees. A leaf.
"""

from __future__ import annotations

from epolld import ledger
from epolld.causes import RESTARTS
from epolld.ledger import Count, MasterWord
from epolld.scoreboard import Column, Scoreboard

# By service, slot and word: "ACCEPTED", "end eof", "refusal full".
Totals = dict[str, dict[str, dict[str, int]]]

# What the master's words are worth in another program; the rest it says anew.
KEPT = (
    MasterWord.STARTED,
    MasterWord.RELOADS_DONE,
    MasterWord.RELOADS_FAILED,
    MasterWord.LAST_RELOAD,
    MasterWord.LAST_RELOAD_DONE,
    MasterWord.UPGRADES,
    MasterWord.EXPORTER_RESTARTS,
)

_WORDS = {
    **{count.name: int(count) for count in Count if count is not Count.LIVE},
    **{f"end {cause}": word for cause, word in ledger.END_WORD.items()},
    **{f"refusal {cause}": word for cause, word in ledger.REFUSAL_WORD.items()},
}
_MASTER = {
    **{word.name: int(word) for word in KEPT},
    **{f"restart {cause}": ledger.RESTART_WORD[cause] for cause in RESTARTS},
}


def save(board: Scoreboard) -> Totals:
    """All that is above 0, of workers that have ended and of those that live."""
    slots = board.column(Column.SLOT)
    sheets = [(slot, board.totals(slot)) for slot in range(board.slots())]
    sheets += [(slots[row], board.sheet(row)) for row in board.used_rows()]
    found: Totals = {}
    for index, service in enumerate(board.service_names()):
        for slot, sheet in sheets:
            words = sheet.service(index)
            for name, word in _WORDS.items():
                if words[word]:
                    sums = found.setdefault(service, {}).setdefault(str(slot), {})
                    sums[name] = sums.get(name, 0) + words[word]
    return found


def restore(board: Scoreboard, totals: Totals) -> None:
    """Begin with what another program had counted; what this one does not know is dropped."""
    board.enlist(totals, totals)
    for service, slots in totals.items():
        for slot, sums in slots.items():
            if slot.isdecimal() and int(slot) < board.rows:
                board.use_slot(int(slot))
                words = board.totals(int(slot)).service(board.service_index(service))
                for name, value in sums.items():
                    if name in _WORDS:
                        words[_WORDS[name]] += value


def save_master(board: Scoreboard) -> dict[str, int]:
    """What the master has said that stays true."""
    return {name: board.master[word] for name, word in _MASTER.items() if board.master[word]}


def restore_master(board: Scoreboard, said: dict[str, int]) -> None:
    """Say it again."""
    for name, value in said.items():
        if name in _MASTER:
            board.master[_MASTER[name]] = value
