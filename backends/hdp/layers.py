"""
What a run computed inside: codes of named tensors, block masks, head gates.

A `LayerRecorder` watches instructions retire and copies what debug.json names, because a program
reuses memory. It changes nothing in the machine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.backends.hdp.debug import TOKENS, AttentionInfo, TensorInfo, attentions, named_tensors
from heatc.backends.hdp.masks import EXTRA, LENGTHS, REAL, Rounds
from heatc.errors import HeatcError
from heatc.isa.table import R_TOKENS
from heatc.isa.units import Mask
from heatc.isa.words import Inst
from heatc.machine.memory import Memory
from heatc.machine.state import MachineState

_LARGEST_MASKS = 1 << 30
"""Elements of the masks of all attentions."""

_PANEL = re.compile(r"\.panel\d+$")

Array = NDArray[np.generic]
Layers = dict[str, Array]


PACKS = ("hpack", "hrows")
"""The instructions that number the rows of a batch."""


class LayerRecorder:
    """
    Collects the layers of one run of `batch` sequences of at most `length` tokens.

    Pass `on_retire` to the machine; `layers` and `decisions` hold the result afterwards. Without
    `codes` no tensors are copied. `reads`: the program reads padding.
    """

    def __init__(
        self,
        debug: Mapping[str, Any],
        memory: Memory,
        batch: int,
        length: int,
        *,
        codes: bool = True,
        reads: bool = False,
    ):
        self._memory = memory
        self._batch = batch
        self._tokens = batch * length
        self._length = length
        self._reads = reads
        self._real = np.zeros((batch, length), np.bool_)
        self._tensors = named_tensors(debug)
        self._attentions = attentions(debug)
        self._codes: dict[str, Array] = {}
        self._masks: dict[str, Mask] = {}
        self._gates: dict[str, Mask] = {}
        self._by_pc: dict[int, list[tuple[str, TensorInfo]]] = {}
        for name, tensor in self._tensors.items() if codes else ():
            for pc in tensor.pcs:
                self._by_pc.setdefault(pc, []).append((name, tensor))
        self._mask_pcs: dict[int, tuple[str, str]] = {}
        self._gate_pcs = {pc: n for n, a in self._attentions.items() for pc in a.gate_pcs}
        self._elements = 0
        for name, attention in self._attentions.items():
            self._begin(name, attention)
        self._rounds = Rounds()
        self._lengths = np.zeros(batch, np.int64)

    def _begin(self, name: str, attention: AttentionInfo) -> None:
        shape = (self._batch, attention.heads, *attention.blocks(self._length))
        self._elements += math.prod(shape)
        if self._elements > _LARGEST_MASKS:
            raise _misfit(f"attention {name[:80]!r}: masks of {shape} are absurdly large")
        for kind, pcs in (("mask", attention.mask_pcs), ("round", attention.round_pcs)):
            for prefix in ("", EXTRA) if self._reads and pcs else ("",) if pcs else ():
                self._masks[f"{prefix}{kind}/{name}"] = np.zeros(shape, np.bool_)
            self._mask_pcs |= dict.fromkeys(pcs, (f"{kind}/{name}", name))
        if attention.gate_pcs:
            self._gates[name] = np.zeros(shape[:2], np.bool_)

    def on_retire(self, pc: int, inst: Inst, state: MachineState) -> None:
        """Takes what the instruction at `pc` has completed."""
        if inst.mnemonic in ("seq", "heads"):
            self._rounds.on_retire(inst, state)
        elif inst.mnemonic in PACKS:
            self._take_lengths(inst, state)
        elif pc in self._mask_pcs:
            key, name = self._mask_pcs[pc]
            self._take_mask(f"{EXTRA}{key}" if state.extra else key, name, inst, state)
        elif pc in self._gate_pcs and inst.mnemonic == "cascade":
            self._take_list(self._gate_pcs[pc], int(inst["keep"]), state)
        elif pc in self._gate_pcs:
            self._take_gate(self._gate_pcs[pc], state)
        for name, tensor in self._by_pc.get(pc, ()):
            self._codes[name] = self._take_tensor(name, tensor, state)

    def _take_lengths(self, inst: Inst, state: MachineState) -> None:
        """
        The tokens of each sequence, and which they are where padding is read.

        Raises `HeatcError` where the program packs tokens of another shape too.
        """
        packed = (int(inst["batch"]), int(inst["length"]))
        if packed != self._real.shape:
            shapes = " and ".join(f"{b} x {s}" for b, s in (self._real.shape, packed))
            note = "run the program without --layers and --save-masks"
            raise HeatcError(f"the program packs {shapes} tokens", notes=[note])
        self._lengths[:] = [length for _, length, _ in state.sequences]
        if inst.mnemonic == "hrows":
            rows: Any = state.tensor(int(inst["dreal"])).data.reshape(-1)[: self._real.size]
            self._real[:] = (rows >= 0).reshape(packed)

    def _take_tensor(self, name: str, tensor: TensorInfo, state: MachineState) -> Array:
        """A copy of a tensor; of a token tensor (as many rows as tokens fit) the real tokens."""
        rows = tensor.rows
        if rows in (TOKENS, self._tokens):
            rows = state.registers[R_TOKENS]
        try:
            memory = state.shared if tensor.shared else self._memory
            view = memory.view(tensor.address, tensor.dtype, rows, tensor.cols)
        except HeatcError as error:
            raise _misfit(f"tensor {name!r}: {error.message}") from error
        return view.copy()

    def _heads(self, name: str, state: MachineState) -> list[tuple[int, int]]:
        """Each active core with its head."""
        rounds = self._rounds
        if not 0 <= rounds.sequence < self._batch:
            raise _misfit(f"attention {name!r}: sequence {rounds.sequence} of {self._batch}")
        heads = self._attentions[name].heads
        at = state.heads_at(rounds.first_head + rounds.stride * state.core_items).tolist()
        return [(core, head) for core, head in enumerate(at) if 0 <= head < heads]

    def _take_mask(self, key: str, name: str, inst: Inst, state: MachineState) -> None:
        """The rows that a decision on masks has appended to each core's."""
        array = state.tile(int(inst["m"])).read().array
        row = state.registers[int(inst["row_reg"])]
        (high, _), (rows_in_all, columns) = state.block, self._masks[key].shape[2:]
        new = array[:, row // state.parts // high :, :columns]
        for core, head in self._heads(name, state):
            part = new[core if array.shape[0] > 1 else 0]
            top = (row + state.part_rows * (core % state.parts)) // high
            kept = self._masks[key][self._rounds.sequence, head]
            if top == 0:
                kept[:] = False
            rows = max(0, min(part.shape[0], rows_in_all - top))
            kept[top : top + rows, : part.shape[1]] = part[:rows] != 0

    def _take_gate(self, name: str, state: MachineState) -> None:
        passed = state.kept if state.zeroed is None else state.zeroed
        for core, head in self._heads(name, state):
            kept = passed is None or bool(passed[core])
            self._gates[name][self._rounds.sequence, head] = kept

    def _take_list(self, name: str, keep: int, state: MachineState) -> None:
        """The heads that `cascade` keeps, which stand first in its list."""
        sequence, listed, gates = self._rounds.sequence, state.listed, self._gates[name]
        if not 0 <= sequence < self._batch:
            raise _misfit(f"attention {name!r}: sequence {sequence} of {self._batch}")
        if listed is None or len(listed) != gates.shape[1]:
            raise _misfit(f"attention {name!r}: a list of other than {gates.shape[1]} heads")
        gates[sequence] = False
        gates[sequence, listed[:keep]] = True

    @property
    def layers(self) -> Layers:
        """
        `codes/<tensor>`: codes (rows, cols); `point/<tensor>`: their binary point, where they
        have one; `mask/<attention>`: bool (batch, heads, block rows, block columns), False outside of a
        sequence's blocks; `round/<attention>`: the same after the first of two rounds, where the
        rule has two; `gate/<attention>`: bool (batch, heads), False for absent sequences;
        `extra/...`: masks of rows that are no keys, where padding is read.
        """
        layers: Layers = {}
        for name, names in _panels(self._codes).items():
            parts = [self._codes[n] for n in names]
            layers[f"codes/{name}"] = parts[0] if len(parts) == 1 else np.hstack(parts)
            point = self._tensors[names[0]].point
            if point is not None:
                layers[f"point/{name}"] = np.array(point, np.int64)
        return layers | self._decisions()

    @property
    def decisions(self) -> Layers:
        """What a run without values needs, see `heatc.backends.hdp.masks`."""
        real: Layers = {REAL: self._real} if self._reads else {}
        return {LENGTHS: self._lengths} | real | self._decisions()

    def _decisions(self) -> Layers:
        masks: Layers = {**self._masks}
        return masks | {f"gate/{name}": gate for name, gate in self._gates.items()}


def _panels(names: Iterable[str]) -> dict[str, list[str]]:
    """The recorded tensors of each tensor: itself, or its column panels in order."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_PANEL.sub("", name), []).append(name)
    return {k: sorted(v, key=lambda n: (len(n), n)) for k, v in found.items()}


def _misfit(message: str) -> HeatcError:
    note = "debug.json does not describe this program: compile the model again"
    return HeatcError(message, place="debug.json", notes=[note])


def concatenate(parts: Sequence[Layers]) -> Layers:
    """The layers of several runs as those of one larger batch, in the order of the runs."""
    whole: Layers = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        # A run without a single token writes no token tensor.
        values = [part[name] for part in parts if name in part]
        whole[name] = values[0] if name.startswith("point/") else np.concatenate(values)
    return whole
