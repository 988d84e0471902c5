"""
What the instructions of a run did, for the energy that is reckoned afterwards.

Work is counted by its variables: instructions repeat in loops, so that a run of many steps has few
different pieces of work, and counting one is an addition in a dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence

Key = tuple[int, ...]


class Work:
    """
    Pieces of work of a run.

    `counts` has how often a pc did work of some variables, the pc first; `names` are the names of a
    pc's variables (`heatc.isa.actions.WORK_VARIABLES`) in that order, `mnemonics` those of the
    program. `extra` are actions beside those, by pc and action.
    """

    __slots__ = ("counts", "extra", "mnemonics", "names")

    def __init__(self):
        self.mnemonics: Sequence[str] = ()
        self.counts: dict[Key, int] = {}
        self.names: dict[int, tuple[str, ...]] = {}
        self.extra: dict[tuple[int, str], float] = {}

    def add(self, pc: int, variables: dict[str, int]) -> None:
        """Count a piece of work; a pc gives the same variables in the same order each time."""
        key = (pc, *variables.values())
        before = self.counts.get(key, 0)
        if not before:
            self.names[pc] = tuple(variables)
        self.counts[key] = before + 1

    def act(self, pc: int, action: str, count: float) -> None:
        """Count an action that the instruction's expressions do not see."""
        self.extra[pc, action] = self.extra.get((pc, action), 0) + count
