"""Pipelines as text, and what can watch them."""

from __future__ import annotations

from pathlib import Path

import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser
from xdsl.passes import PassPipeline
from xdsl.utils.arg_spec import parse_pipeline
from xdsl.utils.exceptions import ArgSpecParseError

from heatc.api import Compilation, make_context
from heatc.kinds import IR
from heatc.passes.effect import Effect, effect_of
from heatc.passes.insert_hdp import InsertHdpPass
from heatc.pipeline import DumpPhases, PrintAfter, Timing, build, run_passes
from heatc.plan import Plan
from heatc.rules import RULE_NAMES, make_rule
from heatc.targets import PATHS, RAISE, Hdp, Numpy, Options, pipeline_text
from heatc.universe import HEATC_UNIVERSE
from heatc.weights import WeightStore

TEXT = """
func.func @main(%x: tensor<3x4xf32>, %w: tensor<5x4xf32>) -> tensor<3x5xf32> {
  %d = nn.tanh %x : (tensor<3x4xf32>) -> tensor<3x4xf32>
  %y = nn.linear %x, %w : (tensor<3x4xf32>, tensor<5x4xf32>) -> tensor<3x5xf32>
  func.return %y : tensor<3x5xf32>
}
"""
OPTIONS = [
    Options(Numpy()),
    Options(Numpy(), level=0),
    Options(Hdp("hdp-edge")),
    Options(
        Hdp("my machines/m.yaml"),
        make_rule("paper", {"rho_b": -0.5, "tau_h": 1e-7, "pruned_score": "mean"}),
    ),
    Options(
        Hdp("hdp-server"),
        make_rule("paper", {"rho_b": 0.25, "tau_h": 123456.75, "pruned_score": "neginf"}),
        level=3,
    ),
    *(Options(Hdp("hdp-edge"), make_rule(name, {})) for name in RULE_NAMES),
    Options(Hdp("hdp-edge"), make_rule("ours", {"rho_b": (0.125, -0.5, 0), "tau_h": (1, 2.5)})),
]


def parse(text: str = TEXT) -> ModuleOp:
    return Parser(make_context(), text).parse_module()


@pytest.mark.parametrize("options", OPTIONS)
def test_text_parses_back_to_the_same_passes(options: Options):
    passes = build(pipeline_text(options))
    assert [p.name for p in passes] == [s.name for s in parse_pipeline(pipeline_text(options))]
    assert all(isinstance(effect_of(p), Effect) for p in passes)


@pytest.mark.parametrize("options", OPTIONS[2:])
def test_options_reach_the_passes(options: Options):
    passes = {p.name: p for p in build(pipeline_text(options))}
    rule = passes["insert-hdp"]
    assert isinstance(rule, InsertHdpPass)
    assert rule.one_rule() == options.rule


def test_a_plan_is_applied_before_what_follows_it():
    options = Options(Hdp("hdp-edge"), plan=Plan("plan.json"), heat={"init": ("plain",)})
    text = pipeline_text(options)
    assert text.startswith(f"{','.join(RAISE)},apply-plan,heat-decompose{{init=plain}},")
    assert ",insert-hdp,partition-host," in text
    assert "json" not in text
    compilation = Compilation(options)
    compilation.adopt(parse(), WeightStore({}), "")
    assert compilation.context().plan is options.plan


@pytest.mark.parametrize("name", ["a\rb.yaml", 'a "b".yaml'])
def test_the_machine_of_a_file_is_read_once(name: str, tmp_path: Path):
    file = tmp_path / name
    file.write_text("base: hdp-edge\nname: mine\ncores: 2\n")
    compilation = Compilation(Options(Hdp(str(file))))
    file.unlink()
    assert compilation.hardware is not None
    assert (compilation.hardware.name, compilation.hardware.cores) == ("mine", 2)
    assert "yaml" not in compilation.pipeline


