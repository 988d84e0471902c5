"""
`attn.pruned`: an attention whose rule is one op.

A rule stays whole from `insert-hdp` to the machine: its steps, which docs/design/rules.md defines, stand in
the region of one op. A pass that has nothing to do with attention meets that op alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from xdsl.dialects.utils import AbstractYieldOperation
from xdsl.ir import Attribute, BlockArgument, Operation, OpResult, SSAValue, Use
from xdsl.irdl import irdl_op_definition, opt_prop_def, prop_def, traits_def
from xdsl.traits import IsTerminator, Pure, SingleBlockImplicitTerminator
from xdsl.utils.exceptions import VerifyException

from heatc.dialects.attn_rule import RuleAttr
from heatc.dialects.attn_steps import StepOp
from heatc.dialects.outlined import OutlinedOp


@irdl_op_definition
class YieldOp(AbstractYieldOperation[Attribute]):
    """`attn.yield %o : tensor<?x4xf32>`: the results of the attention."""

    name = "attn.yield"
    traits = traits_def(IsTerminator(), Pure())


@irdl_op_definition
class PrunedOp(OutlinedOp):
    """
    `%o = attn.pruned (%q = %x : tensor<?x4xf32>, ...) -> (tensor<?x4xf32>) attributes {rule = ...} {...}`.

    The region sees its operands only (as `%q`). The first result is what the attention puts out,
    (tokens, width). Other results are what the attentions behind it read, such as importances of heads.

    Attributes:
        rule: the rule that wrote the steps, with its options, for who reads the program.
        plan: the tiles of the attention, once they are chosen.
    """

    name = "attn.pruned"
    rule = prop_def(RuleAttr)
    plan = opt_prop_def(Attribute)
    traits = traits_def(Pure(), SingleBlockImplicitTerminator(YieldOp))

    @property
    def output(self) -> SSAValue:
        """What the attention puts out."""
        return self.outputs[0]

    @property
    def steps(self) -> Iterator[Operation]:
        """The ops of the region, in order."""
        return iter(self.body.block.ops)

    def verify_(self) -> None:
        super().verify_()
        if not self.outputs:
            raise VerifyException(f"{self.name} has no result: an attention puts out something")
        for op in self.steps:
            if not isinstance(op, StepOp | YieldOp):
                raise VerifyException(f"expected steps of an attention, got {op.name}")


def inside(value: SSAValue) -> SSAValue:
    """What the region of an `attn.pruned` yields for its result; any other value itself."""
    owner = value.owner
    if isinstance(value, OpResult) and isinstance(owner, PrunedOp):
        return owner.yielded[value.index]
    return value


def outside(value: SSAValue) -> SSAValue:
    """What is given to an `attn.pruned` for its block argument; any other value itself."""
    if isinstance(value, BlockArgument) and isinstance(owner := value.owner.parent_op(), PrunedOp):
        return owner.inputs[value.index]
    return value


def readers(value: SSAValue) -> Iterator[Use]:
    """The uses of a value: where it is given to an `attn.pruned` or yielded, those behind."""
    for use in value.uses:
        op = use.operation
        if isinstance(op, PrunedOp):
            yield from readers(op.body.block.args[use.index])
        elif isinstance(op, YieldOp):
            attention = op.parent_op()
            assert isinstance(attention, PrunedOp)
            yield from readers(attention.outputs[use.index])
        else:
            yield use
