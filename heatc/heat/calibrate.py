"""
Runs a captured model on calibration inputs, op by op and on all samples at once.

A compiler that decomposes layer after layer needs the moments of one layer's input at a time. It
may want the input that the decomposed layers before leave. The function is therefore not run sample
by sample: every op is evaluated on all samples before the next op.

Packed values (tokens first) are one array over the tokens of all samples, which is evaluated in
slices of rows. Other values are small: a list with one entry a batch. A value is freed after its
last use, and no more than `MOST_TOKENS` tokens are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import AnyFloat, ModuleOp, TensorType
from xdsl.ir import Block, Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.errors import HeatcError
from heatc.interpreter import input_names, main_function, make_interpreter
from heatc.interpreter.values import Packing
from heatc.readers.npz import forms_of, open_npz
from heatc.samples import dtype_of, table_limits
from heatc.weights import WeightStore

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]

MOST_TOKENS = 16384
"""Enough for a stable moment of a few thousand channels, and 200 MB of the widest activation."""

_ROWS = 2048  # of a slice: float64 temporaries of the widest activation stay below 100 MB
_SINGLE_ROWS = 4096  # the same in float32


@dataclass(frozen=True)
class Loss:
    """
    What a layer's input lost, token by token.

    Attributes:
        now: (tokens, I), the input that there is.
        before: (tokens, I), what it would be in the model as it was.
    """

    now: Array
    before: Array

    def through(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """W E[(x - E x - x' + E x') (x' - E x')^T], (O, I), x' being the input of now."""
        outputs, inputs = weight.shape
        if 2 * outputs >= inputs:
            return weight @ self._change
        # Tokens are many: through the narrow weight first, both products are cheaper.
        return self._summed(lambda moved: weight @ moved.T, outputs)

    @cached_property
    def _change(self) -> NDArray[np.float32]:
        return self._summed(lambda moved: moved.T, self.now.shape[1])

    def _summed(
        self, left: Callable[[NDArray[np.float32]], NDArray[np.float32]], rows: int
    ) -> NDArray[np.float32]:
        mean = self.now.mean(axis=0, dtype=np.float64).astype(np.float32)
        lost = (self.before.mean(axis=0, dtype=np.float64) - mean).astype(np.float32)
        total = np.zeros((rows, self.now.shape[1]), np.float32)
        for part in _slices(len(self.now), _SINGLE_ROWS):
            moved = np.subtract(self.before[part], self.now[part], dtype=np.float32)
            moved -= lost
            total += left(moved) @ np.subtract(self.now[part], mean, dtype=np.float32)
        total /= len(self.now)
        return total


@dataclass(frozen=True)
class Moments:
    """
    Of a layer's input x over real tokens.

    Attributes:
        count: the number of tokens.
        mean: (I,) float64.
        covariance: (I, I) float32; of ids, whose input is one of I unit vectors, the diagonal of
            the second moment, (I,).
        target_mean: (I,) of what x would be in the model as it was, None where it is that.
        loss: what x lost against that, token by token.
    """

    count: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float32]
    target_mean: NDArray[np.float64] | None = None
    loss: Loss | None = None

    @classmethod
    def of(cls, x: Array) -> Moments:
        """The moments of (tokens, I), of no token those of zeros."""
        covariance = np.zeros((x.shape[1], x.shape[1]), np.float32)
        if not len(x):
            return cls(0, np.zeros(len(covariance)), covariance)
        mean = x.mean(axis=0, dtype=np.float64)
        shift = mean.astype(np.float32)
        for rows in _slices(len(x), _SINGLE_ROWS):
            centred = np.subtract(x[rows], shift, dtype=np.float32)
            covariance += centred.T @ centred
        covariance /= len(x)
        return cls(len(x), mean, covariance)

    @classmethod
    def of_pair(cls, x: Array, target: Array) -> Moments:
        """The moments of (tokens, I), and how a second input differs from it, token by token."""
        own = cls.of(x)
        if own.count == 0:
            return own
        mean = target.mean(axis=0, dtype=np.float64)
        return cls(own.count, own.mean, own.covariance, mean, Loss(x, target))

    @classmethod
    def of_ids(cls, ids: Array, rows: int) -> Moments:
        """How often each of `rows` ids stands; each once more, so that none weighs nothing."""
        counts = np.bincount(ids.reshape(-1), minlength=rows) + 1
        share = counts / counts.sum()
        return cls(ids.size, share, share.astype(np.float32))

    @property
    def second(self) -> NDArray[np.float64]:
        """E x x^T, (I, I); of ids its diagonal."""
        if self.covariance.ndim == 1:
            return self.covariance.astype(np.float64)
        second = np.outer(self.mean, self.mean)
        second += self.covariance
        return second


