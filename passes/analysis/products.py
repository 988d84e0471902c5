"""Which product of matrices a step of a factorised layer is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from heatc.dialects.einsum import ContractOp, is_step, parse_equation
from heatc.dialects.nn import shape_of


@dataclass(frozen=True)
class ProductForm:
    """
    A contraction as out[t, lead, n, rest] = weight[lead, rest, n, k] x[t, lead, k, rest].

    Tokens t are first; the axes that are summed lie side by side, and their place is that of the
    weight's own axes in the result.

    Attributes:
        lead: the extents of the axes between the tokens and the summed ones.
        rest: the extents of the axes behind the summed ones.
        order: the permutation that brings the weight's axes to (those in lead, in rest, n, k).
        weight_shape: its shape then, 1 for axes that it has not; (n, k) where it has none of them,
            (lead, n, k) where it has none of rest.
    """

    lead: tuple[int, ...]
    rest: tuple[int, ...]
    order: tuple[int, ...]
    weight_shape: tuple[int, ...]

    @property
    def columns(self) -> int:
        """n: how many elements take the place of the summed ones."""
        return self.weight_shape[-2]

    @property
    def depth(self) -> int:
        """k: how many elements a sum has."""
        return self.weight_shape[-1]

    @property
    def is_batched(self) -> bool:
        """Whether the weight differs from product to product: it has an axis that survives."""
        return len(self.weight_shape) > 2

    @property
    def differs_behind(self) -> bool:
        """Whether it differs along the axes behind the summed ones."""
        return len(self.weight_shape) > 2 + len(self.lead)


def product_form(op: ContractOp) -> ProductForm | None:
    """The product that a step of packed tokens with a constant is, None where it is none."""
    return row_form(op) if is_step(op) else None


def row_form(op: ContractOp) -> ProductForm | None:
    """As `product_form`, of any rows with any second operand that has not their axis."""
    if len(op.inputs) != 2:
        return None
    (x, w), result = parse_equation(op.equation.data)
    if len(set(x)) < len(x) or len(set(w)) < len(w):
        return None
    summed = "".join(c for c in x if c in w and c not in result)
    own = "".join(c for c in result if c not in x)
    start = x.find(summed) if summed else len(x)
    if start < 1 or x[0] in w:
        return None
    lead, rest = x[1:start], x[start + len(summed) :]
    if result != x[0] + lead + own + rest:
        return None
    outer = lead + rest if set(rest) & set(w) else lead if set(lead) & set(w) else ""
    shared = "".join(c for c in outer if c in w)
    if sorted(shared + own + summed) != sorted(w):
        return None
    extents = dict(zip(w, shape_of(op.inputs[1]))) | dict(zip(x, shape_of(op.inputs[0])))
    size = math.prod(extents[c] for c in own), math.prod(extents[c] for c in summed)
    return ProductForm(
        tuple(extents[c] for c in lead),
        tuple(extents[c] for c in rest),
        tuple(w.index(c) for c in shared + own + summed),
        (*(extents[c] if c in w else 1 for c in outer), *size),
    )
