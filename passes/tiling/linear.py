"""A linear on the PE array: activations shared, weights streamed through the local buffers."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from heatc.hardware import Hardware
from heatc.passes.tiling.emitter import Emitter, Tiles
from heatc.passes.tiling.plan import (
    LinearPlan,
    LinearShape,
    TileSpec,
    plan_linear,
    plan_token_linear,
)


@dataclass(frozen=True)
class Linear:
    """
    `outputs = requantise(x weight^T + bias)` on tensors.

    `rows` is the number of rows at run time, None where it is `shape.rows`. Two outputs are the
    integer and the fraction plane of a result with binary point `point`.
    """

    shape: LinearShape
    rows: SSAValue | None
    x: SSAValue
    weight: SSAValue
    bias: SSAValue | None
    outputs: tuple[SSAValue, ...]
    bias_shift: int
    shift: int
    point: int


def emit_linear(emitter: Emitter, linear: Linear, hardware: Hardware) -> None:
    """
    Loops over row tiles and column tiles.

    A row tile's activations stay in the shared buffer while all weights pass by; core c computes
    columns n + c * columns.
    """
    planned = plan_linear if linear.rows is None else plan_token_linear
    plan = planned(linear.shape, hardware)
    slab = [TileSpec(f"x.{i}", "i16", plan.slab_bytes) for i in range(plan.slabs)]
    shared = list(emitter.tiles(slab, "shared").values())
    local = emitter.tiles(plan.local_tiles())
    if linear.rows is None and linear.shape.rows <= plan.rows:
        _emit_rows(emitter, linear, plan, hardware, shared, local, emitter.constant(0))
        return
    bound = emitter.constant(linear.shape.rows) if linear.rows is None else linear.rows
    with emitter.loop(bound, plan.rows) as row:
        _emit_rows(emitter, linear, plan, hardware, shared, local, row)


def _emit_rows(
    emitter: Emitter,
    linear: Linear,
    plan: LinearPlan,
    hardware: Hardware,
    shared: list[SSAValue],
    local: Tiles,
    row: SSAValue,
) -> None:
    step = hardware.cores * plan.columns
    single = step >= linear.shape.columns
    early = single and plan.slots >= plan.slabs
    if early:
        # Weights depend on nothing: they come in while the activations are still computed.
        for i in range(plan.slabs):
            _load_weights(emitter, linear, plan, local, emitter.constant(0), i)
    for i, tile in enumerate(shared):
        column = emitter.constant(i * plan.slab)
        emitter.do(
            "ld", t=tile, d=linear.x, row_reg=row, col_reg=column, rows=plan.rows, cols=plan.slab
        )
    if single:
        zero = emitter.constant(0)
        _emit_columns(emitter, linear, plan, shared, local, row, zero, loaded=early)
        return
    with emitter.loop(emitter.constant(linear.shape.columns), step) as column:
        _emit_columns(emitter, linear, plan, shared, local, row, column)


def _emit_columns(
    emitter: Emitter,
    linear: Linear,
    plan: LinearPlan,
    shared: list[SSAValue],
    local: Tiles,
    row: SSAValue,
    column: SSAValue,
    *,
    loaded: bool = False,
) -> None:
    zero, acc = emitter.constant(0), local["acc"]
    if linear.bias is not None:
        emitter.do(
            "ld",
            t=local["bias"],
            d=linear.bias,
            row_reg=zero,
            col_reg=column,
            rows=1,
            cols=plan.columns,
            core_cols=plan.columns,
        )
    for i, x in enumerate(shared):
        slab = local[f"slab.{i % plan.slots}"]
        if not loaded:
            _load_weights(emitter, linear, plan, local, column, i)
        emitter.do("mm", acc=acc, a=x, b=slab, first=i == 0, b_transposed=1)
    _emit_drain(emitter, linear, local)
    for i, output in enumerate(linear.outputs):
        tile = local[f"out.{i}"]
        emitter.do("st", d=output, t=tile, row_reg=row, col_reg=column, core_cols=plan.columns)


def _load_weights(
    emitter: Emitter,
    linear: Linear,
    plan: LinearPlan,
    local: Tiles,
    column: SSAValue,
    index: int,
) -> None:
    """Slab `index` of the weights of result columns from `column`, a share for each core."""
    emitter.do(
        "ld",
        t=local[f"slab.{index % plan.slots}"],
        d=linear.weight,
        row_reg=column,
        col_reg=emitter.constant(index * plan.slab),
        rows=plan.columns,
        cols=plan.slab,
        core_rows=plan.columns,
    )


def _emit_drain(emitter: Emitter, linear: Linear, local: Tiles) -> None:
    acc = local["acc"]
    bias = acc if linear.bias is None else local["bias"]
    common = {
        "acc": acc,
        "bias": bias,
        "has_bias": linear.bias is not None,
        "bias_shift": linear.bias_shift,
        "shift": linear.shift,
    }
    if len(linear.outputs) == 1:
        emitter.do("drain", t=local["out.0"], **common)
    else:
        emitter.do("drains", ti=local["out.0"], tf=local["out.1"], point=linear.point, **common)
