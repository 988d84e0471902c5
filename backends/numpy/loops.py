"""
Finds the layers of a model: a run of nodes that repeats and differs in weight names only.

Nodes `start + k * period + j` (iteration k, place j) must agree in everything but weights, the
weights' names must differ in one number that counts up with k, and values may pass from one
iteration to the next in one place only. Nothing is assumed about how layers are called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from xdsl.ir import SSAValue

from heatc.backends.numpy.nodes import Node, is_weight
from heatc.backends.numpy.weight_file import WeightTable
from heatc.dialects.einsum import WeightOp


@dataclass
class Loop:
    """
    A repeated run of nodes.

    `body` is the first iteration; `names` are the templates of the weights it reads, with
    `{i}` for the number; the value `carried_in` becomes `carried_out` in each iteration, and
    `result` is what the last one computed.
    """

    start: int
    count: int
    first: int
    body: list[Node]
    names: dict[SSAValue, str]
    carried_in: SSAValue
    carried_out: SSAValue
    result: SSAValue

    @property
    def stop(self) -> int:
        """The index of the first node after the loop."""
        return self.start + self.count * len(self.body)

    def invariants(self) -> list[SSAValue]:
        """The values from outside that every iteration reads, in order of use."""
        inside = {node.result for node in self.body} | {self.carried_in}
        args = (a for node in self.body for a in node.args if not is_weight(a))
        return list(dict.fromkeys(a for a in args if a not in inside))


def find_loop(
    nodes: Sequence[Node], outputs: Iterable[SSAValue], table: WeightTable
) -> Loop | None:
    """The loop that covers most nodes, None if nothing repeats."""
    finder = _Finder(nodes, set(outputs), table)
    best: Loop | None = None
    for loop in finder.candidates():
        if best is None or loop.stop - loop.start > best.stop - best.start:
            best = loop
    return best


def _template(names: Sequence[str]) -> tuple[str, int] | None:
    """
    The template of names that count up and its first number.

    `("layer.{i}.bias", 0)` for `["layer.0.bias", "layer.1.bias"]`; equal names give no number
    (-1), others None.
    """
    if len(set(names)) == 1:
        return names[0], -1
    columns = list(zip(*(name.split(".") for name in names)))
    if any(name.count(".") != len(columns) - 1 for name in names):
        return None
    parts: list[str] = []
    first = -1
    for column in columns:
        if len(set(column)) == 1:
            parts.append(column[0])
            continue
        if first >= 0 or not all(c.isdecimal() and str(int(c)) == c for c in column):
            return None
        first = int(column[0])
        if [int(c) for c in column] != list(range(first, first + len(column))):
            return None
        parts.append("{i}")
    return ".".join(parts), first


class _Finder:
    def __init__(self, nodes: Sequence[Node], outputs: set[SSAValue], table: WeightTable):
        self.nodes = nodes
        self.outputs = outputs
        self.table = table
        self.signatures = [node.signature() for node in nodes]
        self.place = {node.result: i for i, node in enumerate(nodes)}

    def candidates(self) -> Iterator[Loop]:
        """Every loop, short periods first."""
        for period in range(1, len(self.nodes) // 2 + 1):
            for start, length in self._runs(period):
                for shift in range(min(period, length - period + 1)):
                    count = (length - shift) // period + 1
                    loop = self._check(start + shift, period, count)
                    if loop is not None:
                        yield loop

    def _runs(self, period: int) -> Iterator[tuple[int, int]]:
        """Maximal runs (start, length >= period) of nodes that equal the one a period later."""
        start = 0
        for i in range(len(self.nodes) - period + 1):
            inside = i + period < len(self.nodes)
            if inside and self.signatures[i] == self.signatures[i + period]:
                continue
            if i - start >= period:
                yield start, i - start
            start = i + 1

    def _check(self, start: int, period: int, count: int) -> Loop | None:
        names: dict[SSAValue, str] = {}
        firsts: set[int] = set()
        carried: set[tuple[SSAValue, int]] = set()
        for j in range(period):
            iterations = [self.nodes[start + k * period + j] for k in range(count)]
            for args in zip(*(node.args for node in iterations)):
                if is_weight(args[0]):
                    found = self._weight(args)
                    if found is None or names.setdefault(args[0], found[0]) != found[0]:
                        return None
                    firsts.add(found[1])
                elif not self._value(args, start, period, carried):
                    return None
        firsts.discard(-1)
        if len(firsts) != 1 or len(carried) != 1:
            return None
        ((carried_in, place),) = carried
        body = list(self.nodes[start : start + period])
        result = self.nodes[start + (count - 1) * period + place].result
        loop = Loop(start, count, firsts.pop(), body, names, carried_in, body[place].result, result)
        return None if self._escapes(loop) else loop

    def _weight(self, args: Sequence[SSAValue]) -> tuple[str, int] | None:
        owners = [a.owner for a in args]
        ops = [o for o in owners if isinstance(o, WeightOp)]
        if len({str(o.permutation) for o in ops}) != 1:
            return None
        return _template([self.table.name(o) for o in ops])

    def _value(
        self,
        args: Sequence[SSAValue],
        start: int,
        period: int,
        carried: set[tuple[SSAValue, int]],
    ) -> bool:
        """Whether an operand comes from its own iteration, the one before, or is always the same."""
        if len(set(args)) == 1:
            return not start <= self.place.get(args[0], -1) < start + period * len(args)
        places = [self.place.get(a, -1) - start - k * period for k, a in enumerate(args)]
        if len(set(places)) == 1 and 0 <= places[0] < period:
            return True
        if len(set(places[1:])) != 1 or not -period <= places[1] < 0 or places[0] >= 0:
            return False
        carried.add((args[0], places[1] + period))
        return True

    def _escapes(self, loop: Loop) -> bool:
        """Whether a value of the loop other than its result is read after it."""
        inside = {node.result for node in self.nodes[loop.start : loop.stop]} - {loop.result}
        after = {a for node in self.nodes[loop.stop :] for a in node.args}
        return bool(inside & (after | self.outputs))
