"""The dialect `act`."""

from __future__ import annotations

from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition

from heatc.dialects.nn import UnaryOp


@irdl_op_definition
class Relu6Op(UnaryOp):
    """`act.relu6 %x`: x between 0 and 6."""

    name = "act.relu6"


ACT = Dialect("act", [Relu6Op])
