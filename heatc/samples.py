"""
Inputs that a model takes, made from its captured module alone.

Ids stay within the tables they index, masks are padded in every way that a user may pad, floats
are standard normal, other integers are small. `--execute-each` and the check after compiling
(`heatc.verify`) run on them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import IntegerType, ModuleOp
from xdsl.ir import Attribute, SSAValue

from heatc.dialects import attn, nn
from heatc.errors import HeatcError
from heatc.interpreter import input_names, main_function
from heatc.intervals import Interval, contained, typical

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Generator = np.random.Generator

LEFT_AND_HOLES = "left padding with holes"
KINDS = (LEFT_AND_HOLES, "no padding", "right padding", "one token")
"""How a sequence is padded, what finds most first."""

MOST_INTEGER = 3
"""Integers that index no known table are at most this."""

ANY_EXTENT = 5
"""The size of an axis that a module leaves open."""

_DTYPES = {
    "i1": np.bool_,
    "i8": np.int8,
    "i16": np.int16,
    "i32": np.int32,
    "i64": np.int64,
    "ui8": np.uint8,
    "ui16": np.uint16,
    "ui32": np.uint32,
    "ui64": np.uint64,
    "f16": np.float16,
    "f32": np.float32,
    "f64": np.float64,
}

_MOVES = (attn.PackOp, nn.ReshapeOp, nn.SliceOp, nn.ExpandOp, nn.TransposeOp, nn.CastOp)


class MaskValues(NamedTuple):
    """
    What a mask input may hold at a real token, and at one that is masked: sets of numbers.

    `extents` are (samples, length), in row-major order; without them they are the first and the
    last axis of the input.
    """

    real: tuple[Interval, ...] = ((1.0, 1.0),)
    masked: tuple[Interval, ...] = ((0.0, 0.0),)
    extents: tuple[int, int] | None = None

    def tells(self, array: Array) -> Mask:
        """Which tokens are real by an array of these values."""
        return contained(array, self.real)


def table_limits(module: ModuleOp) -> dict[str, int]:
    """For every input that indexes an embedding table: the number of rows of the table."""
    function = main_function(module)
    names: dict[SSAValue, str] = dict(zip(function.body.block.args, input_names(function)))
    limits: dict[str, int] = {}
    for op in function.walk():
        if not isinstance(op, nn.EmbeddingOp):
            continue
        name = names.get(_source(op.ids))
        if name is not None:
            rows = nn.shape_of(op.table)[0]
            limits[name] = min(rows, limits.get(name, rows))
    return limits


def _source(value: SSAValue) -> SSAValue:
    """Where the elements of a value come from, through ops that only move them."""
    while isinstance(value.owner, _MOVES):
        value = value.owner.operands[0]
    return value


def mask_inputs(module: ModuleOp) -> dict[str, MaskValues]:
    """
    The inputs that say which tokens are real, and with which values.

    Of a module at the packed level those that were proven to. Of any other module those that look
    like it: integers (samples, length) that index no table.
    """
    function = main_function(module)
    names: dict[SSAValue, str] = dict(zip(function.body.block.args, input_names(function)))
    proven: dict[str, MaskValues] = {}
    for op in function.walk():
        if isinstance(op, attn.PackingOp) and op.mask is not None:
            name = names.get(_source(op.mask))
            if name is not None:
                proven[name] = _values(op)
    if proven:
        return proven
    limits = table_limits(module)
    return {
        name: MaskValues()
        for argument, name in names.items()
        if name not in limits
        and len(nn.shape_of(argument)) == 2
        and isinstance(nn.element_of(argument), IntegerType)
    }


def _values(op: attn.PackingOp) -> MaskValues:
    """The values that a packing's mask may hold."""
    extents = attn.packing_of(op.result).shape
    if op.real is None or op.masked is None:
        return MaskValues(extents=extents)
    return MaskValues(op.real.intervals, op.masked.intervals, extents)


def padding(kind: str, length: int, rng: Generator) -> Mask:
    """Which of `length` positions are real; at least one is, whatever the kind."""
    real = np.zeros(length, np.bool_)
    if kind == "no padding":
        real[:] = True
    elif kind == "right padding":
        real[: max(1, math.floor(length * rng.uniform(0.3, 0.7)))] = True
    elif kind == "one token":
        real[rng.integers(length)] = True
    elif kind == LEFT_AND_HOLES:
        start = math.floor(length * rng.uniform(0.4, 0.6)) if length > 1 else 0
        start = max(start, min(1, length - 1))
        real[start:] = rng.random(length - start) < 0.6
        # Whatever chance did: it begins and ends with a token, and a hole follows the first.
        real[start + 1 : length - 1][:1] = False
        real[[start, length - 1]] = True
    else:
        raise ValueError(f"unknown kind of padding {kind!r}")
    return real


