"""Matrix products, einsum, embeddings and attention."""

from __future__ import annotations

import math

from xdsl.dialects.builtin import TensorType
from xdsl.ir import SSAValue

from heatc.capture.aten import Call, Unsupported, converter
from heatc.dialects import nn
from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.errors import HeatcError

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@converter("linear.default")
def convert_linear(call: Call) -> SSAValue:
    bias = call.optional("bias")
    return call.add(nn.LinearOp(call.value("input"), call.value("weight"), bias, call.out_type))


@converter("mm.default")
def convert_mm(call: Call) -> SSAValue:
    return _matmul(call, call.value("self"), call.value("mat2"))


@converter("bmm.default")
def convert_bmm(call: Call) -> SSAValue:
    return _matmul(call, call.value("self"), call.value("mat2"))


@converter("matmul.default", "dot.default", "mv.default")
def convert_matmul(call: Call) -> SSAValue:
    lhs = call.value("self")
    name = next(n for n in ("other", "tensor", "vec") if call.has(n) or n == "vec")
    rhs = call.value(name)
    if len(nn.shape_of(lhs)) == 1:
        lhs = call.reshape(lhs, [1, *nn.shape_of(lhs)])
    if len(nn.shape_of(rhs)) == 1:
        rhs = call.reshape(rhs, [*nn.shape_of(rhs), 1])
    return call.reshape(_matmul(call, lhs, rhs), call.out.shape)


def _matmul(call: Call, lhs: SSAValue, rhs: SSAValue) -> SSAValue:
    """A product; with a weight that is transposed for it, a linear layer without a bias."""
    a, b = nn.shape_of(lhs), nn.shape_of(rhs)
    if len(a) < 2 or len(b) < 2:
        raise HeatcError(f"{call} multiplies tensors of shapes {a} and {b}")
    shape = (*nn.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])
    type_ = TensorType(nn.element_of(lhs), shape)
    weight = _transposed_weight(rhs)
    if weight is not None and shape[:-1] == a[:-1]:
        return call.add(nn.LinearOp(lhs, weight, None, type_))
    return call.add(nn.MatmulOp(lhs, rhs, type_))


def _transposed_weight(value: SSAValue) -> SSAValue | None:
    """The weight (O, I) that `value` (..., I, O) repeats transposed: decomposed linears do that."""
    matrix = nn.shape_of(value)[-2:]
    owner = value.owner
    while isinstance(owner, nn.ReshapeOp | nn.ExpandOp) and nn.shape_of(owner.x)[-2:] == matrix:
        owner = owner.x.owner
    if not isinstance(owner, nn.TransposeOp) or not isinstance(owner.x.owner, WeightOp):
        return None
    return owner.x if nn.shape_of(owner.result) == matrix else None


@converter("addmm.default")
def convert_addmm(call: Call) -> SSAValue:
    return _add_product(call, "mat1", "mat2")


@converter("baddbmm.default")
def convert_baddbmm(call: Call) -> SSAValue:
    return _add_product(call, "batch1", "batch2")


def _add_product(call: Call, lhs: str, rhs: str) -> SSAValue:
    """`beta * self + alpha * (lhs @ rhs)`; with a transposed weight, a linear layer with a bias."""
    bias, weight = call.value("self"), _transposed_weight(call.value(rhs))
    is_plain = call.number("alpha", 1) == call.number("beta", 1) == 1
    if weight is not None and is_plain and nn.shape_of(bias) == nn.shape_of(weight)[:1]:
        return call.add(nn.LinearOp(call.value(lhs), weight, bias, call.out_type))
    product = _scaled(call, _matmul(call, call.value(lhs), call.value(rhs)), "alpha")
    if call.number("beta", 1) == 0:
        return product
    return call.add(nn.AddOp(product, _scaled(call, call.value("self"), "beta")))


def _scaled(call: Call, value: SSAValue, factor: str) -> SSAValue:
    number = call.number(factor, 1)
    if number == 1:
        return value
    return call.add(nn.MulOp(value, call.full(number, nn.element_of(value))))


@converter("embedding.default")
def convert_embedding(call: Call) -> SSAValue:
    return call.add(nn.EmbeddingOp(call.value("weight"), call.value("indices")))


