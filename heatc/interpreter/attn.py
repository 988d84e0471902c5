"""NumPy semantics of the `attn` dialect, on values and on codes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls

from heatc.dialects import attn
from heatc.fixed_point import matmul, requantize
from heatc.fixed_point import split as split_codes
from heatc.interpreter.nn import masked_softmax
from heatc.interpreter.values import (
    Array,
    Packing,
    dtype_of,
    element_type,
    fixed_type,
    is_fixed,
    static_shape,
    store,
)
from heatc.isa import units


def split_heads(x: Array, heads: int) -> Array:
    """(L, heads * dim) -> (heads, L, dim)."""
    return x.reshape(x.shape[0], heads, x.shape[1] // heads).transpose(1, 0, 2)


def merge_heads(x: Array) -> Array:
    """(heads, L, dim) -> (L, heads * dim)."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], x.shape[0] * x.shape[2])


def _block(op: attn.BlockImportanceOp | attn.BlockMaskOp | attn.MergeScoresOp) -> tuple[int, int]:
    rows, columns = (int(b) for b in op.block.get_values())
    return rows, columns


def _scores(q: Array, k: Array, packing: Packing, heads: int, out: Array) -> Array:
    """Fill (B, heads, S, S) with Q K^T of each sequence; exact on integers."""
    for b, rows in enumerate(packing.sequences()):
        a, c = split_heads(q[rows], heads), split_heads(k[rows], heads).transpose(0, 2, 1)
        n = a.shape[1]
        out[b, :, :n, :n] = matmul(a, c) if out.dtype == np.int64 else a @ c
    return out


def _each(
    packing: Packing, out: Array, block: tuple[int, int], function: Callable[[int], Array]
) -> Array:
    """Fill the real part of `out` (B, heads, blocks, blocks) sequence by sequence."""
    for b, length in enumerate(int(n) for n in packing.lengths):
        if length == 0:
            continue
        rows = units.block_count(length, block[0])
        columns = units.block_count(length, block[1])
        out[b, :, :rows, :columns] = function(b)[..., :rows, :columns]
    return out


def _reference_attention(
    q: Array,
    k: Array,
    v: Array,
    heads: int,
    scale: float,
    bias: Array | None,
    real: NDArray[np.bool_],
) -> Array:
    """One padded sequence (S, width) in float64; rows and keys that are not real give 0."""
    a, c, d = (split_heads(x.astype(np.float64), heads) for x in (q, k, v))
    scores = a @ c.transpose(0, 2, 1) * scale
    if bias is not None:
        scores = scores + bias
    scores = np.where(real, scores, -np.inf)
    return merge_heads(masked_softmax(scores) @ d) * real[:, None]


def _biases(bias: Array | None, real: NDArray[np.bool_], heads: int) -> list[Array | None]:
    """The (heads, S, S) bias of every sequence."""
    if bias is None:
        return [None] * len(real)
    return list(np.broadcast_to(bias, (len(real), heads, real.shape[1], real.shape[1])))


def _packed_attention(
    op: attn.SdpaOp, args: PythonValues, packing: Packing, bias: Array | None
) -> Array:
    q, k, v = args[:3]
    heads, scale = op.heads.value.data, op.scale.value.data
    out = np.zeros(v.shape, np.float64)
    biases = _biases(bias, packing.mask, heads)
    for rows, own, real in zip(packing.sequences(), biases, packing.mask):
        if rows.stop == rows.start:
            continue
        own = None if own is None else own[:, real][:, :, real]
        everything = np.ones(rows.stop - rows.start, np.bool_)
        out[rows] = _reference_attention(q[rows], k[rows], v[rows], heads, scale, own, everything)
    return out


