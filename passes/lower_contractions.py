"""
Contractions of three operands or more become chains of pairwise ones, along their paths.

Assumes `order-contractions`. Every step becomes an `einsum.contract` of two operands. A step of an
activation with a weight, or with a product of weights, keeps the activation's axes where they are.
The axes that it sums lie side by side, and the new axes take their place. The step is therefore a
product of matrices; where it sums all axes it is `"ti,io->to"` on merged axes. The last step keeps
the `decomposition`. Exact: the same sums in another order.

Example (test/passes/lower_contractions.mlir): `einsum.contract "ta,Aa,mA->tm"` along
`(0, 1), (3, 2)` becomes `"ta,Aa->tA"` and `"tA,mA->tm"`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from heatc.dialects.einsum import ContractOp, WeightOp, parse_equation
from heatc.dialects.nn import TOKENS, ReshapeOp, TransposeOp, element_of, shape_of
from heatc.errors import HeatcError
from heatc.passes.effect import Effect
from heatc.passes.rewriting import (
    describe_location,
    erase_dead,
    fold_reshapes,
    insert_before,
    replace_value,
)


@dataclass(frozen=True)
class _Tensor:
    """A value, its indices in order, and whether it depends on weights only."""

    value: SSAValue
    letters: str
    fixed: bool


class _Chain:
    """The chain of one contraction, built in front of it."""

    def __init__(self, op: ContractOp):
        self.op = op
        terms, self.result = parse_equation(op.equation.data)
        self.extents = {
            letter: extent
            for term, value in zip(terms, op.inputs)
            for letter, extent in zip(term, shape_of(value))
        }
        self.element = element_of(op.result)
        self.live: dict[int, _Tensor] = {
            i: _Tensor(value, term, isinstance(value.owner, WeightOp))
            for i, (term, value) in enumerate(zip(terms, op.inputs))
        }

    def build(self) -> None:
        """Insert the steps and put the last one's result in the op's place."""
        path = self.op.path
        if path is None:
            raise HeatcError(
                f"a contraction of {len(self.live)} operands has no path",
                place=describe_location(self.op),
                notes=["run order-contractions first"],
            )
        for number, (a, b) in enumerate(path.data, len(self.live)):
            self.live[number] = self._step(self.live.pop(a), self.live.pop(b))
        (whole,) = self.live.values()
        last = self._ordered(whole, self.result)
        replace_value(self.op.result, last.value)
        self._mark(last.value)
        self.op.detach()
        self.op.erase()

    def _mark(self, value: SSAValue) -> None:
        """The contraction that computes `value` carries the provenance on."""
        owner = value.owner
        while isinstance(owner, ReshapeOp | TransposeOp):
            owner = owner.x.owner
        if isinstance(owner, ContractOp):
            owner.decomposition = self.op.decomposition

    # --- Steps --------------------------------------------------------------------------------

    def _step(self, a: _Tensor, b: _Tensor) -> _Tensor:
        wanted = set(self.result).union(*(t.letters for t in self.live.values()))
        a = self._summed(a, wanted | set(b.letters))
        b = self._summed(b, wanted | set(a.letters))
        if a.fixed and not b.fixed:
            a, b = b, a
        if b.fixed and not a.fixed:
            return self._on_activation(a, b, wanted)
        letters = dict.fromkeys(a.letters + b.letters)
        kept = [c for c in letters if c in wanted]
        # Packed tokens come first wherever they are.
        kept.sort(key=lambda c: self.extents[c] != TOKENS)
        return self._contract([a, b], "".join(kept), a.fixed and b.fixed)

    def _summed(self, x: _Tensor, wanted: set[str]) -> _Tensor:
        """A tensor without indices that only it has, and without repeated ones."""
        letters = "".join(c for c in dict.fromkeys(x.letters) if c in wanted)
        return x if letters == x.letters else self._contract([x], letters, x.fixed)

    def _on_activation(self, x: _Tensor, w: _Tensor, wanted: set[str]) -> _Tensor:
        """The axes that are summed make way for the weight's own, in their place."""
        gone = "".join(c for c in x.letters if c in w.letters and c not in wanted)
        own = [c for c in w.letters if c not in x.letters]
        at = x.letters.find(gone) if gone and gone in x.letters else len(x.letters)
        own.sort(key=lambda c: self._place(c, x.letters, at))
        new = "".join(own)
        if gone not in x.letters:
            rest = "".join(c for c in x.letters if c not in gone)
            return self._contract([x, w], self._tokens_first(rest + new), False)
        letters = x.letters.replace(gone, new, 1) if gone else x.letters + new
        lead = x.letters[: len(x.letters) - len(gone)]
        if gone and x.letters == lead + gone and letters == lead + new and self._is_rows(lead, w):
            return self._product(x, w, lead, gone, new)
        return self._contract([x, w], letters, False)

    def _place(self, letter: str, letters: str, at: int) -> tuple[int, int]:
        """
        Where a new axis belongs among those that take the place `at`.

        An axis that is still to be summed goes to the side where the axes are that are summed with it,
        else to where the axes of the result will stand that come of it.
        """
        if letter in self.result:
            return 0, self.result.find(letter)
        reached, found = {letter}, {letter}
        fixed = [set(t.letters) for t in self.live.values() if t.fixed]
        partners = [i for i, c in enumerate(letters) if any({c, letter} <= t for t in fixed)]
        if partners:
            return (-1, 0) if max(partners) < at else (1, 0)
        while found:
            found = set[str]().union(*(t for t in fixed if t & found)) - reached
            reached |= found
        places = [i for i, c in enumerate(self.result) if c in reached]
        return 0, min(places, default=len(self.result))

    def _is_rows(self, lead: str, w: _Tensor) -> bool:
        """Whether the axes before the summed ones are tokens alone, which the weight has not."""
        return len(lead) == 1 and self.extents[lead] == TOKENS and lead not in w.letters

    def _tokens_first(self, letters: str) -> str:
        return "".join(sorted(letters, key=lambda c: self.extents[c] != TOKENS))

    def _contract(self, operands: Sequence[_Tensor], letters: str, fixed: bool) -> _Tensor:
        equation = f"{','.join(t.letters for t in operands)}->{letters}"
        op = ContractOp(equation, [t.value for t in operands], self._type(letters))
        insert_before(self.op, op)
        return _Tensor(op.result, letters, fixed)

    def _type(self, letters: str) -> TensorType:
        return TensorType(self.element, [self.extents[c] for c in letters])

    def _product(self, x: _Tensor, w: _Tensor, lead: str, gone: str, new: str) -> _Tensor:
        """A product of matrices: tokens by summed axes, times the weight, in or out first."""
        out_first = w.letters == new + gone
        w = w if out_first else self._ordered(w, gone + new)
        rows = self._reshaped(x.value, [TOKENS, self._size(gone)])
        sizes = [self._size(new), self._size(gone)]
        matrix = self._reshaped(w.value, sizes if out_first else sizes[::-1])
        i, o = gone[0], new[0] if new else next(c for c in "xyzw" if c not in lead + gone)
        equation = f"{lead}{i},{o}{i}->{lead}{o}" if out_first else f"{lead}{i},{i}{o}->{lead}{o}"
        op = ContractOp(
            equation, [rows, matrix], TensorType(self.element, [TOKENS, self._size(new)])
        )
        insert_before(self.op, op)
        shape = [self.extents[c] for c in lead + new]
        return _Tensor(self._reshaped(op.result, shape), lead + new, False)

    def _size(self, letters: str) -> int:
        return math.prod(self.extents[c] for c in letters)

    def _reshaped(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        """A reshape, past one that it undoes."""
        owner = value.owner
        if isinstance(owner, ReshapeOp) and shape_of(owner.x) == tuple(shape):
            return owner.x
        if shape_of(value) == tuple(shape):
            return value
        op = ReshapeOp(value, shape)
        insert_before(self.op, op)
        return op.result

    def _ordered(self, x: _Tensor, letters: str) -> _Tensor:
        """A tensor with its axes in another order, and without those that are not asked for."""
        x = self._summed(x, set(letters))
        if x.letters == letters:
            return x
        op: Operation = TransposeOp(x.value, [x.letters.index(c) for c in letters])
        insert_before(self.op, op)
        return _Tensor(op.results[0], letters, x.fixed)


@dataclass(frozen=True)
class LowerContractionsPass(ModulePass):
    """Contractions follow their paths in pairwise steps; exact."""

    name = "lower-contractions"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place."""
        for inner in list(op.walk()):
            if isinstance(inner, ContractOp) and len(inner.inputs) > 2:
                _Chain(inner).build()
        fold_reshapes(op)
        erase_dead(op)
