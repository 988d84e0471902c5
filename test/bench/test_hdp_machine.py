"""bench/support/machine/hdp_machine.py: comparison with the PyTorch form, and where cycles and energy go."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import safetensors.torch
import torch
import transformers

from bench.support import programs
from bench.support.data import texts as data
from bench.support.machine import hdp_machine
from bench.support.machine.hdp_machine import Cost
from bench.support.machine.setup import PRESETS
from bench.support.machine.watch import attention_joules, measure
from heatc.backends.hdp import open_program
from heatc.isa.table import Engine
from heatc.rules import make_rule, options_of
from heatc.tuning.common.plan_data import plan_data
from oracle import rules
from oracle.encoder import Encoder

pytestmark = pytest.mark.torch

ROWS = [[5, 9, 3], [7, 1, 8, 2, 6, 4, 4], [4, 4, 4, 9], [1, 2, 3, 4, 5, 6, 7, 8], [2, 9, 11]]
CHOSEN = [rules.ours(0.2, (0.0, 1e6)), rules.ours((0.3, 0.1), 0.0)]
LENGTH = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with two layers of two heads and random weights, as a folder."""
    torch.manual_seed(0)
    config: Any = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        vocab_size=12, max_position_embeddings=16,
    )  # fmt: skip
    made: Any = transformers.BertForSequenceClassification(config)
    state = {name: (4 * tensor).contiguous() for name, tensor in made.state_dict().items()}
    folder = tmp_path_factory.mktemp("model")
    config.architectures = ["BertForSequenceClassification"]
    safetensors.torch.save_file(state, folder / "model.safetensors")
    config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rules of CHOSEN as a plan."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    values = [((0.2,), (0.0, 1e6)), ((0.3, 0.1), (0.0,))]
    found = {
        f"bert.encoder.layer.{layer}.attention.self": make_rule("ours", {"rho_b": r, "tau_h": t})
        for layer, (r, t) in enumerate(values)
    }
    path.write_text(json.dumps(plan_data(found)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def program(model: Path, plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier with the plan, for two sentences."""
    path = tmp_path_factory.mktemp("program") / "planned.hdp"
    shapes = hdp_machine.padded([[0]] * 2, LENGTH)
    return programs.compile_model(model, path, shapes, "--target=hdp-edge", f"--plan={plan}")


def test_plans_are_read_for_the_pytorch_form(plan: Path):
    assert hdp_machine.rules_of(plan, 3) == [*CHOSEN, rules.Rule()]


@torch.no_grad()
def test_programs_agree_with_the_form_of_their_own_rules_alone(model: Path, program: Path):
    points = programs.points(program)
    same = Encoder(model, points, CHOSEN)
    assert hdp_machine.agreement(program, same, ROWS, LENGTH) == [""] * len(ROWS)
    first, second = "encoder.layer.0.attention.self", "encoder.layer.1.attention.self"
    for other, message in (
        ([rules.ours(0.9, (0.0, 1e6)), CHOSEN[1]], f"mask of bert.{first}"),
        ([rules.ours(0.2, (1e6, 0.0)), CHOSEN[1]], f"gate of bert.{first}"),
        ([CHOSEN[0], rules.ours((0.3, 0.1), 1e6)], f"gate of bert.{second}"),
    ):
        found = hdp_machine.agreement(program, Encoder(model, points, other), ROWS, LENGTH)
        assert message in found
    coarse = {**points, f"bert.{first}.scores": points[f"bert.{first}.scores"] - 8}
    found = hdp_machine.agreement(program, Encoder(model, coarse, CHOSEN), ROWS, LENGTH)
    assert f"codes of bert.{first}" in found


@torch.no_grad()
@pytest.mark.parametrize("target", PRESETS)
def test_programs_of_spatten_agree(model: Path, tmp_path: Path, target: str):
    """Heads that the second layer prunes are each sentence's own; a gate that differs is found."""
    shapes = hdp_machine.padded([[0]] * 2, LENGTH)
    options = (f"--target={target}", "--hdp-rule=spatten", "--ratio=0.3")
    path = programs.compile_model(model, tmp_path / "spatten.hdp", shapes, *options)
    points = programs.points(path)
    same = Encoder(model, points, rules.Rule("spatten", ratio=0.3))
    assert hdp_machine.agreement(path, same, ROWS, LENGTH) == [""] * len(ROWS)
    gates = np.array([heads[1].tolist() for heads in same(ROWS).heads])
    assert 0 < gates[:, 0].sum() < len(ROWS)
    other = Encoder(model, points, rules.Rule("spatten", ratio=0.0))
    second = "gate of bert.encoder.layer.1.attention.self"
    assert hdp_machine.agreement(path, other, ROWS, LENGTH) == [second] * len(ROWS)


@torch.no_grad()
@pytest.mark.parametrize("target", PRESETS)
@pytest.mark.parametrize(
    ("options", "rule", "other"),
    [
        (
            {"density": 0.4, "finer": 2, "block": (1, 2)},
            rules.Rule("topk", finer=2, density=0.4, block=(1, 2)),
            rules.Rule("topk", finer=2, density=0.6, block=(1, 2)),
        ),
        (
            {"alpha": (0.1, -0.2)},
            rules.Rule("energon", alpha=(0.1, -0.2)),
            rules.Rule("energon", alpha=(0.1, 0.9)),
        ),
        (
            {"threshold": 0.12},
            rules.Rule("sanger", threshold=0.12),
            rules.Rule("sanger", threshold=0.4),
        ),
        (
            {"rho_b": 0.2, "block": (4, 4)},
            dataclasses.replace(rules.paper(0.2), block=(4, 4)),
            dataclasses.replace(rules.paper(0.2), block=(2, 4)),
        ),
    ],
)
def test_programs_of_other_rules_agree(
    model: Path, tmp_path: Path, target: str, options: Any, rule: rules.Rule, other: rules.Rule
):
    """Masks and codes of every layer; those of another setting differ."""
    names = [f"bert.encoder.layer.{layer}.attention.self" for layer in range(2)]
    made = dict.fromkeys(names, make_rule(rule.name, options))
    (tmp_path / "plan.json").write_text(json.dumps(plan_data(made)), encoding="utf-8")
    shapes = hdp_machine.padded([[0]] * 2, LENGTH)
    flags = (f"--target={target}", f"--plan={tmp_path / 'plan.json'}")
    path = programs.compile_model(model, tmp_path / "program.hdp", shapes, *flags)
    assert hdp_machine.rules_of(tmp_path / "plan.json", 2) == [rule] * 2
    points = programs.points(path)
    found = hdp_machine.agreement(path, Encoder(model, points, rule), ROWS, LENGTH)
    assert found == [""] * len(ROWS)
    if rule.block == other.block:
        found = hdp_machine.agreement(path, Encoder(model, points, other), ROWS, LENGTH)
        assert f"mask of {names[0]}" in found


@pytest.mark.model
@torch.no_grad()
def test_every_rule_on_the_real_model(tmp_path: Path):
    """MiniLM with a random classifier, another rule in each layer, on real sentences."""
    try:
        source = data.model_folder()
    except data.MissingError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    loaded: Any = transformers.BertForSequenceClassification
    loaded.from_pretrained(source).save_pretrained(tmp_path / "model")
    chosen = [
        rules.Rule("topk", density=0.3, finer=2, block=(4, 4)),
        rules.Rule("energon", alpha=(0.0, 0.1)),
        rules.Rule("sanger", threshold=0.01),
        dataclasses.replace(rules.ours(0.1), block=(1, 1)),
        rules.Rule("topk", density=0.2, finer=3),
        dataclasses.replace(rules.paper(0.1), block=(2, 4)),
    ]
    made = {
        f"bert.encoder.layer.{i}.attention.self": make_rule(
            rule.name, {name: getattr(rule, name) for name in options_of(rule.name)}
        )
        for i, rule in enumerate(chosen)
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan_data(made)), encoding="utf-8")
    rows = [[int(i) for i in ids] for ids in data.token_ids(data.EXAMPLES, 32)[:4]]
    shapes = hdp_machine.padded([[0]] * 2, 32)
    flags = ("--target=hdp-edge", f"--plan={tmp_path / 'plan.json'}")
    path = programs.compile_model(tmp_path / "model", tmp_path / "p.hdp", shapes, *flags)
    encoder = Encoder(tmp_path / "model", programs.points(path), chosen)
    assert hdp_machine.agreement(path, encoder, rows, 32) == [""] * len(rows)


@torch.no_grad()
def test_predictions_are_in_order_and_kept(model: Path, program: Path, tmp_path: Path):
    expected = Encoder(model, programs.points(program), CHOSEN)(ROWS).logits.numpy()
    for _ in range(2):
        logits, _ = hdp_machine.predict(program, ROWS, LENGTH, tmp_path)
        np.testing.assert_array_equal(logits, expected)
    (path,) = tmp_path.iterdir()
    np.save(path, np.load(path) + 1)
    logits, _ = hdp_machine.predict(program, ROWS, LENGTH, tmp_path)
    np.testing.assert_array_equal(logits, expected + 1)


def test_energy_by_unit_and_instruction_is_that_of_attention(program: Path):
    made = open_program(program)
    found = measure(made, hdp_machine.padded(ROWS[:2], LENGTH))
    pairs = {"x": (made, found)}
    total = 1e6 * attention_joules(found)
    units = {str(line["unit"]): float(str(line["x"])) for line in hdp_machine.by_unit(pairs)}
    assert sum(units.values()) == pytest.approx(total, abs=0.05)
    energy = hdp_machine.by_instruction(pairs, cycles=False)
    leakage = units["leakage of all units"]
    assert sum(float(str(e["x"])) for e in energy) == pytest.approx(total - leakage, abs=1)
    cycles = hdp_machine.by_instruction(pairs, cycles=True)
    engines = {str(e["engine"]) for e in cycles}
    assert {"pe", "se", "adder", "softmax", "dma"} <= engines
    pe = sum(float(str(e["x"])) for e in cycles if e["engine"] == "pe")
    busy = float(found.watch.busy[Engine.PE].mean())
    assert pe == pytest.approx(busy, abs=1)


def test_net_sparsity_counts_all_blocks_of_a_pruned_head(program: Path):
    inputs = hdp_machine.padded([ROWS[3]] * 2, LENGTH)
    made = open_program(program)
    masks = hdp_machine.simulate(made, inputs, masks=True).masks
    first, second = (f"mask/bert.encoder.layer.{i}.attention.self" for i in range(2))
    kept = masks[first][:, 0].sum() + masks[second].sum()
    assert 0 < kept < masks[first].size
    assert hdp_machine.net_sparsity(made, inputs) == 1 - kept / (2 * masks[first].size)


def test_costs_of_a_deeper_model():
    found = Cost(100, 10, 1.0).deeper(Cost(130, 15, 1.5), 12)
    assert found == Cost(100 + 11 * 30, 10 + 11 * 5, 1.0 + 11 * 0.5)
