"""NumPy semantics of the steps of attention that take the model's own masks."""

from __future__ import annotations

import numpy as np
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls

from heatc.dialects import attn
from heatc.errors import HeatcError
from heatc.fixed_point import round_shift, saturate
from heatc.interpreter.attn_rows import Rows, all_rows, each
from heatc.interpreter.values import Array, Packing, fixed_type, is_fixed, static_shape
from heatc.isa import units


def gathered(mask: Array, packing: Packing, out: Array) -> Array:
    """Fill `out` (B, heads, S, S): of each sequence's rows and keys the entries at their positions."""
    whole = np.broadcast_to(mask, out.shape)
    for b, n in enumerate(packing.lengths.tolist()):
        at = packing.positions(b)
        out[b, :, : len(at), :n] = whole[b][:, at][:, :, at[:n]]
    return out


@register_impls
class AttnMaskFunctions(InterpreterFunctions):
    """Masks have padded coordinates, scores those of the packing."""

    @impl(attn.VisibleOp)
    def run_visible(
        self, interpreter: Interpreter, op: attn.VisibleOp, args: PythonValues
    ) -> PythonValues:
        packing, *masks = args
        out = np.zeros(static_shape(op.result), np.bool_)
        return (np.logical_and.reduce([gathered(mask, packing, out.copy()) for mask in masks]),)

    @impl(attn.VisibleBlocksOp)
    def run_visible_blocks(
        self, interpreter: Interpreter, op: attn.VisibleBlocksOp, args: PythonValues
    ) -> PythonValues:
        visible, packing = args
        block = op.extents

        def some(rows: Rows) -> Array:
            own = visible[(rows.sequence, slice(None), *rows.scores)]
            return units.block_sums(own.astype(np.int64), block) > 0

        return (each(packing, np.zeros(static_shape(op.result), np.bool_), block, some),)

    @impl(attn.BiasScoresOp)
    def run_bias_scores(
        self, interpreter: Interpreter, op: attn.BiasScoresOp, args: PythonValues
    ) -> PythonValues:
        scores, bias, packing = args
        added: Array = gathered(bias, packing, np.zeros(static_shape(op.scores), bias.dtype))
        if not is_fixed(op.scores):
            return (scores + added,)
        shift = fixed_type(op.bias).point.data - fixed_type(op.scores).point.data
        total = saturate(scores + round_shift(added, shift), 32).codes
        return (np.where(scores == units.EXCLUDED, scores, total),)

    @impl(attn.HideScoresOp)
    def run_hide_scores(
        self, interpreter: Interpreter, op: attn.HideScoresOp, args: PythonValues
    ) -> PythonValues:
        scores, visible, packing = args
        excluded = units.EXCLUDED if is_fixed(op.scores) else -np.inf
        out = scores.copy()
        for rows in all_rows(packing):
            at = (rows.sequence, slice(None), *rows.scores)
            shown = units.shown(visible[at], op.keyless.data)
            if shown is None:
                raise HeatcError(
                    f"a row of sequence {rows.sequence} sees no key: the model has no number there",
                    notes=["give every row a key that its mask does not hide"],
                )
            own = np.where(shown, scores[at], excluded)
            if op.keyless.data == "mean":
                level = np.where(own == excluded, own, 0)
                own = np.where(visible[at].any(axis=-1, keepdims=True), own, level)
            out[at] = own
        return (out,)
