"""
Which contractions the co-processor has a product for.

A step of packed tokens x with one weight W that sums axes of x lying side by side and puts the
weight's own axes in their place is, for every token, `pre` products of matrices
`W (new, gone) times x (gone, post)`: a linear where `pre` and `post` are 1. In the normal form, which
`shape-products` makes, the axes are merged and the weight is a matrix (new, gone):

    "ta,oa->to"     a linear                    (T, gone)            -> (T, new)
    "tpa,oa->tpo"   a linear of pre T rows      (T, pre, gone)       -> (T, pre, new)
    "taq,oa->toq"   the weight from the left    (T, gone, post)      -> (T, new, post)
    "tpaq,oa->tpoq"                             (T, pre, gone, post) -> (T, pre, new, post)
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import Operation, SSAValue

from heatc.dialects.einsum import ContractOp, WeightOp, parse_equation
from heatc.dialects.nn import AddOp, ReshapeOp, shape_of


@dataclass(frozen=True)
class Product:
    """(pre, gone, post) to (pre, new, post) for every token; all extents, none of them unknown."""

    pre: int
    gone: int
    new: int
    post: int

    @property
    def is_linear(self) -> bool:
        """Whether a token is one row."""
        return self.pre == self.post == 1

    @property
    def size_in(self) -> int:
        """Channels of a token."""
        return self.pre * self.gone * self.post

    @property
    def size_out(self) -> int:
        """Channels of a token's result."""
        return self.pre * self.new * self.post

    def bias_rows(self, size: int) -> int:
        """
        The rows of a bias of so many channels that the accumulators are drained with, 0 for none.

        All rows take one row, where the channels are those of a linear; or each token's rows theirs.
        """
        if size == self.new and self.post == 1:
            return 1
        rows = self.pre if self.post == 1 else self.new if self.pre == 1 else 0
        return rows if size == self.size_out else 0

    @property
    def inputs(self) -> tuple[int, ...]:
        """The axes of a token that are not 1, in normal form; `gone` always."""
        return self._axes(self.gone)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The axes of a token's result that are not 1, in normal form; `new` always."""
        return self._axes(self.new)

    @property
    def equation(self) -> str:
        """The equation of the normal form."""
        p, q = "p" * (self.pre > 1), "q" * (self.post > 1)
        return f"t{p}a{q},oa->t{p}o{q}"

    def _axes(self, middle: int) -> tuple[int, ...]:
        pre, post = (() if n == 1 else (n,) for n in (self.pre, self.post))
        return (*pre, middle, *post)


NORMAL = {
    "ta,oa->to": (0, 0),
    "tpa,oa->tpo": (1, 0),
    "taq,oa->toq": (0, 1),
    "tpaq,oa->tpoq": (1, 1),
}
"""The equations of the normal form, letters in order of appearance, and the axes beside `gone`."""


def _spelled(equation: str) -> str:
    """An equation with the letters of the normal form, where it has as many."""
    (x, weight), result = parse_equation(equation)
    if len(weight) != 2 or not 2 <= len(x) <= 4:
        return equation
    wanted = {2: "ta", 3: "tpa" if x[-1] == weight[1] else "taq", 4: "tpaq"}[len(x)]
    names = dict(zip(x, wanted))
    if len(names) != len(x) or weight[0] in names:
        return equation
    names[weight[0]] = "o"
    new = ["".join(names.get(c, "?") for c in term) for term in (x, weight, result)]
    return f"{new[0]},{new[1]}->{new[2]}"


def product_of(op: Operation) -> Product | None:
    """The product of a contraction in normal form with one weight, None for any other op."""
    if not isinstance(op, ContractOp) or len(op.inputs) != 2:
        return None
    if not isinstance(op.inputs[1].owner, WeightOp):
        return None
    axes = NORMAL.get(_spelled(op.equation.data))
    if axes is None:
        return None
    new, gone = shape_of(op.inputs[1])
    shape = shape_of(op.inputs[0])
    return Product(shape[1] if axes[0] else 1, gone, new, shape[-1] if axes[1] else 1)


def bias_of(op: Operation) -> SSAValue | None:
    """The bias that a sum adds to a product, reshaped or not, that it is the only reader of."""
    if not isinstance(op, AddOp):
        return None
    for x, bias in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        if not isinstance(bias.owner, WeightOp) or len(shape_of(bias)) != 1 or not x.has_one_use():
            continue
        source = x.owner
        if isinstance(source, ReshapeOp) and source.x.has_one_use():
            source = source.x.owner
        product = product_of(source) if isinstance(source, Operation) else None
        if product is not None and product.bias_rows(shape_of(bias)[0]):
            return bias
    return None
