"""
From the machine level to words: instructions, debug information, ports, and lazy weights.

Weights are quantised when they are written, in chunks of `CHUNK` elements, so that a compilation
never holds a second copy of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import (
    ArrayAttr,
    FileLineColLoc,
    ModuleOp,
    NameLoc,
    StringAttr,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from heatc.backends.hdp.container import Port, Weight
from heatc.backends.hdp.mask_values import MaskValues
from heatc.dialects import hdp
from heatc.dialects.hdp_words import Words, base_of, operand_of
from heatc.errors import HeatcError
from heatc.fixed_point import encode as encode_codes
from heatc.isa.table import BLOCK, DTYPES, TILE_DTYPES, Field
from heatc.isa.words import Inst
from heatc.passes.allocate_buffers import weight_shape, weight_tensors
from heatc.passes.tiling.packing import PAGE, align
from heatc.weights import WeightStore

CHUNK = 1 << 18
"""Elements of a weight that are quantised at a time."""

NUMPY_DTYPES = {
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "f32": "float32",
}
"""numpy's names of ISA dtypes."""

_LISTED = {"mask": "mask_pcs", "heads": "gate_pcs"}
"""Where debug.json lists the instructions that decide what is kept; a first round is told apart."""

Array = NDArray[np.generic]


@dataclass(frozen=True)
class WeightItem:
    """
    One tensor of the weights file.

    `names` are concatenated along axis 0, then `permutation` permutes the axes, then the values
    are rounded to `dtype` at `point` (floats have none). A constant has `values` and no names.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    permutation: tuple[int, ...] | None = None
    point: int | None = None
    values: Array | None = field(default=None, compare=False)

    def chunks(self, store: WeightStore) -> Iterator[Array]:
        """The codes in row-major order, some at a time."""
        dtype = np.dtype(NUMPY_DTYPES[self.dtype])
        if self.values is not None:
            yield self.values.astype(dtype, copy=False)
            return
        for part in self._parts(store):
            flat = part.reshape(-1)
            for start in range(0, flat.size, CHUNK):
                yield self._encode(flat[start : start + CHUNK], dtype)
        for name in self.names:
            store.release(name)

    def _parts(self, store: WeightStore) -> Iterator[Array]:
        """What to encode, in order: the file's arrays unless axes are permuted."""
        arrays = [store[name] for name in self.names]
        if self.permutation is None:
            yield from arrays
            return
        whole = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        yield np.transpose(whole, self.permutation)

    def _encode(self, values: Array, dtype: np.dtype[np.generic]) -> Array:
        if self.point is None:
            return values.astype(dtype)
        return encode_codes(values.astype(np.float64), self.point, 8 * dtype.itemsize).codes.astype(
            dtype
        )

    def array(self, store: WeightStore) -> Array:
        """The whole tensor."""
        return np.concatenate([c.reshape(-1) for c in self.chunks(store)]).reshape(self.shape)

    def weight(self, store: WeightStore) -> Weight:
        """The item as `write_program` takes it."""
        return Weight(self.key, NUMPY_DTYPES[self.dtype], self.shape, self.chunks(store))


@dataclass(frozen=True)
class Encoded:
    """What a program consists of, but for the bytes of its weights."""

    program: tuple[Inst, ...]
    debug: dict[str, Any]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    points: dict[str, int]
    weights: tuple[WeightItem, ...]
    dram_bytes: int


def encode_module(module: ModuleOp) -> Encoded:
    """
    Encode `main` of a module that allocate-buffers has finished.

    Raises `HeatcError` for an op that is not of the machine level.
    """
    function = next((op for op in module.ops if isinstance(op, FuncOp)), None)
    if function is None:
        raise HeatcError("the module has no function to encode")
    words = Words(function)
    tensors = [op for op in function.walk() if isinstance(op, hdp.TensorOp)]
    weights = weight_tensors(module)
    end = align(sum(op.nbytes for op in weights), PAGE)
    return Encoded(
        tuple(words.program),
        _debug(words, tensors),
        _ports(function, tensors, "input"),
        _ports(function, tensors, "output"),
        _points(words, tensors),
        tuple(_weight_item(op) for op in weights),
        max([end, *(base_of(op) + op.nbytes for op in tensors if op.space.data == "dram")]),
    )


# --- Debug information --------------------------------------------------------------------------


def _location(op: Operation) -> tuple[str, str]:
    """Module path and source line of an op."""
    location, path = op.location, ""
    if isinstance(location, NameLoc):
        path, location = location.desc.data, location.location
    if isinstance(location, FileLineColLoc):
        return path, f"{location.filename.data}:{location.line.data}"
    return path, ""


def _debug(words: Words, tensors: Sequence[hdp.TensorOp]) -> dict[str, Any]:
    locations: list[dict[str, Any]] = []
    last: tuple[str, str] | None = None
    for pc, op in enumerate(words.ops):
        place = _location(op)
        if place != last:
            locations.append({"pc": pc, "path": place[0], "source": place[1]})
        last = place
    return {
        "locations": locations,
        "tensors": _named_tensors(words, tensors),
        "attentions": _attentions(words),
    }