def test_targets():
    numpy, hdp = pipeline_text(Options(Numpy())), pipeline_text(Options(Hdp("hdp-edge")))
    raised = ",".join((*RAISE, *PATHS))
    assert numpy == f"{raised},fuse-projections,dce,fuse-einsums"
    assert pipeline_text(Options(Numpy(), level=0)) == f"{raised},fuse-einsums"
    on_machine = "order-contractions{objective=edp},lower-contractions"
    fused = f"{','.join(RAISE)},{on_machine},fuse-einsums"
    rest = "insert-hdp{rule=none},partition-host,assign-fixed-point,"
    assert hdp.startswith(f"{fused},shape-products,fold-weights,{rest}")


def test_a_longer_search_at_level_three():
    assert "objective=edp search=long" in pipeline_text(Options(Hdp("hdp-edge"), level=3))


def test_factors_come_before_their_paths():
    text = pipeline_text(Options(Numpy(), heat={"ratio": (0.5,), "init": ("plain",)}))
    heat, rest = "heat-decompose{ratio=0.5 init=plain}", ("fuse-projections", "dce", "fuse-einsums")
    assert text == ",".join((*RAISE, heat, *PATHS, *rest))


def test_every_pass_of_the_house_declares_its_effect():
    changing = {
        name
        for name, factory in HEATC_UNIVERSE.all_passes.items()
        if effect_of(factory()()) is not Effect.EXACT  # pyright: ignore
    }
    assert changing >= {"insert-hdp", "assign-fixed-point"}
    assert not changing & {"raise-einsum", "raise-attention", "pack-tokens", "partition-host"}


@pytest.mark.parametrize("text", ["no-such-pass", "insert-hdp{rule=wrong}", "insert-hdp{rho=1}"])
def test_wrong_pipelines(text: str):
    with pytest.raises(ValueError, match=r"no-such-pass|wrong|rho"):
        build(text)


def test_malformed_pipeline():
    with pytest.raises(ArgSpecParseError):
        build("cse,{")


def test_phases_are_dumped(tmp_path: Path):
    folder = tmp_path / "phases"
    run_passes(make_context(), parse(), build("raise-einsum,dce"), [DumpPhases(folder)])
    texts = {path.name: path.read_text() for path in sorted(folder.iterdir())}
    assert list(texts) == ["00-captured.mlir", "01-raise-einsum.mlir", "02-dce.mlir"]
    assert "nn.linear" in texts["00-captured.mlir"]
    assert "einsum.contract" in texts["01-raise-einsum.mlir"]
    assert "nn.tanh" in texts["01-raise-einsum.mlir"]
    assert "nn.tanh" not in texts["02-dce.mlir"]
    for text in texts.values():
        assert IR.line() + str(parse(text)) == text.rstrip("\n")


def test_ir_is_printed_after_named_passes(capsys: pytest.CaptureFixture[str]):
    passes = build("raise-einsum,dce")
    run_passes(make_context(), parse(), passes, [PrintAfter(frozenset({"dce"}))])
    assert capsys.readouterr().err.count("// IR after") == 1
    run_passes(make_context(), parse(), passes, [PrintAfter(frozenset(), everything=True)])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("// IR after") == 2
    assert err.index("raise-einsum") < err.index("IR after dce")


def test_timing_and_progress():
    timing, names = Timing(), list[str]()
    run_passes(make_context(), parse(), build("raise-einsum,dce"), [timing], names.append)
    assert names == ["raise-einsum", "dce"]
    assert [name for name, _ in timing.seconds] == names
    assert all(seconds > 0 for _, seconds in timing.seconds)


def test_the_same_result_as_xdsls_own_driver():
    ours, theirs = parse(), parse()
    passes = build(pipeline_text(Options(Numpy())))
    run_passes(make_context(), ours, passes)
    PassPipeline(passes).apply(make_context(), theirs)
    assert str(ours) == str(theirs)