@converter(
    "scaled_dot_product_attention.default",
    "_scaled_dot_product_flash_attention_for_cpu.default",
)
def convert_sdpa(call: Call) -> SSAValue:
    if call.number("dropout_p", 0.0) != 0:
        raise Unsupported("attention with dropout, call model.eval() before exporting")
    q, k, v = call.value("query"), call.value("key"), call.value("value")
    lead = nn.shape_of(q)[:-2]
    if call.flag("enable_gqa"):
        k, v = (_repeated(call, x, lead[-1]) for x in (k, v))
    k, v = (call.expand(x, [*lead, *nn.shape_of(x)[-2:]]) for x in (k, v))
    scale = call.arg("scale")
    if scale is None:
        scale = 1 / math.sqrt(nn.shape_of(q)[-1])
    if not isinstance(scale, int | float):
        raise HeatcError(f"expected a number for argument 'scale' of {call}, got {scale!r}")
    mask, causal = call.optional("attn_mask"), call.flag("is_causal")
    return call.add(nn.SdpaOp(q, k, v, mask, float(scale), causal, call.out_type))


def _repeated(call: Call, value: SSAValue, heads: int) -> SSAValue:
    """(..., groups, S, E) -> (..., heads, S, E): a head of keys for several of queries."""
    *lead, groups, length, width = nn.shape_of(value)
    value = call.reshape(value, [*lead, groups, 1, length, width])
    value = call.expand(value, [*lead, groups, heads // groups, length, width])
    return call.reshape(value, [*lead, heads, length, width])


@converter("einsum.default")
def convert_einsum(call: Call) -> SSAValue:
    """
    `einsum.contract`, after what it does not know is made explicit.

    An ellipsis becomes letters, axes of extent 1 that torch broadcasts are dropped, and an
    implicit result is written out.
    """
    equation = call.arg("equation")
    if not isinstance(equation, str):
        raise HeatcError(f"expected a string for argument 'equation' of {call}")
    operands = call.values_of("tensors")
    terms, result = _explicit(equation, [len(nn.shape_of(v)) for v in operands], call)
    extents: dict[str, int] = {}
    for term, value in zip(terms, operands):
        for letter, extent in zip(term, nn.shape_of(value)):
            extents[letter] = max(extents.get(letter, 1), extent)
    for i, (term, value) in enumerate(zip(terms, operands)):
        terms[i], operands[i] = _without_broadcast(call, term, value, extents)
    kept = [letter for letter in result if any(letter in term for term in terms)]
    type_ = TensorType(call.out_element, [extents[letter] for letter in kept])
    contract = ContractOp(f"{','.join(terms)}->{''.join(kept)}", operands, type_)
    return call.reshape(call.add(contract), call.out.shape)


def _without_broadcast(
    call: Call, term: str, value: SSAValue, extents: dict[str, int]
) -> tuple[str, SSAValue]:
    """Drop the axes of extent 1 whose index is longer elsewhere."""
    pairs = list(zip(term, nn.shape_of(value)))
    kept = [(letter, extent) for letter, extent in pairs if extent == extents[letter]]
    if any(extent != 1 for pair in pairs if pair not in kept for extent in pair[1:]):
        raise HeatcError(f"{call} has an index with two extents")
    return "".join(letter for letter, _ in kept), call.reshape(value, [e for _, e in kept])


def _explicit(equation: str, ranks: list[int], call: Call) -> tuple[list[str], str]:
    """The terms of every operand and of the result, without ellipses."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise HeatcError(f"equation {equation!r} of {call} does not have {len(ranks)} operands")
    free = [letter for letter in _LETTERS if letter not in equation]
    widths = [rank - len(t.replace("...", "")) for t, rank in zip(terms, ranks) if "..." in t]
    width = max(widths, default=0)
    if width > len(free) or min(widths, default=0) < 0:
        raise HeatcError(f"equation {equation!r} of {call} does not fit its operands")
    dots = "".join(free[:width])
    own = iter(widths)
    for i, term in enumerate(terms):
        if "..." in term:
            terms[i] = term.replace("...", dots[width - next(own) :])
        if len(terms[i]) != ranks[i] or not (terms[i].isalpha() or ranks[i] == 0):
            raise HeatcError(f"equation {equation!r} of {call} does not fit its operands")
    if arrow:
        return terms, right.replace("...", dots)
    letters = "".join(terms)
    once = sorted(c for c in set(letters) if letters.count(c) == 1 and c not in dots)
    return terms, dots + "".join(once)
