"""NumPy semantics of the `attn` dialect, on values and on codes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls
from xdsl.ir import SSAValue

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


def _block(
    op: attn.BlockImportanceOp | attn.BlockMaskOp | attn.TopkMaskOp | attn.MergeScoresOp,
) -> tuple[int, int]:
    rows, columns = (int(b) for b in op.block.get_values())
    return rows, columns


def _point(value: SSAValue) -> int:
    """The binary point of codes; real numbers have none."""
    return fixed_type(value).point.data if is_fixed(value) else 0


def _exact(x: Array) -> Array:
    """Codes as they are, real numbers in float64: decisions round nowhere else."""
    return x if x.dtype == np.int64 else x.astype(np.float64)


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
            return split_codes(x, _point(op.x), _point(op.integer))
        integer = np.ldexp(np.trunc(np.ldexp(x, op.bits)), -op.bits)
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
        scores, packing = args
        block, importance = _block(op), op.importance.data
        out = np.zeros(static_shape(op.result), dtype_of(element_type(op.result)))

        def theta(b: int) -> Array:
            n = int(packing.lengths[b])
            return units.block_importance(_exact(scores[b, :, :n, :n]), block, importance)

        return (_each(packing, out, block, theta),)

    @impl(attn.BlockMaskOp)
    def run_block_mask(
        self, interpreter: Interpreter, op: attn.BlockMaskOp, args: PythonValues
    ) -> PythonValues:
        theta: Array = args[0]
        packing: Packing = args[1]
        block, rho_b = _block(op), np.array(op.ratios)[:, None]

        def mask(b: int) -> Array:
            rows = units.block_count(int(packing.lengths[b]), block[0])
            columns = units.block_count(int(packing.lengths[b]), block[1])
            among = None if op.among is None else args[2][b, :, :rows, :columns]
            return units.block_mask(_exact(theta[b, :, :rows, :columns]), rho_b, among)

        return (_each(packing, np.zeros(theta.shape, np.bool_), block, mask),)

    @impl(attn.TopkMaskOp)
    def run_topk_mask(
        self, interpreter: Interpreter, op: attn.TopkMaskOp, args: PythonValues
    ) -> PythonValues:
        theta: Array = args[0]
        packing: Packing = args[1]
        block, density = _block(op), op.density.value.data

        def mask(b: int) -> Array:
            rows = units.block_count(int(packing.lengths[b]), block[0])
            columns = units.block_count(int(packing.lengths[b]), block[1])
            return units.topk_mask(theta[b, :, :rows, :columns], density)

        return (_each(packing, np.zeros(theta.shape, np.bool_), block, mask),)

    @impl(attn.HeadGateOp)
    def run_head_gate(
        self, interpreter: Interpreter, op: attn.HeadGateOp, args: PythonValues
    ) -> PythonValues:
        theta, packing = args
        length, tau_h = np.maximum(packing.lengths, 1)[:, None], np.array(op.thresholds)
        total = _exact(theta).sum(axis=(2, 3))
        kept = units.head_gate(total, length, tau_h, op.importance.data, _point(op.theta))
        return (kept | (tau_h <= 0),)

    @impl(attn.MeanQueryOp)
    def run_mean_query(
        self, interpreter: Interpreter, op: attn.MeanQueryOp, args: PythonValues
    ) -> PythonValues:
        scores, integer, gate, packing = args
        out = scores.copy()
        for b, n in enumerate(int(x) for x in packing.lengths):
            if n == 0:
                continue
            a, kept = integer[b, :, :n, :n], gate[b][:, None, None]
            if is_fixed(op.scores):
                row = units.mean_query(a, _point(op.integer), _point(op.scores))
            else:
                row = a.mean(axis=1, keepdims=True, dtype=np.float64)
            out[b, :, :n, :n] = np.where(kept, out[b, :, :n, :n], row)
        return (out,)

    @impl(attn.LowBitsOp)
    def run_low_bits(
        self, interpreter: Interpreter, op: attn.LowBitsOp, args: PythonValues
    ) -> PythonValues:
        x, packing = args
        heads, bits, point = op.heads.value.data, op.bits.value.data, _point(op.x)
        codes = np.zeros(x.shape, np.int64)
        points = np.zeros(static_shape(op.points), np.int64)
        for b, rows in enumerate(packing.sequences()):
            own, length = units.low_bits(split_heads(x[rows], heads), bits)
            codes[rows] = merge_heads(own)
            points[b] = point - length + bits - 1
        return codes, points

    @impl(attn.ScaleScoresOp)
    def run_scale_scores(
        self, interpreter: Interpreter, op: attn.ScaleScoresOp, args: PythonValues
    ) -> PythonValues:
        scores, q_points, k_points = args[:3]
        point = (q_points + k_points)[:, :, None, None]
        return (store(np.ldexp(scores.astype(np.float64), -point), op.result),)

    @impl(attn.ProbabilityMaskOp)
    def run_probability_mask(
        self, interpreter: Interpreter, op: attn.ProbabilityMaskOp, args: PythonValues
    ) -> PythonValues:
        probabilities, packing = args
        threshold: float = op.threshold.value.data
        if is_fixed(op.probabilities):
            threshold = units.probability_code(threshold)
        out = np.zeros(probabilities.shape, np.bool_)
        for b, n in enumerate(int(x) for x in packing.lengths):
            if n > 0:
                real = probabilities[b, :, :n, :n]
                out[b, :, :n, :n] = units.probability_mask(real, threshold)
        return (out,)

    @impl(attn.ExcludeScoresOp)
    def run_exclude_scores(
        self, interpreter: Interpreter, op: attn.ExcludeScoresOp, args: PythonValues
    ) -> PythonValues:
        scores, mask = args[:2]
        return (np.where(mask, scores, units.EXCLUDED if is_fixed(op.scores) else -np.inf),)

    @impl(attn.HeadImportanceOp)
    def run_head_importance(
        self, interpreter: Interpreter, op: attn.HeadImportanceOp, args: PythonValues
    ) -> PythonValues:
        x, packing = args[:2]
        heads = op.heads.value.data
        out = np.zeros(static_shape(op.result), np.float64) if op.before is None else args[2].copy()
        for b, rows in enumerate(packing.sequences()):
            total = np.abs(split_heads(x[rows], heads)).astype(np.float64).sum(axis=(1, 2))
            out[b] += np.ldexp(total, -_point(op.x))
        return (out,)

    @impl(attn.HeadRankingOp)
    def run_head_ranking(
        self, interpreter: Interpreter, op: attn.HeadRankingOp, args: PythonValues
    ) -> PythonValues:
        importance: Array = args[0]
        among = np.ones(importance.shape, np.bool_) if op.gate is None else args[1]
        return (units.head_ranking(importance, op.keep.value.data, among),)

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
                    *map(_point, (op.q_fraction, op.k_fraction, op.result)),
                    *map(_point, (op.q_integer, op.k_integer)),
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
            if n == 0:
                continue
            p, x = probabilities[b, :, :n, :n], split_heads(v[rows], heads)
            y = matmul(p, x) if is_fixed(op.result) else p @ x
            if is_fixed(op.result):
                point = _point(op.probabilities) + _point(op.v)
                y = requantize(y, point, _point(op.result), fixed_type(op.result).width.data).codes
            if op.gate is not None:
                y = np.where(args[3][b][:, None, None], y, _pruned_output(op, x))
            out[rows] = merge_heads(y)
        return (out,)


def _pruned_output(op: attn.WeightedValuesOp, values: Array) -> Array:
    """What pruned heads of one sequence give; `values` are (heads, L, dim)."""
    if op.gated is None or op.gated.data == "zero":
        return np.zeros((), values.dtype)
    if is_fixed(op.result):
        return units.values_mean(values, _point(op.v), _point(op.result))
    return values.mean(axis=1, keepdims=True)


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
