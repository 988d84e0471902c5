"""`hdp-run --sweep`: each point is what a run on that machine says, and wrong sweeps are refused."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
torch = pytest.importorskip("torch")

from heatc.tools import main, run  # noqa: E402

pytestmark = pytest.mark.torch

Capture = pytest.CaptureFixture[str]

BANDWIDTHS = ("1 GB/s", "25.6 GB/s")
CORES = ("4", "8")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.pt2, its program prog.hdp and inputs in.npz."""
    folder = tmp_path_factory.mktemp("sweep")
    torch.manual_seed(0)
    layers = [torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32)]
    module = torch.nn.Sequential(*layers).eval()
    x = torch.randn(2, 12, 32)
    torch.export.save(torch.export.export(module, (x,)), folder / "model.pt2")
    np.savez(folder / "in.npz", input=x.numpy())
    program = str(folder / "prog.hdp")
    assert main.main([str(folder / "model.pt2"), "-o", program, "--no-verify", "--quiet"]) == 0
    return folder


def swept(tiny: Path, *words: str) -> int:
    """`hdp-run --sweep` on the program."""
    return run.main([str(tiny / "prog.hdp"), "--inputs", str(tiny / "in.npz"), *words])


def figures(program: Path, inputs: Path, folder: Path, *words: str) -> dict[str, Any]:
    """What a run of its own says of time and energy."""
    command = [str(program), "--inputs", str(inputs), "--stats", str(folder), "--quiet"]
    assert run.main([*command, *words]) == 0
    stats = json.loads((folder / "stats.json").read_text())
    return {**stats["modelled"], **stats["functional"]}


def machine(path: Path, bandwidth: str, cores: str = "8") -> Path:
    path.write_text(f"base: hdp-edge\ncores: {cores}\ndram: {{bandwidth: {bandwidth}}}\n")
    return path