def sample_inputs(
    module: ModuleOp,
    kinds: Sequence[str] = KINDS,
    *,
    masks: Mapping[str, MaskValues] | None = None,
    seed: int = 0,
    most_integer: int = MOST_INTEGER,
    far: bool = False,
    ranges: Mapping[str, Interval] | None = None,
) -> dict[str, Array]:
    """
    Random inputs by name, of the shapes and types of a captured module.

    Args:
        module: says the inputs and the tables that they index.
        kinds: how the samples of the batch are padded, in turn.
        masks: what marks padding, without it `mask_inputs(module)`.
        seed: the same seed gives the same arrays.
        most_integer: the greatest integer where no table says it.
        far: whether masks hold numbers far from the usual ones too.
        ranges: the least and the greatest value of inputs that have them.

    Raises:
        HeatcError: an input has a type that no array has.
    """
    rng = np.random.default_rng(seed)
    found = mask_inputs(module) if masks is None else masks
    limits = table_limits(module)
    function = main_function(module)
    padded: dict[tuple[int, int], Mask] = {}
    inputs: dict[str, Array] = {}
    for name, argument in zip(input_names(function), function.body.block.args):
        shape = tuple(ANY_EXTENT if n < 0 else n for n in nn.shape_of(argument))
        dtype = dtype_of(nn.element_of(argument), name)
        if name in found and len(shape) > 0:
            extents = found[name].extents or (1 if len(shape) == 1 else shape[0], shape[-1])
            if extents not in padded:
                padded[extents] = _batch_padding(extents, kinds, rng)
            numbers = [_numbers(v, dtype, limits.get(name), far) for v in found[name][:2]]
            numbers = [_within(n, (ranges or {}).get(name)) for n in numbers]
            inputs[name] = _mask(padded[extents], shape, numbers, rng).astype(dtype)
        elif dtype.kind == "f":
            inputs[name] = rng.standard_normal(shape).astype(dtype)
        elif dtype.kind == "b":
            inputs[name] = rng.random(shape) < 0.5
        else:
            most = limits.get(name, most_integer + 1)
            inputs[name] = rng.integers(0, most, shape).astype(dtype)
        if ranges is not None and name in ranges and dtype.kind != "b":
            inputs[name] = np.clip(inputs[name], *ranges[name]).astype(dtype)
    return inputs


def _batch_padding(extents: tuple[int, int], kinds: Sequence[str], rng: Generator) -> Mask:
    samples, length = extents
    return np.stack([padding(kinds[i % len(kinds)], length, rng) for i in range(samples)])


def _mask(real: Mask, shape: tuple[int, ...], numbers: Sequence[Array], rng: Generator) -> Array:
    """The mask (samples, length) in an input's own shape, of the numbers of real and masked tokens."""
    if real.size == math.prod(shape):
        wide = real.reshape(shape)
    else:
        wide = real.reshape(len(real), *(1,) * (len(shape) - 2), real.shape[1])
    return np.where(wide, *(rng.choice(some, shape) for some in numbers))


def _numbers(
    intervals: Sequence[Interval], dtype: np.dtype[Any], limit: int | None, far: bool
) -> Array:
    """
    Numbers of a set: ids of a table of `limit` rows, else its usual number and its ends.

    With `far` also what is beside the ends, and the type's own ends where an interval has none.
    """
    if limit is not None:
        ids = np.arange(limit)
        return ids[contained(ids, intervals)]
    found = {typical(intervals)} | {end for pair in intervals for end in pair}
    least, most = _range(dtype)
    if far:
        for low, high in intervals:
            found |= {max(low, least), min(high, most), low + 1, high - 1}
    numbers = np.array(sorted(n for n in found if least <= n <= most))
    return numbers[contained(numbers, intervals)]


def _within(numbers: Array, ends: Interval | None) -> Array:
    """The numbers of a range, all where none is in it."""
    if ends is None:
        return numbers
    inside = numbers[contained(numbers, [ends])]
    return inside if inside.size else numbers


def _range(dtype: np.dtype[Any]) -> Interval:
    """Numbers of a type that are as far from 0 as any that a mask is tried with."""
    if dtype.kind == "b":
        return 0.0, 1.0
    if dtype.kind == "f":
        return -1e30, 1e30
    limits = np.iinfo(dtype)
    return max(float(limits.min), -(2.0**31)), min(float(limits.max), 2.0**31 - 1)


def dtype_of(element: Attribute, name: str = "") -> np.dtype[Any]:
    """The array type of a tensor's elements; `HeatcError` where NumPy has none."""
    found = _DTYPES.get(str(element))
    if found is None:
        raise HeatcError(f"no array has elements of type {element}", place=f"input {name!r}")
    return np.dtype(found)
