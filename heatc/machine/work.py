"""
What the instructions of a run did, and the actions that cost energy.

Work is counted by its variables: instructions repeat in loops, so that a run of many steps has few
different pieces of work, and counting one is an addition in a dictionary. `charged` evaluates the
expressions of the instruction table once for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

from heatc.hardware.costs import ACTIONS, SPLITS, Sizes, macs_per_pe, multiplier_bits
from heatc.isa.table import ISA, MAC_ACTION
from heatc.machine.clocks import up

Key = tuple[int, ...]


class Work:
    """
    Pieces of work of a run.

    `counts` has how often a pc did work of some variables, the pc first; `names` are the names of a
    pc's variables (`heatc.isa.table.WORK_VARIABLES`) in that order, `mnemonics` those of the
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


_INDEX = {action: i for i, action in enumerate(ACTIONS)}
_WIDEST = SPLITS[-1]


def mac_row(bits_a: int, bits_b: int, split: int) -> str:
    """
    The row of the file that prices a multiply-accumulate.

    It is that of the multipliers: narrow operands cost less only where a PE splits.
    """
    low, high = sorted(multiplier_bits(bits, split) for bits in (bits_a, bits_b))
    return f"mac_{low}x{high}"


def charged(work: Work, hardware: Sizes) -> Iterator[tuple[int, int, float]]:
    """
    The actions of all pieces of work: pc, position in `ACTIONS`, count.

    That an instruction is issued is no piece of work, and not among them.
    """
    functions: dict[tuple[str, tuple[str, ...]], _Function] = {}
    for key, times in work.counts.items():
        pc = key[0]
        kind = (work.mnemonics[pc], work.names[pc])
        function = functions.get(kind)
        if function is None:
            function = functions[kind] = _Function(*kind, hardware)
        for row, count in function.actions(key[1:]):
            yield pc, row, times * count
    for (pc, action), count in work.extra.items():
        yield pc, _INDEX[action], count


class _Function:
    """The action expressions of an instruction as one function of its work's variables."""

    def __init__(self, mnemonic: str, names: tuple[str, ...], hardware: Sizes):
        entry = ISA[mnemonic]
        on_vector = hardware.vector_lanes and entry.vector
        expressions = entry.vector_energy if on_vector else entry.energy
        body = ", ".join(f"({e})" for e in expressions.values())
        constants = {"up": up, "rows": hardware.pe_rows, "columns": hardware.pe_columns}
        source = f"lambda {', '.join(names)}: ({body},)"
        self._counts = cast(Callable[..., tuple[float, ...]], eval(source, constants))
        self._actions = tuple(expressions)
        self._widths = tuple(names.index(n) for n in ("bits_a", "bits_b") if n in names)
        self._split = hardware.split_bits

    def actions(self, values: tuple[int, ...]) -> Iterable[tuple[int, float]]:
        """Pairs of an action's position in `ACTIONS` and its count."""
        for action, count in zip(self._actions, self._counts(*values)):
            if action != MAC_ACTION:
                yield _INDEX[action], count
                continue
            bits_a, bits_b = (values[i] for i in self._widths)
            yield _INDEX[mac_row(bits_a, bits_b, self._split)], count
            if self._split < _WIDEST:
                each = macs_per_pe(bits_a, bits_b, self._split)
                yield _INDEX[f"fuse_{self._split}"], count / each
