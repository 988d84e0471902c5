"""Programs, registers, and which cores work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from heatc.isa.words import Inst
from heatc.machine.clocks import HardwareModel
from reckoning.parts import EXTRA, EXTRA_START, LENGTH, START, Buffer, Mask, Tensor, Tile


class Control:
    """
    Runs a program; the instructions of the engines are methods of the classes on top of this one.

    `decided` are masks and gates in the order in which the program asks, `extras` the rows of each
    sequence that are no keys. After it: `cycles`, `busy` by engine, summed over cores, and `read`
    and `written` bytes of DRAM.
    """

    def __init__(
        self,
        hw: HardwareModel,
        program: Sequence[Inst],
        lengths: Sequence[int],
        weights: int,
        decided: Sequence[Mask] = (),
        extras: Sequence[int] = (),
    ):
        self.extras = [*extras, *[0] * (len(lengths) - len(extras))]
        self.hw, self.program, self.lengths, self.weights = hw, program, lengths, weights
        self.decided = iter(decided)
        self.registers = [0] * 64
        self.tensors: dict[int, Tensor] = {}
        self.tiles: dict[int, Tile] = {}
        self.host_sizes: dict[int, tuple[int, int]] = {}
        self.register_free: dict[int, int] = {}
        self.local = [Buffer(hw.local_buffer_bytes) for _ in range(hw.cores)]
        self.shared = Buffer(hw.shared_buffer_bytes)
        self.page_written: dict[tuple[str, int], int] = defaultdict(int)
        self.page_read: dict[tuple[str, int], int] = defaultdict(int)
        self.engine_free: dict[tuple[str, int], int] = defaultdict(int)
        self.queue_free = {"load": 0, "store": 0}
        self.busy: dict[str, int] = defaultdict(int)
        self.active, self.parts, self.part_rows = hw.cores, 1, 0
        self.block = (2, 2)
        self.kept: list[bool] | None = None
        self.stores: list[bool] | None = None
        """Whose stores are not zeros; those of all cores at work, if None."""
        self.held = [0] * hw.cores
        self.known_list = 0
        self.listed: list[int] | None = None
        self.issued = self.last = self.read = self.written = 0
        self._run()
        last = max(self.last, self.issued, *self.engine_free.values())
        self.cycles = max(last, self.busy["dma"])

    def _run(self) -> None:
        pc, opened = 0, list[int]()
        while True:
            one = self.program[pc]
            fields = dict(zip([f.name for f in one.instruction.fields], one.operands))
            self.issued += 1
            if one.mnemonic == "halt":
                return
            if one.mnemonic == "loop":
                self.registers[int(fields["r"])] = 0
                if self.registers[int(fields["bound"])] <= 0:
                    pc += int(fields["skip"])
                    continue
                opened.append(pc)
            elif one.mnemonic == "end":
                begin = self.program[opened[-1]]
                self.registers[int(begin["r"])] += int(begin["step"])
                if self.registers[int(begin["r"])] < self.registers[int(begin["bound"])]:
                    pc = opened[-1] + 1
                    continue
                opened.pop()
            else:
                self.issued -= 1
                self._names(one, fields)
                getattr(self, f"_{one.mnemonic}")(**fields)
                self.issued += 1
            pc += 1

    def _names(self, one: Inst, fields: dict[str, Any]) -> None:
        """Enumerations by name."""
        for entry in one.instruction.fields:
            if entry.choices:
                fields[entry.name] = entry.choices[int(fields[entry.name])]

    def _set(self, register: int, value: int) -> None:
        if register:
            self.registers[register] = value

    def _li(self, rd: int, imm: int) -> None:
        self._set(rd, imm)

    def _addi(self, rd: int, ra: int, imm: int) -> None:
        self._set(rd, self.registers[ra] + imm)

    def _span(self, rd: int, ra: int, rb: int, limit: int, scale: int) -> None:
        left = max(0, self.registers[ra] - self.registers[rb])
        self._set(rd, min(left, limit) * scale)

    def _seq(self, rb: int) -> None:
        index = self.registers[rb]
        self.registers[START] = sum(self.lengths[:index]) + sum(self.extras[:index])
        self.registers[LENGTH] = self.lengths[index]
        self.registers[EXTRA_START] = self.registers[START] + self.lengths[index]
        self.registers[EXTRA] = self.extras[index]

    def _extra(self) -> None:
        """Which rows are worked on is no matter of time."""

    def _all(self) -> None:
        self.active, self.parts, self.part_rows = self.hw.cores, 1, 0
        self.block, self.listed, self.known_list = (2, 2), None, 0
        self._activate(0)

    def _group(self, parts: int, rows: int) -> None:
        self.parts, self.part_rows = parts, rows

    def _blocks(self, rows: int, columns: int) -> None:
        self.block = (rows, columns)

    def _heads(self, rc: int, stride: int, limit: int) -> None:
        first = self.registers[rc]
        items = [i for i in range(self.hw.cores // self.parts) if first + i * stride < limit]
        self.active = len(items) * self.parts
        self._activate(self.known_list)

    def _activate(self, since: int) -> None:
        """All active cores work, from a time on."""
        self.kept = self.stores = None
        self.held = [since] * self.hw.cores

    def _param(self, which: str, head: int, value: float) -> None:
        """A threshold: what it decides is given."""

    def _cores(self) -> list[int]:
        """The cores at work: active, and not pruned."""
        return [c for c in range(self.active) if self.kept is None or self.kept[c]]

    def _tensor(
        self, d: int, space: str, dtype: str, base: int, rows_imm: int, rows_reg: int, cols: int
    ) -> None:
        rows = self.registers[rows_reg] if rows_reg else rows_imm
        writable = space != "dram" or base >= self.weights
        self.tensors[d] = Tensor(space, dtype, base, rows, cols, writable)

    def _window(self, d: int, src: int, start_reg: int, rows_reg: int) -> None:
        source = self.tensors[src]
        base = source.base + self.registers[start_reg] * source.pitch
        rows = self.registers[rows_reg]
        self.tensors[d] = Tensor(
            source.space, source.dtype, base, rows, source.columns, source.writable
        )

    def _tile(self, t: int, space: str, dtype: str, address: int, bytes: int) -> None:
        self.tiles[t] = Tile(space, dtype, address, address + bytes)
