"""
Masks of an earlier run, on which a program can be timed without computing values.

    lengths             int64 (samples,): real tokens of each sequence
    real                bool (samples, S): which tokens these are, where the program reads padding
    mask/<attention>    bool (samples, heads, block rows, block columns): kept blocks
    round/<attention>   the same after the first of two rounds, where the rule has two
    gate/<attention>    bool (samples, heads): kept heads
    extra/...           `mask/...` and `round/...` of rows that are no keys, where padding is read

`hdp-run --save-masks` writes such a file, `hdp-run --model=timing --masks` runs on one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from heatc.backends.hdp.debug import AttentionInfo, attentions
from heatc.errors import HeatcError
from heatc.isa.units import Mask
from heatc.isa.words import Inst
from heatc.machine.state import Extent, MachineState
from heatc.readers.npz import forms_of

LENGTHS = "lengths"
REAL = "real"
EXTRA = "extra/"
"""What the names of masks begin with that are of rows which are no keys."""

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]


class Rounds:
    """Which sequence and which heads the cores work on, as `seq` and `heads` set them."""

    def __init__(self) -> None:
        self.sequence = 0
        self.first_head, self.stride = 0, 1

    def on_retire(self, inst: Inst, state: MachineState) -> None:
        """Takes what an instruction has changed."""
        if inst.mnemonic == "seq":
            self.sequence = state.registers[int(inst["rb"])]
        elif inst.mnemonic == "heads":
            self.first_head = state.registers[int(inst["rc"])]
            self.stride = int(inst["stride"])


def split_masks(
    stored: Arrays, debug: Mapping[str, Any], batch: int, length: int, *, reads: bool
) -> list[dict[str, Array]]:
    """
    The checked masks of each pass of `batch` sequences of at most `length` tokens.

    The last pass is filled up with empty sequences. `reads`: the program reads padding.

    Raises:
        HeatcError: the file is none of masks, or of another program.
    """
    lengths = _lengths(stored, length)
    names = {LENGTHS: lengths}
    if reads:
        names[REAL] = _real(stored, lengths, length)
    for name, attention in attentions(debug).items():
        for prefix in ("", EXTRA) if reads else ("",):
            names |= _decisions(stored, prefix, name, attention, (len(lengths), length))
    return [
        {name: _filled(array[start : start + batch], batch) for name, array in names.items()}
        for start in range(0, len(lengths), batch)
    ]


def _lengths(stored: Arrays, length: int) -> Array:
    form = forms_of(stored).get(LENGTHS)
    if form is None or len(form.shape) != 1 or form.dtype.kind not in "iu" or not form.shape[0]:
        _fail(LENGTHS, "expected a row of integers, the tokens of each sequence")
    lengths = stored[LENGTHS]
    if int(lengths.min()) < 0 or int(lengths.max()) > length:
        _fail(LENGTHS, f"a length is outside 0 to {length}, the program's")
    return lengths.astype(np.int64)


def _real(stored: Arrays, lengths: Array, length: int) -> Array:
    real = stored.get(REAL)
    expected = (len(lengths), length)
    if real is None or real.shape != expected or real.dtype.kind != "b":
        _fail(REAL, f"expected {expected} bool, which tokens are real")
    if not np.array_equal(real.sum(axis=1), lengths):
        _fail(REAL, "these tokens are not as many as the lengths say")
    return real


def _decisions(
    stored: Arrays, prefix: str, name: str, attention: AttentionInfo, size: tuple[int, int]
) -> dict[str, Array]:
    samples, length = size
    shape = (samples, attention.heads, *attention.blocks(length))
    wanted: list[tuple[str, tuple[int, ...]]] = []
    if attention.mask_pcs:
        wanted.append(("mask", shape))
    if attention.round_pcs:
        wanted.append(("round", shape))
    if attention.gate_pcs and not prefix:
        wanted.append(("gate", shape[:2]))
    found: dict[str, Array] = {}
    for kind, expected in wanted:
        key = f"{prefix}{kind}/{name}"
        form = forms_of(stored).get(key)
        if form is None or form.shape != expected or form.dtype.kind != "b":
            text = "nothing" if form is None else f"{form.shape} {form.dtype}"
            _fail(key, f"expected {expected} bool, found {text}")
        found[key] = stored[key]
    return found


def _filled(array: Array, batch: int) -> Array:
    missing = batch - len(array)
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])


def _fail(name: str, message: str) -> NoReturn:
    note = "save masks of this program: hdp-run PROG.hdp --inputs IN.npz --save-masks M.npz"
    raise HeatcError(message, place=f"masks {name!r}", notes=[note])


class StoredDecisions:
    """
    The decisions of one pass, for `Shapes`; pass `on_retire` to the machine too.

    Args:
        debug: the program's debug.json.
        stored: one of `split_masks`.
    """

    def __init__(self, debug: Mapping[str, Any], stored: Arrays):
        self._rounds = Rounds()
        self._masks: dict[int, Mask] = {}
        self._extra: dict[int, Mask] = {}
        """Those of rows that are no keys."""
        self._gates: dict[int, Mask] = {}
        for name, attention in attentions(debug).items():
            for kind, pcs in (("mask", attention.mask_pcs), ("round", attention.round_pcs)):
                for table, prefix in ((self._masks, ""), (self._extra, EXTRA)):
                    array = stored.get(f"{prefix}{kind}/{name}")
                    table |= {} if array is None else dict.fromkeys(pcs, cast(Mask, array))
            for pc in attention.gate_pcs:
                self._gates[pc] = cast(Mask, stored[f"gate/{name}"])

    def cascade(self, pc: int, heads: int, keep: int) -> Mask:
        """See `Decisions`."""
        kept = self._sequence(self._gates, pc)
        found = int(kept.sum())
        if (kept.size, found) != (heads, keep):
            raise HeatcError(
                f"pc {pc}: the masks keep {found} of {kept.size} heads, the program {keep} of {heads}"
            )
        return kept

    def on_retire(self, pc: int, inst: Inst, state: MachineState) -> None:
        """Follows the run."""
        self._rounds.on_retire(inst, state)

    def mask(self, pc: int, state: MachineState, first: Extent, rows: int, columns: int) -> Mask:
        """See `Decisions`; rows beyond the stored ones are pruned."""
        table = self._extra if state.extra else self._masks
        stored = self._of(table, pc, state)[:, :, :columns]
        wanted = first[:, None] + np.arange(rows)
        here = np.minimum(wanted, stored.shape[1] - 1)
        return stored[np.arange(len(stored))[:, None], here] & (wanted == here)[:, :, None]

    def gate(self, pc: int, state: MachineState) -> Mask:
        """See `Decisions`."""
        return self._of(self._gates, pc, state)

    def _of(self, table: Mapping[int, Mask], pc: int, state: MachineState) -> Mask:
        """The decisions of the active cores' heads."""
        decided, rounds = self._sequence(table, pc), self._rounds
        heads = state.heads_at(rounds.first_head + rounds.stride * state.core_items)
        if (heads >= len(decided)).any():
            raise HeatcError(f"pc {pc}: the masks have no head {heads.max()}")
        return decided[heads]

    def _sequence(self, table: Mapping[int, Mask], pc: int) -> Mask:
        """The decisions of all heads of the current sequence."""
        if pc not in table:
            raise HeatcError(
                f"pc {pc}: debug.json names no attention here, so there are no masks for it",
                notes=["compile the model again with this heatc"],
            )
        array, sequence = table[pc], self._rounds.sequence
        if not 0 <= sequence < len(array):
            raise HeatcError(f"pc {pc}: the masks have no sequence {sequence}")
        return array[sequence]
