"""A linear on the PE array: activations shared, weights streamed through the local buffers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from xdsl.ir import SSAValue

from heatc.hardware import Hardware
from heatc.passes.tiling.emitter import Emitter, Tiles
from heatc.passes.tiling.linear_plan import LinearPlan, LinearShape, plan_linear, plan_token_linear
from heatc.passes.tiling.packing import TileSpec


@dataclass(frozen=True)
class Linear:
    """
    `outputs = requantise(x weight^T + bias)` on tensors.

    `rows` is the number of rows at run time, None where it is `shape.rows`. Two outputs are the
    integer and the fraction plane of a result, which is split above its lowest `fraction` bits;
    otherwise the outputs are column panels of the result. `x` has several tensors where it lies in panels.
    """

    shape: LinearShape
    rows: SSAValue | None
    x: tuple[SSAValue, ...]
    weight: SSAValue
    bias: SSAValue | None
    outputs: tuple[SSAValue, ...]
    bias_shift: int
    shift: int
    fraction: int

    @property
    def panels(self) -> int:
        """How many panels the result lies in."""
        return len(self.outputs) // len(self.shape.planes)

    @property
    def panel_columns(self) -> int:
        """Columns of a panel of the result."""
        return self.shape.columns // self.panels


def emit_linear(emitter: Emitter, linear: Linear, hardware: Hardware) -> None:
    """
    Loops over row tiles and column tiles.

    A row tile's activations stay in the shared buffer while all weights pass by; core c computes
    columns n + c * columns of a panel.
    """
    planned = plan_linear if linear.rows is None else plan_token_linear
    plan = planned(replace(linear.shape, columns=linear.panel_columns), hardware)
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
    e, step = emitter, hardware.cores * plan.columns
    single = step >= linear.panel_columns
    early = single and linear.panels == 1 and plan.slots >= plan.slabs
    in_panels = len(linear.x) > 1
    if early:
        # Weights depend on nothing: they come in while the activations are still computed.
        for i in range(plan.slabs):
            _load_weights(e, linear, plan, local, e.constant(0), i)
    if not in_panels:
        for i, tile in enumerate(shared):
            _load_activations(e, linear, plan, tile, row, i)
    kernel = _Columns(e, linear, plan, shared, local, row)
    for panel in range(linear.panels):
        if single:
            place = e.constant(panel * linear.panel_columns)
            kernel.emit(panel, e.constant(0), place, loaded=early, fresh=in_panels)
        elif in_panels and not panel:
            # The first columns wait for one panel of activations after the other.
            kernel.emit(panel, e.constant(0), e.constant(0), fresh=True)
            with e.loop(e.constant(linear.panel_columns - step), step) as offset:
                column = e.add(offset, step)
                kernel.emit(panel, column, column)
        else:
            with e.loop(e.constant(linear.panel_columns), step) as column:
                first = panel * linear.panel_columns
                kernel.emit(panel, column, e.add(column, first) if first else column)


def _load_activations(
    emitter: Emitter, linear: Linear, plan: LinearPlan, tile: SSAValue, row: SSAValue, index: int
) -> None:
    """Slab `index` of a row tile's activations."""
    width = linear.shape.depth // len(linear.x)
    panel, column = divmod(index * plan.slab, width)
    emitter.do(
        "ld",
        t=tile,
        d=linear.x[panel],
        row_reg=row,
        col_reg=emitter.constant(column),
        rows=plan.rows,
        cols=plan.slab,
    )


@dataclass(frozen=True)
class _Columns:
    """Emits result columns of a row tile, a share for each core."""

    e: Emitter
    linear: Linear
    plan: LinearPlan
    shared: list[SSAValue]
    local: Tiles
    row: SSAValue

    def emit(
        self,
        panel: int,
        column: SSAValue,
        place: SSAValue,
        *,
        loaded: bool = False,
        fresh: bool = False,
    ) -> None:
        """
        Columns from `column` of a panel, which is `place` in the whole result.

        `loaded`: the weights are there. `fresh`: the activations are not yet, they come one slab
        before it is needed.
        """
        e, linear, plan, local = self.e, self.linear, self.plan, self.local
        if linear.bias is not None:
            e.do(
                "ld",
                t=local["bias"],
                d=linear.bias,
                row_reg=e.constant(0),
                col_reg=place,
                rows=linear.shape.pre,
                cols=plan.columns,
                core_cols=plan.columns,
            )
        for i, x in enumerate(self.shared):
            if not loaded:
                _load_weights(e, linear, plan, local, place, i)
            if fresh and not panel:
                _load_activations(e, linear, plan, x, self.row, i)
            slab = local[f"slab.{i % plan.slots}"]
            e.do("mm", acc=local["acc"], a=x, b=slab, first=i == 0, b_transposed=1)
        _emit_drain(e, linear, local)
        planes = len(linear.shape.planes)
        for i, output in enumerate(linear.outputs[panel * planes : (panel + 1) * planes]):
            tile = local[f"out.{i}"]
            e.do("st", d=output, t=tile, row_reg=self.row, col_reg=column, core_cols=plan.columns)


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
    if len(linear.shape.planes) == 1:
        emitter.do("drain", t=local["out.0"], **common)
    else:
        emitter.do("drains", ti=local["out.0"], tf=local["out.1"], point=linear.fraction, **common)
