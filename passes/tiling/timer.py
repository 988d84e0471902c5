"""
How long instructions take and what they cost, without values.

`time_module` runs a function of `hdp` ops on clocks and shapes alone: registers and loops count,
tiles have sizes but no contents. Clocks, cycles and action counts are those of the machine
(`heatc.isa.clocks`, `heatc.isa.work`), so that what is timed here agrees with what the simulator
counts, cycle by cycle. What depends on values has no time without them: instructions that a
pruning rule's masks decide are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as field_of
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue

from heatc.dialects import hdp
from heatc.errors import HeatcError
from heatc.hardware import Hardware
from heatc.hardware.costs import ACTIONS, action_joules, leakage_watts, macs_per_pe
from heatc.isa.clocks import Clocks, Rows, Times, nonempty
from heatc.isa.table import (
    BLOCK,
    DTYPES,
    ISA,
    R_BATCH,
    R_EXTRA,
    R_EXTRA_START,
    R_LENGTH,
    R_START,
    R_TOKENS,
    REGISTERS,
    Engine,
    FieldKind,
)
from heatc.isa.units import Mask
from heatc.isa.work import Work, charged
from heatc.passes.allocate_buffers import allocate
from heatc.passes.lower_to_hdp import LowerToHdpPass
from heatc.passes.rewriting import describe_location, module_path

Extent = NDArray[np.int64]

OF_PRUNING = (
    *("ldm", "mask", "gate", "frac", "add", "pruned", "strow", "cascade", "magnitude", "tally"),
    *("stzero", "scores", "colsum", "wide", "divide", "param"),
    *("blocks", "topk", "filter", "likely", "pick", "drainm", "drainp", "peak", "low"),
)
"""Instructions of pruning rules: masks decide when and on what they work."""

IN_LOOPS = ("loop", "end")
"""Instructions of `hdp.loop`."""


@dataclass(frozen=True)
class Timed:
    """
    What a run takes: `cycles`, `busy` cycles by engine summed over cores, bytes of DRAM traffic.

    `actions` are counts by the rows of the hardware file's section `energy`, `path_joules` is
    dynamic energy by module path; `joules` has leakage too. All of it is modelled.
    """

    cycles: int
    seconds: float
    busy: dict[str, int]
    dram_bytes_read: int
    dram_bytes_written: int
    macs: int
    steps: int
    dynamic_joules: float
    leakage_joules: float
    actions: dict[str, float] = field_of(repr=False)
    path_joules: dict[str, float] = field_of(repr=False)
    path_bytes: dict[str, int] = field_of(repr=False)

    @property
    def joules(self) -> float:
        """Dynamic energy and leakage."""
        return self.dynamic_joules + self.leakage_joules

    @property
    def dram_bytes(self) -> int:
        """Bytes read from DRAM and written to it."""
        return self.dram_bytes_read + self.dram_bytes_written

    @property
    def shared_bytes(self) -> float:
        """Bytes that the shared buffer gives and takes."""
        return self.actions["shared_read"] + self.actions["shared_write"]


def time_module(
    module: ModuleOp, hardware: Hardware, lengths: Sequence[int] | None = None
) -> Timed:
    """
    Times the first function of a module at the tiled or machine level; the module is not changed.

    `lengths` are the real tokens of each sequence. A program that packs its inputs (`hpack`)
    needs none: its sequences are full then.

    Raises `HeatcError` for instructions that depend on values, for `lengths` that the program has
    no room for, and where a program without `hpack` reads the number of tokens and none is given;
    `InfeasibleError` where tiles do not fit the hardware.
    """
    function = _function(module)
    looped = any(op.name.startswith(("scf.", "arith.")) for op in function.walk())
    if looped or not _is_allocated(function):
        module = module.clone()
        if looped:
            LowerToHdpPass().apply(Context(), module)
        function = _function(module)
        allocate(module, function, hardware)
    return _Timer(function, hardware, lengths).run()


def _function(module: ModuleOp) -> FuncOp:
    return next(op for op in module.ops if isinstance(op, FuncOp))


def _is_allocated(function: FuncOp) -> bool:
    return all(op.base is not None for op in function.walk() if isinstance(op, hdp.TensorOp))


# --- State ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Tensor:
    """A tensor descriptor."""

    space: str
    dtype: str
    base: int
    rows: int
    columns: int
    writable: bool

    @property
    def pitch(self) -> int:
        """Bytes of a row."""
        return self.columns * DTYPES[self.dtype]

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.rows * self.columns


class _Held(NamedTuple):
    """The size of a tile's contents; by core, (cores,), where cores differ."""

    rows: int
    columns: int
    rows_of: Times
    columns_of: Times


