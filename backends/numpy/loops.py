"""
Finds the layers of a model: a run of nodes that repeats and differs in weight names only.

Nodes `start + k * period + j` (iteration k, place j) must agree in everything but weights, the
weights' names must differ in one number that counts up with k, and values may pass from one
iteration to the next in one place only. Nothing is assumed about how layers are called.

The numbers lead the search: where one node reads `layer.3.w` and a later one `layer.4.w`, the
distance between them is a period, and only runs around such pairs are looked at. So the work grows
with the number of nodes, whatever they are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from xdsl.ir import SSAValue

from heatc.backends.numpy.nodes import Node, is_weight
from heatc.backends.numpy.weight_file import WeightTable
from heatc.dialects.einsum import WeightOp

_MOST_STARTS = 16
"""Starts of one run that are checked whole, of those that nothing speaks against."""


@dataclass
class Loop:
    """
    A repeated run of nodes.

    `body` is the second iteration: the value `carried_in`, which the first left it, is then none
    that stays the same in all of them. Each iteration makes it `carried_out`; it is `initial`
    before the first and `result` after the last. `names` are the templates of the weights that the
    body reads, with `{i}` for the number.
    """

    start: int
    count: int
    first: int
    body: list[Node]
    names: dict[SSAValue, str]
    initial: SSAValue
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
    """The loop that covers most nodes, None if nothing repeats; of several, of least period."""
    return Finder(nodes, set(outputs), table).best()


def _numbers(name: str) -> Iterator[tuple[str, int]]:
    """Each number of a dotted name, with the name that has `{i}` in its place."""
    # A template is the text of an f-string: other braces would be read there.
    parts = [] if "{" in name or "}" in name else name.split(".")
    for k, part in enumerate(parts):
        if part.isdecimal() and str(int(part)) == part:
            yield ".".join((*parts[:k], "{i}", *parts[k + 1 :])), int(part)


def _template(names: Sequence[str]) -> tuple[str, int] | None:
    """
    The template of names that count up and its first number.

    `("layer.{i}.bias", 0)` for `["layer.0.bias", "layer.1.bias"]`; equal names give no number
    (-1), others None, and so do names with braces.
    """
    if len(set(names)) == 1:
        return None if "{" in names[0] else (names[0], -1)
    for template, first in _numbers(names[0]):
        head, _, tail = template.partition("{i}")
        if all(name == f"{head}{first + k}{tail}" for k, name in enumerate(names)):
            return template, first
    return None


class _Counts:
    """How many intervals hold each of the numbers 0 to size - 1."""

    def __init__(self, size: int):
        self._steps = [0] * (size + 1)
        self._size = size

    def add(self, first: int, last: int) -> None:
        """One more for `first` to `last`, as far as they are there."""
        first, last = max(first, 0), min(last, self._size - 1)
        if first <= last:
            self._steps[first] += 1
            self._steps[last + 1] -= 1

    def values(self) -> list[int]:
        """The count of each number."""
        return list(accumulate(self._steps[:-1]))


@dataclass(frozen=True)
class _Run:
    """Nodes `start` to `stop - 1`, each of which may be the one `period` later, a layer on."""

    period: int
    start: int
    stop: int

    @property
    def starts(self) -> int:
        """How many of its first nodes a loop may begin with."""
        return min(self.period, self.stop - self.start - self.period + 1)

    def count(self, start: int) -> int:
        """The iterations of the longest loop from a start on."""
        return (self.stop - start) // self.period + 1


class Finder:
    """
    The search for the loop of some nodes.

    `visits` counts the nodes that were looked at: what the search costs.
    """

    def __init__(self, nodes: Sequence[Node], outputs: set[SSAValue], table: WeightTable):
        self.nodes = nodes
        self.table = table
        self.visits = 0
        kinds: dict[tuple[object, ...], int] = {}
        self._kinds = [kinds.setdefault(node.signature(), len(kinds)) for node in nodes]
        self._place = {node.result: i for i, node in enumerate(nodes)}
        self._weights = [[self._name(a) for a in n.args if is_weight(a)] for n in nodes]
        self._last = self._last_uses(outputs)

    def best(self) -> Loop | None:
        """The loop that covers most nodes, of least period and first among equals."""
        best: Loop | None = None
        for run in sorted(self._runs(), key=lambda run: (run.period, run.start)):
            covered = 0 if best is None else best.stop - best.start
            if run.count(run.start) * run.period > covered:
                loop = self._longest(run, covered)
                best = best if loop is None else loop
        return best

    def _name(self, value: SSAValue) -> str:
        assert isinstance(value.owner, WeightOp)
        return self.table.name(value.owner)

    def _last_uses(self, outputs: set[SSAValue]) -> list[int]:
        """The node that reads each node's result last; one behind all of them for outputs."""
        last = [-1] * len(self.nodes)
        for i, node in enumerate(self.nodes):
            for arg in node.args:
                if arg in self._place:
                    last[self._place[arg]] = i
        for value in outputs & self._place.keys():
            last[self._place[value]] = len(self.nodes)
        return last

    # --- Runs ---------------------------------------------------------------------------------

    def _runs(self) -> Iterator[_Run]:
        """The maximal runs around pairs of nodes whose weights' numbers follow each other."""
        for period, places in self._pairs().items():
            known = -1
            for place in places:
                if place < known:
                    continue
                start, stop = place, place
                while start > max(known, 0) and self._follows(start - 1, period):
                    start -= 1
                while self._follows(stop, period):
                    stop += 1
                known = stop + 1
                if stop - start >= period:
                    yield _Run(period, start, stop)

    def _pairs(self) -> dict[int, list[int]]:
        """By distance, the nodes whose weight a node so much later reads with the next number."""
        uses: dict[tuple[str, int], list[int]] = defaultdict(list)
        for i, names in enumerate(self._weights):
            for key in {key for name in names for key in _numbers(name)}:
                uses[key].append(i)
        pairs: dict[int, set[int]] = defaultdict(set)
        for (template, number), places in uses.items():
            later = uses.get((template, number + 1), [])
            for place in places:
                next_ = bisect_right(later, place)
                if next_ < len(later):
                    pairs[later[next_] - place].add(place)
        return {period: sorted(places) for period, places in pairs.items()}

    def _follows(self, place: int, period: int) -> bool:
        """Whether a node may be the one a period later, its weights being the next ones."""
        self.visits += 1
        if place + period >= len(self.nodes) or self._kinds[place] != self._kinds[place + period]:
            return False
        pairs = zip(self._weights[place], self._weights[place + period])
        return all(pair[0] == pair[1] or _template(pair) is not None for pair in pairs)

    # --- Where in a run the loop begins -------------------------------------------------------

    def _longest(self, run: _Run, covered: int) -> Loop | None:
        """The longest loop of a run that covers more than `covered` nodes."""
        starts = (s for s in self._possible_starts(run) if run.count(s) * run.period > covered)
        for start, _ in zip(starts, range(_MOST_STARTS)):
            loop = self._check(start, run.period, run.count(start))
            if loop is not None:
                return loop
        return None

    def _possible_starts(self, run: _Run) -> Iterator[int]:
        """The starts at which numbers agree, and one value passes on and none out of the loop."""
        passing, wrong = _Counts(run.starts), _Counts(run.starts)
        self._count_numbers(run, wrong)
        longest = run.count(run.start)
        # Later starts may have one iteration less.
        escaping = {count: _Counts(run.starts) for count in {longest, longest - 1}}
        for i in range(run.start, run.stop + run.period):
            self.visits += 1
            place, last = i - run.start, self._last[i] - run.start
            passing.add(place - run.period + 1, min(place, last - run.period))
            for count, counts in escaping.items():
                length = count * run.period
                counts.add(place - length + 1, min(place, last - length))
        escapes = {count: counts.values() for count, counts in escaping.items()}
        for k, (one, none) in enumerate(zip(passing.values(), wrong.values())):
            if one == 1 and none == 0 and escapes[run.count(run.start + k)][k] <= 1:
                yield run.start + k

    def _count_numbers(self, run: _Run, wrong: _Counts) -> None:
        """Starts are wrong whose first iteration would read weights of several numbers."""
        before: tuple[int, int] | None = None
        for i in range(run.start, run.stop):
            for pair in zip(self._weights[i], self._weights[i + run.period]):
                found = _template(pair)
                number = -1 if found is None else found[1]
                if number < 0:
                    continue
                if before is not None and before[1] != number:
                    wrong.add(i - run.period + 1 - run.start, before[0] - run.start)
                before = i, number

    # --- A loop as a whole --------------------------------------------------------------------

    def _check(self, start: int, period: int, count: int) -> Loop | None:
        """The loop of so many iterations, None where it is none."""
        names: dict[SSAValue, str] = {}
        firsts: set[int] = set()
        carried: set[tuple[SSAValue, int]] = set()
        self.visits += period * count
        for j in range(period):
            iterations = [self.nodes[start + k * period + j] for k in range(count)]
            for args in zip(*(node.args for node in iterations)):
                if is_weight(args[0]):
                    found = self._weight(args)
                    if found is None or names.setdefault(args[1], found[0]) != found[0]:
                        return None
                    firsts.add(found[1])
                elif not self._value(args, start, period, carried):
                    return None
        firsts.discard(-1)
        if len(firsts) != 1 or len(carried) != 1:
            return None
        ((initial, place),) = carried
        body = list(self.nodes[start + period : start + 2 * period])
        last = self.nodes[start + (count - 1) * period + place].result
        loop = Loop(
            start,
            count,
            firsts.pop(),
            body,
            names,
            initial,
            self.nodes[start + place].result,
            body[place].result,
            last,
        )
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
            return not start <= self._place.get(args[0], -1) < start + period * len(args)
        places = [self._place.get(a, -1) - start - k * period for k, a in enumerate(args)]
        if len(set(places)) == 1 and 0 <= places[0] < period:
            return True
        if len(set(places[1:])) != 1 or not -period <= places[1] < 0 or places[0] >= 0:
            return False
        carried.add((args[0], places[1] + period))
        return True

    def _escapes(self, loop: Loop) -> bool:
        """Whether a value of the loop other than its result is read after it."""
        return any(
            self._last[i] >= loop.stop and self.nodes[i].result is not loop.result
            for i in range(loop.start, loop.stop)
        )
