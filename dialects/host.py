"""
The `host` dialect: work that the co-processor has no unit for.

A `host.task` is one piece of host work between two co-processor tasks. Operands come in as they
lie in memory (codes, int64 ids, float32 tables), results go out the same way; inside, everything
is float64 once `assign-fixed-point` ran, and is rounded once where it leaves.
"""

from __future__ import annotations

from xdsl.dialects.utils import AbstractYieldOperation
from xdsl.ir import Attribute, Dialect
from xdsl.irdl import irdl_op_definition, traits_def
from xdsl.traits import IsTerminator, Pure, SingleBlockImplicitTerminator

from heatc.dialects.outlined import OutlinedOp


@irdl_op_definition
class YieldOp(AbstractYieldOperation[Attribute]):
    """`host.yield %y : tensor<?x4xf64>`: the results of the task."""

    name = "host.yield"
    traits = traits_def(IsTerminator(), Pure())


@irdl_op_definition
class TaskOp(OutlinedOp):
    """
    `%y = host.task (%a = %x : tensor<?x4xf32>) -> (tensor<?x4xf32>) { ... host.yield ... }`.

    The region sees its operands only (as `%a`), not the values around it.
    """

    name = "host.task"
    traits = traits_def(Pure(), SingleBlockImplicitTerminator(YieldOp))


HOST = Dialect("host", [TaskOp, YieldOp])
