"""NumPy semantics of the `attn` dialect, on values and on codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.interpreter import (
    Interpreter,
    InterpreterFunctions,
    PythonValues,
    ReturnedValues,
    TerminatorValue,
    impl,
    impl_terminator,
    register_impls,
)
from xdsl.ir import SSAValue

from heatc.dialects import attn
from heatc.errors import HeatcError
from heatc.fixed_point import matmul, requantize
from heatc.fixed_point import split as split_codes
from heatc.interpreter.attn_rows import Rows, all_rows, each, key_rows
from heatc.interpreter.nn import masked_softmax, softmax
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
from heatc.intervals import contained, described
from heatc.isa import units


def split_heads(x: Array, heads: int) -> Array:
    """(L, heads * dim) -> (heads, L, dim)."""
    return x.reshape(x.shape[0], heads, x.shape[1] // heads).transpose(1, 0, 2)


def merge_heads(x: Array) -> Array:
    """(heads, L, dim) -> (L, heads * dim)."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], x.shape[0] * x.shape[2])


def _point(value: SSAValue) -> int:
    """The binary point of codes; real numbers have none."""
    return fixed_type(value).point.data if is_fixed(value) else 0


def _exact(x: Array) -> Array:
    """Codes as they are, real numbers in float64: decisions round nowhere else."""
    return x if x.dtype == np.int64 else x.astype(np.float64)


def _scores(q: Array, k: Array, packing: Packing, heads: int, out: Array) -> Array:
    """Fill (B, heads, S, S) with Q K^T of each sequence; exact on integers."""
    for b, (queries, keys) in enumerate(zip(packing.queries(), packing.sequences())):
        a, c = split_heads(q[queries], heads), split_heads(k[keys], heads).transpose(0, 2, 1)
        m, n = a.shape[1], c.shape[2]
        out[b, :, :m, :n] = matmul(a, c) if out.dtype == np.int64 else a @ c
    return out


def apply_masks(
    scores: Array, masks: Sequence[Array], fills: Sequence[float], dtype: type[Any]
) -> Array:
    """Scores with masks as the model spells them, see `attn.sdpa`; in `dtype`, the model's own."""
    for mask, fill in zip(masks, fills):
        if mask.dtype == np.bool_:
            scores = np.where(mask, scores, fill)
        else:
            # A large mask swallows the score, as far as the model's own precision says.
            scores = (scores.astype(dtype) + mask.astype(dtype)).astype(np.float64)
    return scores


def real_tokens(op: attn.PackingOp, mask: Array) -> NDArray[np.bool_]:
    """Which tokens are real, (B, S) bool; `HeatcError` for a value that is no mask's."""
    if op.real is None or op.masked is None:
        return mask != 0
    real, masked = (contained(mask, values.intervals) for values in (op.real, op.masked))
    wrong = np.argwhere(~(real | masked))
    if len(wrong):
        at = tuple(wrong[0].tolist())
        name = "the mask" if op.mask is None else op.mask.name_hint or "the mask"
        raise HeatcError(
            f"{mask[at]} at {list(at)} of {name} means neither a real token nor padding",
            notes=[
                f"real is {described(op.real.intervals)}; padding is "
                f"{described(op.masked.intervals)}"
            ],
        )
    return real


def _attended(op: attn.SdpaOp, q: Array, k: Array, v: Array, masks: Sequence[Array]) -> Array:
    """The rows q of one sequence on its keys, in float64; `masks` are (heads, queries, keys)."""
    heads, dtype = op.heads.value.data, dtype_of(element_type(op.q))
    a, c, d = (split_heads(x.astype(np.float64), heads) for x in (q, k, v))
    scores = a @ c.transpose(0, 2, 1) * op.scale.value.data
    scores = apply_masks(scores, masks, op.fills, dtype)
    weights = softmax(scores) if op.keyless == "nan" else masked_softmax(scores)
    return merge_heads(weights @ d)


def _packed_attention(
    op: attn.SdpaOp, args: PythonValues, packing: Packing, masks: list[Array]
) -> Array:
    q, k, v = args[:3]
    out = np.zeros(v.shape, np.float64)
    for b, (queries, keys) in enumerate(zip(packing.queries(), packing.sequences())):
        if keys.stop == keys.start:
            continue
        at = packing.positions(b)
        own = [m[b][:, at][:, :, at[: keys.stop - keys.start]] for m in masks]
        out[queries] = _attended(op, q[queries], k[keys], v[keys], own)
    return out