@dataclass
class _PerBatch:
    """A value of each batch."""

    values: list[Any]


@dataclass
class _Tokens:
    """The rows of all batches."""

    array: Array


@dataclass
class _Packings:
    """The packing of each batch, and the packing of all of them as one batch."""

    values: list[Packing]
    merged: Packing


class Calibration:
    """
    The state of a run: `evaluate` ops in order, ask for `rows` and `moments` in between.

    Raises `HeatcError` for inputs that the function does not take.
    """

    def __init__(
        self,
        module: ModuleOp,
        inputs: Arrays,
        weights: WeightStore,
        most_tokens: int = MOST_TOKENS,
    ):
        self.block: Block = main_function(module).body.block
        self._interpreter = make_interpreter(module, weights)
        self._held: dict[SSAValue, Any] = {}
        self._done: set[Operation] = set()
        self._offsets: list[int] = []
        batches = _batches(module, inputs, most_tokens)
        self.batches = len(batches)
        for k, argument in enumerate(self.block.args):
            self._held[argument] = _PerBatch([batch[k] for batch in batches])

    def evaluate(self, op: Operation) -> None:
        """Run one op on all samples; its operands must have been evaluated before."""
        if not op.results:
            return
        for result, value in zip(op.results, self._run(op)):
            self._held[result] = value
        self._done.add(op)
        self._free(op)

    def run(self, ops: Iterable[Operation]) -> None:
        """Evaluate ops in order."""
        for op in ops:
            self.evaluate(op)

    def rows(self, value: SSAValue) -> Array:
        """All rows of a value: (tokens, width), or (all other axes, width) where it is padded."""
        held = self._held[value]
        if isinstance(held, _Tokens):
            return held.array
        assert isinstance(held, _PerBatch)
        return np.concatenate([np.asarray(v).reshape(-1, np.shape(v)[-1]) for v in held.values])

    def ids(self, value: SSAValue) -> Array:
        """All ids of an embedding, flat."""
        held = self._held[value]
        if isinstance(held, _Tokens):
            return held.array.reshape(-1)
        if isinstance(held, _PerBatch):
            return np.concatenate([np.asarray(v).reshape(-1) for v in held.values])
        return np.asarray(held).reshape(-1)

    def moments(self, value: SSAValue) -> Moments:
        """The moments of the rows of a value."""
        return Moments.of(self.rows(value))

    def _free(self, op: Operation) -> None:
        """Drop what no op that is still to come reads."""
        for operand in op.operands:
            if all(use.operation in self._done for use in operand.uses):
                self._held.pop(operand, None)

    # --- One op -------------------------------------------------------------------------------

    def _run(self, op: Operation) -> list[Any]:
        operands = [self._held[v] for v in op.operands]
        if not any(isinstance(v, _PerBatch | _Tokens | _Packings) for v in operands):
            return self._constant(op, operands)
        is_rowwise = _is_token_tensor(op.results[0]) and not any(
            isinstance(v, _PerBatch) for v in operands
        )
        if is_rowwise and not isinstance(op, attn.PackOp):
            return [self._merged(op, operands)]
        return self._each(op, operands)

    def _constant(self, op: Operation, operands: Sequence[Any]) -> list[Any]:
        """An op that depends on no input: evaluated once, a packing once for every batch."""
        results = list(self._call(op, operands))
        if isinstance(results[0], Packing):
            return [self._packings([results[0]] * self.batches)]
        return results

    def _merged(self, op: Operation, operands: Sequence[Any]) -> Any:
        """An op on the tokens of all batches."""
        if isinstance(op, attn.SdpaOp):
            plain = [_whole(v) for v in operands]
            return _Tokens(self._call(op, plain)[0])
        parts: list[Array] = []
        total = next(len(v.array) for v in operands if isinstance(v, _Tokens))
        for rows in _slices(total):
            some = [v.array[rows] if isinstance(v, _Tokens) else v for v in operands]
            parts.append(self._call(op, some)[0])
        return _Tokens(np.concatenate(parts))

    def _each(self, op: Operation, operands: Sequence[Any]) -> list[Any]:
        """An op on one batch after the other."""
        columns = [self._call(op, [self._of(v, k) for v in operands]) for k in range(self.batches)]
        return [self._joined(v, [c[i] for c in columns]) for i, v in enumerate(op.results)]

    def _joined(self, result: SSAValue, values: list[Any]) -> Any:
        if isinstance(values[0], Packing):
            return self._packings(values)
        return _Tokens(np.concatenate(values)) if _is_token_tensor(result) else _PerBatch(values)

    def _packings(self, values: list[Packing]) -> _Packings:
        ends = np.cumsum([len(p.rows) for p in values]).tolist()
        self._offsets = [0, *ends]
        return _Packings(values, Packing.joined(values))

    def _of(self, held: Any, batch: int) -> Any:
        if isinstance(held, _PerBatch | _Packings):
            return held.values[batch]
        if isinstance(held, _Tokens):
            return held.array[self._offsets[batch] : self._offsets[batch + 1]]
        return held

    def _call(self, op: Operation, operands: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(self._interpreter.run_op(op, tuple(operands)))


def _whole(held: Any) -> Any:
    if isinstance(held, _Tokens):
        return held.array
    return held.merged if isinstance(held, _Packings) else held


def _is_token_tensor(value: SSAValue) -> bool:
    return isinstance(value.type, TensorType) and nn.shape_of(value)[:1] == (nn.TOKENS,)


def _slices(total: int, rows: int = _ROWS) -> Iterator[slice]:
    for start in range(0, max(total, 1), rows):
        yield slice(start, min(start + rows, total))


# ---- inputs -----------------------------------------------------------------------------------


def read_calibration(path: str | PathLike[str]) -> Arrays:
    """
    The arrays of an .npz file by input name, first axis samples; each is read when it is used.

    Raises `HeatcError` where the file cannot be read; nothing in it is unpickled.
    """
    return open_npz(path)


def _batches(module: ModuleOp, inputs: Arrays, most_tokens: int) -> list[list[Array]]:
    """The arguments of every batch; samples that fill no batch are left out."""
    function = main_function(module)
    names = input_names(function)
    shapes = [nn.shape_of(argument) for argument in function.body.block.args]
    limits = table_limits(module)
    for name, argument in zip(names, function.body.block.args):
        _check_form(name, inputs, argument)
    for name in names:
        _check_ids(name, inputs[name], limits.get(name))
    arrays = [_fitted(inputs[n], a) for n, a in zip(names, function.body.block.args)]
    samples = {len(array) for array in arrays}
    if len(samples) != 1:
        raise HeatcError(f"calibration inputs have {sorted(samples)} samples")
    batch = shapes[0][0]
    if batch < 1:
        raise HeatcError(f"the model takes {batch} samples at once: it cannot be calibrated")
    tokens = _tokens(dict(zip(names, arrays)))
    keep = max(batch, int(np.searchsorted(np.cumsum(tokens), most_tokens, side="right")))
    count = min(samples.pop(), keep) // batch
    if count == 0:
        raise HeatcError(f"calibration inputs have fewer than {batch} samples, one batch")
    return [[array[k * batch : (k + 1) * batch] for array in arrays] for k in range(count)]


def _tokens(arrays: Arrays) -> NDArray[np.int64]:
    """The number of tokens of each sample: real ones where there is a mask."""
    mask = arrays.get("attention_mask")
    if mask is not None and mask.ndim == 2:
        return (mask != 0).sum(axis=1)
    first = next(iter(arrays.values()))
    return np.full(len(first), first.shape[1] if first.ndim > 1 else 1, np.int64)


def _check_form(name: str, inputs: Arrays, argument: SSAValue) -> None:
    """Refuse what the function does not take, before any data is read."""
    if name not in inputs:
        raise HeatcError(f"calibration input {name!r} is missing, got {sorted(inputs)}")
    form, shape = forms_of(inputs)[name], nn.shape_of(argument)
    tail = tuple(shape[1:])
    longer = any(n > m for n, m in zip(form.shape[1:], tail))
    known = "biuf" if isinstance(nn.element_of(argument), AnyFloat) else "biu"
    if not shape or len(form.shape) != len(shape) or longer or form.dtype.kind not in known:
        raise HeatcError(
            f"calibration input {name!r} has shape {form.shape} and dtype {form.dtype}, "
            f"the model takes (samples, {', '.join(map(str, tail))}) of {nn.element_of(argument)}"
        )


def _check_ids(name: str, ids: Array, limit: int | None) -> None:
    """Refuse ids beyond the table that they index."""
    if limit is None or not ids.size or 0 <= int(ids.min()) <= int(ids.max()) < limit:
        return
    raise HeatcError(
        f"calibration input {name!r} has values {ids.min()} to {ids.max()}, the table that it "
        f"indexes has {limit} rows"
    )


def _fitted(array: Array, argument: SSAValue) -> Array:
    """The samples of an input in the argument's type and shape, zeros after shorter ones."""
    array = array.astype(dtype_of(nn.element_of(argument)), copy=False)
    gaps = [(0, 0), *((0, m - n) for n, m in zip(array.shape[1:], nn.shape_of(argument)[1:]))]
    return np.pad(array, gaps) if any(after for _, after in gaps) else array
