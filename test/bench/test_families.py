"""bench/families.py: what it judges right, refused and wrong, on planted models and programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from bench import families
from bench.support.differential.build import Compiled, Rounding
from bench.support.families import heat, judge, pruned, summary, tasks
from bench.support.families.entry import (
    BATCH,
    LENGTH,
    MASKS,
    VOCABULARY,
    WIDTH,
    Arrays,
    Entry,
    kept,
    padded_tokens,
    token_inputs,
)

pytestmark = pytest.mark.torch


class Tokens(torch.nn.Module):
    """Embedded tokens through a function."""

    def __init__(self, last: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.table, self.last = torch.nn.Embedding(VOCABULARY, WIDTH), last

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.last(self.table(input_ids))


def entry(last: Callable[[torch.Tensor], torch.Tensor] = torch.relu) -> Entry:
    inputs = token_inputs(mask=False)
    return Entry("planted", "tokens", lambda _: Tokens(last), inputs, routes=("archive",))


def program(padding: str = "computed") -> Compiled:
    return Compiled(lambda inputs: inputs, Rounding(0), {"output": padding})


def found(want: Arrays, got: Arrays, target: str, padding: str = "computed") -> judge.Found:
    """The comparison of planted outputs under holes."""
    return judge.compared(entry(), want, got, kept("holes"), program(padding), target)


def output() -> Arrays:
    random = np.random.RandomState(0)
    return {"output": random.standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32)}


@pytest.mark.parametrize(("got", "right"), [(0.075, True), (0.095, False), (1.04, True)])
def test_a_short_vector_may_be_as_far_off_as_one_of_zero(got: float, right: bool) -> None:
    want = np.full((BATCH, LENGTH, 1), 0.067 if got < 1 else 1.0, np.float32)
    verdict = found({"output": want}, {"output": np.full_like(want, got)}, "hdp")
    assert (verdict.message == "") is right


# ---- Planted models ------------------------------------------------------------------------------


def test_a_model_that_compiles_is_right_on_both_targets() -> None:
    verdicts = judge.judge(entry(), "eager", "archive")
    assert [(v.target, v.kind, v.message) for v in verdicts] == [
        ("numpy", "right", ""),
        ("hdp", "right", ""),
    ]


def test_an_op_that_heatc_lacks_is_refused_with_its_message() -> None:
    verdicts = judge.judge(entry(torch.special.bessel_j0), "eager", "archive")
    assert {v.kind for v in verdicts} == {"refused"}
    assert all("bessel_j0" in v.message for v in verdicts)


def test_a_crash_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> Compiled:
        raise KeyError("planted")

    monkeypatch.setattr(judge, "compiled", crash)
    verdicts = judge.judge(entry(), "eager", "archive")
    assert [(v.kind, v.message) for v in verdicts] == [("wrong", "KeyError: 'planted'")] * 2


def test_a_program_that_computes_something_else_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    real = judge.compiled

    def spoiled(*arguments: object) -> Compiled:
        built = real(*arguments)  # pyright: ignore[reportArgumentType]

        def run(inputs: Arrays) -> Arrays:
            outputs = built.run(inputs)
            outputs["output"][1, 3] *= -1
            return outputs

        return built._replace(run=run)

    monkeypatch.setattr(judge, "compiled", spoiled)
    verdicts = judge.judge(entry(), "eager", "archive")
    assert [v.kind for v in verdicts] == ["wrong", "wrong"]
    assert "differs by" in verdicts[0].message
    assert "cosine" in verdicts[1].message


def test_a_program_that_refuses_what_it_was_compiled_for_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(inputs: Arrays) -> Arrays:
        raise ValueError("planted")

    built = program()._replace(run=refuses)
    monkeypatch.setattr(judge, "compiled", lambda *_: built)
    verdicts = judge.judge(entry(), "eager", "archive")
    assert {v.kind for v in verdicts} == {"wrong"}
    assert all("planted" in v.message for v in verdicts)


# ---- Planted outputs -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", judge.TARGETS)
def test_pytorchs_own_output_is_right(target: str) -> None:
    result = found(output(), output(), target)
    assert result.cosine == pytest.approx(1)
    assert result == judge.Found("", 0.0, result.cosine)


def test_numpy_is_held_to_an_absolute_bound() -> None:
    got = output()
    got["output"][2, 4, 5] += 2e-4
    assert found(output(), got, "numpy").message.startswith("output: differs by 0.0002")
    assert not found(output(), got, "hdp").message


def test_hdp_is_held_to_each_tokens_direction_and_length() -> None:
    turned, longer = output(), output()
    turned["output"][0, 1, :8] *= -1
    longer["output"][0, 1] *= 1.1
    assert "cosine" in found(output(), turned, "hdp").message
    assert "length" in found(output(), longer, "hdp").message


def test_hdp_is_0_where_pytorch_is() -> None:
    want = output()
    want["output"][1, 2] = 0
    assert "where PyTorch has 0" in found(want, output(), "hdp").message


@pytest.mark.parametrize("target", judge.TARGETS)
def test_padding_is_0_where_the_program_says_so_and_pytorchs_otherwise(target: str) -> None:
    zeroed = output()
    zeroed["output"][~kept("holes")] = 0
    assert not found(output(), zeroed, target, "zero").message
    assert found(output(), zeroed, target).message
    assert "not 0 at masked" in found(output(), output(), target, "zero").message


def test_no_output_is_0_for_a_mask_that_is_no_padding() -> None:
    zeroed = output()
    zeroed["output"][~kept("holes")] = 0
    other = dataclasses.replace(entry(), zero=False)
    result = judge.compared(other, output(), zeroed, kept("holes"), program("zero"), "numpy")
    assert "no input is a padding mask" in result.message


@pytest.mark.parametrize("target", judge.TARGETS)
def test_what_is_not_finite_is_not_finite_on_both_sides(target: str) -> None:
    missing = output()
    missing["output"][0, 0, 0] = np.nan
    assert "not finite" in found(output(), missing, target).message
    assert "not finite" in found(missing, output(), target).message


def test_names_shapes_and_dtypes_are_pytorchs() -> None:
    a = output()["output"]
    assert "names" in found({"output": a}, {"other": a}, "numpy").message
    assert "names" in found({"output": a}, {"output": a, "more": a}, "numpy").message
    assert "shape" in found({"output": a}, {"output": a[:, :1]}, "numpy").message
    assert "dtype" in found({"output": a}, {"output": a.astype(np.float64)}, "numpy").message


# ---- Factorised ----------------------------------------------------------------------------------

RIGHT = {"layers": 2, "cosine": 0.99999, "parameters left": 0.5, "stored once": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "no layer"),
        ({"cosine": 0.9998}, "0.999800"),
        ({"parameters left": 0.6}, "0.6"),
        ({"stored once": False}, "more than each factor once"),
    ],
)
def test_a_factorised_family_is_held_to_each_figure(change: dict[str, float], message: str) -> None:
    assert heat.verdict(RIGHT) == ("right", "")
    kind, found = heat.verdict({**RIGHT, **change})
    assert kind == "wrong"
    assert message in found


def test_a_layer_that_is_used_twice_is_counted_once() -> None:
    chosen = {"format": "low-rank", "shape": "32|32", "parameters": 512}
    line = json.dumps({"pass": "heat-decompose", "layer": "a", "chosen": chosen})
    other = json.dumps({"pass": "verify", "layer": "a", "chosen": {}})
    assert heat.factors([line, other, line]) == {"a": (1024, 512)}


# ---- Pruned --------------------------------------------------------------------------------------


def test_a_pruned_attention_is_the_oracles_and_of_another_threshold_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = pruned.compared("causal", "paper")
    assert (right["kind"], right["identical"]) == ("right", right["attentions"])
    assert right["blocks pruned, %"] > 20
    options, rule = pruned.RULES["paper"]
    other = dataclasses.replace(rule, rho_b=0.2)
    monkeypatch.setitem(pruned.RULES, "paper", (options, other))  # pyright: ignore[reportArgumentType]
    wrong = pruned.compared("causal", "paper")
    assert wrong["kind"] == "wrong"
    assert wrong["message"].startswith("mask of bert.encoder.layer.0")


def test_an_attention_is_known_by_its_path_without_a_number() -> None:
    assert pruned.plain("bert.encoder.layer.0.attention.self.1") == (
        "bert.encoder.layer.0.attention.self"
    )
    assert pruned.plain("bert.encoder.layer.0") == "bert.encoder.layer.0"


# ---- The zoo -------------------------------------------------------------------------------------


def test_paddings_are_what_their_names_say() -> None:
    assert kept("none").all()
    assert all((np.diff(row.astype(int)) <= 0).all() for row in kept("right"))
    assert all((np.diff(row.astype(int)) >= 0).all() for row in kept("left"))
    assert (np.abs(np.diff(kept("holes").astype(int))).sum(axis=1) > 1).any()
    assert all(kept(mask).any(axis=1).all() for mask in MASKS)
    inputs = padded_tokens(token_inputs(), kept("left"))
    assert (inputs["attention_mask"] == kept("left")).all()


def test_every_name_is_one_models_and_every_route_has_a_task() -> None:
    entries = families.entries()
    whole = families.family_tasks(list(entries.values()))
    assert len(set(whole)) == len(whole)
    assert sum(len(e.implementations) * len(e.routes) for e in entries.values()) == len(whole)


# ---- What verdicts come to -----------------------------------------------------------------------


def verdict(
    kind: judge.Kind, target: str, mask: str = "none", message: str = ""
) -> dict[str, object]:
    values = ("BERT", "base", "eager", "archive", target, mask, kind, message)
    return dataclasses.asdict(judge.Verdict(*values))  # pyright: ignore[reportArgumentType]


def test_a_wrong_case_fails_its_row_and_is_named() -> None:
    cases = [
        verdict("right", "numpy"),
        verdict("wrong", "numpy", "left", "differs by 0.3"),
        verdict("refused", "hdp", "left", "no unit"),
    ]
    held = {row.what.rpartition(": ")[2]: row.holds for row in summary.rows(cases)}
    assert held["wrong [numpy]"] is False
    assert held["wrong [hdp]"] is True
    assert not any(row.holds for row in summary.rows(cases) if row.sense == ">=")
    assert summary.faults(cases, "wrong") == [
        {"message": "differs by N", "cases": 1, "targets": "numpy", "models": "BERT: base"}
    ]
    assert summary.heads(cases) == [
        {"family": "BERT", "head": "base", "numpy": "1 of 2, not mask left", "hdp": "0 of 1"}
    ]


def test_a_state_goes_on_under_its_key_and_begins_anew_under_another(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    done: list[str] = []

    def work(task: str) -> list[dict[str, object]]:
        done.append(task)
        return [{"kind": "right"}]

    tasks.run(["a", "b"], work, tasks.State(path, "1"), 0)
    tasks.run(["a", "b", "c"], work, tasks.State(path, "1"), 0)
    assert done == ["a", "b", "c"]
    tasks.run(["a"], work, tasks.State(path, "2"), 0)
    assert done == ["a", "b", "c", "a"]
