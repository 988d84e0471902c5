"""
Cascaded head pruning (rule `spatten`): importance of heads over layers, and the heads that go on.

A layer adds the magnitudes that its heads put out to the sums of these heads. The sums are a tensor
in DRAM, a row a sequence. A later layer lists the heads of the greatest sums and works on these
heads alone. Sums are exact: all have the binary point of the finest output.

The heads of a list are always among those kept so far, for three reasons. A pruned head puts out 0,
so that its sum stays. The sums of the kept heads only grow. No layer keeps more heads than the
layer before it.
"""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.ir import Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, nn
from heatc.dialects.fixed import QType
from heatc.isa.table import ACC_BITS
from heatc.passes.rewriting import at

ACCUMULATOR_BITS = ACC_BITS - 1
"""Bits of the magnitude of an accumulator, and of the sum of a head."""

CODE_BITS = 15
"""Bits of the greatest magnitude of an output code."""


def ranking_of(op: attn.WeightedValuesOp) -> attn.HeadRankingOp | None:
    """
    The ranking that dense attention takes its heads from, None where it has all of them.

    Raises `PassFailedException` for a gate that is no such ranking, or one that might keep a head
    which a layer before has pruned.
    """
    if op.gate is None:
        return None
    ranking = _step(op.gate)
    if not isinstance(ranking, attn.HeadRankingOp):
        raise PassFailedException(
            f"{at(op)}the machine gates dense attention by attn.head_ranking only"
        )
    if op.gated is not None and op.gated.data != "zero":
        raise PassFailedException(f"{at(op)}heads that are ranked out give 0, not {op.gated.data}")
    if not _cascades(ranking):
        raise PassFailedException(
            f"{at(ranking)}the machine ranks heads by the sums of all layers so "
            f"far only, and keeps no more of them than before, got keep {ranking.keep.value.data}"
        )
    return ranking


def _cascades(ranking: attn.HeadRankingOp) -> bool:
    """Whether the greatest sums are those of heads that were kept so far."""
    added = _step(ranking.importance)
    if not isinstance(added, attn.HeadImportanceOp) or _gate_of(added) is not _step(ranking.gate):
        return False
    before = _step(ranking.gate)
    if before is None:
        return all(_gate_of(op) is None for op in _so_far(added))
    return (
        isinstance(before, attn.HeadRankingOp)
        and _step(before.importance) is _step(added.before)
        and before.keep.value.data >= ranking.keep.value.data
    )


def _step(value: SSAValue | None) -> Operation | None:
    """The step that computes a value, of this attention or of one before."""
    owner = None if value is None else source_of(value).owner
    return owner if isinstance(owner, Operation) else None


def source_of(value: SSAValue) -> SSAValue:
    """What a step reads, where it was computed: in an attention before, or in the function."""
    return attn.inside(attn.outside(value))


def _gate_of(op: attn.HeadImportanceOp) -> Operation | None:
    """The gate of the attention whose output counts."""
    layer = _step(op.x)
    return _step(layer.gate) if isinstance(layer, attn.WeightedValuesOp) else None


def _so_far(op: attn.HeadImportanceOp) -> Iterator[attn.HeadImportanceOp]:
    """The sums that this one adds to, itself first."""
    found: Operation | None = op
    while isinstance(found, attn.HeadImportanceOp):
        yield found
        found = _step(found.before)


def importance_of(op: attn.WeightedValuesOp) -> attn.HeadImportanceOp | None:
    """What adds an attention's output to the sums of its heads, if a layer behind it ranks them."""
    users = (use.operation for use in attn.readers(op.result))
    found = (user for user in users if isinstance(user, attn.HeadImportanceOp))
    return next((user for user in found if _is_ranked(user)), None)


def _is_ranked(op: attn.HeadImportanceOp) -> bool:
    users = [use.operation for use in attn.readers(op.result)]
    return any(
        isinstance(user, attn.HeadRankingOp)
        or (isinstance(user, attn.HeadImportanceOp) and _is_ranked(user))
        for user in users
    )


def sum_point(op: attn.HeadImportanceOp) -> int:
    """The binary point of all sums of heads of a function: that of the finest output."""
    function = op.get_toplevel_object()
    return max(_point(one) for one in function.walk() if isinstance(one, attn.HeadImportanceOp))


def sum_shift(op: attn.HeadImportanceOp) -> int:
    """
    How many bits an output lies above the sums.

    Raises `PassFailedException` where the sums might not fit an accumulator.
    """
    point, most = sum_point(op), 0
    _, length = attn.packing_of(op.packing).shape
    for one in _so_far(op):
        dim = nn.shape_of(one.x)[-1] // one.heads.value.data
        most += (length * dim) << (CODE_BITS + point - _point(one))
    if most >= 1 << ACCUMULATOR_BITS:
        raise PassFailedException(
            f"{at(op)}the importance of a head may reach 2^{most.bit_length()} at "
            f"binary point {point}, accumulators end at 2^{ACCUMULATOR_BITS}"
        )
    return point - _point(op)


def _point(op: attn.HeadImportanceOp) -> int:
    element = nn.element_of(op.x)
    if not isinstance(element, QType):
        raise PassFailedException(f"{op.x.type} has no binary point: run assign-fixed-point first")
    return element.point.data
