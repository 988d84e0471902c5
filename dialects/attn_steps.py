"""
What the steps of an attention have in common: `heatc.dialects.attn_scores`, `attn_decisions`.

A step computes something of all heads of all sequences: scores, a decision on them, a result. Steps stand
in the region of an `attn.pruned`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import (
    DenseArrayBase,
    Float64Type,
    FloatAttr,
    IntegerType,
    StringAttr,
    f64,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import prop_def
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from heatc.dialects.attn_packing import AttnOp, PackingType, shape_text, tensor_of


class StepOp(AttnOp):
    """Base of the steps."""


class BlockOp(StepOp):
    """Base of the steps that work on blocks of scores."""

    block = prop_def(DenseArrayBase.constr(i64))

    @property
    def extents(self) -> tuple[int, int]:
        """Rows and columns of a block; `VerifyException` where these are no extents."""
        extents = tuple(int(b) for b in self.block.get_values())
        if len(extents) != 2 or min(extents) < 1:
            raise VerifyException(f"expected a block of two positive extents, got {extents}")
        return extents[0], extents[1]


def expect_divides(heads: int, width: int) -> None:
    """Raise `VerifyException` where heads do not divide a width."""
    if heads < 1 or width % heads:
        raise VerifyException(f"{heads} heads do not divide width {width}")


def expect_one_of(what: str, name: StringAttr, known: Sequence[str]) -> None:
    """Raise `VerifyException` for a name that is not known."""
    if name.data not in known:
        raise VerifyException(f"unknown {what} {name.data!r}, expected one of {tuple(known)}")


def shape_of_rank(what: str, value: SSAValue, rank: int) -> tuple[int, ...]:
    """The shape of a value; `VerifyException` where it has another rank."""
    shape = tensor_of(value).get_shape()
    if len(shape) != rank:
        raise VerifyException(f"expected {what} of rank {rank}, got shape {shape_text(shape)}")
    return shape


def block_attr(block: Sequence[int]) -> DenseArrayBase[IntegerType]:
    """The attribute of the extents of a block."""
    return DenseArrayBase.from_list(i64, list(block))


def blocks_shape(
    shape: Sequence[int], block: Sequence[int], packing: PackingType
) -> tuple[int, ...]:
    """
    (B, H, S, S) -> (B, H, ceil(S / rows), ceil(S / columns)).

    Rows of masked positions begin a block of their own, so that there can be a row of blocks more.
    """
    rows, columns = (-(-n // b) for n, b in zip(shape[2:], block))
    return (*shape[:2], rows + bool(packing.reads and block[0] > 1), columns)


def scores_shape(packing: PackingType, heads: int) -> tuple[int, int, int, int]:
    """(B, heads, S, S)."""
    batch, length = packing.shape
    return batch, heads, length, length


def per_head(values: Sequence[float]) -> Attribute:
    """The attribute of one value for all heads, or of one a head."""
    if len(values) == 1:
        return FloatAttr(values[0], f64)
    return DenseArrayBase.from_list(f64, list(values))


def head_values(what: str, attribute: Attribute) -> tuple[float, ...]:
    """What `per_head` was made of; `VerifyException` for another attribute."""
    values: tuple[float, ...] = ()
    if isa(attribute, FloatAttr):
        values = (attribute.value.data,)
    elif isa(attribute, DenseArrayBase) and attribute.elt_type == f64:
        values = cast("DenseArrayBase[Float64Type]", attribute).get_values()
    if not values:
        raise VerifyException(f"expected {what} to be one f64 or an array of them, got {attribute}")
    return values


def expect_count(what: str, values: Sequence[float], heads: int) -> None:
    """Raise `VerifyException` where there is neither one value for all heads nor one a head."""
    if len(values) not in (1, heads):
        raise VerifyException(f"{what} has {len(values)} values for {heads} heads")