class _Tile:
    """A place in a buffer and the size of what it holds; see `heatc.isa.clocks.Placed`."""

    __slots__ = (
        "address",
        "busy",
        "bytes",
        "dtype",
        "end",
        "held",
        "name",
        "overlaps",
        "ready",
        "space",
        "taken",
    )

    def __init__(self, name: str, space: str, dtype: str, address: int, nbytes: int):
        self.name = name
        self.space = space
        self.dtype = dtype
        self.address = address
        self.end = address + nbytes
        self.bytes = DTYPES[dtype]
        self.overlaps: list[_Tile] = []
        self.held: _Held | None = None
        self.ready: Times = 0
        self.busy: Times = 0
        self.taken: Times = 0

    def meets(self, low: int, high: int) -> bool:
        """Whether the tile shares a byte with [low, high)."""
        return self.address < high and low < self.end

    @property
    def is_local(self) -> int:
        """1 in the local buffer, 0 in the shared one."""
        return int(self.space == "local")

    def read(self) -> _Held:
        """The size of the contents."""
        if self.held is None:
            raise HeatcError(f"{self.name} is read before it is written")
        return self.held


class _Part(NamedTuple):
    """The parts of the cores in a tensor, as `ld` and `st` name them; see docs/isa.md."""

    row: int
    column: int
    rows: int
    columns: int
    core_rows: int
    core_columns: int
    parts: int

    @property
    def same(self) -> bool:
        """Whether all cores have the same part."""
        return not (self.core_rows or self.core_columns)

    def _numbers(self, cores: int) -> tuple[Extent, Extent]:
        core = np.arange(cores)
        return (core % self.parts if self.parts > 1 else core), core // self.parts

    def sizes(self, tensor: _Tensor, cores: int) -> tuple[Extent, Extent]:
        """Rows and columns of each core's part after clipping, (cores,)."""
        rows, columns = self._numbers(cores)
        return (
            np.clip(tensor.rows - (self.row + self.core_rows * rows), 0, self.rows),
            np.clip(tensor.columns - (self.column + self.core_columns * columns), 0, self.columns),
        )

    def lowest(self, cores: int) -> int:
        """How far the rows of the last part lie below core 0's."""
        return self.core_rows * ((min(cores, self.parts) if self.parts > 1 else cores) - 1)

    def clip(self, tensor: _Tensor) -> _Part:
        """Without the rows and columns beyond the tensor that no core has."""
        rows = min(self.rows, tensor.rows - self.row)
        return self._replace(rows=rows, columns=min(self.columns, tensor.columns - self.column))

    def touched(self, tensor: _Tensor, cores: int) -> Rows:
        """The rows of the tensor that the parts of all cores lie in."""
        count = self.rows + max(0, self.lowest(cores))
        return Rows(tensor, self.row, min(count, tensor.rows - self.row))

    def alike(self, active: int) -> int:
        """How many cores have the same part, which is fetched once: a group, or one of each."""
        if self.parts == 1 or self.same or (self.core_columns and self.core_rows):
            return 1
        return self.parts if self.core_columns else max(1, active // self.parts)


def _narrowed(sizes: Extent) -> Times:
    """Sizes by core, as one number where they are equal."""
    first = int(sizes[0]) if sizes.size else 0
    return first if bool((sizes == first).all()) else sizes


# --- The run ----------------------------------------------------------------------------------

_Do = Callable[[], None]
_Function = Callable[..., None]
_FUNCTIONS: dict[str, _Function] = {}


def timed_mnemonics() -> frozenset[str]:
    """The instructions that have a time without values."""
    return frozenset((*_FUNCTIONS, *IN_LOOPS))


def _times(mnemonic: str) -> Callable[[_Function], _Function]:
    """Register what times an instruction; it takes the fields by name."""
    assert mnemonic in ISA

    def register(function: _Function) -> _Function:
        _FUNCTIONS[mnemonic] = function
        return function

    return register


class _Timer:
    """One run of a function on clocks and shapes."""

    def __init__(self, function: FuncOp, hardware: Hardware, lengths: Sequence[int] | None):
        self.hardware = hardware
        self.cores = hardware.cores
        self.lengths = None if lengths is None else tuple(lengths)
        self.live: Mask | None = None
        self.active, self.parts = hardware.cores, 1
        self.registers = [0] * REGISTERS
        self.tensors: dict[int, _Tensor] = {}
        self.tiles: dict[int, _Tile] = {}
        self.held: dict[int, tuple[int, int]] = {}
        """Rows and columns of what a host register holds."""
        self.sequences: list[tuple[int, int]] = []
        self.work = Work()
        self.pc = self.steps = self.macs = 0
        self.ops: list[tuple[Operation, str]] = []
        self.counts: list[int] = []
        tensors = [op for op in function.walk() if isinstance(op, hdp.TensorOp)]
        self._pack(function)
        self.body = self._compile(function.body.block)
        dram = [_number(op, op.base) + op.nbytes for op in tensors if op.space.data == "dram"]
        self.clocks = Clocks[_Tile](hardware, self, max(dram, default=1), len(self.ops))
        self.counts = [0] * len(self.ops)

    def _pack(self, function: FuncOp) -> None:
        """The registers of the packed tokens, which `hpack` sets again."""
        packs = any(op.name in ("hdp.hpack", "hdp.hrows") for op in function.walk())
        if self.lengths is not None:
            self.set_sequences(self.lengths)
        elif not packs and any(isinstance(op, hdp.SpecialOp) for op in function.walk()):
            specials = {op.register.data for op in function.walk() if isinstance(op, hdp.SpecialOp)}
            if specials - {"zero"}:
                raise HeatcError("a program without hpack needs the lengths of its sequences")

    def set_sequences(self, lengths: Sequence[int]) -> None:
        """Sequences one after the other, as `hpack` leaves them."""
        starts = np.cumsum([0, *lengths])[:-1]
        self.sequences = [(int(start), length) for start, length in zip(starts, lengths)]
        self.registers[R_TOKENS], self.registers[R_BATCH] = sum(lengths), len(lengths)

    def run(self) -> Timed:
        """What the function takes."""
        for step in self.body:
            step()
        clocks, hardware = self.clocks, self.hardware
        self.work.mnemonics = [mnemonic for _, mnemonic in self.ops]
        counts = np.zeros((len(self.ops), len(ACTIONS)))
        counts[:, ACTIONS.index("instruction")] = self.counts
        for pc, row, count in charged(self.work, hardware):
            counts[pc, row] += count
        cycles = clocks.total()
        seconds = cycles / hardware.clock_hz
        joules = counts @ np.array(action_joules(hardware))
        engines = [e for e in Engine if e is not Engine.CONTROL]
        return Timed(
            cycles=cycles,
            seconds=seconds,
            busy={e.value: sum(clocks.pc_busy[e]) for e in engines},
            dram_bytes_read=sum(clocks.pc_read),
            dram_bytes_written=sum(clocks.pc_written),
            macs=self.macs,
            steps=self.steps,
            dynamic_joules=float(joules.sum()),
            leakage_joules=sum(leakage_watts(hardware).values()) * seconds,
            actions=dict(zip(ACTIONS, counts.sum(axis=0).tolist())),
            path_joules=self._by_path(joules.tolist()),
            path_bytes=self._by_path([r + w for r, w in zip(clocks.pc_read, clocks.pc_written)]),
        )

    def _by_path(self, values: Sequence[Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for (op, _), value in zip(self.ops, values):
            path = module_path(op)
            found[path] = found.get(path, 0) + value
        return found

    # -- compiling -------------------------------------------------------------------------

    def _compile(self, block: Block) -> list[_Do]:
        """The ops of a block as functions without arguments, in order."""
        steps: list[_Do] = []
        for op in block.ops:
            if isinstance(op, hdp.LoopOp):
                steps.append(self._loop(op))
            elif not isinstance(op, hdp.SpecialOp | ReturnOp):
                steps.append(self._instruction(op))
        return steps

    def _place(self, op: Operation, mnemonic: str) -> int:
        self.ops.append((op, mnemonic))
        return len(self.ops) - 1

    def _retire(self, pc: int) -> None:
        self.counts[pc] += 1
        self.steps += 1
        self.clocks.clock += 1

    def _loop(self, op: hdp.LoopOp) -> _Do:
        begin = self._place(op, "loop")
        body = self._compile(op.body.block)
        end = self._place(op, "end")
        register, bound, step = op.register, hdp.register_of(op.bound), op.step.value.data
        registers = self.registers

        def run() -> None:
            registers[register] = 0
            self._retire(begin)
            while registers[register] < registers[bound]:
                for inner in body:
                    inner()
                registers[register] += step
                self._retire(end)

        return run

    def _instruction(self, op: Operation) -> _Do:
        mnemonic, fields = _decoded(op)
        function = _FUNCTIONS.get(mnemonic)
        if function is None:
            why = "depends on values" if mnemonic in OF_PRUNING else "is not known to the timer"
            raise HeatcError(f"hdp.{mnemonic} {why}", place=describe_location(op))
        pc = self._place(op, mnemonic)

        def run() -> None:
            self.pc = pc
            function(self, **fields)
            self._retire(pc)

        return run

    # -- what instructions share -----------------------------------------------------------

    def act(self, **variables: int) -> None:
        """Count a piece of work of the current instruction."""
        self.work.add(self.pc, variables)

    def sum(self, sizes: Times) -> int:
        """Sum over the live cores."""
        if isinstance(sizes, int):
            return sizes * self.active
        return int(sizes[: self.active].sum())

    def by_size(self, *sizes: Times) -> Iterator[tuple[int, ...]]:
        """The live cores by the sizes of their parts: how many, 1 for the first, the sizes."""
        if all(isinstance(size, int) for size in sizes):
            yield (self.active, min(1, self.active), *cast("tuple[int, ...]", sizes))
            return
        columns = [np.broadcast_to(size, self.cores)[: self.active].tolist() for size in sizes]
        for i, part in enumerate(zip(*columns)):
            yield (1, int(i == 0), *part)

    def wide(self, sizes: Extent) -> Times:
        """Sizes of the active cores, as clocks take them."""
        narrow = _narrowed(sizes)
        if isinstance(narrow, int):
            return narrow
        full = np.zeros(self.cores, np.int64)
        full[: sizes.size] = sizes
        return full

    def macs_at(self, left: _Tile, right: _Tile) -> int:
        """Multiply-accumulates a PE and cycle at the widths of two operands."""
        return macs_per_pe(8 * left.bytes, 8 * right.bytes, self.hardware.split_bits)

    def refetched(self, left: _Tile, keys: int, elements: int) -> int:
        """When a left operand that does not stay local is there for its last fold; see the machine."""
        if self.hardware.local_a_stationary or left.space != "local":
            return 0
        nbytes = (-(-keys // self.hardware.pe_columns) - 1) * elements * left.bytes
        if nbytes <= 0:
            return 0
        for action in ("dma", "dram_read", "local_write"):
            self.work.act(self.pc, action, nbytes)
        return self.clocks.refetch(self.pc, nbytes)

    def activate(self, active: int) -> None:
        """The first `active` cores work."""
        self.active = active
        self.live = None if active == self.cores else np.arange(self.cores) < active
        self.clocks.kept_at = 0


def _number(op: Operation, attribute: Any) -> int:
    if attribute is None:
        raise HeatcError(f"{op.name} has no address yet", place=describe_location(op))
    return attribute.value.data


def _decoded(op: Operation) -> tuple[str, dict[str, Any]]:
    """Mnemonic and fields of an op; registers, tiles and tensors are numbers."""
    if isinstance(op, hdp.TensorOp):
        rows = 0 if op.rows_value is None else hdp.register_of(op.rows_value)
        return "tensor", {
            "d": _number(op, op.number),
            "space": op.space.data,
            "dtype": op.dtype.data,
            "base": _number(op, op.base),
            "rows_imm": op.rows.value.data if op.rows_value is None else 0,
            "rows_reg": rows,
            "cols": op.cols.value.data,
            "writable": op.role.data not in ("weight", "constant"),
        }
    if isinstance(op, hdp.AliasOp):
        return "tensor", _alias(op)
    if isinstance(op, hdp.WindowOp):
        fields = {"d": _number(op, op.number), "src": _named(op.src)}
        return "window", fields | {
            "start_reg": _named(op.start_reg),
            "rows_reg": _named(op.rows_reg),
        }
    if isinstance(op, hdp.TileOp):
        return "tile", {
            "t": _number(op, op.number),
            "space": op.space.data,
            "dtype": op.dtype.data,
            "address": _number(op, op.address),
            "nbytes": op.bytes.value.data,
        }
    if isinstance(op, hdp.InstructionOp):
        return op.mnemonic, _operands(op)
    raise HeatcError(f"{op.name} has no instruction", place=describe_location(op))


def _alias(op: hdp.AliasOp) -> dict[str, Any]:
    rows, tensor = op.rows_value, op.tensor
    return {
        "d": _number(op, op.number),
        "space": tensor.space.data,
        "dtype": tensor.dtype.data,
        "base": _number(op, tensor.base),
        "rows_imm": op.rows.value.data if rows is None else 0,
        "rows_reg": 0 if rows is None else hdp.register_of(rows),
        "cols": op.cols.value.data,
        "writable": tensor.role.data not in ("weight", "constant"),
    }


def _named(value: SSAValue) -> int:
    """The number of a register, tensor or tile."""
    if isinstance(value.type, hdp.RegType):
        return hdp.register_of(value)
    owner = value.owner
    assert isinstance(owner, hdp.TensorOp | hdp.WindowOp | hdp.AliasOp | hdp.TileOp)
    return _number(owner, owner.number)


def _operands(op: hdp.InstructionOp) -> dict[str, Any]:
    entry = op.instruction
    defined = hdp.RESULT_FIELD.get(entry.mnemonic)
    values = iter(op.operands)
    found: dict[str, Any] = {}
    for field in entry.fields:
        if field.name == defined:
            found[field.name] = _named(op.results[0])
        elif field.kind in (FieldKind.REG, FieldKind.TILE, FieldKind.DESC):
            found[field.name] = _named(next(values))
        else:
            found[field.name] = op.immediate(field)
    return found


# --- Control ----------------------------------------------------------------------------------


@_times("halt")
def _halt(run: _Timer) -> None:
    """Ends the run: nothing comes behind it."""


@_times("li")
def _load_immediate(run: _Timer, rd: int, imm: int) -> None:
    if rd:
        run.registers[rd] = imm


@_times("addi")
def _add_immediate(run: _Timer, rd: int, ra: int, imm: int) -> None:
    if rd:
        run.registers[rd] = run.registers[ra] + imm


@_times("span")
def _span(run: _Timer, rd: int, ra: int, rb: int, limit: int, scale: int) -> None:
    if rd:
        rest = run.registers[ra] - run.registers[rb]
        run.registers[rd] = min(max(rest, 0), limit) * scale


@_times("seq")
def _sequence(run: _Timer, rb: int) -> None:
    start, length = run.sequences[run.registers[rb]]
    run.registers[R_START], run.registers[R_LENGTH] = start, length
    # Sequences are timed without padding, and so without rows that are no keys.
    run.registers[R_EXTRA_START], run.registers[R_EXTRA] = start + length, 0


@_times("all")
def _all(run: _Timer) -> None:
    run.parts = 1
    run.activate(run.cores)


@_times("group")
def _group(run: _Timer, parts: int, rows: int) -> None:
    run.parts = parts


@_times("heads")
def _heads(run: _Timer, rc: int, stride: int, limit: int) -> None:
    left = limit - run.registers[rc]
    items = run.cores // run.parts
    active = items if stride == 0 else min(items, max(0, -(-left // stride)))
    run.activate(active * run.parts if left > 0 else 0)


@_times("tensor")
def _tensor(
    run: _Timer,
    d: int,
    space: str,
    dtype: str,
    base: int,
    rows_imm: int,
    rows_reg: int,
    cols: int,
    writable: bool,
) -> None:
    rows = run.registers[rows_reg] if rows_reg else rows_imm
    run.tensors[d] = _Tensor(space, dtype, base, rows, cols, writable)


@_times("window")
def _window(run: _Timer, d: int, src: int, start_reg: int, rows_reg: int) -> None:
    source, start, rows = run.tensors[src], run.registers[start_reg], run.registers[rows_reg]
    if start < 0 or rows < 0 or start + rows > source.rows:
        raise HeatcError(f"rows {start}..{start + rows} are outside of {source.rows} rows")
    base = source.base + start * source.pitch
    run.tensors[d] = _Tensor(
        source.space, source.dtype, base, rows, source.columns, source.writable
    )


@_times("tile")
def _tile(run: _Timer, t: int, space: str, dtype: str, address: int, nbytes: int) -> None:
    old, new = run.tiles.get(t), _Tile(f"t{t}", space, dtype, address, nbytes)
    run.clocks.declare(new, old)
    run.tiles[t] = new
    for other in run.tiles.values():
        if other is new:
            continue
        if old is not None and old in other.overlaps:
            other.overlaps.remove(old)
        if other.space == space and other.meets(new.address, new.end):
            other.overlaps.append(new)
            new.overlaps.append(other)


# --- Transfers --------------------------------------------------------------------------------


@_times("ld")
def _load(
    run: _Timer,
    t: int,
    d: int,
    row_reg: int,
    col_reg: int,
    rows: int,
    cols: int,
    core_rows: int,
    core_cols: int,
) -> None:
    tile, tensor = run.tiles[t], run.tensors[d]
    if tile.space == "shared":
        core_rows = core_cols = 0
    place = run.registers[row_reg], run.registers[col_reg]
    part = _Part(*place, rows, cols, core_rows, core_cols, run.parts).clip(tensor)
    if part.rows <= 0 or part.columns <= 0:
        raise HeatcError(
            f"the part at {place} of {rows}x{cols} is empty in {tensor.rows}x{tensor.columns}"
        )
    cores = 1 if tile.space == "shared" or part.same else run.active
    alike = part.alike(run.active)
    rows_of, columns_of = _sizes(run, part, tensor)
    tile.held = _Held(part.rows, part.columns, rows_of, columns_of)
    if not min(cores, run.active):
        return
    if isinstance(rows_of, int) and isinstance(columns_of, int):
        elements = cores * rows_of * columns_of
    else:
        elements = run.sum(rows_of * columns_of)
    nbytes = elements // alike * tile.bytes
    copies = run.active if part.same else alike
    run.act(
        nbytes=nbytes,
        copies=copies,
        from_dram=int(tensor.space == "dram"),
        in_local=tile.is_local,
    )
    run.clocks.transfer(run.pc, "ld", nbytes, part.touched(tensor, run.active), tile)


def _sizes(run: _Timer, part: _Part, tensor: _Tensor) -> tuple[Times, Times]:
    """Rows and columns of the active cores' parts; of one part where all have the same."""
    if part.same or run.active <= 1:
        return part.rows, part.columns
    rows, columns = part.sizes(tensor, run.active)
    return run.wide(rows), run.wide(columns)


@_times("st")
def _store(
    run: _Timer,
    d: int,
    t: int,
    row_reg: int,
    col_reg: int,
    core_rows: int,
    core_cols: int,
    leave: int,
) -> None:
    tensor, tile = run.tensors[d], run.tiles[t]
    held, shared = tile.read(), tile.space == "shared"
    if shared:
        core_rows = core_cols = 0
    place = run.registers[row_reg], run.registers[col_reg]
    part = _Part(*place, held.rows, held.columns, core_rows, core_cols, run.parts)
    cores = min(1, 1 if shared else run.active) if part.same else run.active
    if part.row >= tensor.rows or part.column >= tensor.columns:
        raise HeatcError(f"the part at {place} is outside of {tensor.rows}x{tensor.columns}")
    if not cores:
        return
    rows, columns = part.sizes(tensor, cores)
    rows = np.minimum(rows, _first(held.rows_of, cores))
    columns = np.minimum(columns, _first(held.columns_of, cores))
    nbytes = int((rows * columns).sum()) * tile.bytes
    run.act(nbytes=nbytes, from_dram=int(tensor.space == "dram"), in_local=tile.is_local)
    run.clocks.transfer(run.pc, "st", nbytes, tile, part.clip(tensor).touched(tensor, cores))


def _first(sizes: Times, cores: int) -> Times:
    return sizes if isinstance(sizes, int) else sizes[:cores]


# --- The PE array -----------------------------------------------------------------------------


@_times("mm")
def _matmul(run: _Timer, acc: int, a: int, b: int, first: int, b_transposed: int) -> None:
    target, left, right = run.tiles[acc], run.tiles[a], run.tiles[b]
    x, y = left.read(), right.read()
    n, columns_of = (y.rows, y.rows_of) if b_transposed else (y.columns, y.columns_of)
    depth, depth_of = (y.columns, y.columns_of) if b_transposed else (y.rows, y.rows_of)
    if depth != x.columns:
        raise HeatcError(f"depth of {right.name} is {depth}, expected {x.columns}")
    target.held = _Held(x.rows, n, x.rows_of, columns_of)
    k = x.columns_of if isinstance(depth_of, int) and depth_of == depth else depth_of
    sizes = (x.rows_of, columns_of, k)
    cycles = run.clocks.cycles["mm"](m=sizes[0], n=sizes[1], k=k, macs=run.macs_at(left, right))
    for cores, once, m, width, deep in run.by_size(*sizes):
        run.act(
            cores=cores,
            once=once,
            m=m,
            n=width,
            k=deep,
            first=first,
            bits_a=8 * left.bytes,
            bits_b=8 * right.bytes,
            size_a=left.bytes,
            size_b=right.bytes,
            a_local=left.is_local,
            b_local=right.is_local,
        )
    run.macs += run.sum(sizes[0] * sizes[1] * k)
    after = run.refetched(left, n, run.sum(x.rows_of) * x.columns)
    reads = (left, right) if first else (left, right, target)
    run.clocks.core(run.pc, Engine.PE, nonempty(cycles, *sizes), reads, (target,), after)


def _charge_drain(run: _Timer, source: _Tile, bias: _Tile | None, *targets: _Tile) -> None:
    held = source.read()
    size = sum(tile.bytes for tile in targets)
    bias_rows = 0 if bias is None else bias.read().rows
    for cores, _, m, n in run.by_size(held.rows_of, held.columns_of):
        run.act(cores=cores, m=m, n=n, bias_rows=bias_rows, size_t=size)
    cycles = run.clocks.cycles["drain"](m=held.rows_of, n=held.columns_of)
    cycles = nonempty(cycles, held.rows_of, held.columns_of)
    reads = (source,) if bias is None else (source, bias)
    run.clocks.core(run.pc, Engine.PE, cycles, reads, targets)


@_times("drain")
def _drain(
    run: _Timer, t: int, acc: int, bias: int, has_bias: int, bias_shift: int, shift: int
) -> None:
    source, target = run.tiles[acc], run.tiles[t]
    target.held = source.read()
    _charge_drain(run, source, run.tiles[bias] if has_bias else None, target)


@_times("drains")
def _drain_split(
    run: _Timer,
    ti: int,
    tf: int,
    acc: int,
    bias: int,
    has_bias: int,
    bias_shift: int,
    shift: int,
    point: int,
) -> None:
    source, targets = run.tiles[acc], (run.tiles[ti], run.tiles[tf])
    for target in targets:
        target.held = source.read()
    _charge_drain(run, source, run.tiles[bias] if has_bias else None, *targets)


@_times("drainc")
def _drain_columns(run: _Timer, t: int, acc: int, col_reg: int, shift: int) -> None:
    source, target, length = run.tiles[acc], run.tiles[t], run.registers[R_LENGTH]
    held = source.read()
    target.held = _Held(held.rows, length, held.rows_of, length)
    _charge_drain(run, source, None, target)


@_times("pv")
def _values(
    run: _Timer,
    acc: int,
    p: int,
    v: int,
    mask: int,
    row_reg: int,
    col_reg: int,
    first: int,
    sparse: int,
    total: int,
    constant: int,
) -> None:
    if sparse:
        raise HeatcError("hdp.pv of kept blocks depends on values")
    target, left, right = run.tiles[acc], run.tiles[p], run.tiles[v]
    x, y = left.read(), right.read()
    rows, keys, dim, high = x.rows_of, y.rows, y.columns, run.hardware.pe_rows
    steps = run.macs_at(left, right)
    depth: Times = -(-keys // steps) * -(-rows // high)
    kept = run.sum(rows) * keys
    target.held = _Held(x.rows, dim, x.rows_of, dim)
    for cores, once, m in run.by_size(rows):
        run.act(
            cores=cores,
            once=once,
            m=m,
            n=dim,
            k=keys,
            kept=kept * once,
            streamed=cores * keys * -(-m // high),
            first=first,
            sparse=0,
            constant=0,
            block_rows=BLOCK[0],
            block_columns=BLOCK[1],
            bits_a=8 * left.bytes,
            bits_b=8 * right.bytes,
            size_a=left.bytes,
            size_b=right.bytes,
            b_local=right.is_local,
        )
    run.macs += kept * dim
    cycles = nonempty(run.clocks.cycles["pv"](depth=depth, m=rows, n=dim), depth)
    reads = (left, right) if first else (left, right, target)
    run.clocks.core(run.pc, Engine.PE, cycles, reads, (target,))


@_times("softmax")
def _softmax(run: _Timer, p: int, s: int, multiplier: int, shift: int, point: int) -> None:
    target, source = run.tiles[p], run.tiles[s]
    held = source.read()
    rows, n = held.rows_of, held.columns
    taken = rows * n
    each = run.sum(taken)
    for cores, once, m in run.by_size(rows):
        run.act(cores=cores, m=m, n=n, taken=each * once)
    target.held = held
    cycles = nonempty(run.clocks.cycles["softmax"](taken=taken, longest=n), rows)
    run.clocks.core(run.pc, Engine.SOFTMAX, cycles, (source,), (target,))


# --- The host ---------------------------------------------------------------------------------


@_times("hpack")
def _hpack(
    run: _Timer, dpos: int, dinv: int, dmask: int, batch: int, length: int, has_mask: int
) -> None:
    _list_rows(run, batch, length, 0 if has_mask else length)
    reads = (Rows(run.tensors[dmask]),) if has_mask else ()
    _listed(run, "hpack", batch * length, reads, (dpos, dinv))


@_times("hrows")
def _hrows(
    run: _Timer,
    dpos: int,
    dinv: int,
    dreal: int,
    dmask: int,
    dread: int,
    batch: int,
    length: int,
) -> None:
    _list_rows(run, batch, length, 0)
    reads = (Rows(run.tensors[dmask]), Rows(run.tensors[dread]))
    _listed(run, "hrows", batch * length, reads, (dpos, dinv, dreal))


def _list_rows(run: _Timer, batch: int, length: int, least: int) -> None:
    """The lengths that are timed: those given, or full ones."""
    lengths = (length,) * batch if run.lengths is None else run.lengths
    lengths = (*lengths, *(0,) * (batch - len(lengths)))
    if len(lengths) > batch or max(lengths) > length or min(lengths) < least:
        raise HeatcError(f"sequences of {lengths} tokens are none of {batch} x {length}")
    run.set_sequences(lengths)


def _listed(
    run: _Timer, mnemonic: str, count: int, reads: Sequence[Rows], targets: Sequence[int]
) -> None:
    written = 8 * count * len(targets)
    nbytes = written + 8 * count
    run.act(elements=count, nbytes=nbytes, written=written, from_dram=1)
    writes = [Rows(run.tensors[d]) for d in targets]
    end = run.clocks.host(run.pc, mnemonic, count, nbytes, reads, writes)
    run.clocks.clock = max(run.clocks.clock, end)


@_times("htest")
def _test(run: _Timer, dst: int, src: int, compare: str, value: float) -> None:
    target, source = run.tensors[dst], run.tensors[src]
    written = _bytes(target, source.size)
    nbytes = _bytes(source, source.size) + written
    run.act(elements=source.size, nbytes=nbytes, written=written, from_dram=1)
    run.clocks.host(run.pc, "htest", source.size, nbytes, (Rows(source),), (Rows(target),))


@_times("extra")
def _extra(run: _Timer) -> None:
    """Which rows are worked on is no matter of time."""


def _bytes(tensor: _Tensor, elements: int) -> int:
    return elements * DTYPES[tensor.dtype]


def _in_dram(tensor: _Tensor) -> int:
    return int(tensor.space == "dram")


@_times("hidx")
def _gather(run: _Timer, dst: int, src: int, idx: int) -> None:
    target, source, index = (run.tensors[d] for d in (dst, src, idx))
    count = target.size
    nbytes = sum(_bytes(tensor, count) for tensor in (target, source, index))
    run.act(elements=count, nbytes=nbytes, written=_bytes(target, count), from_dram=1)
    reads = (Rows(source), Rows(index))
    run.clocks.host(run.pc, "hidx", count, nbytes, reads, (Rows(target),))


@_times("hget")
def _get(run: _Timer, h: int, d: int, row_reg: int, rows: int, point: int) -> None:
    tensor, row = run.tensors[d], run.registers[row_reg]
    count = max(0, min(rows, tensor.rows - row))
    run.held[h] = (count, tensor.columns)
    elements = count * tensor.columns
    nbytes = _bytes(tensor, elements)
    run.act(elements=elements, nbytes=nbytes, written=0, from_dram=_in_dram(tensor))
    run.clocks.host(run.pc, "hget", elements, nbytes, (Rows(tensor, row, count),))


@_times("hgeti")
def _get_indexed(
    run: _Timer, h: int, d: int, idx: int, row_reg: int, rows: int, point: int
) -> None:
    tensor, index = run.tensors[d], run.tensors[idx]
    count = max(0, min(rows, index.size - run.registers[row_reg]))
    run.held[h] = (count, tensor.columns)
    elements = count * tensor.columns
    nbytes = _bytes(tensor, elements) + _bytes(index, count)
    run.act(elements=elements, nbytes=nbytes, written=0, from_dram=_in_dram(tensor))
    reads = (Rows(tensor, moved=count), Rows(index))
    run.clocks.host(run.pc, "hgeti", elements, nbytes, reads)


def _apply(mnemonic: str) -> None:
    """An operation in place on what a host register holds."""

    @_times(mnemonic)
    def _operation(run: _Timer, h: int, g: int = 0) -> None:
        rows, columns = run.held[h]
        run.act(elements=rows * columns, nbytes=0, written=0, from_dram=1)
        run.clocks.host(run.pc, mnemonic, rows * columns, 0)


for _mnemonic in ("hadd", "hgelu", "htanh", "hrelu"):
    _apply(_mnemonic)


@_times("hln")
def _layer_norm(run: _Timer, h: int, gamma: int, beta: int, eps: float) -> None:
    rows, columns = run.held[h]
    tensors = (run.tensors[gamma], run.tensors[beta])
    nbytes = sum(_bytes(tensor, tensor.size) for tensor in tensors)
    run.act(elements=rows * columns, nbytes=nbytes, written=0, from_dram=1)
    reads = [Rows(tensor) for tensor in tensors]
    run.clocks.host(run.pc, "hln", rows * columns, nbytes, reads)


@_times("hput")
def _put(run: _Timer, d: int, h: int, row_reg: int, point: int) -> None:
    tensor, row = run.tensors[d], run.registers[row_reg]
    rows, columns = run.held[h]
    count = max(0, min(rows, tensor.rows - row))
    nbytes = _bytes(tensor, count * columns)
    run.act(elements=count * columns, nbytes=nbytes, written=nbytes, from_dram=_in_dram(tensor))
    writes = (Rows(tensor, row, count),)
    run.clocks.host(run.pc, "hput", count * columns, nbytes, (), writes)
