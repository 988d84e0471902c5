"""
Which ops of a function are the host's, and which of them make one task.

The co-processor has products of an activation with one weight (`normal_form`), their biases, and
attention. Everything else that an input decides is host work. Integers that no input decides are
evaluated by the compiler; a number that is the same everywhere (`nn.full`) is written into each task
that reads it.

An op has a *level*: how often what leads to it passed memory. The level rises where the co-processor
reads what the host made, and where an op reads rows of memory by an index. Host ops of one level that
read each other make one task. No other op then lies between two ops of a task, and what stays within a
task is never rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.dialects.builtin import IntegerType, TensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, BlockArgument, Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.dialects.einsum import WeightOp
from heatc.dialects.host import TaskOp
from heatc.passes.analysis.normal_form import bias_of, product_of

_NEVER = (WeightOp, attn.PrunedOp, attn.PackingOp, TaskOp, ReturnOp)
_BY_ROWS: tuple[type[Operation], ...] = (
    nn.EmbeddingOp,
    attn.UnpackOp,
    attn.TokenOp,
    attn.PackOp,
)
"""What reads rows by an index, hence from memory."""


def is_integer_value(value: SSAValue) -> bool:
    """Whether a value holds integers or truth values."""
    return isinstance(value.type, TensorType) and isinstance(nn.element_of(value), IntegerType)


def is_view(op: Operation) -> bool:
    """
    Whether an op gives what lies in memory another shape and nothing else.

    A reshape does; and a cast of integers to i64, which reads the same numbers.
    """
    if isinstance(op, nn.ReshapeOp):
        a, b = nn.shape_of(op.x), nn.shape_of(op.result)
        return nn.TOKENS not in a or a[:1] == b[:1]
    if not isinstance(op, nn.CastOp) or not is_integer_value(op.x):
        return False
    to = nn.element_of(op.result)
    unsigned = nn.is_unsigned(to)
    return isinstance(to, IntegerType) and to.bitwidth == 64 and not unsigned


def is_tested_input(op: Operation) -> bool:
    """
    Whether an op says by an input alone what attentions see: one test of the input as it was given.

    It is a comparison with a number, or truth values turned.
    """
    if not isinstance(op, nn.NotOp | nn.CompareOp):
        return False
    if isinstance(op, nn.CompareOp) and not isinstance(op.rhs.owner, nn.FullOp):
        return False
    value = op.operands[0]
    while isinstance(value.owner, nn.ReshapeOp):
        value = value.owner.x
    readers = [use.operation for use in op.results[0].uses]
    return isinstance(value, BlockArgument) and all(isinstance(r, attn.PrunedOp) for r in readers)


def reads_memory(op: Operation) -> bool:
    """Whether an op reads its operands from memory alone."""
    return isinstance(op, _BY_ROWS)


@dataclass
class HostWork:
    """
    The host's ops of a function.

    Attributes:
        ops: the host's ops, in order.
        tasks: the same by task, each in order.
        torn: views that are read both in their task and from memory: each needs one of its own.
    """

    function: FuncOp
    ops: list[Operation] = field(default_factory=list[Operation])
    tasks: list[list[Operation]] = field(default_factory=list[list[Operation]])
    torn: list[Operation] = field(default_factory=list[Operation])
    _decided: dict[SSAValue, bool] = field(default_factory=dict[SSAValue, bool])
    _levels: dict[Operation, int] = field(default_factory=dict[Operation, int])

    def __post_init__(self) -> None:
        block = self.function.body.block
        for op in block.ops:
            self._decide(op)
        members: set[Operation] = set()
        for op in block.ops:
            if self._is_host(op) and not (is_view(op) and op.operands[0].owner not in members):
                members.add(op)
            self._levels[op] = self._level(op, members)
        for op in reversed(list(block.ops)):
            if op in members:
                self._levels[op] = self._latest(op, members)
        members -= self._views_outside(block, members)
        self.ops = [op for op in block.ops if op in members]
        self.tasks = list(self._groups(members))

    def depends_on_inputs(self, value: SSAValue) -> bool:
        """Whether an input of the model decides a value."""
        return self._decided.get(value, isinstance(value.owner, Block))

    def _decide(self, op: Operation) -> None:
        depends = any(self.depends_on_inputs(v) for v in op.operands)
        for result in op.results:
            self._decided[result] = depends

    def _is_host(self, op: Operation) -> bool:
        if isinstance(op, (*_NEVER, nn.FullOp)) or not op.results:
            return False
        if product_of(op) is not None or bias_of(op) is not None:
            return False
        result = op.results[0]
        if not isinstance(result.type, TensorType) or is_tested_input(op):
            return False
        if isinstance(op, attn.PackOp):
            # One integer a token is gathered as it is.
            return not is_integer_value(result) or len(nn.shape_of(result)) > 1
        if is_integer_value(result):
            return self.depends_on_inputs(result) or isinstance(op, attn.RealOp)
        return True

    def _level(self, op: Operation, members: set[Operation]) -> int:
        """How often memory was passed before an op; a view is where what it shows is."""
        level = 0
        passes_memory = op not in members or reads_memory(op)
        if is_view(op) and op in members:
            passes_memory = False
        for value in op.operands:
            maker = value.owner
            if isinstance(maker, Block):
                continue
            made = self._levels[maker]
            level = max(level, made + (passes_memory and maker in members))
        return level

    def _latest(self, op: Operation, members: set[Operation]) -> int:
        """The level of what alone reads an op: a table is looked up where its rows are summed."""
        users = {use.operation for result in op.results for use in result.uses}
        if not users or not users <= members:
            return self._levels[op]
        return max(self._levels[op], min(self._levels[user] - reads_memory(user) for user in users))

    def _views_outside(self, block: Block, members: set[Operation]) -> set[Operation]:
        """Views that the co-processor, or another task, reads."""
        outside: set[Operation] = set()
        for op in reversed(list(block.ops)):
            if op not in members or not is_view(op):
                continue
            users = [use.operation for use in op.results[0].uses]
            inside = [self._joins(user, op, members - outside) for user in users]
            if all(inside):
                continue
            outside.add(op)
            if any(inside):
                self.torn.append(op)
        return outside

    def joins(self, user: Operation, op: Operation) -> bool:
        """Whether an op that reads a view's result is in the view's task, or leaves the model."""
        return self._joins(user, op, set(self.ops))

    def _joins(self, user: Operation, op: Operation, members: set[Operation]) -> bool:
        if isinstance(user, ReturnOp):
            return True
        same = user in members and self._levels[user] == self._levels[op]
        return same and not reads_memory(user)

    def _groups(self, members: set[Operation]) -> Iterator[list[Operation]]:
        """Ops of one level that read each other, each group in order."""
        parent: dict[Operation, Operation] = {op: op for op in members}

        def root(op: Operation) -> Operation:
            while parent[op] is not op:
                parent[op] = parent[parent[op]]
                op = parent[op]
            return op

        for op in self.ops:
            if reads_memory(op):
                continue
            for value in op.operands:
                maker = value.owner
                if isinstance(maker, Block) or maker not in members:
                    continue
                if self._levels[maker] == self._levels[op]:
                    parent[root(maker)] = root(op)
        found: dict[Operation, list[Operation]] = {}
        for op in self.ops:
            found.setdefault(root(op), []).append(op)
        places = {op: place for place, op in enumerate(self.ops)}
        yield from sorted(found.values(), key=lambda ops: places[ops[-1]])


def numbers_of(ops: Sequence[Operation]) -> Mapping[nn.FullOp, None]:
    """The `nn.full` ops that the ops of a task read."""
    return {
        value.owner: None
        for op in ops
        for value in op.operands
        if isinstance(value.owner, nn.FullOp)
    }
