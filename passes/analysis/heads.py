"""
Sequences, heads, queries and keys of an attention, and its operands as (B, S, heads * dim).

The scores' axes fall into *atoms*: digits that no operand and no mask cuts further. Those that the
keys alone have are keys. One that the queries alone have is the queries. The others are sequences
and heads: what lies inside a row of tokens is heads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from xdsl.ir import SSAValue

from heatc.dialects import nn
from heatc.passes.analysis.attention import Axis, Found, Group, NotAttention, Operand
from heatc.passes.analysis.layout import Digit, Layout, counted, grouped, joined, layout_of

Atoms = tuple[Digit, ...]


@dataclass(frozen=True)
class Rows:
    """
    An operand as rows of tokens: (batch, length, heads, dim), each as digits of `root`.

    A digit with a stride of 0 repeats. The operand is the rows times `scale`.
    """

    root: SSAValue
    scale: float
    batch: Group
    length: Group
    heads: Group
    dim: Group

    @cached_property
    def digits(self) -> Group:
        """All digits, without those of heads that repeat others."""
        own = (d for d in self.heads if d[1])
        return joined([*self.batch, *self.length, *own, *self.dim])

    @property
    def is_plain(self) -> bool:
        """Whether the root is (B, S, width), or (S, B, width), beside reshapes."""
        whole = counted(nn.shape_of(self.root))
        if self.digits == whole:
            return True
        batch = joined(self.batch)
        own = [d for d in self.heads if d[1]]
        return len(batch) <= 1 and joined([*self.length, *batch, *own, *self.dim]) == whole


@dataclass(frozen=True)
class Roles:
    """The atoms of an attention's scores by what they are, and its operands as rows."""

    batch: Atoms
    heads: Atoms
    queries: Atoms
    keys: Atoms
    q: Rows
    k: Rows
    v: Rows
    cuts: frozenset[int]

    def cut(self, digits: Iterable[Digit]) -> Atoms:
        """Digits of the scores in atoms."""
        return _cut(digits, self.cuts)

    @property
    def plain(self) -> int:
        """How many operands are rows of tokens already."""
        return sum(rows.is_plain for rows in (self.q, self.k, self.v))


def extent(digits: Iterable[Digit]) -> int:
    """How many elements digits count."""
    return math.prod(n for n, _ in digits)