def test_a_point_is_a_run_on_that_machine(tiny: Path, tmp_path: Path, capsys: Capture):
    out = tmp_path / "sweep"
    bandwidths = f"dram.bandwidth={','.join(BANDWIDTHS)}"
    assert swept(tiny, "--sweep", bandwidths, "--stats", str(out)) == 0
    said = capsys.readouterr()
    assert "1 GB/s" in said.out
    assert "planned for hdp-edge; --recompile MODEL plans for each" in said.err
    assert {path.name for path in out.iterdir()} == {"sweep.csv", "sweep.json"}
    data = json.loads((out / "sweep.json").read_text())
    assert data["sweeps"] == {"dram.bandwidth": list(BANDWIDTHS)}
    assert not data["is_recompiled"]
    for bandwidth, point in zip(BANDWIDTHS, data["points"], strict=True):
        assert point["changes"] == {"dram.bandwidth": bandwidth}
        hardware = machine(tmp_path / "machine.yaml", bandwidth)
        words = ("--hw", str(hardware))
        own = figures(tiny / "prog.hdp", tiny / "in.npz", tmp_path / "own", *words)
        for name in ("total_cycles", "time_seconds", "energy_joules", "dram_read_bytes"):
            assert point["figures"][name] == pytest.approx(own[name])
            assert name in data["units"]
    slow, fast = (point["figures"]["total_cycles"] for point in data["points"])
    assert slow > fast
    with (out / "sweep.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["dram.bandwidth"] for row in rows] == list(BANDWIDTHS)
    assert [int(row["total_cycles"]) for row in rows] == [slow, fast]


def test_masks_of_an_earlier_run_will_do(tiny: Path, tmp_path: Path, capsys: Capture):
    masks = tmp_path / "masks.npz"
    assert swept(tiny, "--save-masks", str(masks), "--quiet") == 0
    command = [str(tiny / "prog.hdp"), "--model=timing", "--masks", str(masks)]
    assert run.main([*command, "--sweep", "dram.bandwidth=1,2 GB/s"]) == 0
    assert "2 GB/s" in capsys.readouterr().out


def test_a_model_is_compiled_for_each_machine(tiny: Path, tmp_path: Path, capsys: Capture):
    out, cores = tmp_path / "sweep", f"cores={','.join(CORES)}"
    model = tiny / "model.pt2"
    words = ("--sweep", cores, "--recompile", str(model), "--stats", str(out), "--jobs", "1")
    assert swept(tiny, *words) == 0
    assert "cores" in capsys.readouterr().out
    data = json.loads((out / "sweep.json").read_text())
    assert data["is_recompiled"]
    for count, point in zip(CORES, data["points"], strict=True):
        hardware = machine(tmp_path / "machine.yaml", "25.6 GB/s", count)
        program = tmp_path / f"{count}.hdp"
        command = [str(model), "--hw", str(hardware), "-o", str(program), "--no-verify", "--quiet"]
        assert main.main(command) == 0
        own = figures(program, tiny / "in.npz", tmp_path / count)
        assert point["figures"]["total_cycles"] == own["total_cycles"]
        assert point["figures"]["energy_joules"] == pytest.approx(own["energy_joules"])


def test_a_machine_that_the_model_does_not_fit_on_is_a_row(
    tiny: Path, tmp_path: Path, capsys: Capture
):
    out = tmp_path / "sweep"
    sweep = ("--sweep", "dram.capacity=1 KiB,4 GiB", "--recompile", str(tiny / "model.pt2"))
    assert swept(tiny, *sweep, "--stats", str(out), "--jobs", "1") == 0
    assert "does not fit: " in capsys.readouterr().out
    points = json.loads((out / "sweep.json").read_text())["points"]
    assert points[0]["problem"]
    assert points[0]["figures"] == {}
    assert points[1]["problem"] is None
    assert swept(tiny, "--sweep", "dram.capacity=1,2 KiB", *sweep[2:], "--jobs", "1") == 4


# --- What is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("sweep", ["cores=4,8", "cores=16", "buffers.local=8 KiB"])
def test_what_would_need_another_program(tiny: Path, tmp_path: Path, sweep: str, capsys: Capture):
    assert swept(tiny, "--sweep", sweep, "--stats", str(tmp_path / "sweep")) == 4
    assert "--recompile MODEL compiles the model for each machine" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--sweep", "dram.bandwith=1 GB/s"], "did you mean 'dram.bandwidth'"),
        (["--sweep", "dram.bandwidth=1 GiB"], "the unit 'GiB' is unknown"),
        (["--sweep", "cores=8", "-o", "x.npz"], "-o does not go with --sweep"),
        (["--sweep", "cores=8", "--trace", "x.json"], "--trace does not go with --sweep"),
        (["--sweep", "cores=8", "--model=functional"], "--sweep shows what is modelled"),
        (["--sweep", "cores=8", "--plan", "p.json"], "it belongs to --recompile"),
        (["--sweep", "cores=8", "--jobs", "0"], "expected 1 or more"),
        (["--recompile", "m.pt2"], "it belongs to --sweep"),
    ],
)
def test_wrong_words(
    tiny: Path,
    words: list[str],
    expected: str,
    capsys: Capture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    assert swept(tiny, *words) == 2
    assert expected in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_program_without_a_plan_takes_none(tiny: Path, tmp_path: Path, capsys: Capture):
    plan = tmp_path / "plan.json"
    plan.write_text('{"schema": 2, "layers": {}}')
    words = ("--recompile", str(tiny / "model.pt2"), "--plan", str(plan))
    assert swept(tiny, "--sweep", "cores=4", *words) == 2
    assert "the program was compiled without a plan" in capsys.readouterr().err


def test_factors_that_would_be_made_anew(tiny: Path, tmp_path: Path, capsys: Capture):
    program = tmp_path / "small.hdp"
    model = str(tiny / "model.pt2")
    words = ["--heat", "low-rank,rank=4,init=plain", "--no-verify", "--quiet"]
    assert main.main([model, "-o", str(program), *words]) == 0
    command = [str(program), "--inputs", str(tiny / "in.npz"), "--sweep", "cores=4"]
    assert run.main([*command, "--recompile", model]) == 2
    assert "factors were made when it was compiled" in capsys.readouterr().err
