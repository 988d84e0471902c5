"""The example packages of docs/extending/: listed, compiled with, and run."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extending_kit import House
from numpy.typing import NDArray
from safetensors.numpy import load_file


@pytest.mark.parametrize(
    ("what", "name", "package"),
    [
        ("rules", "one-round", "heatc-one-round 0.1"),
        ("formats", "ring", "heatc-ring 0.1"),
        ("targets", "small-chip", "heatc-small-chip 0.1"),
        ("targets", "torch-source", "heatc-torch-source 0.1"),
        ("passes", "tanh-gelu", "heatc-tanh-gelu 0.1"),
        ("passes", "lower-act", "heatc-relu6 0.1"),
    ],
)
def test_listed(house: House, what: str, name: str, package: str):
    rows = {line.split()[0]: line for line in house.run("main", f"--list-{what}").splitlines()}
    _, _, summary = rows[name].partition(package)
    assert len(summary.strip()) > 20
    own = {"rules": "paper", "formats": "tt", "targets": "numpy", "passes": "insert-hdp"}[what]
    assert rows[own].split()[1] == "heatc"


def test_a_pruning_rule(house: House, dense: NDArray[Any]):
    """Every pass is executed: the ops of the rule against its definition."""
    rule = ("--hdp-rule", "one-round", "--rule-option", "bits=4", "--rule-option", "level=0.2")
    said = house.compile(*rule, "-o", "rule.hdp", "--execute-each")
    assert "pruned by one-round" in said
    assert "attention rule one-round (bits 4, level 0.2) by option" in said
    assert 1e-2 < np.abs(house.simulate("rule.hdp") - dense).max() < 2.0


def test_a_pruning_rule_in_a_plan(house: House):
    """A plan, the pipeline and the options say the same."""
    hdp = {"rule": "one-round", "bits": 4, "level": 0.2}
    plan = {"schema": 1, "layers": {"": {"hdp": hdp}}}
    (house.folder / "plan.json").write_text(json.dumps(plan))
    house.compile("--plan", "plan.json", "-o", "planned.hdp", "--no-verify")
    rule = ("--hdp-rule", "one-round", "--rule-option", "bits=4", "--rule-option", "level=0.2")
    house.compile(*rule, "-o", "told.hdp", "--no-verify")
    text = house.run("main", *rule, "--dump-pass-pipeline").strip()
    assert 'insert-hdp{rule=one-round own="bits=4","level=0.2"}' in text
    house.compile("--pass-pipeline", text, "-o", "text.hdp", "--no-verify")
    words = {
        name: zipfile.ZipFile(house.folder / f"{name}.hdp").read("program.bin")
        for name in ("planned", "told", "text")
    }
    assert words["planned"] == words["told"] == words["text"]


def test_an_option_that_a_rule_has_not(house: House):
    words = ("layer.mlir", "-o", "x.hdp", "--hdp-rule", "one-round", "--rule-option")
    result = house.call("main", *words, "bit=4")
    assert result.returncode == 2
    assert "rule one-round has no option 'bit=4' of its own; it has bits=..., level=..." in (
        result.stderr
    )
    result = house.call("main", *words, "bits=9")
    assert result.returncode == 2
    assert "bits 9 is outside 2..8" in result.stderr


def test_a_format(house: House):
    """The factors of the HDP program and of the NumPy program stand for the same matrices."""
    heat = ("--heat", "ring,rank=3,init=plain,layers=up|down")
    assert "factors in place of weights" in house.compile(*heat, "-o", "ring.hdp")
    house.compile(*heat, "-o", "ring.py")
    found = house.execute("ring.py")(**house.inputs())["last_hidden_state"]
    np.testing.assert_allclose(house.simulate("ring.hdp"), found, atol=0.05)
    house.compile(*heat, "--target", "numpy", "-o", "ring.mlir")
    assert 'decomposition = #einsum.decomposition<"ring"' in (
        (house.folder / "ring.mlir").read_text()
    )


def test_a_hardware_preset(house: House, dense: NDArray[Any]):
    house.compile("--target", "small-chip", "-o", "small.hdp")
    manifest = zipfile.ZipFile(house.folder / "small.hdp").read("manifest.json")
    hardware = json.loads(manifest)["hardware"]
    assert (hardware["name"], hardware["cores"], hardware["pe_rows"]) == ("small-chip", 2, 8)
    np.testing.assert_array_equal(house.simulate("small.hdp"), dense)


@pytest.mark.torch
def test_a_target(house: House):
    torch = pytest.importorskip("torch")
    assert "computed by PyTorch" in house.compile("--target", "torch-source", "-o", "source.py")
    assert "heatc" not in (house.folder / "source.py").read_text().partition("\n")[2]
    weights = load_file(house.folder / "layer.safetensors")
    tensors = {name: torch.tensor(array) for name, array in house.inputs().items()}
    found = house.execute("source.py")(
        {name: torch.tensor(array) for name, array in weights.items()}, **tensors
    )
    house.compile("-o", "dense.py")
    expected = house.execute("dense.py")(**house.inputs())["last_hidden_state"]
    np.testing.assert_allclose(found["last_hidden_state"].numpy(), expected, atol=1e-5)


def test_a_pass(house: House):
    """It declares that it changes values: the check says so, and holds the rest to be right."""
    said = house.compile("--insert-pass", "tanh-gelu:after=raise-einsum", "-o", "tanh.py")
    assert "changed by tanh-gelu" in said
    house.compile("-o", "exact.py")
    found, exact = (
        house.execute(name)(**house.inputs())["last_hidden_state"]
        for name in ("tanh.py", "exact.py")
    )
    assert 0 < np.abs(found - exact).max() < 5e-3


def test_an_op(house: House, tmp_path: Path):
    """Its dialect is parsed, its semantics are what the program is checked against."""
    words = ("relu6.mlir", "--weights", "relu6.safetensors", "-o", "out.py")
    said = house.run("main", *words, "--insert-pass", "lower-act:before=canonicalize")
    assert "verified" in said
    y: Any = house.execute("out.py")(np.array([[-1.0, 3.0, 9.0, 6.5]], np.float32))["y"]
    np.testing.assert_allclose(y, [[3.0 + 12.0 + 18.0, 15.0 + 36.0 + 42.0]])
    lowered = house.run("opt", "relu6.mlir", "-p", "lower-act")
    assert lowered.count("nn.relu") == 2
    assert "act.relu6" not in lowered
