"""What the host does: packing, gathers, layer norm and activations, in float64, and what it writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heatc import fixed_point
from heatc.errors import HeatcError
from heatc.fixed_point import Reals
from heatc.isa import units
from heatc.isa.table import BITS, COMPARISONS, R_BATCH, R_TOKENS
from heatc.machine import datapath
from heatc.machine.execution import Execution, executes
from heatc.machine.host_registers import (
    apply,
    apply_to_codes,
    bytes_of,
    charge,
    expect_room,
    first_row,
    in_dram,
    indices_of,
    integers,
    put,
    reals,
    row_vector,
    shape_of,
    writable,
)
from heatc.machine.memory import NUMPY_DTYPES, Array
from heatc.machine.scoreboard import Rows
from heatc.machine.state import Tensor, Trap, expect


@executes("hpack")
def pack(
    run: Execution, dpos: int, dinv: int, dmask: int, batch: int, length: int, has_mask: int
) -> None:
    # First: they bound what is made for batch and length, which the instruction may say as it likes.
    targets = [(d, _places(run, d, batch * length)) for d in (dpos, dinv)]
    mask = _mask(run, dmask, batch, length) if has_mask else None
    real = run.values.real((batch, length), None if mask is None else mask.data)
    reads = () if mask is None else (Rows(mask),)
    _list_rows(run, "hpack", real, np.zeros(0, np.int64), targets, reads)


@executes("hrows")
def pack_with_reads(
    run: Execution,
    dpos: int,
    dinv: int,
    dreal: int,
    dmask: int,
    dread: int,
    batch: int,
    length: int,
) -> None:
    mask, read = _mask(run, dmask, batch, length), integers(run, dread)
    positions = read.data.reshape(-1).astype(np.int64)
    ascends = positions.size > 0 and positions[0] >= 0 and bool((np.diff(positions) > 0).all())
    expect(ascends and bool(positions[-1] < length), f"d{dread} holds no ascending positions")
    targets = [(d, _places(run, d, batch * length)) for d in (dpos, dinv, dreal)]
    real = run.values.real((batch, length), mask.data)
    _list_rows(run, "hrows", real, positions, targets, (Rows(mask), Rows(read)))


def _mask(run: Execution, index: int, batch: int, length: int) -> Tensor:
    mask, count = integers(run, index), batch * length
    expect(mask.data.size == count, f"d{index} has {mask.data.size} of {count} elements")
    return mask


def _places(run: Execution, index: int, count: int) -> Tensor:
    """A tensor that takes a number for each position of the batch."""
    tensor = writable(run, index)
    expect(tensor.dtype == "i64", f"d{index} is {tensor.dtype}, expected i64")
    expect(tensor.data.size >= count, f"d{index} has {tensor.data.size} of {count} elements")
    return tensor


def _list_rows(
    run: Execution,
    mnemonic: str,
    real: NDArray[np.bool_],
    positions: NDArray[np.int64],
    targets: Sequence[tuple[int, Tensor]],
    reads: Sequence[Rows],
) -> None:
    """
    Number the rows of a batch: real tokens, and masked ones at `positions` behind them.

    `targets` take the flat index of each row, the row of each flat index, and, if there is a third,
    the same of real tokens alone.
    """
    state, count = run.state, real.size
    read = np.zeros(real.shape, np.bool_)
    read[:, positions] = True
    read &= ~real
    lengths, extras = real.sum(axis=1), read.sum(axis=1)
    for sequence in np.flatnonzero((lengths == 0) & (extras > 0)):
        raise HeatcError(
            f"pc {run.pc}: row {sequence} of the batch has no real token, and an output depends on it",
            notes=["give every row at least one token that the mask does not hide"],
        )
    flat = np.flatnonzero(real | read)
    behind = read.reshape(-1)[flat] + flat // real.shape[1]
    flat = flat[np.argsort(flat + real.shape[1] * behind, kind="stable")]
    numbers = np.full(count, -1, np.int64)
    numbers[flat] = np.arange(flat.size)
    arrays = [flat, numbers, np.where(real.reshape(-1), numbers, -1)]
    for (_, tensor), array in zip(targets, arrays):
        tensor.data.reshape(-1)[: array.size] = array
    starts = np.cumsum(lengths + extras) - lengths - extras
    state.sequences = list(zip(starts.tolist(), lengths.tolist(), extras.tolist()))
    state.registers[R_TOKENS], state.registers[R_BATCH] = int(flat.size), len(real)
    nbytes = sum(bytes_of(tensor, count) for _, tensor in targets) + 8 * count
    written = nbytes - 8 * count
    run.work(elements=count, nbytes=nbytes, written=written, from_dram=1)
    writes = [Rows(tensor) for _, tensor in targets]
    end = run.board.host(run.pc, mnemonic, count, nbytes, reads, writes)
    run.board.clock = max(run.board.clock, end)


@executes("htest")
def test(run: Execution, dst: int, src: int, compare: int, value: float) -> None:
    target, source = writable(run, dst), run.state.tensor(src)
    expect(target.is_integer, f"d{dst} is {target.dtype}, expected integers")
    count = source.data.size
    expect(target.data.size == count, f"d{dst} has {target.data.size} of {count} elements")
    function = units.COMPARE[COMPARISONS[compare]]
    target.data.reshape(-1)[:] = function(source.data.reshape(-1), value)
    written = bytes_of(target, count)
    nbytes = bytes_of(source, count) + written
    run.work(elements=count, nbytes=nbytes, written=written, from_dram=1)
    run.board.host(run.pc, "htest", count, nbytes, (Rows(source),), (Rows(target),))


@executes("hidx")
def gather_integers(run: Execution, dst: int, src: int, idx: int) -> None:
    target, source, index = writable(run, dst), integers(run, src), integers(run, idx)
    expect(target.is_integer, f"d{dst} is {target.dtype}, expected integers")
    count = target.data.size
    expect(index.data.size >= count, f"d{idx} has {index.data.size} of {count} elements")
    flat = source.data.reshape(-1)
    indices = indices_of(index, f"d{idx}", 0, count, flat.size, "elements")
    if flat.size:
        gathered = np.where(indices < 0, 0, flat[np.maximum(indices, 0)])
    else:
        gathered = np.zeros(count, np.int64)
    codes, saturated = fixed_point.saturate(gathered.astype(np.int64), BITS[target.dtype])
    run.saturated(saturated)
    target.data.reshape(-1)[:] = codes
    nbytes = sum(bytes_of(tensor, count) for tensor in (target, source, index))
    run.work(elements=count, nbytes=nbytes, written=bytes_of(target, count), from_dram=1)
    run.board.host(run.pc, "hidx", count, nbytes, (Rows(source), Rows(index)), (Rows(target),))


@executes("hget")
def get(run: Execution, h: int, d: int, row_reg: int, rows: int, point: int) -> None:
    tensor = run.state.tensor(d)
    row = first_row(run, row_reg, tensor.rows, f"d{d}")
    shape = run.sizes({"d": (tensor.rows, tensor.columns)}).of("h")
    codes = tensor.data[row : row + shape[0]]
    expect_room(run, h, shape)
    run.state.host[h] = run.values.array(shape, lambda: reals(codes, tensor, point))
    if tensor.dtype == "i16":
        run.host_codes[h] = (run.values.array(shape, codes.copy), point)
    else:
        run.host_codes.pop(h, None)
    nbytes = bytes_of(tensor, codes.size)
    run.work(elements=codes.size, nbytes=nbytes, written=0, from_dram=in_dram(tensor))
    reads = (Rows(tensor, row, codes.shape[0]),)
    run.board.host(run.pc, "hget", codes.size, nbytes, reads, registers=(h,))


@executes("hgeti")
def get_indexed(
    run: Execution, h: int, d: int, idx: int, row_reg: int, rows: int, point: int
) -> None:
    tensor, index = run.state.tensor(d), integers(run, idx)
    row = first_row(run, row_reg, index.data.size, f"d{idx}")
    indices = indices_of(index, f"d{idx}", row, rows, tensor.rows)
    shapes = {"d": (tensor.rows, tensor.columns), "idx": (index.rows, index.columns)}
    shape = run.sizes(shapes).of("h")
    expect_room(run, h, shape)
    result = run.values.array(shape, lambda: _rows_at(tensor, indices, point))
    run.state.host[h] = result
    run.host_codes.pop(h, None)
    nbytes = bytes_of(tensor, result.size) + bytes_of(index, indices.size)
    run.work(elements=result.size, nbytes=nbytes, written=0, from_dram=in_dram(tensor))
    reads = (Rows(tensor, moved=indices.size), Rows(index))
    run.board.host(run.pc, "hgeti", result.size, nbytes, reads, registers=(h,))


def _rows_at(tensor: Tensor, indices: NDArray[np.int64], point: int) -> Reals:
    """The rows at `indices`, zeros for -1."""
    if not tensor.rows:
        return np.zeros((indices.size, tensor.columns))
    result = reals(tensor.data[np.maximum(indices, 0)], tensor, point)
    result[indices < 0] = 0.0
    return result


@executes("hadd")
def add(run: Execution, h: int, g: int) -> None:
    x, y = run.state.host_register(h), run.state.host_register(g)
    if y.shape not in (x.shape, (1, x.shape[1])):
        raise Trap(f"h{g} is {y.shape}, expected {x.shape} or one row")
    apply(run, h, lambda x: x + y)


@executes("hln")
def layer_norm(run: Execution, h: int, gamma: int, beta: int, eps: float) -> None:
    x = run.state.host_register(h)
    scale, offset = row_vector(run, gamma, x.shape[1]), row_vector(run, beta, x.shape[1])
    put(run, h, run.sizes({"h": shape_of(x)}), lambda: _normalised(x, scale, offset, eps))
    tensors = (run.state.tensor(gamma), run.state.tensor(beta))
    nbytes = sum(tensor.data.nbytes for tensor in tensors)
    charge(run, x.size, nbytes=nbytes, reads=[Rows(tensor) for tensor in tensors])


def _normalised(x: Reals, scale: Reals, offset: Reals, eps: float) -> Reals:
    if not x.size:
        return x
    x = x - x.mean(axis=1, keepdims=True)
    variance = (x * x).mean(axis=1, keepdims=True)
    x /= np.sqrt(variance + eps)
    x *= scale
    x += offset
    return x


@executes("hgelu")
def gelu(run: Execution, h: int) -> None:
    apply_to_codes(run, h, "gelu", _gelu)


def _gelu(x: Reals) -> Reals:
    # Imported here: it takes longer than everything else that the machine imports.
    from scipy.special import erf  # pyright: ignore[reportMissingTypeStubs]

    return 0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))


@executes("htanh")
def tanh(run: Execution, h: int) -> None:
    apply(run, h, np.tanh)


@executes("hrelu")
def relu(run: Execution, h: int) -> None:
    apply(run, h, lambda x: np.maximum(x, 0.0))


@executes("hput")
def put_rows(run: Execution, d: int, h: int, row_reg: int, point: int) -> None:
    tensor, x = writable(run, d), run.state.host_register(h)
    run.sizes({"d": (tensor.rows, tensor.columns), "h": shape_of(x)})
    _store(run, d, h, first_row(run, row_reg, tensor.rows, f"d{d}"), 0, point)


@executes("hputc")
def put_columns(run: Execution, d: int, h: int, row_reg: int, column: int, point: int) -> None:
    tensor, x = writable(run, d), run.state.host_register(h)
    run.sizes({"d": (tensor.rows, tensor.columns), "h": shape_of(x)})
    end = column + x.shape[1]
    expect(
        end <= tensor.columns, f"columns {column}..{end} are outside of d{d} with {tensor.columns}"
    )
    _store(run, d, h, first_row(run, row_reg, tensor.rows, f"d{d}"), column, point)


def _store(run: Execution, d: int, h: int, row: int, column: int, point: int) -> None:
    """Write a register into the rows from `row` and the columns from `column` on."""
    tensor, x = run.state.tensor(d), run.state.host_register(h)
    x = x[: tensor.rows - row]
    target = tensor.data[row : row + x.shape[0], column : column + x.shape[1]]
    run.values.store(lambda: _write(run, tensor, target, x, point, h))
    nbytes = bytes_of(tensor, x.size)
    rows = Rows(tensor, row, x.shape[0], nbytes=nbytes)
    run.work(elements=x.size, nbytes=nbytes, written=nbytes, from_dram=in_dram(tensor))
    mnemonic = run.program[run.pc].mnemonic
    run.board.host(run.pc, mnemonic, x.size, nbytes, (), (rows,), registers=(h,))


def _write(
    run: Execution, tensor: Tensor, target: Array, x: Reals, point: int, register: int
) -> None:
    """Round to the tensor's codes, or to f32."""
    # A NaN makes the sum one; so do infinities of both signs, which f32 has.
    if np.isnan(x.sum()):
        expect(not np.isnan(x).any(), f"h{register} holds a NaN, which has no code")
    if not tensor.is_integer:
        target[...] = x.astype(np.float32)
        return
    codes, saturated = datapath.requantise(x, -point, min(BITS[tensor.dtype], 53))
    run.saturated(saturated)
    target[...] = codes.astype(NUMPY_DTYPES[tensor.dtype])
