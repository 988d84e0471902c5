"""A small machine and a program builder for the machine's tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc import fixed_point
from heatc.isa import units
from heatc.isa.table import DTYPES
from heatc.isa.units import Mask
from heatc.isa.words import Inst, decode_program, encode_program, inst
from heatc.machine.machine import Machine, MachineState, Memory, RunResult
from heatc.machine.state import Extent

Array = NDArray[Any]
BOUNDS = {"i8": 127, "i16": 32767, "i32": 1 << 20}


@dataclass(frozen=True)
class Tiny:
    """Hardware small enough that tests reach its corners."""

    name: str = "tiny"
    cores: int = 4
    pe_rows: int = 4
    pe_columns: int = 4
    fold_overlap: bool = True
    split_bits: int = 16
    clock_hz: int = 1_000_000
    local_buffer_bytes: int = 1 << 16
    shared_buffer_bytes: int = 1 << 16
    shared_bytes_per_cycle: int = 64
    dram_bytes_per_second: int = 8_000_000
    dram_latency_cycles: int = 10
    se_lanes: int = 2
    blocks: tuple[tuple[int, int], ...] = ((2, 2), (1, 1), (4, 2), (8, 8))
    adder_lanes: int = 4
    softmax_lanes: int = 2
    vector_lanes: int = 0
    host_ops_per_second: int = 2_000_000
    host_bytes_per_second: int = 4_000_000
    host_call_cycles: int = 5
    fetch_upon_mask: bool = True
    early_head_exit: bool = True
    stage_overlap: bool = True
    local_a_stationary: bool = True
    block_importance_in_array: bool = True


def codes(shape: tuple[int, ...], seed: int, dtype: str = "i16", bound: int = 0) -> Array:
    """Random codes."""
    high = bound or BOUNDS[dtype]
    numbers = np.random.default_rng(seed).integers(-high, high + 1, shape)
    return numbers.astype({"i8": np.int8, "i16": np.int16, "i32": np.int32}[dtype])


def expected_attention(
    q: Any,
    k: Any,
    v: Any,
    points: tuple[int, int, int],
    scale: units.SoftmaxScale,
    heads: int,
    rho: float,
    tau: float,
    pruned: str,
) -> tuple[Any, Any]:
    """(output codes, block masks) by the formulas of docs/design/numerics.md."""
    length, width = q.shape
    q, k, v = (
        np.asarray(x).astype(np.int64).reshape(length, heads, -1).swapaxes(0, 1) for x in (q, k, v)
    )
    (qi, qf), (ki, kf) = fixed_point.split(q, points[0]), fixed_point.split(k, points[1])
    a = qi @ ki.swapaxes(1, 2)
    theta = units.block_importance(a, (2, 2))
    kept = units.block_mask(theta, rho)
    scores_kept = units.expand_mask(kept, (2, 2), (length, length))
    merged = units.merge_scores(
        a,
        qf @ ki.swapaxes(1, 2),
        qi @ kf.swapaxes(1, 2),
        scores_kept,
        pruned,
        units.Points(*points),
    )
    p = units.softmax_unit(merged.codes, points[2], scale)
    out = fixed_point.saturate(fixed_point.round_shift(p @ v, 14), 16).codes
    if tau > 0:
        out = out * units.head_gate(theta.sum(axis=(1, 2)), length * length, tau)[:, None, None]
    return out.swapaxes(0, 1).reshape(length, width), kept


class Kit:
    """Collects constants, tensors, tiles and instructions; `run` encodes, decodes and runs."""

    def __init__(self, hardware: Tiny, size: int = 1 << 20):
        self.hardware = hardware
        self.size = size
        self.code: list[Inst] = []
        self._weights = b""
        self._rest = 0
        self._tensors: list[tuple[str, bool, int, tuple[int, int], str]] = []
        self._used = {"local": 0, "shared": 0}
        self._tiles = 0
        self._places: dict[int, int] = {}
        self.memory: Memory | None = None

    def emit(self, mnemonic: str, **operands: float | str) -> int:
        """Append an instruction; returns its pc."""
        self.code.append(inst(mnemonic, **operands))
        return len(self.code) - 1

    def put(self, array: Array, dtype: str) -> int:
        """A constant tensor; returns its descriptor."""
        self._weights += b"\0" * (-len(self._weights) % 8)
        base = len(self._weights)
        self._weights += array.tobytes()
        return self._describe(True, base, (array.shape[0], array.shape[1]), dtype)

    def tensor(self, shape: tuple[int, int], dtype: str) -> int:
        """A writable tensor; returns its descriptor."""
        base = self._rest
        self._rest += -(-shape[0] * shape[1] * DTYPES[dtype] // 4096) * 4096
        return self._describe(False, base, shape, dtype)

    def _describe(self, constant: bool, base: int, shape: tuple[int, int], dtype: str) -> int:
        self._tensors.append(("dram", constant, base, shape, dtype))
        return len(self._tensors) - 1

    def tile(self, space: str, dtype: str, nbytes: int) -> int:
        """A tile of its own bytes; returns its number."""
        number, address = self._tiles, self._used[space]
        self._tiles += 1
        self._used[space] += nbytes
        self.emit("tile", t=number, space=space, dtype=dtype, address=address, bytes=nbytes)
        self._places[number] = address
        return number

    def over(self, base: int, dtype: str, nbytes: int, offset: int = 0) -> int:
        """A tile that begins `offset` bytes behind where a tile of this kit begins."""
        number, self._tiles = self._tiles, self._tiles + 1
        address = self._places[base] + offset
        self.emit("tile", t=number, space="local", dtype=dtype, address=address, bytes=nbytes)
        return number

    @property
    def weight_bytes(self) -> int:
        """Where the constants end, and what is written begins."""
        return -(-len(self._weights) // 4096) * 4096

    def _base(self, index: int) -> int:
        _, constant, base, _, _ = self._tensors[index]
        return base if constant else self.weight_bytes + base

    def program(self) -> list[Inst]:
        """Descriptors first: they have no effect on time but their issue."""
        head = [
            inst(
                "tensor",
                d=i,
                space=space,
                dtype=dtype,
                base=self._base(i),
                rows_imm=shape[0],
                cols=shape[1],
            )
            for i, (space, _, _, shape, dtype) in enumerate(self._tensors)
        ]
        self.head = len(head)
        return [*head, *self.code, inst("halt")]

    def run(
        self,
        on_retire: Callable[[int, Inst, MachineState], None] | None = None,
        max_seconds: float = 60,
    ) -> RunResult:
        """Run the program through its encoding; pcs of `saturations` are those of `emit`."""
        weights = np.frombuffer(self._weights, np.uint8)
        padded = np.concatenate([weights, np.zeros(self.weight_bytes - weights.size, np.uint8)])
        self.memory = Memory(padded, self.size)
        program = decode_program(encode_program(self.program()))
        result = Machine(self.hardware, self.memory).run(
            program, on_retire, max_seconds=max_seconds
        )
        moved = {pc - self.head: count for pc, count in result.saturations.items()}
        object.__setattr__(result, "saturations", moved)
        return result

    def get(self, index: int) -> Array:
        """A tensor after the run."""
        assert self.memory is not None
        _, _, _, shape, dtype = self._tensors[index]
        return self.memory.view(self._base(index), dtype, *shape).copy()


class Given:
    """Masks of a seed, where each further number prunes more blocks and heads of the same runs."""

    def __init__(self, seed: int, kept: float, heads: float):
        self._blocks = np.random.default_rng(seed)
        self._heads = np.random.default_rng(seed + 1)
        self._kept, self._kept_heads = kept, heads

    def mask(self, pc: int, state: MachineState, first: Extent, rows: int, columns: int) -> Mask:
        """Random blocks of all cores, so that both runs draw the same."""
        chances = self._blocks.random((state.cores, rows, columns))
        return (chances < self._kept)[: state.active]

    def gate(self, pc: int, state: MachineState) -> Mask:
        return (self._heads.random(state.cores) < self._kept_heads)[: state.active]

    def cascade(self, pc: int, heads: int, keep: int) -> Mask:
        return self._heads.permutation(heads) < keep