def _cut(digits: Iterable[Digit], cuts: Iterable[int]) -> Atoms:
    atoms: list[Digit] = []
    for n, stride in digits:
        points = sorted(c for c in cuts if stride <= c <= stride * n)
        pairs = list(itertools.pairwise(points))
        if any(high % low for low, high in pairs):
            raise _Uncut
        atoms += [(high // low, low) for low, high in reversed(pairs)]
    return tuple(atoms)


class _Uncut(Exception):
    """An axis is cut in two ways."""


def roles_of(found: Found) -> Roles:
    """
    The best reading of the axes of an attention.

    Raises `NotAttention` where there is none: queries that see other keys each, axes of parts.
    """
    try:
        return _best(_Reader(found))
    except _Uncut:
        raise NotAttention(found.last, "its axes are cut in two ways") from None


def _best(reader: _Reader) -> Roles:
    found = reader.found
    apart = len(found.scores) > 3
    best: Roles | None = None
    most = (False, False, -1)
    failure = NotAttention(found.last, "its queries are no axis of their own")
    for queries in reader.query_choices():
        for batch, heads in reader.head_choices(queries):
            try:
                roles = reader.roles(batch, heads, queries)
            except NotAttention as error:
                failure = error
                continue
            # Scores with an axis of heads have them; else operands that are rows say so.
            rank = (apart or roles.plain == 3, bool(roles.heads), roles.plain)
            if rank > most:
                best, most = roles, rank
    if best is None:
        raise failure
    return best


class _Reader:
    """Tries what the axes of one attention may be."""

    def __init__(self, found: Found):
        self.found = found
        self.layouts = {
            operand.value: layout_of(operand.value, scaled=operand is not found.v)
            for operand in (found.q, found.k, found.v)
        }
        cuts: set[int] = set()
        for n, stride in _all_digits(found):
            cuts |= {stride, stride * n}
        for operand in (found.q, found.k, found.v):
            cuts |= self._cuts_inside(operand)
        self.cuts = cuts
        self.keys = self._cut(found.keys)

    def _cuts_inside(self, operand: Operand) -> set[int]:
        """Where the scores' axes are cut by what an operand is made of."""
        layout = self.layouts[operand.value]
        groups = grouped(layout.digits, layout.shape)
        if groups is None:
            return set()
        found: set[int] = set()
        for axis, group in zip(operand.axes, groups):
            if isinstance(axis, str) or len(axis) != 1:
                continue
            inner = 1
            for n, _ in group[:0:-1]:
                inner *= n
                found.add(axis[0][1] * inner)
        return found

    def _cut(self, digits: Iterable[Digit]) -> Atoms:
        return _cut(digits, self.cuts)

    def _own(self, operand: Operand) -> set[Digit]:
        return {a for axis in operand.axes if not isinstance(axis, str) for a in self._cut(axis)}

    def query_choices(self) -> Iterator[Atoms]:
        """What the queries may be: atoms that keys and values do not have, as many as the keys."""
        others = self._own(self.found.k) | self._own(self.found.v)
        own = [a for a in self._whole() if a in self._own(self.found.q) and a not in others]
        length = extent(self.keys)
        if extent(own) == length or length == 1:
            yield tuple(own) if length > 1 else ()
            return
        yield from ((a,) for a in own if a[0] == length)
        for n, stride in own:
            if n > length and n % length == 0:
                # Heads that share their keys, in one axis with the queries.
                self.cuts.add(stride * (n // length))
                yield ((length, stride * (n // length)),)
                self.cuts.discard(stride * (n // length))
        if not own or all(n != length for n, _ in own):
            raise NotAttention(
                self.found.last, f"operand k: {length} keys for {extent(own)} queries"
            )

    def _whole(self) -> Atoms:
        return self._cut(counted(self.found.scores))

    def head_choices(self, queries: Atoms) -> Iterator[tuple[Atoms, Atoms]]:
        """What sequences and heads may be, the most likely first."""
        rest = [a for a in self._whole() if a not in queries and a not in self.keys]
        first = self.found.scores[0] if len(self.found.scores) > 3 else extent(rest)
        yield from self._split(rest, extent(rest) // first)
        for operand in (self.found.q, self.found.k, self.found.v):
            layout = self.layouts[operand.value]
            dim = extent_of_names(operand)
            strides = self._strides(operand, rest)
            if strides is None:
                continue
            ordered = [a for _, a in sorted(zip(strides, rest), reverse=True)]
            for width in _widths(nn.shape_of(layout.root)):
                if width % dim == 0:
                    yield from self._split(ordered, width // dim)

    def _split(self, atoms: Sequence[Digit], heads: int) -> Iterator[tuple[Atoms, Atoms]]:
        """Atoms whose last ones count `heads`, cut where need be."""
        batch, own = list(atoms), list[Digit]()
        while batch and heads > 1:
            n, stride = batch.pop()
            if n <= heads and heads % n == 0:
                own.insert(0, (n, stride))
                heads //= n
            elif n % heads == 0:
                self.cuts.add(stride * heads)
                batch.append((n // heads, stride * heads))
                own.insert(0, (heads, stride))
                yield tuple(batch), tuple(own)
                self.cuts.discard(stride * heads)
                return
            else:
                return
        if heads == 1:
            yield tuple(batch), tuple(own)

    def _strides(self, operand: Operand, atoms: Sequence[Digit]) -> list[int] | None:
        """By how much each atom moves in an operand's root; None where it does not have them all."""
        places = self.places(operand)
        if any(len(places.get(a, ())) != 1 or not places[a][0][1] for a in atoms):
            return None
        return [places[a][0][1] for a in atoms]

    def places(self, operand: Operand) -> dict[str | Digit, Group]:
        """The digits of an operand's root for each atom of the scores and for its own axes."""
        layout = self.layouts[operand.value]
        found = self._places(operand, layout)
        if found is None:
            shape = nn.shape_of(operand.value)
            found = self._places(operand, Layout(operand.value, shape, counted(shape), 1.0))
            assert found is not None
            self.layouts[operand.value] = Layout(operand.value, shape, counted(shape), 1.0)
        return found

    def _places(self, operand: Operand, layout: Layout) -> dict[str | Digit, Group] | None:
        names: list[str | Digit] = []
        extents: list[int] = []
        for axis, n in zip(operand.axes, nn.shape_of(operand.value)):
            if isinstance(axis, str):
                names.append(axis)
                extents.append(n)
            else:
                atoms = self._cut(axis)
                names += atoms
                extents += [a[0] for a in atoms]
        groups = grouped(layout.digits, extents)
        if groups is None:
            return None
        return {name: tuple(group) for name, group in zip(names, groups)}

    def roles(self, batch: Atoms, heads: Atoms, queries: Atoms) -> Roles:
        """The operands as rows under one reading; raises `NotAttention` where it does not hold."""
        found = self.found
        names = [axis for axis in found.q.axes if isinstance(axis, str)]
        own = [axis for axis in found.v.axes if isinstance(axis, str)]
        if set(queries) & (self._own(found.k) | self._own(found.v)):
            raise NotAttention(found.last, "operand k or v: it is another for each query")
        keys = self._cut(found.keys)
        return Roles(
            batch,
            heads,
            queries,
            keys,
            self._rows(found.q, batch, queries, heads, names),
            self._rows(found.k, batch, keys, heads, names),
            self._rows(found.v, batch, keys, heads, own),
            frozenset(self.cuts),
        )

    def _rows(
        self, operand: Operand, batch: Atoms, length: Atoms, heads: Atoms, names: Sequence[str]
    ) -> Rows:
        places = self.places(operand)

        def digits(atoms: Iterable[str | Digit]) -> Group:
            found: list[Digit] = []
            for atom in atoms:
                if not isinstance(atom, str) and atom not in places:
                    # What an operand does not have repeats.
                    found.append((atom[0], 0))
                else:
                    found += places[atom]
            return tuple(found)

        layout = self.layouts[operand.value]
        return Rows(
            layout.root, layout.scale, digits(batch), digits(length), digits(heads), digits(names)
        )


def extent_of_names(operand: Operand) -> int:
    """How many elements the axes count that the scores do not have: the width of a head."""
    pairs = zip(operand.axes, nn.shape_of(operand.value))
    return math.prod(n for axis, n in pairs if isinstance(axis, str))


def _widths(shape: Sequence[int]) -> list[int]:
    """What may be a row of tokens of a root: its last axis, or its last two of four."""
    return [shape[-1], shape[-1] * shape[-2]] if len(shape) > 3 else [shape[-1]]


def _all_digits(found: Found) -> Iterator[Digit]:
    """Every digit of the scores that some axis of an operand or mask counts through."""
    stride = math.prod(found.scores)
    for n in found.scores:
        stride //= n
        yield n, stride
    groups: list[Axis] = [found.keys, *found.result_axes]
    for operand in (found.q, found.k, found.v):
        groups += operand.axes
    for mask in found.masks:
        groups += mask.axes
    for group in groups:
        if not isinstance(group, str):
            yield from group