@register_impls
class AttnFunctions(InterpreterFunctions):
    """Scores are (B, heads, S, S), zero outside each sequence's own L x L."""

    @impl(attn.PrunedOp)
    def run_pruned(
        self, interpreter: Interpreter, op: attn.PrunedOp, args: PythonValues
    ) -> PythonValues:
        return interpreter.run_ssacfg_region(op.body, args, op.name)

    @impl_terminator(attn.YieldOp)
    def run_yield(
        self, interpreter: Interpreter, op: attn.YieldOp, args: PythonValues
    ) -> tuple[TerminatorValue, PythonValues]:
        return ReturnedValues(args), ()

    @impl(attn.PackingOp)
    def run_packing(
        self, interpreter: Interpreter, op: attn.PackingOp, args: PythonValues
    ) -> PythonValues:
        type_ = attn.packing_of(op.result)
        if not args:
            return (Packing.of(np.ones(type_.shape, np.bool_)),)
        return (Packing.of(real_tokens(op, args[0]), type_.reads),)

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
        if op.read is not None:
            out[packing.rows] = x
        else:
            for rows in packing.sequences():
                out[packing.rows[rows]] = x[rows]
        return (out.reshape(static_shape(op.result)),)

    @impl(attn.TokenOp)
    def run_token(
        self, interpreter: Interpreter, op: attn.TokenOp, args: PythonValues
    ) -> PythonValues:
        x, packing = args
        out = np.zeros(static_shape(op.result), x.dtype)
        position = op.position.value.data + packing.mask.shape[1] * np.arange(len(out))
        order = np.argsort(packing.rows)
        at = cast(Array, np.searchsorted(packing.rows, position, sorter=order))
        found = np.append(order, 0)[at]
        has = np.append(packing.rows, -1)[found] == position
        out[has] = x[found[has]]
        return (out,)

    @impl(attn.RealOp)
    def run_real(
        self, interpreter: Interpreter, op: attn.RealOp, args: PythonValues
    ) -> PythonValues:
        return (args[0].mask,)

    @impl(attn.SdpaOp)
    def run_sdpa(
        self, interpreter: Interpreter, op: attn.SdpaOp, args: PythonValues
    ) -> PythonValues:
        rest = list(args[3:])
        packing = rest.pop(0) if op.packing is not None else None
        batch, length = packing.mask.shape if packing is not None else args[0].shape[:2]
        full = (batch, op.heads.value.data, length, length)
        masks: list[Array] = [np.broadcast_to(mask, full) for mask in rest]
        if packing is not None:
            return (store(_packed_attention(op, args, packing, masks), op.result),)
        q, k, v = args[:3]
        out = [_attended(op, q[b], k[b], v[b], [m[b] for m in masks]) for b in range(batch)]
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
        scores, packing = args[:2]
        block, importance = op.extents, op.importance.data
        out = np.zeros(static_shape(op.result), dtype_of(element_type(op.result)))

        def theta(rows: Rows) -> Array:
            at = (rows.sequence, slice(None), *rows.scores)
            visible = None if op.visible is None else args[2][at]
            return units.block_importance(_exact(scores[at]), block, importance, visible)

        return (each(packing, out, block, theta),)

    @impl(attn.BlockMaskOp)
    def run_block_mask(
        self, interpreter: Interpreter, op: attn.BlockMaskOp, args: PythonValues
    ) -> PythonValues:
        theta: Array = args[0]
        packing: Packing = args[1]
        block, rho_b = op.extents, np.array(op.ratios)[:, None]

        def mask(rows: Rows) -> Array:
            at = (rows.sequence, slice(None), *rows.blocks(block))
            among = None if op.among is None else args[2][at]
            return units.block_mask(_exact(theta[at]), rho_b, among)

        return (each(packing, np.zeros(theta.shape, np.bool_), block, mask),)

    @impl(attn.TopkMaskOp)
    def run_topk_mask(
        self, interpreter: Interpreter, op: attn.TopkMaskOp, args: PythonValues
    ) -> PythonValues:
        theta: Array = args[0]
        packing: Packing = args[1]
        block, density = op.extents, op.density.value.data

        def mask(rows: Rows) -> Array:
            at = (rows.sequence, slice(None), *rows.blocks(block))
            among = None if op.among is None else args[2][at]
            return units.topk_mask(theta[at], density, among)

        return (each(packing, np.zeros(theta.shape, np.bool_), block, mask),)

    @impl(attn.HeadGateOp)
    def run_head_gate(
        self, interpreter: Interpreter, op: attn.HeadGateOp, args: PythonValues
    ) -> PythonValues:
        theta, packing = args[:2]
        block, importance = op.extents, op.importance.data
        tau_h = np.array(op.thresholds)
        number = units.gate_number(np.maximum(packing.lengths, 1)[:, None], importance)
        total = np.zeros(theta.shape[:2], _exact(theta[:0]).dtype)
        for rows in key_rows(packing):
            own = theta[(rows.sequence, slice(None), *rows.blocks(block))]
            total[rows.sequence] = _exact(own).sum(axis=(1, 2))
        if op.visible is not None:
            number = np.ones(theta.shape[:2], np.int64)
            for rows in key_rows(packing):
                seen = args[2][(rows.sequence, slice(None), *rows.scores)].sum(axis=-1)
                number[rows.sequence] = units.visible_number(seen, importance)
        kept = units.head_gate(total, number, tau_h, _point(op.theta))
        return (kept | (tau_h <= 0),)

    @impl(attn.MeanQueryOp)
    def run_mean_query(
        self, interpreter: Interpreter, op: attn.MeanQueryOp, args: PythonValues
    ) -> PythonValues:
        scores, integer, gate, packing = args
        out = scores.copy()
        for b, _, n, _ in key_rows(packing):
            m = n + int(packing.extras[b])
            a, kept = integer[b, :, :n, :n], gate[b][:, None, None]
            if is_fixed(op.scores):
                row = units.mean_query(a, _point(op.integer), _point(op.scores))
            else:
                row = a.mean(axis=1, keepdims=True, dtype=np.float64)
            out[b, :, :m, :n] = np.where(kept, out[b, :, :m, :n], row)
        return (out,)

    @impl(attn.LowBitsOp)
    def run_low_bits(
        self, interpreter: Interpreter, op: attn.LowBitsOp, args: PythonValues
    ) -> PythonValues:
        x, packing = args
        heads, bits, point = op.heads.value.data, op.bits.value.data, _point(op.x)
        codes = np.zeros(x.shape, np.int64)
        points = np.zeros(static_shape(op.points), np.int64)
        for b, (rows, keys) in enumerate(zip(packing.queries(), packing.sequences())):
            length = units.bit_length(split_heads(x[keys], heads))
            codes[rows] = merge_heads(units.low_codes(split_heads(x[rows], heads), length, bits))
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
        for rows in all_rows(packing):
            at = (rows.sequence, slice(None), *rows.scores)
            out[at] = units.probability_mask(probabilities[at], threshold)
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
        integer, qi, qf, ki, kf, mask, packing = args[:7]
        heads, block, pruned = op.heads.value.data, op.extents, op.pruned.data
        dtype = dtype_of(element_type(op.result))
        shape = static_shape(op.result)
        first = _scores(qf, ki, packing, heads, np.zeros(shape, dtype))
        second = _scores(qi, kf, packing, heads, np.zeros(shape, dtype))
        out = np.zeros(shape, dtype)
        for rows in all_rows(packing):
            at = (rows.sequence, slice(None), *rows.scores)
            blocks = mask[(rows.sequence, slice(None), *rows.blocks(block))]
            kept = units.expand_mask(blocks, block, (rows.number, rows.keys))
            a, f1, f2 = (x[at] for x in (integer, first, second))
            visible = None if op.visible is None else args[7][at]
            if is_fixed(op.result):
                points = units.Points(
                    *map(_point, (op.q_fraction, op.k_fraction, op.result)),
                    *map(_point, (op.q_integer, op.k_integer)),
                )
                out[at] = units.merge_scores(a, f1, f2, kept, pruned, points, visible).codes
            else:
                out[at] = _merge_values(a, f1, f2, kept, pruned, visible)
        return (out,)

    @impl(attn.SoftmaxOp)
    def run_softmax(
        self, interpreter: Interpreter, op: attn.SoftmaxOp, args: PythonValues
    ) -> PythonValues:
        scores, packing = args
        scale = op.scale.value.data
        out = np.zeros(scores.shape, dtype_of(element_type(op.result)))
        for rows in all_rows(packing):
            at = (rows.sequence, slice(None), *rows.scores)
            if is_fixed(op.scores):
                point = fixed_type(op.scores).point.data
                out[at] = units.softmax_unit(scores[at], point, units.SoftmaxScale.of(scale))
            else:
                out[at] = masked_softmax(scores[at] * scale)
        return (out,)

    @impl(attn.WeightedValuesOp)
    def run_weighted_values(
        self, interpreter: Interpreter, op: attn.WeightedValuesOp, args: PythonValues
    ) -> PythonValues:
        probabilities, v, packing = args[:3]
        heads = op.heads.value.data
        out = np.zeros(v.shape, dtype_of(element_type(op.result)))
        for b, (rows, keys) in enumerate(zip(packing.queries(), packing.sequences())):
            m, n = rows.stop - rows.start, keys.stop - keys.start
            if n == 0:
                continue
            p, x = probabilities[b, :, :m, :n], split_heads(v[keys], heads)
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


def _merge_values(
    integer: Array, first: Array, second: Array, kept: Array, pruned: str, visible: Array | None
) -> Array:
    """`units.merge_scores` on real numbers."""
    merged = integer + first + second
    if pruned == "int":
        return np.where(kept, merged, integer)
    if pruned == "mean":
        rest = ~kept if visible is None else ~kept & visible
        count = np.maximum(rest.sum(axis=-1, keepdims=True), 1)
        mean = np.where(rest, integer, 0).sum(axis=-1, keepdims=True) / count
        return np.where(kept, merged, mean)
    return np.where(kept, merged, 0.0 if pruned == "zero" else -np.inf)
