"""A linear on the PE array: weights stream past the activations of a row tile, or the other way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.ir import SSAValue

from heatc.passes.tiling.emitter import Emitter, Tiles
from heatc.passes.tiling.linear_plan import LinearPlan, LinearShape
from heatc.passes.tiling.packing import align

_WHOLE_BLOCKS = 64
"""Rows of a part of a group end with a block, of whatever size; a product has no use for them."""


@dataclass(frozen=True)
class Linear:
    """
    `outputs = requantise(x weight^T + bias)` on tensors.

    `rows` is the number of rows at run time, None where it is `shape.rows`. Two outputs are the
    integer and the fraction plane of a result, which is split above its lowest `fraction` bits;
    otherwise the outputs are column panels of the result. `x` has several tensors where it lies in panels.
    `weight` gives the tensor (columns, depth), or transposed.
    """

    shape: LinearShape
    rows: SSAValue | None
    x: tuple[SSAValue, ...]
    weight: Callable[[bool], SSAValue]
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


def hold_weights(emitter: Emitter, weight: Callable[[bool], SSAValue], plan: LinearPlan) -> Tiles:
    """Load all weights into the tiles of a plan that has room for them, for all rows to come."""
    grouped = plan.parts > 1
    if grouped:
        _begin_group(emitter, plan)
    tiles = _held(emitter, weight(_is_transposed(plan)), plan)
    if grouped:
        emitter.do("all")
    return tiles


def _begin_group(emitter: Emitter, plan: LinearPlan) -> None:
    emitter.do("group", parts=plan.parts, rows=align(plan.rows, _WHOLE_BLOCKS))


def _held(emitter: Emitter, weight: SSAValue, plan: LinearPlan) -> Tiles:
    tiles = emitter.tiles(plan.weight_tiles(), "shared" if plan.weights_shared else "local")
    for i in range(plan.slabs):
        _load_weights(emitter, weight, plan, tiles, emitter.constant(0), i)
    return tiles


def emit_linear(
    emitter: Emitter, linear: Linear, plan: LinearPlan, held: Tiles | None = None
) -> None:
    """
    Loops over row tiles and column tiles.

    A row tile's activations stay in their buffers while all weights pass by, unless there is room for
    all of these or they are `held` already; core c computes the columns of item c / parts of the rows of part c mod parts.
    """
    e = emitter
    if plan.parts > 1:
        _begin_group(e, plan)
    weight = linear.weight(_is_transposed(plan))
    if held is None and plan.resident and linear.panels == 1:
        # Weights depend on nothing: they come in while the activations are still computed.
        held = _held(e, weight, plan)
    local = e.tiles(plan.local_tiles())
    if held is None:
        local |= e.tiles(plan.weight_tiles(), "shared" if plan.weights_shared else "local")
    slabs = list(e.tiles(plan.slab_tiles(), "shared" if plan.parts == 1 else "local").values())
    kernel = _Rows(e, linear, weight, plan, slabs, local | (held or {}), held is not None)
    if kernel.one_step:
        kernel.load_bias(e.constant(0))
    if linear.rows is None and linear.shape.rows <= plan.row_step:
        kernel.emit(e.constant(0))
    else:
        bound = e.constant(linear.shape.rows) if linear.rows is None else linear.rows
        with e.loop(bound, plan.row_step) as row:
            kernel.emit(row)
    if plan.parts > 1:
        e.do("all")


@dataclass(frozen=True)
class _Rows:
    """Emits row tiles; `held`: all weights are there."""

    e: Emitter
    linear: Linear
    weight: SSAValue
    plan: LinearPlan
    slabs: list[SSAValue]
    local: Tiles
    held: bool

    @property
    def one_step(self) -> bool:
        """Whether all rows take the same columns, hence one bias."""
        return self.linear.panels == 1 and self.plan.step >= self.linear.panel_columns

    def load_bias(self, place: SSAValue) -> None:
        """The bias of the columns from `place` on, if there is one."""
        if self.linear.bias is None:
            return
        self.e.do(
            "ld",
            t=self.local["bias"],
            d=self.linear.bias,
            row_reg=self.e.constant(0),
            col_reg=place,
            rows=self.linear.shape.pre,
            cols=self.plan.columns,
            core_cols=0 if self.plan.weights_shared else self.plan.columns,
        )

    def emit(self, row: SSAValue) -> None:
        """The row tile from `row` on."""
        e, linear, step = self.e, self.linear, self.plan.step
        in_panels = len(linear.x) > 1
        if not in_panels:
            for i in range(self.plan.slabs):
                self._load_activations(row, i)
        for panel in range(linear.panels):
            first = panel * linear.panel_columns
            if step >= linear.panel_columns:
                self._columns(row, panel, e.constant(0), e.constant(first), fresh=in_panels)
            elif in_panels and not panel:
                # The first columns wait for one panel of activations after the other.
                self._columns(row, panel, e.constant(0), e.constant(0), fresh=True)
                with e.loop(e.constant(linear.panel_columns - step), step) as offset:
                    column = e.add(offset, step)
                    self._columns(row, panel, column, column)
            else:
                with e.loop(e.constant(linear.panel_columns), step) as column:
                    place = e.add(column, first) if first else column
                    self._columns(row, panel, column, place)

    def _load_activations(self, row: SSAValue, index: int) -> None:
        """Slab `index` of a row tile's activations."""
        plan, width = self.plan, self.linear.shape.depth // len(self.linear.x)
        panel, column = divmod(index * plan.slab, width)
        self.e.do(
            "ld",
            t=self.slabs[index],
            d=self.linear.x[panel],
            row_reg=row,
            col_reg=self.e.constant(column),
            rows=plan.rows,
            cols=plan.slab,
            core_rows=plan.rows if plan.parts > 1 else 0,
        )

    def _columns(
        self, row: SSAValue, panel: int, column: SSAValue, place: SSAValue, *, fresh: bool = False
    ) -> None:
        """
        Columns from `column` of a panel, which is `place` in the whole result.

        `fresh`: the activations are not there yet, they come one slab before it is needed.
        """
        e, linear, plan, local = self.e, self.linear, self.plan, self.local
        core_cols = 0 if plan.weights_shared else plan.columns
        if not self.one_step:
            self.load_bias(place)
        for i, x in enumerate(self.slabs):
            if not self.held:
                _load_weights(e, self.weight, plan, local, place, i)
            if fresh and not panel:
                self._load_activations(row, i)
            slab, transposed = local[f"slab.{i % plan.slots}"], int(not _is_transposed(plan))
            e.do("mm", acc=local["acc"], a=x, b=slab, first=i == 0, b_transposed=transposed)
        _emit_drain(e, linear, local)
        planes = len(linear.shape.planes)
        core_rows = plan.rows if plan.parts > 1 else 0
        for i, output in enumerate(linear.outputs[panel * planes : (panel + 1) * planes]):
            place_of = {"row_reg": row, "col_reg": column}
            strides = {"core_rows": core_rows, "core_cols": core_cols}
            e.do("st", d=output, t=local[f"out.{i}"], **place_of, **strides)


def _is_transposed(plan: LinearPlan) -> bool:
    """Whether items lie along the columns of the weight tensor: only these are counted by item."""
    return plan.parts > 1 and plan.items > 1


def _load_weights(
    emitter: Emitter,
    weight: SSAValue,
    plan: LinearPlan,
    tiles: Tiles,
    column: SSAValue,
    index: int,
) -> None:
    """Slab `index` of the weights of result columns from `column`, a share for each item."""
    e, first = emitter, emitter.constant(index * plan.slab)
    tile = tiles[f"slab.{index % plan.slots}"]
    if _is_transposed(plan):
        place = {"row_reg": first, "col_reg": column, "rows": plan.slab, "cols": plan.columns}
        e.do("ld", t=tile, d=weight, **place, core_cols=plan.columns)
        return
    place = {"row_reg": column, "col_reg": first, "rows": plan.columns, "cols": plan.slab}
    e.do("ld", t=tile, d=weight, **place, core_rows=0 if plan.parts > 1 else plan.columns)


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
