"""Registers, loops, descriptors, tiles and the activity of cores."""

from __future__ import annotations

import math

from heatc.errors import HeatcError, InfeasibleError
from heatc.isa.table import (
    BLOCK,
    DTYPES,
    R_BATCH,
    R_EXTRA,
    R_EXTRA_START,
    R_LENGTH,
    R_START,
    SPACES,
    TILE_DTYPES,
)
from heatc.machine.core_tiles import expect_engine_blocks
from heatc.machine.execution import Execution, executes
from heatc.machine.state import Tensor, Tile, Trap, expect

_DTYPES = tuple(DTYPES)
_LIMIT = 1 << 63


def _set(run: Execution, register: int, value: int) -> None:
    expect(-_LIMIT <= value < _LIMIT, f"{value} does not fit a register")
    if register:
        run.state.registers[register] = value


@executes("halt")
def halt(run: Execution) -> int:
    """Ends the run: the program counter goes below 0."""
    expect(not run.loops, "a loop is open")
    return -1


@executes("li")
def load_immediate(run: Execution, rd: int, imm: int) -> None:
    _set(run, rd, imm)


@executes("addi")
def add_immediate(run: Execution, rd: int, ra: int, imm: int) -> None:
    _set(run, rd, run.state.registers[ra] + imm)


@executes("span")
def span(run: Execution, rd: int, ra: int, rb: int, limit: int, scale: int) -> None:
    rest = run.state.registers[ra] - run.state.registers[rb]
    _set(run, rd, min(max(rest, 0), limit) * scale)


@executes("loop")
def loop(run: Execution, r: int, bound: int, step: int, skip: int) -> int | None:
    """The program was checked: `skip` leads behind the matching end."""
    run.state.registers[r] = 0
    count = run.state.registers[bound]
    if count <= 0:
        return run.pc + skip
    if run.budget is not None:
        run.budget.check_loop(-(-count // step), skip - 1)
    run.loops.append((r, bound, step))
    return None


@executes("end")
def end(run: Execution, back: int) -> int | None:
    expect(bool(run.loops), "no loop is open")
    r, bound, step = run.loops[-1]
    registers = run.state.registers
    _set(run, r, registers[r] + step)
    if registers[r] < registers[bound]:
        return run.pc - back + 1
    run.loops.pop()
    return None


@executes("seq")
def sequence(run: Execution, rb: int) -> None:
    state = run.state
    index = state.registers[rb]
    if not 0 <= index < len(state.sequences):
        raise Trap(f"sequence {index} is not one of {len(state.sequences)} (r{R_BATCH})")
    start, length, extra = state.sequences[index]
    state.registers[R_START], state.registers[R_LENGTH] = start, length
    state.registers[R_EXTRA_START], state.registers[R_EXTRA] = start + length, extra


@executes("all")
def activate_all(run: Execution) -> None:
    state = run.state
    state.parts, state.part_rows, state.listed = 1, 0, None
    state.block, state.extra = BLOCK, False
    state.activate(state.cores)
    run.board.kept_at = run.board.listed_at = 0


@executes("group")
def group(run: Execution, parts: int, rows: int) -> None:
    state = run.state
    expect(parts >= 1 and state.cores % parts == 0, f"{parts} parts do not divide the cores")
    expect(rows % state.block[0] == 0, f"{rows} rows of a part do not end with a block")
    expect(rows > 0 or parts == 1, "the parts of a group have no rows")
    state.parts, state.part_rows = parts, rows


@executes("blocks")
def blocks(run: Execution, rows: int, columns: int) -> None:
    state = run.state
    expect_engine_blocks(run, (rows, columns))
    expect(state.part_rows % rows == 0, f"{state.part_rows} rows of a part do not end with a block")
    state.block = (rows, columns)


@executes("heads")
def heads(run: Execution, rc: int, stride: int, limit: int) -> None:
    state = run.state
    left = limit - state.registers[rc]
    items = state.cores // state.parts
    active = items if stride == 0 else min(items, max(0, -(-left // stride)))
    active = active if left > 0 else 0
    state.activate(active * state.parts, (state.registers[rc], stride))
    state.theta_head[:] = 0
    state.seen_head[:] = 0
    state.extra = False
    run.board.kept_at = run.board.listed_at
    run.pc_heads[run.pc] += active


@executes("extra")
def turn_to_extra(run: Execution) -> None:
    run.state.extra = True


@executes("pruned")
def turn_to_pruned(run: Execution) -> None:
    expect(run.state.round is not None, "no round of heads has begun")
    run.state.turn(leave=run.hardware.early_head_exit)


@executes("param")
def parameter(run: Execution, which: int, head: int, value: float) -> None:
    expect(math.isfinite(value), "the parameter is not finite")
    run.state.parameters[which, head] = value


@executes("tensor")
def tensor(
    run: Execution,
    d: int,
    space: int,
    dtype: int,
    base: int,
    rows_imm: int,
    rows_reg: int,
    cols: int,
) -> None:
    rows = run.state.registers[rows_reg] if rows_reg else rows_imm
    name, where = _DTYPES[dtype], SPACES[space]
    expect(where != "local", "a tensor lies in dram or shared")
    expect(name not in TILE_DTYPES, f"a tensor of {name}, which only tiles hold")
    expect(base % DTYPES[name] == 0, f"base {base} is not a multiple of the element")
    memory = run.memory if where == "dram" else run.state.shared
    try:
        data = memory.view(base, name, rows, cols)
    except HeatcError as error:
        raise Trap(error.message, *error.notes) from None
    run.state.tensors[d] = Tensor(where, name, base, data, data.flags.writeable)


@executes("window")
def window(run: Execution, d: int, src: int, start_reg: int, rows_reg: int) -> None:
    registers = run.state.registers
    source, start, rows = run.state.tensor(src), registers[start_reg], registers[rows_reg]
    if start < 0 or rows < 0 or start + rows > source.rows:
        raise Trap(f"rows {start}..{start + rows} are outside of d{src} with {source.rows} rows")
    run.state.tensors[d] = Tensor(
        source.space,
        source.dtype,
        source.base + start * source.pitch,
        source.data[start : start + rows],
        source.writable,
    )


@executes("tile")
def tile(run: Execution, t: int, space: int, dtype: int, address: int, nbytes: int) -> None:
    where, state = SPACES[space], run.state
    expect(where != "dram", "a tile lies in a buffer: local or shared")
    bound = (
        run.hardware.local_buffer_bytes if where == "local" else run.hardware.shared_buffer_bytes
    )
    if address + nbytes > bound:
        raise Trap(
            f"tile t{t} needs bytes {address}..{address + nbytes}, the {where} buffer has {bound}",
            "use smaller tiles, or hardware with a larger buffer",
            error=InfeasibleError,
        )
    old, new = state.tiles[t], Tile(f"t{t}", where, _DTYPES[dtype], address, nbytes)
    run.board.declare(new, old)
    state.tiles[t] = new
    if old is not None and (old.space, old.address, old.capacity) == (where, address, nbytes):
        # A loop places its tiles where they were: they share bytes with the same tiles as before.
        new.overlaps = old.overlaps
        for other in new.overlaps:
            other.overlaps.remove(old)
            other.overlaps.append(new)
        return
    others = [o for o in state.tiles if o is not None and o is not new]
    for other in others:
        if old is not None and old in other.overlaps:
            other.overlaps.remove(old)
        if other.space == where and other.meets(address, address + nbytes):
            other.overlaps.append(new)
            new.overlaps.append(other)