@register_impls
class AttnFunctions(InterpreterFunctions):
    """Scores are (B, heads, S, S), zero outside each sequence's own L x L."""

    @impl(attn.PackingOp)
    def run_packing(
        self, interpreter: Interpreter, op: attn.PackingOp, args: PythonValues
    ) -> PythonValues:
        shape = attn.packing_of(op.result).shape
        mask = args[0] != 0 if args else np.ones(shape, np.bool_)
        return (Packing.of(mask),)

    @impl(attn.PackOp)
    def run_pack(
        self, interpreter: Interpreter, op: attn.PackOp, args: PythonValues
    ) -> PythonValues:
        x, packing = args
        return (x.reshape(-1, *x.shape[2:])[packing.rows],)

    @impl(attn.UnpackOp)
    def run_unpack(
        self, interpreter: Interpreter, op: attn.UnpackOp, args: PythonValues
    ) -> PythonValues:
        x, packing = args
        out = np.zeros((packing.mask.size, *x.shape[1:]), x.dtype)
        out[packing.rows] = x
        return (out.reshape(static_shape(op.result)),)

    @impl(attn.TokenOp)
    def run_token(
        self, interpreter: Interpreter, op: attn.TokenOp, args: PythonValues
    ) -> PythonValues:
        x, packing = args
        out = np.zeros(static_shape(op.result), x.dtype)
        position = op.position.value.data
        real = packing.mask[:, position]
        first = packing.starts + packing.mask[:, :position].sum(axis=1)
        out[real] = x[first[real]]
        return (out,)

    @impl(attn.SdpaOp)
    def run_sdpa(
        self, interpreter: Interpreter, op: attn.SdpaOp, args: PythonValues
    ) -> PythonValues:
        rest = list(args[3:])
        packing = rest.pop(0) if op.packing is not None else None
        padding = rest.pop(0) if op.key_padding is not None else None
        bias = rest.pop(0) if op.bias is not None else None
        if packing is not None:
            return (store(_packed_attention(op, args, packing, bias), op.result),)
        q, k, v = args[:3]
        real = np.ones(q.shape[:2], np.bool_) if padding is None else padding != 0
        biases = _biases(bias, real, op.heads.value.data)
        heads, scale = op.heads.value.data, op.scale.value.data
        out = [
            _reference_attention(q[b], k[b], v[b], heads, scale, biases[b], real[b])
            for b in range(len(q))
        ]
        return (store(np.stack(out), op.result),)

    @impl(attn.SplitOp)
    def run_split(
        self, interpreter: Interpreter, op: attn.SplitOp, args: PythonValues
    ) -> PythonValues:
        (x,) = args
        if is_fixed(op.x):
            return split_codes(x, fixed_type(op.x).point.data)
        integer = np.trunc(x)
        return integer, x - integer

    @impl(attn.ScoresOp)
    def run_scores(
        self, interpreter: Interpreter, op: attn.ScoresOp, args: PythonValues
    ) -> PythonValues:
        q, k, packing = args
        out = np.zeros(static_shape(op.result), dtype_of(element_type(op.result)))
        scores = _scores(q, k, packing, op.heads.value.data, out)
        if is_fixed(op.result):
            point = fixed_type(op.q).point.data + fixed_type(op.k).point.data
            target = fixed_type(op.result)
            scores = requantize(scores, point, target.point.data, target.width.data).codes
        return (scores,)

    @impl(attn.IntegerScoresOp)
    def run_integer_scores(
        self, interpreter: Interpreter, op: attn.IntegerScoresOp, args: PythonValues
    ) -> PythonValues:
        q, k, packing = args
        out = np.zeros(static_shape(op.result), dtype_of(element_type(op.result)))
        return (_scores(q, k, packing, op.heads.value.data, out),)

    @impl(attn.BlockImportanceOp)
    def run_block_importance(
        self, interpreter: Interpreter, op: attn.BlockImportanceOp, args: PythonValues
    ) -> PythonValues:
        return (store(units.block_sums(np.abs(args[0]), _block(op)), op.result),)

    @impl(attn.BlockMaskOp)
    def run_block_mask(
        self, interpreter: Interpreter, op: attn.BlockMaskOp, args: PythonValues
    ) -> PythonValues:
        theta: Array = args[0]
        packing: Packing = args[1]
        block, rho_b = _block(op), op.rho_b.value.data

        def mask(b: int) -> Array:
            rows = units.block_count(int(packing.lengths[b]), block[0])
            columns = units.block_count(int(packing.lengths[b]), block[1])
            return units.block_mask(theta[b, :, :rows, :columns], rho_b)

        return (_each(packing, np.zeros(theta.shape, np.bool_), block, mask),)

    @impl(attn.HeadGateOp)
    def run_head_gate(
        self, interpreter: Interpreter, op: attn.HeadGateOp, args: PythonValues
    ) -> PythonValues:
        theta, packing = args
        length = np.maximum(packing.lengths, 1)[:, None]
        total = theta.sum(axis=(2, 3)).astype(np.float64)
        return (total / (length * length) >= op.tau_h.value.data,)

    @impl(attn.MergeScoresOp)
    def run_merge_scores(
        self, interpreter: Interpreter, op: attn.MergeScoresOp, args: PythonValues
    ) -> PythonValues:
        integer, qi, qf, ki, kf, mask, packing = args
        heads, block, pruned = op.heads.value.data, _block(op), op.pruned.data
        dtype = dtype_of(element_type(op.result))
        shape = static_shape(op.result)
        first = _scores(qf, ki, packing, heads, np.zeros(shape, dtype))
        second = _scores(qi, kf, packing, heads, np.zeros(shape, dtype))
        out = np.zeros(shape, dtype)
        for b, n in enumerate(int(x) for x in packing.lengths):
            kept = units.expand_mask(mask[b], block, (shape[2], shape[3]))[:, :n, :n]
            a, f1, f2 = (x[b, :, :n, :n] for x in (integer, first, second))
            if is_fixed(op.result):
                points = units.Points(
                    fixed_type(op.q_fraction).point.data,
                    fixed_type(op.k_fraction).point.data,
                    fixed_type(op.result).point.data,
                )
                out[b, :, :n, :n] = units.merge_scores(a, f1, f2, kept, pruned, points).codes
            else:
                out[b, :, :n, :n] = _merge_values(a, f1, f2, kept, pruned)
        return (out,)

    @impl(attn.SoftmaxOp)
    def run_softmax(
        self, interpreter: Interpreter, op: attn.SoftmaxOp, args: PythonValues
    ) -> PythonValues:
        scores, packing = args
        scale = op.scale.value.data
        out = np.zeros(scores.shape, dtype_of(element_type(op.result)))
        for b, n in enumerate(int(x) for x in packing.lengths):
            if n == 0:
                continue
            real = scores[b, :, :n, :n]
            if is_fixed(op.scores):
                point = fixed_type(op.scores).point.data
                out[b, :, :n, :n] = units.softmax_unit(real, point, units.SoftmaxScale.of(scale))
            else:
                out[b, :, :n, :n] = masked_softmax(real * scale)
        return (out,)

    @impl(attn.WeightedValuesOp)
    def run_weighted_values(
        self, interpreter: Interpreter, op: attn.WeightedValuesOp, args: PythonValues
    ) -> PythonValues:
        probabilities, v, packing = args[:3]
        heads = op.heads.value.data
        out = np.zeros(v.shape, dtype_of(element_type(op.result)))
        for b, rows in enumerate(packing.sequences()):
            n = rows.stop - rows.start
            p, x = probabilities[b, :, :n, :n], split_heads(v[rows], heads)
            y = matmul(p, x) if is_fixed(op.result) else p @ x
            if op.gate is not None:
                y = y * args[3][b][:, None, None]
            out[rows] = merge_heads(y)
        if is_fixed(op.result):
            point = fixed_type(op.probabilities).point.data + fixed_type(op.v).point.data
            target = fixed_type(op.result)
            out = requantize(out, point, target.point.data, target.width.data).codes
        return (out,)


def _merge_values(integer: Array, first: Array, second: Array, kept: Array, pruned: str) -> Array:
    """`units.merge_scores` on real numbers."""
    merged = integer + first + second
    if pruned == "int":
        return np.where(kept, merged, integer)
    if pruned == "mean":
        count = np.maximum((~kept).sum(axis=-1, keepdims=True), 1)
        mean = np.where(kept, 0, integer).sum(axis=-1, keepdims=True) / count
        return np.where(kept, merged, mean)
    return np.where(kept, merged, 0.0 if pruned == "zero" else -np.inf)