def _writers(words: Words, value: SSAValue) -> list[int]:
    """The pcs of the instructions that write a tensor, through windows too."""
    pcs: list[int] = []
    for use in value.uses:
        op = use.operation
        if isinstance(op, hdp.WindowOp | hdp.AliasOp):
            if use.index == 0:
                pcs += _writers(words, op.result)
        elif isinstance(op, hdp.InstructionOp) and _writes(op, use.index):
            pcs.append(words.pcs[op])
    return sorted(pcs)


def _writes(op: hdp.InstructionOp, index: int) -> bool:
    return op.value_fields[index].name in op.instruction.tensors_written


def _named_tensors(words: Words, tensors: Sequence[hdp.TensorOp]) -> dict[str, dict[str, Any]]:
    """What the program writes, by symbol; a split tensor as its two planes."""
    named: dict[str, dict[str, Any]] = {}
    for op in tensors:
        writers = _writers(words, op.result)
        on_chip = op.on_chip is not None
        lasts = on_chip or op.space.data == "dram"
        if op.role.data not in ("activation", "output") or not writers or not lasts:
            continue
        named[op.symbol.data] = {
            "address": base_of(op),
            "dtype": op.dtype.data,
            "rows": op.rows.value.data,
            "cols": op.cols.value.data,
            "point": None if op.point is None else op.point.value.data,
            "pc": writers[-1] if len(writers) == 1 else writers,
            **({"shared": True} if on_chip else {}),
        }
    return named


def _reporting(words: Words) -> Iterator[tuple[str, hdp.InstructionOp]]:
    """The instructions that name the attention they belong to."""
    for op in words.pcs:
        if isinstance(op, hdp.InstructionOp) and op.attention is not None:
            yield op.attention.data, op


def _attentions(words: Words) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, op in _reporting(words):
        entry = found.setdefault(
            name,
            {
                **{"mask_pcs": [], "round_pcs": [], "gate_pcs": []},
                **{"heads": 1, "dim": 1, "block": list(BLOCK)},
            },
        )
        kind = "round_pcs" if op.first_round else _LISTED.get(op.instruction.decides)
        if kind is not None:
            entry[kind].append(words.pcs[op])
        elif op.mnemonic == "blocks":
            entry["block"] = [operand_of(op, f) for f in op.instruction.fields]
        elif op.mnemonic == "heads":
            assert op.dim is not None
            # Rounds of listed heads may end before the last head.
            entry["heads"] = max(entry["heads"], int(operand_of(op, _field(op, "limit"))))
            entry["dim"] = op.dim.value.data
    return found


def _field(op: hdp.InstructionOp, name: str) -> Field:
    return next(f for f in op.instruction.fields if f.name == name)


def _points(words: Words, tensors: Sequence[hdp.TensorOp]) -> dict[str, int]:
    """Binary points by symbol; of scores as `<attention>.scores`."""
    points: dict[str, int] = {}
    for op in tensors:
        if op.point is None:
            continue
        points[op.symbol.data] = op.point.value.data
        if op.plane_of is not None and not op.symbol.data.endswith(".integer"):
            points[op.plane_of.data] = op.point.value.data
    for name, op in _reporting(words):
        if op.mnemonic == "softmax":
            points[f"{name}.scores"] = int(operand_of(op, _field(op, "point")))
    return points


# --- Ports and weights --------------------------------------------------------------------------


def _ports(function: FuncOp, tensors: Sequence[hdp.TensorOp], role: str) -> tuple[Port, ...]:
    """The model's inputs or outputs, in its own order."""
    ports: dict[str, Port] = {}
    reads = any(
        isinstance(op, hdp.InstructionOp) and op.mnemonic == "hrows" for op in function.walk()
    )
    paddings = dict(zip(_texts(function, "outputs"), _texts(function, "paddings")))
    for op in tensors:
        if op.role.data != role or op.ports is None or op.shape is None:
            continue
        for name in op.ports:
            ports[name.data] = Port(
                name.data,
                "bool" if op.truth is not None else NUMPY_DTYPES[op.dtype.data],
                hdp.integers(op.shape),
                base_of(op),
                0 if op.limit is None else op.limit.value.data,
                "" if op.port_role is None else op.port_role.data,
                _mask_values(op, reads),
                paddings.get(name.data, ""),
                None if op.within is None else op.within.intervals[0],
                None if op.hides is None else op.hides.value.data,
            )
    order = _texts(function, f"{role}s")
    return tuple(ports[name] for name in order) if order else tuple(ports.values())


def _texts(function: FuncOp, name: str) -> list[str]:
    """The texts of an attribute `heatc.<name>`."""
    found = function.attributes.get(f"heatc.{name}")
    if not isinstance(found, ArrayAttr):
        return []
    return [str(n.data) for n in cast("ArrayAttr[StringAttr]", found)]


def _mask_values(op: hdp.TensorOp, reads: bool) -> MaskValues | None:
    if op.real is None or op.masked is None:
        return None
    return MaskValues(op.real.intervals, op.masked.intervals, reads)


def _weight_item(op: hdp.TensorOp) -> WeightItem:
    permutation = op.permutation
    values = None
    if op.values is not None:
        values = np.array(hdp.integers(op.values), np.int64)
    return WeightItem(
        op.symbol.data,
        op.dtype.data,
        weight_shape(op),
        () if op.names is None else tuple(n.data for n in op.names),
        None if permutation is None else hdp.integers(permutation),
        None if op.point is None else op.point.value.data,
        values,
    )


assert set(NUMPY_DTYPES) == set(DTYPES) - set(TILE_DTYPES)
