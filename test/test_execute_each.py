"""--execute-each: a broken pass is named with the first layer it changes; a correct one is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from heatc.api import Compilation, make_context
from heatc.capture import Captured, capture_module
from heatc.dialects import attn, nn
from heatc.dialects.einsum import WeightOp
from heatc.dialects.fixed import RequantizeOp
from heatc.errors import VerificationError
from heatc.execute_each import ExecuteEach, packed_level
from heatc.passes.effect import Effect
from heatc.passes.rewriting import module_path, replace_value
from heatc.pipeline import build, run_passes
from heatc.samples import sample_inputs
from heatc.targets import RAISE, Numpy, Options

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MIDDLE = ",".join(RAISE)
TO_HOST = f"{MIDDLE},insert-hdp{{rule=none}},partition-host"


@cache
def model() -> Any:
    torch.manual_seed(5)
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        initializer_range=0.4,
    )
    found = transformers.BertModel._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, weight in found.named_parameters():
            if name.endswith("bias"):
                weight.add_(0.5 * torch.randn(weight.shape))
    return found


def captured() -> Captured:
    shape = (2, 7)
    inputs = {
        "input_ids": torch.zeros(shape, dtype=torch.int64),
        "attention_mask": torch.ones(shape, dtype=torch.int64),
        "token_type_ids": torch.zeros(shape, dtype=torch.int64),
    }
    return capture_module(model(), inputs)


@dataclass(frozen=True)
class BrokenPass(ModulePass):
    """Claims to be exact, and applies a change to the module."""

    name = "broken"
    effect: ClassVar[Effect] = Effect.EXACT
    change: Callable[[ModuleOp], None] = lambda module: None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        self.change(op)


def run(text: str, change: Callable[[ModuleOp], None] | None = None, then: str = "") -> list[str]:
    """Run a pipeline, a change, and more passes under the comparison; the lines it reports."""
    one = captured()
    lines: list[str] = []
    passes = list(build(text))
    if change is not None:
        passes.append(BrokenPass(change))
    if then:
        passes += build(then)

    def machine(module: ModuleOp, inputs: Any) -> dict[str, Any]:
        raise AssertionError("no pass of the middle gives an instruction stream")

    inputs = sample_inputs(one.module)
    packed = packed_level(one.module, passes, one.weights)
    watcher = ExecuteEach(inputs, one.weights, machine, lines.append, packed)
    run_passes(make_context(one.weights), one.module, passes, [watcher])
    return lines


def ops(module: ModuleOp, kind: type[Any], path: str) -> list[Any]:
    return [op for op in module.walk() if isinstance(op, kind) and module_path(op) == path]


def all_of(module: ModuleOp, kind: type[Any]) -> list[Any]:
    return [op for op in module.walk() if isinstance(op, kind)]


def drop_bias(module: ModuleOp) -> None:
    (add,) = ops(module, nn.AddOp, "encoder.layer.1.attention.self.query")
    replace_value(add.result, add.lhs)


def transpose_weight(module: ModuleOp) -> None:
    for op in all_of(module, WeightOp):
        if op.keys == ("encoder.layer.0.attention.output.dense.weight",):
            new = WeightOp(op.keys, op.result.type, [1, 0])
            op.parent.insert_op_before(new, op)
            replace_value(op.result, new.result)


def shift_mask(module: ModuleOp) -> None:
    """The packing of one token fewer at the front: off by one."""
    (packing,) = all_of(module, attn.PackingOp)
    mask = packing.mask
    block = packing.parent
    batch, length = nn.shape_of(mask)
    head = nn.SliceOp(mask, (0, 1), (batch, length - 1))
    tail = nn.SliceOp(mask, (0, 0), (batch, 1))
    shifted = nn.ConcatOp((head.result, tail.result), 1, mask.type)
    block.insert_ops_before([head, tail, shifted], packing)
    packing.operands[0] = shifted.result


def swap_keys_and_values(module: ModuleOp) -> None:
    op = all_of(module, attn.SdpaOp)[0]
    k, v = op.operands[1], op.operands[2]
    op.operands[1], op.operands[2] = v, k


def scale_output(module: ModuleOp) -> None:
    (tanh,) = all_of(module, nn.TanhOp)
    double = nn.AddOp(tanh.result, tanh.result)
    tanh.parent.insert_op_after(double, tanh)
    tanh.result.replace_uses_with_if(double.result, lambda use: use.operation is not double)


@pytest.mark.parametrize(
    ("text", "change", "where"),
    [
        (MIDDLE, drop_bias, "layer encoder.layer.1.attention.output.LayerNorm"),
        (MIDDLE, transpose_weight, "layer encoder.layer.0.attention.output.LayerNorm"),
        (MIDDLE, swap_keys_and_values, "layer encoder.layer.0.attention.output.LayerNorm"),
        (MIDDLE, shift_mask, "layer embeddings.LayerNorm"),
        (MIDDLE, scale_output, "output pooler_output"),
    ],
)
def test_a_broken_pass_is_named(text: str, change: Callable[[ModuleOp], None], where: str):
    with pytest.raises(VerificationError) as error:
        run(text, change, "dce")
    assert error.value.message.startswith(f"pass 'broken' changed {where}: max difference")
    assert error.value.place == "--execute-each"
    assert error.value.exit_code == 3
    assert "exact pass" in error.value.notes[0]


def test_correct_pipelines_are_green():
    lines = run(f"{TO_HOST},assign-fixed-point")
    assert [line.partition(":")[0] for line in lines] == [
        *RAISE,
        "insert-hdp",
        "partition-host",
        "assign-fixed-point",
    ]
    assert lines[0].startswith("canonicalize: exact, max difference ")
    difference = float(lines[-1].rpartition(" ")[2])
    assert 0 < difference < 0.01


@pytest.mark.parametrize(
    "rule",
    [
        "paper rho-b=0.0",
        "paper rho-b=0.5 pruned-score=neginf",
        "paper rho-b=-0.5 pruned-score=mean",
        "paper rho-b=0.25 tau-h=0.4 pruned-score=int",
        "paper rho-b=0.25,-0.25 tau-h=0.0,0.4 block=1,4",
        "ours rho-b=0.25",
        "ours rho-b=0.25 tau-h=0.5,100.0",
        "ours finer=5 rho-b=0.25,0.5 tau-h=0.2,0.1 gated=mean block=4,4",
        "ours finer=0 importance=abs pruned-score=int tau-h=0.5 gated=zero",
        "topk density=0.5",
        "topk density=0.1 finer=3 pruned-score=mean block=2,1",
        "energon alpha=0.25,-0.25",
        "sanger threshold=0.2",
        "spatten ratio=0.4",
    ],
)
def test_a_rule_is_compared_with_its_reference(rule: str):
    lines = run(f"{MIDDLE},insert-hdp{{rule={rule}}},partition-host,assign-fixed-point")
    report = dict(line.split(": ", 1) for line in lines)
    assert report["insert-hdp"].startswith("changes-values, max difference ")
    # The pruned model really is another one, and its reference agrees all the same.
    assert float(report["insert-hdp"].rpartition(" ")[2]) < 1e-4


def test_a_wrong_rule_is_named(monkeypatch: pytest.MonkeyPatch):
    """Where the ops of the rule do something else, insert-hdp itself is at fault."""
    from heatc.isa import units

    right = units.block_mask
    monkeypatch.setattr(units, "block_mask", lambda theta, rho, among: right(theta, -rho, among))
    with pytest.raises(
        VerificationError, match=r"pass 'insert-hdp' changed layer encoder\.layer\.0"
    ):
        run(f"{MIDDLE},insert-hdp{{rule=paper rho-b=0.5}}")


def test_bad_rounding_is_named(monkeypatch: pytest.MonkeyPatch):
    from heatc.passes.fixing import common

    right = common.point_for
    monkeypatch.setattr(common, "point_for", lambda bound, width: right(bound, width) - 9)
    with pytest.raises(VerificationError, match="'assign-fixed-point': rounding changed"):
        run(f"{TO_HOST},assign-fixed-point")


def test_a_change_of_one_code_after_rounding_is_found():
    def coarser(module: ModuleOp) -> None:
        op = all_of(module, RequantizeOp)[3]
        type_ = op.result.type
        element = type_.element_type
        half = type(element)(element.width.data, element.point.data - 6)
        again = RequantizeOp(op.x, type(type_)(half, type_.get_shape()))
        back = RequantizeOp(again.result, type_)
        op.parent.insert_ops_before([again, back], op)
        replace_value(op.result, back.result)

    with pytest.raises(VerificationError, match="pass 'broken' changed layer"):
        run(f"{TO_HOST},assign-fixed-point", coarser)


def test_nan_is_a_difference():
    def divide(module: ModuleOp) -> None:
        (tanh,) = all_of(module, nn.TanhOp)
        zero = nn.SubOp(tanh.result, tanh.result)
        nothing = nn.DivOp(zero.result, zero.result)
        tanh.parent.insert_ops_after([zero, nothing], tanh)
        new = {zero, nothing}
        tanh.result.replace_uses_with_if(nothing.result, lambda use: use.operation not in new)

    with np.errstate(invalid="ignore"), pytest.raises(VerificationError, match="pooler_output"):
        run(MIDDLE, divide)


MASKS: dict[str, tuple[Any, Callable[[Any, Any], Any]]] = {
    "float > 0.5": (torch.float32, lambda mask, ids: mask > 0.5),
    "~bool": (torch.bool, lambda mask, ids: ~mask),
    "ids != 0": (torch.int64, lambda mask, ids: ids != 0),
    "m > 1": (torch.int64, lambda mask, ids: mask > 1),
    "m < 0": (torch.int64, lambda mask, ids: mask < 0),
}


class Masked(torch.nn.Module):
    """One attention, and the output of its first token where it is pooled."""

    def __init__(self, keep: Callable[[Any, Any], Any], *, pooled: bool):
        super().__init__()
        self.table, self.layer = torch.nn.Embedding(20, 8), torch.nn.Linear(8, 8)
        self.keep, self.pooled = keep, pooled

    def forward(self, ids: Any, mask: Any) -> Any:
        x = self.layer(self.table(ids))[:, None]
        keep = self.keep(mask, ids)[:, None, None, :]
        y = torch.nn.functional.scaled_dot_product_attention(x, x, x, keep)[:, 0].tanh()
        return y[:, 0] if self.pooled else y


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("name", MASKS)
def test_masks_of_any_values_are_right(name: str, pooled: bool, capsys: pytest.CaptureFixture[str]):
    dtype, keep = MASKS[name]
    inputs = {"ids": torch.ones((3, 6), dtype=torch.int64), "mask": torch.ones((3, 6)).to(dtype)}
    compilation = Compilation(Options(Numpy()), execute_each=True)
    compilation.capture_module(Masked(keep, pooled=pooled).eval(), inputs)
    compilation.run()
    assert "pack-tokens: exact, max difference" in capsys.readouterr().err
