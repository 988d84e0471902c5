"""What the verifier of pass pipelines sees: every change, and all there is at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from xdsl.context import Context
from xdsl.dialects import func
from xdsl.dialects.builtin import FunctionType, ModuleOp, TensorType, UnitAttr, f32
from xdsl.ir import Block, Operation
from xdsl.parser import Parser
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import VerifyException

from heatc.api import make_context
from heatc.dialects import nn
from heatc.ir_errors import explain
from heatc.pipeline import build, run_passes
from heatc.verifier import Verifier

TEXT = """
func.func @main(%x: tensor<2x3xf32>, %w: tensor<4x3xf32>) -> tensor<2x4xf32> {
  %y = nn.tanh %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %z = nn.linear %y, %w : (tensor<2x3xf32>, tensor<4x3xf32>) -> tensor<2x4xf32>
  func.return %z : tensor<2x4xf32>
}
"""


@pytest.fixture
def module() -> ModuleOp:
    found = Parser(make_context(), TEXT).parse_module()
    assert isinstance(found, ModuleOp)
    return found


def block_of(module: ModuleOp) -> Block:
    main = module.body.block.first_op
    assert main is not None
    return main.regions[0].block


def wrong_operand(module: ModuleOp) -> None:
    _, linear, _ = block_of(module).ops
    linear.operands[0] = linear.operands[1]


def wrong_type_of_operand(module: ModuleOp) -> None:
    tanh, *_ = block_of(module).ops
    Rewriter.replace_value_with_new_type(tanh.operands[0], TensorType(f32, [7, 7]))


def wrong_result(module: ModuleOp) -> None:
    tanh, *_ = block_of(module).ops
    Rewriter.replace_value_with_new_type(tanh.results[0], TensorType(f32, [3, 2]))


def wrong_property(module: ModuleOp) -> None:
    main = module.body.block.first_op
    assert main is not None
    main.properties["function_type"] = FunctionType.from_lists(block_of(module).arg_types, [f32])


def unknown_property(module: ModuleOp) -> None:
    tanh, *_ = block_of(module).ops
    tanh.properties["wrong"] = f32


def no_terminator(module: ModuleOp) -> None:
    *_, last = block_of(module).ops
    last.detach()


def empty_block(module: ModuleOp) -> None:
    for op in reversed(list(block_of(module).ops)):
        op.detach()


def erased_operand(module: ModuleOp) -> None:
    tanh, *_ = block_of(module).ops
    tanh.detach()
    tanh.erase(safe_erase=False)


BREAKS = (
    wrong_operand,
    wrong_type_of_operand,
    wrong_result,
    wrong_property,
    unknown_property,
    no_terminator,
    empty_block,
    erased_operand,
)


@dataclass(frozen=True)
class BreakPass(ModulePass):
    """Breaks the module in one way."""

    name = "break"
    change: Callable[[ModuleOp], None]

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        self.change(op)


@pytest.mark.parametrize("change", BREAKS)
def test_every_break_is_seen_after_its_pass(module: ModuleOp, change: Callable[[ModuleOp], None]):
    ran = list[str]()
    passes = [*build("canonicalize"), BreakPass(change), *build("dce")]
    with pytest.raises((VerifyException, ValueError)) as seen:
        run_passes(make_context(), module, passes, progress=ran.append)
    assert ran == ["canonicalize", "break"]
    with pytest.raises(seen.type):
        module.verify()
    if isinstance(seen.value, VerifyException):
        found = explain(seen.value)
        assert found is not None
        assert "in the pass break" in found.notes


def test_ops_as_they_were_are_not_asked_until_everything_is(
    module: ModuleOp, monkeypatch: pytest.MonkeyPatch
):
    asked = list[str]()
    for kind in (nn.TanhOp, nn.LinearOp, func.ReturnOp):

        def note(op: Operation, before: Callable[[Any], None] = kind.verify_) -> None:
            asked.append(op.name)
            before(op)

        monkeypatch.setattr(kind, "verify_", note)
    names = ["nn.tanh", "nn.linear", "func.return"]
    verifier = Verifier(module)
    for expected in (names, names[-1:]):
        verifier.changed()
        assert asked == expected
        asked.clear()
    _, linear, _ = block_of(module).ops
    linear.attributes["note"] = UnitAttr()
    verifier.changed()
    assert asked == names[1:]
    asked.clear()
    verifier.everything()
    assert asked == names
