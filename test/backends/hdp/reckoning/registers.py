"""What the host does to its registers, beside the classic element-wise work."""

from __future__ import annotations

from reckoning.host import Host
from reckoning.parts import BYTES, EACH

CROSSING = 4
"""Bytes of an element that passes between vector units and host."""


class Registers(Host):
    """Functions, reductions, moves and products."""

    def _size(self, h: int) -> int:
        rows, columns = self.host_sizes[h]
        return rows * columns

    def _spilled(self, *sizes: int) -> int:
        return CROSSING * sum(sizes) if self.hw.vector_lanes else 0

    def _repeated(self, *registers: int) -> tuple[int, int]:
        """The size of registers of which sides of 1 are repeated."""
        sides = zip(*(self.host_sizes[h] for h in registers))
        rows, columns = ([n for n in side if n != 1] for side in sides)
        return (rows or [1])[0], (columns or [1])[0]

    def _becomes(self, name: str, h: int, rows: int, columns: int, *others: int) -> None:
        """Work on as many elements as the register has afterwards."""
        self.host_sizes[h] = (rows, columns)
        self._in_place(name, h, others=others)

    def _hfun(self, h: int, function: str) -> None:
        self._in_place("hfun", h, each=EACH[function])

    def _hop(self, h: int, g: int, operation: str) -> None:
        self.host_sizes[h] = self._repeated(h, g)
        self._in_place("hop", h, others=[g], each=EACH[operation])

    def _hsel(self, h: int, g: int, f: int) -> None:
        self._becomes("hsel", h, *self._repeated(h, g, f), g, f)

    def _hrms(self, h: int, gamma: int, eps: float) -> None:
        tensor = self.tensors[gamma]
        self._in_place("hrms", h, [self._whole(gamma)], tensor.rows * tensor.pitch)

    def _hsoft(self, h: int) -> None:
        self._in_place("hsoft", h)

    def _hrope(self, h: int, g: int, f: int, heads: int) -> None:
        self._in_place("hrope", h, others=[g, f])

    def _hdot(self, h: int, g: int, transposed: int, batches: int) -> None:
        (rows, depth), (others, columns) = self.host_sizes[h], self.host_sizes[g]
        width = others // batches if transposed else columns
        spilled = self._spilled(self._size(h), self._size(g), rows * width)
        self.host_sizes[h] = (rows, width)
        each = (2 * depth, 0)
        self._host("hdot", rows * width, 0, registers=[h, g], each=each, spilled=spilled)

    def _hred(self, h: int, kind: str) -> None:
        self._in_place("hred", h)
        self.host_sizes[h] = (self.host_sizes[h][0], 1)

    def _hredr(self, h: int, group: int, kind: str) -> None:
        rows, columns = self.host_sizes[h]
        self._in_place("hredr", h)
        self.host_sizes[h] = (rows // group, columns)

    def _hscan(self, h: int) -> None:
        size = self._size(h)
        self._host("hscan", size, 0, registers=[h], spilled=self._spilled(size, size))

    def _hnum(self, h: int, rows: int, columns: int, value: float) -> None:
        self._becomes("hnum", h, rows, columns)

    def _hiota(self, h: int, rows: int, columns: int, start: int, step: int) -> None:
        self._becomes("hiota", h, rows, columns)

    def _hcopy(self, g: int, h: int) -> None:
        self._becomes("hcopy", g, *self.host_sizes[h], h)

    def _hcut(self, h: int, start: int, columns: int, step: int) -> None:
        self._becomes("hcut", h, self.host_sizes[h][0], columns)

    def _hcat(self, h: int, g: int) -> None:
        rows, columns = self.host_sizes[h]
        self._becomes("hcat", h, rows, columns + self.host_sizes[g][1], g)

    def _hcols(self, h: int, idx: int) -> None:
        index, before = self.tensors[idx], self._size(h)
        count = index.rows * index.columns
        self.host_sizes[h] = (self.host_sizes[h][0], count)
        spilled = self._spilled(before, self._size(h))
        nbytes, reads = count * BYTES[index.dtype], [self._whole(idx)]
        self._host("hcols", self._size(h), nbytes, reads, registers=[h], spilled=spilled)

    def _hshape(self, h: int, columns: int) -> None:
        self._becomes("hshape", h, self._size(h) // columns, columns)

    def _hputc(self, d: int, h: int, row_reg: int, column: int, point: int) -> None:
        tensor, row = self.tensors[d], self.registers[row_reg]
        rows, columns = self.host_sizes[h]
        count = min(rows, tensor.rows - row)
        nbytes = count * columns * BYTES[tensor.dtype]
        # No whole rows move.
        writes = [(tensor, row, count, 0)]
        self._host("hputc", count * columns, nbytes, (), writes, registers=[h])
        self.written += nbytes if tensor.space == "dram" else 0
