"""The host and the vector units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from reckoning.adder import Adder
from reckoning.parts import BATCH, BYTES, HOST_OPERATIONS, TOKENS, VECTOR_PASSES, Tensor, up


class Host(Adder):
    """Element-wise work, and lists of rows."""

    def _host(
        self,
        name: str,
        elements: int,
        nbytes: int,
        reads: Sequence[tuple[Tensor, int, int, int]] = (),
        writes: Sequence[tuple[Tensor, int, int, int]] = (),
        registers: Sequence[int] = (),
        each: tuple[int, int] | None = None,
        spilled: int = 0,
    ) -> int:
        """
        `reads` and `writes`: a tensor, the first row, how many rows, how many of them move.

        `each` are operations of the host and passes of the vector units, where they are not the
        instruction's. `spilled` bytes of `registers` come from the vector units, or go there.
        """
        vector = self.hw.vector_lanes > 0 and name in VECTOR_PASSES
        engine = "vector" if vector else "host"
        start = max(self.issued, self.engine_free[engine, 0])
        start = max(start, *(self.register_free.get(h, 0) for h in registers), 0)
        operations, passes = each or (HOST_OPERATIONS[name], VECTOR_PASSES.get(name, 0))
        for tensor, row, rows, _ in (*reads, *writes):
            start = max(start, self._known(self._pages(tensor, row, rows)))
        for tensor, row, rows, _ in writes:
            start = max(start, self._unused(self._pages(tensor, row, rows)))
        space = (*reads, *writes)[0][0].space if reads or writes else "dram"
        if vector:
            lanes = self.hw.cores * self.hw.vector_lanes
            moved = math.ceil(nbytes / self._width(space))
            cycles = max(passes * up(elements, lanes), moved)
            cycles += self._latency(space) if reads else 0
            queue = "store" if writes else "load"
            self.queue_free[queue] = max(self.queue_free[queue], self.issued) + moved
            self.busy["dma"] += moved
        else:
            seconds = Fraction(operations * elements, self.hw.host_ops_per_second)
            seconds += Fraction(nbytes + 2 * spilled, self.hw.host_bytes_per_second)
            cycles = math.ceil(self.hw.host_call_cycles + seconds * self.hw.clock_hz)
            self.read, self.written = self.read + spilled, self.written + spilled
        end = start + cycles
        self.register_free.update(dict.fromkeys(registers, end))
        self.engine_free[engine, 0] = end
        self.busy[engine] += cycles
        self.last = max(self.last, end)
        for tensor, row, rows, moves in reads:
            self._mark(self.page_read, self._pages(tensor, row, rows), end)
            self.read += moves * tensor.pitch if tensor.space == "dram" else 0
        for tensor, row, rows, moves in writes:
            self._mark(self.page_written, self._pages(tensor, row, rows), end)
            self.written += moves * tensor.pitch if tensor.space == "dram" else 0
        return end

    def _whole(self, d: int) -> tuple[Tensor, int, int, int]:
        tensor = self.tensors[d]
        return tensor, 0, tensor.rows, tensor.rows

    def _hpack(
        self, dpos: int, dinv: int, dmask: int, batch: int, length: int, has_mask: int
    ) -> None:
        reads = [self._whole(dmask)] if has_mask else []
        self._list("hpack", batch, length, reads, [self._whole(dpos), self._whole(dinv)])

    def _hrows(
        self,
        dpos: int,
        dinv: int,
        dreal: int,
        dmask: int,
        dread: int,
        batch: int,
        length: int,
    ) -> None:
        reads = [self._whole(dmask), self._whole(dread)]
        writes = [self._whole(d) for d in (dpos, dinv, dreal)]
        self._list("hrows", batch, length, reads, writes)

    def _list(
        self, name: str, batch: int, length: int, reads: list[Any], writes: list[Any]
    ) -> None:
        missing = [0] * (batch - len(self.lengths))
        self.lengths, self.extras = [*self.lengths, *missing], [*self.extras, *missing]
        self.registers[TOKENS] = sum(self.lengths) + sum(self.extras)
        self.registers[BATCH], count = batch, batch * length
        end = self._host(name, count, (1 + len(writes)) * 8 * count, reads, writes)
        # What follows needs the registers.
        self.issued = max(self.issued, end)

    def _htest(self, dst: int, src: int, compare: str, value: float) -> None:
        target, source = self.tensors[dst], self.tensors[src]
        count = source.rows * source.columns
        nbytes = count * (BYTES[source.dtype] + BYTES[target.dtype])
        self._host("htest", count, nbytes, [self._whole(src)], [self._whole(dst)])

    def _hidx(self, dst: int, src: int, idx: int) -> None:
        tensors = [self.tensors[d] for d in (dst, src, idx)]
        count = tensors[0].rows * tensors[0].columns
        nbytes = sum(count * BYTES[tensor.dtype] for tensor in tensors)
        reads = [self._whole(src), self._whole(idx)]
        self._host("hidx", count, nbytes, reads, [self._whole(dst)])

    def _hget(self, h: int, d: int, row_reg: int, rows: int, point: int) -> None:
        tensor, row = self.tensors[d], self.registers[row_reg]
        count = min(rows, tensor.rows - row)
        self.host_sizes[h] = (count, tensor.columns)
        reads = [(tensor, row, count, count)]
        self._host("hget", count * tensor.columns, count * tensor.pitch, reads, registers=[h])

    def _hgeti(self, h: int, d: int, idx: int, row_reg: int, rows: int, point: int) -> None:
        tensor, index = self.tensors[d], self.tensors[idx]
        count = min(rows, index.rows * index.columns - self.registers[row_reg])
        self.host_sizes[h] = (count, tensor.columns)
        nbytes = count * tensor.pitch + count * BYTES[index.dtype]
        reads = [(tensor, 0, tensor.rows, count), self._whole(idx)]
        self._host("hgeti", count * tensor.columns, nbytes, reads, registers=[h])

    def _in_place(
        self,
        name: str,
        h: int,
        reads: Sequence[Any] = (),
        nbytes: int = 0,
        others: Sequence[int] = (),
        each: tuple[int, int] | None = None,
    ) -> None:
        rows, columns = self.host_sizes[h]
        self._host(name, rows * columns, nbytes, reads, registers=[h, *others], each=each)

    def _hadd(self, h: int, g: int) -> None:
        self._in_place("hadd", h, others=[g])

    def _hgelu(self, h: int) -> None:
        self._in_place("hgelu", h)

    def _htanh(self, h: int) -> None:
        self._in_place("htanh", h)

    def _hrelu(self, h: int) -> None:
        self._in_place("hrelu", h)

    def _hln(self, h: int, gamma: int, beta: int, eps: float) -> None:
        tensors = self.tensors[gamma], self.tensors[beta]
        nbytes = sum(tensor.rows * tensor.pitch for tensor in tensors)
        self._in_place("hln", h, [self._whole(gamma), self._whole(beta)], nbytes)

    def _hput(self, d: int, h: int, row_reg: int, point: int) -> None:
        tensor, row = self.tensors[d], self.registers[row_reg]
        rows, columns = self.host_sizes[h]
        count = min(rows, tensor.rows - row)
        writes = [(tensor, row, count, count)]
        self._host("hput", count * columns, count * tensor.pitch, (), writes, registers=[h])
