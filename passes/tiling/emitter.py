"""Emits `hdp` ops with their locations, loops and constants, and names tensors."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import IndexType, UnknownLoc
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from heatc.dialects import hdp
from heatc.passes.rewriting import module_path, name_hint
from heatc.passes.tiling.packing import TileSpec

Tiles = dict[str, SSAValue]

MOST_TOKENS = (1 << 20) - 1
"""The most rows that a tensor can have: a word has 20 bits for them."""


class Emitter:
    """
    Appends ops to `block`, every op at the location of `source`, the op that it implements.

    Constants stand at the head of the block, once each.
    """

    def __init__(self, block: Block):
        self.block = block
        self.source: Operation | None = None
        self._top = block
        self._constants: dict[int, SSAValue] = {}
        self._last_constant: Operation | None = None
        self._symbols: set[str] = set()

    def emit(self, op: Operation) -> SSAValue:
        """Append an op; returns its result, if it has one."""
        if self.source is not None and isinstance(op.location, UnknownLoc):
            op.location = self.source.location
        self.block.add_op(op)
        return op.results[0] if op.results else _NOTHING

    def do(self, mnemonic: str, **fields: hdp.Operand | Operation) -> hdp.InstructionOp:
        """Append an instruction."""
        op = hdp.instruction(mnemonic, None, **fields)
        self.emit(op)
        return op

    def constant(self, value: int) -> SSAValue:
        """An index constant."""
        if value not in self._constants:
            op = arith.ConstantOp.from_int_and_width(value, IndexType())
            op.result.name_hint = f"c{value}" if value >= 0 else f"cm{-value}"
            if self._last_constant is not None:
                self._top.insert_op_after(op, self._last_constant)
            elif self._top.first_op is not None:
                self._top.insert_op_before(op, self._top.first_op)
            else:
                self._top.add_op(op)
            self._last_constant = op
            self._constants[value] = op.result
        return self._constants[value]

    def special(self, name: str) -> SSAValue:
        """A register that instructions set."""
        value = self.emit(hdp.SpecialOp(name))
        value.name_hint = name
        return value

    def add(self, value: SSAValue, amount: int) -> SSAValue:
        """`value + amount`."""
        return self.emit(arith.AddiOp(value, self.constant(amount)))

    def span(self, value: SSAValue, less: SSAValue, limit: int, scale: int = 1) -> SSAValue:
        """`min(max(value - less, 0), limit) * scale`."""
        return self.emit(hdp.instruction("span", ra=value, rb=less, limit=limit, scale=scale))

    def scaled(self, value: SSAValue, scale: int) -> SSAValue:
        """`value * scale`, of a number of tokens."""
        return value if scale == 1 else self.span(value, self.constant(0), MOST_TOKENS, scale)

    @contextmanager
    def loop(self, bound: SSAValue, step: int) -> Generator[SSAValue]:
        """A loop from 0 to a bound; yields its index."""
        block = Block(arg_types=[IndexType()])
        loop = scf.ForOp(self.constant(0), bound, self.constant(step), [], Region(block))
        self.emit(loop)
        outer, self.block = self.block, block
        yield block.args[0]
        self.emit(scf.YieldOp())
        self.block = outer

    @contextmanager
    def strided_loop(
        self, bound: SSAValue, step: int, stride: int, start: SSAValue | None = None
    ) -> Generator[tuple[SSAValue, SSAValue]]:
        """As `loop`, with a second index that moves by `stride` from `start` (0) on."""
        block = Block(arg_types=[IndexType(), IndexType()])
        zero = self.constant(0)
        first = zero if start is None else start
        loop = scf.ForOp(zero, bound, self.constant(step), [first], Region(block))
        self.emit(loop)
        outer, self.block = self.block, block
        yield block.args[0], block.args[1]
        self.emit(scf.YieldOp(self.add(block.args[1], stride)))
        self.block = outer

    def tiles(self, specs: Sequence[TileSpec], space: str = "local") -> Tiles:
        """Declare tiles by name."""
        tiles: Tiles = {}
        for spec in specs:
            base = tiles[spec.over] if spec.over else None
            tile = self.emit(hdp.TileOp(spec.name, space, spec.dtype, spec.nbytes, base))
            tile.name_hint = spec.name.replace(".", "_")
            tiles[spec.name] = tile
        return tiles

    def symbol(self, wanted: str) -> str:
        """A symbol that no tensor has yet."""
        symbol, number = wanted, 1
        while symbol in self._symbols:
            symbol, number = f"{wanted}.{number}", number + 1
        self._symbols.add(symbol)
        return symbol

    def symbol_of(self, op: Operation, value: SSAValue | None = None) -> str:
        """A symbol for what an op computes: its module path, or else the value's name."""
        hint = None if value is None else value.name_hint
        return self.symbol(module_path(op) or hint or "value")

    def tensor(
        self,
        symbol: str,
        role: str,
        dtype: str,
        extents: tuple[int, int],
        *,
        rows_value: SSAValue | None = None,
        point: int | None = None,
        properties: dict[str, Attribute] | None = None,
    ) -> SSAValue:
        """Describe a tensor."""
        op = hdp.TensorOp(
            symbol,
            role,
            dtype,
            extents,
            rows_value=rows_value,
            point=point,
            properties=properties,
        )
        value = self.emit(op)
        value.name_hint = name_hint(symbol)
        return value


_NOTHING: SSAValue = Block(arg_types=[IndexType()]).args[0]
