"""
Where the kernel of an attention puts its instructions: a program, or a count of cycles.

The kernel (`heatc.passes.tiling.attention`) says in which order what is done. It is written once, for
any `Sink`: `ProgramSink` appends instructions to a function, the sink in
`heatc.passes.tiling.attention_cycles` counts what they take. A number is an index value of the
program there, and an integer here; a loop is written once there, and run here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from xdsl.dialects.builtin import IntegerAttr, StringAttr, UnitAttr, i64
from xdsl.ir import Operation, SSAValue

from heatc.dialects import hdp
from heatc.passes.tiling.attention_plan import AttentionShape
from heatc.passes.tiling.emitter import Emitter
from heatc.passes.tiling.packing import TileSpec

N = TypeVar("N")
"""A number: of a row, a column, a head, or of tokens."""

T = TypeVar("T")
"""A tile, or a window of a tensor."""


class About(NamedTuple):
    """
    What is said of an instruction beside its fields.

    Attributes:
        source: the op whose location it has, None for that of the attention.
        report: whether what it decides or rounds is reported under the attention's name.
        first_round: whether it decides in the first of two rounds.
    """

    source: Operation | None = None
    report: bool = False
    first_round: bool = False


PLAIN = About()
REPORTED = About(report=True)


class Sink(Protocol[N, T]):
    """What the kernel of an attention needs of whoever takes its instructions."""

    def do(self, mnemonic: str, about: About = PLAIN, /, **fields: N | T | float | str) -> None:
        """An instruction."""
        ...

    def begin_heads(self, head: N, limit: int = 0) -> None:
        """The cores work on the heads from `head` on, below `limit` (all)."""
        ...

    def end_heads(self) -> None:
        """All row tiles of these heads have been through all stages, or wait for their values."""
        ...

    def of_pruned_heads(self, emit: Callable[[], None]) -> None:
        """Done by the cores whose head was pruned."""
        ...

    def constant(self, value: int) -> N:
        """A number that is known."""
        ...

    def add(self, number: N, amount: int) -> N:
        """`number + amount`."""
        ...

    def special(self, name: str) -> N:
        """A number that instructions set: of sequences, tokens, rows."""
        ...

    def window(self, name: str, start: N, rows: N, suffix: str = "") -> T:
        """Some rows of a plane, or of the output `o`."""
        ...

    def tensor(self, name: str) -> T:
        """A whole mask."""
        ...

    def tiles(self, specs: Sequence[TileSpec], space: str = "local") -> dict[str, T]:
        """Tiles that last for the attention."""
        ...

    def stage_tiles(self, specs: Sequence[TileSpec]) -> dict[str, T]:
        """Tiles of a stage, whose place the next stage may take."""
        ...

    def repeat(self, bound: N, step: int, body: Callable[[N], None]) -> None:
        """The body for 0, `step`, ... below `bound`."""
        ...

    def repeat_strided(
        self,
        bound: N,
        step: int,
        stride: int,
        body: Callable[[N, N], None],
        start: N | None = None,
    ) -> None:
        """As `repeat`; a second number moves by `stride` from `start` (0) on."""
        ...


class ProgramSink:
    """
    Appends the instructions of the attention `symbol` to a function.

    `tensors` are its planes and the output `o`, its masks by the names of their tiles (those that hide
    as `visible.0` and so on), and the positions of rows as `dq` and `dk`.
    """

    def __init__(
        self,
        emitter: Emitter,
        symbol: str,
        shape: AttentionShape,
        tensors: Mapping[str, SSAValue],
    ):
        self.e = emitter
        self.symbol = symbol
        self.shape = shape
        self.tensors = tensors

    def do(self, mnemonic: str, about: About = PLAIN, /, **fields: SSAValue | float | str) -> None:
        """Append an instruction."""
        op = self.e.do(mnemonic, **fields)
        if about.source is not None:
            op.location = about.source.location
        if about.report:
            op.attention = StringAttr(self.symbol)
        if about.first_round:
            op.first_round = UnitAttr()

    def begin_heads(self, head: SSAValue, limit: int = 0) -> None:
        """Append `heads`, which names the attention and the columns of a head."""
        op = self.e.do("heads", rc=head, stride=1, limit=limit or self.shape.heads)
        op.dim = IntegerAttr(self.shape.dim, i64)
        op.attention = StringAttr(self.symbol)

    def end_heads(self) -> None:
        """Nothing: the next `heads` begins others."""

    def of_pruned_heads(self, emit: Callable[[], None]) -> None:
        """Turn to the cores whose head was pruned."""
        self.e.do("pruned")
        emit()

    def constant(self, value: int) -> SSAValue:
        """An index constant."""
        return self.e.constant(value)

    def add(self, number: SSAValue, amount: int) -> SSAValue:
        """A sum of index values."""
        return self.e.add(number, amount)

    def special(self, name: str) -> SSAValue:
        """A register that instructions set."""
        return self.e.special(name)

    def window(self, name: str, start: SSAValue, rows: SSAValue, suffix: str = "") -> SSAValue:
        """Some rows of a tensor."""
        window = self.e.emit(hdp.WindowOp(self.tensors[name], start, rows))
        window.name_hint = f"{name.replace('.', '_')}{suffix}_rows"
        return window

    def tensor(self, name: str) -> SSAValue:
        """A whole tensor."""
        return self.tensors[name]

    def row(self, tensor: SSAValue, row: SSAValue) -> SSAValue:
        """One row of a tensor of one's own."""
        return self.e.emit(hdp.WindowOp(tensor, row, self.e.constant(1)))

    def tiles(self, specs: Sequence[TileSpec], space: str = "local") -> dict[str, SSAValue]:
        """Declare tiles by name."""
        return self.e.tiles(specs, space)

    def stage_tiles(self, specs: Sequence[TileSpec]) -> dict[str, SSAValue]:
        """Declare tiles by name; `allocate-buffers` sees when they are free again."""
        return self.e.tiles(specs)

    def repeat(self, bound: SSAValue, step: int, body: Callable[[SSAValue], None]) -> None:
        """A loop."""
        with self.e.loop(bound, step) as number:
            body(number)

    def repeat_strided(
        self,
        bound: SSAValue,
        step: int,
        stride: int,
        body: Callable[[SSAValue, SSAValue], None],
        start: SSAValue | None = None,
    ) -> None:
        """A loop with two indices."""
        with self.e.strided_loop(bound, step, stride, start) as (number, other):
            body(number, other)
