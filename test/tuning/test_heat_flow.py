"""The whole way of bench/heat_front.py, small: search, distil, prune, compile, run, compare."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heatc.tools import main as heatc
from heatc.tools import run as hdp_run
from heatc.tools import tune

pytestmark = pytest.mark.usefixtures("one_thread")

MACHINE = """\
base: hdp-edge-vector
name: small
cores: 1
pe_array: {rows: 2, columns: 2}
dram: {bandwidth: 0.05 GB/s}
"""
"""On it layers of 16 x 16 gain from ranks."""


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plans `heat.json` (searched and distilled) and `both.json` (its attention pruned too)."""
    place = tmp_path_factory.mktemp("flow")
    machine = place / "small.yaml"
    machine.write_text(MACHINE)
    model = [str(tiny / "model.mlir"), "--weights", str(tiny / "weights.safetensors")]
    text = ["--data", str(tiny / "data.npz"), "--work-dir", str(place / "work"), "--quiet"]
    searching = ["--layers", "l*", "--formats", "low-rank", "--points", "4", "--validate", "4"]
    searching += ["--jobs", "1", "--hw", str(machine), "--goal", "edp>=1.01x"]
    assert tune.main(["search", *model, *text, *searching, "-o", str(place / "front")]) == 0
    training = ["--plan", str(place / "front" / "plan.json"), "--epochs", "2+2"]
    assert tune.main(["distill", *model, *text, *training, "-o", str(place / "heat.json")]) == 0
    pruning = ["--plan", str(place / "heat.json"), "--goal", "sparsity>=0.3", "--hw", str(machine)]
    assert tune.main(["calibrate", *model, *text, *pruning, "-o", str(place / "both.json")]) == 0
    return place


def compiled(tiny: Path, folder: Path, name: str, *options: str) -> Path:
    output = folder / name
    model = [str(tiny / "model.mlir"), "--weights", str(tiny / "weights.safetensors")]
    assert heatc.main([*model, *options, "-o", str(output)]) == 0
    return output


def run_hdp(tiny: Path, folder: Path, name: str, *options: str) -> tuple[Any, dict[str, Any]]:
    """Logits of all samples and modelled figures."""
    machine = str(folder / "small.yaml")
    program = compiled(tiny, folder, f"{name}.hdp", "--hw", machine, *options)
    out, stats = folder / f"{name}.npz", folder / f"{name}.stats"
    words = [str(program), "--inputs", str(inputs(tiny, folder)), "-o", str(out)]
    assert hdp_run.main([*words, "--stats", str(stats)]) == 0
    with np.load(out) as found:
        logits = next(iter(found.values()))
    return logits, json.loads((stats / "stats.json").read_text())


def inputs(tiny: Path, folder: Path) -> Path:
    path = folder / "inputs.npz"
    with np.load(tiny / "data.npz") as found:
        np.savez(path, input_ids=found["input_ids"], attention_mask=found["attention_mask"])
    return path


def run_numpy(tiny: Path, folder: Path, *options: str) -> Any:
    path = compiled(tiny, folder, "model.py", "--target", "numpy", *options)
    spec = importlib.util.spec_from_file_location("heat_flow_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with np.load(inputs(tiny, folder)) as found:
        arrays = dict(found)
    parts = [
        next(iter(module.main(**{k: v[i : i + 8] for k, v in arrays.items()}).values())).copy()
        for i in range(0, 48, 8)
    ]
    return np.concatenate(parts)


def test_the_searched_plan_costs_less_and_is_near(tiny: Path, folder: Path) -> None:
    dense, before = run_hdp(tiny, folder, "dense", "--hdp-rule", "none")
    found, after = run_hdp(tiny, folder, "heat", "--plan", str(folder / "heat.json"))
    edp = "energy_delay_product_joule_seconds"
    assert after["modelled"][edp] < before["modelled"][edp]
    assert after["modelled"]["host_energy_joules"] < 0.1 * after["modelled"]["energy_joules"]
    macs = "multiply_accumulates_count"
    assert after["functional"][macs] < before["functional"][macs]
    scale = np.abs(dense - dense.mean(0)).mean()
    assert np.abs(found - dense).mean() < 0.5 * scale


def test_both_programs_of_a_plan_say_the_same(tiny: Path, folder: Path) -> None:
    plan = str(folder / "heat.json")
    found, _ = run_hdp(tiny, folder, "heat", "--plan", plan)
    expected = run_numpy(tiny, folder, "--plan", plan)
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.95


def test_one_plan_has_factors_and_pruning(tiny: Path, folder: Path) -> None:
    plan = json.loads((folder / "both.json").read_text())
    kinds = {key for layer in plan["layers"].values() for key in layer}
    assert kinds == {"heat", "hdp"}
    heat, _ = run_hdp(tiny, folder, "heat", "--plan", str(folder / "heat.json"))
    both, stats = run_hdp(tiny, folder, "both", "--plan", str(folder / "both.json"))
    assert 0 < stats["functional"]["kept_blocks_percent"] < 90
    assert 0 < np.abs(both - heat).mean() < np.abs(heat - heat.mean(0)).mean()
