"""`heatc-tune eval`: every figure against what the programs give, every kind of subject."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tiny_classifier import LAYERS, LENGTH, VOCABULARY, ir_text, weights

from heatc.backends.hdp.container import open_program
from heatc.backends.hdp.simulation import simulate
from heatc.backends.numpy.program import LoadedProgram
from heatc.machine.energy import energy_report
from heatc.tools import tune
from heatc.tuning.evaluate.figures import FIGURES
from heatc.tuning.evaluate.keys import PROVENANCE, SUBJECT, TOP

Capture = pytest.CaptureFixture[str]
Json = dict[str, Any]
BATCH = 8


def evaluated(*words: object, data: Path, **options: object) -> Json:
    """What eval.json says."""
    output = data.parent / "eval.json"
    told = [
        part for key, value in {"jobs": 1, **options}.items() for part in (f"--{key}", str(value))
    ]
    argv = ["eval", *map(str, words), "--data", str(data), "-o", str(output), "-q", *told]
    assert tune.main(argv) == 0
    return json.loads(output.read_text())


def subject(found: Json, name: str) -> Json:
    """The subject whose path ends so."""
    (one,) = [s for s in found["subjects"] if s["name"].endswith(name)]
    return one


def arrays_of(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def batches(arrays: Mapping[str, NDArray[Any]]) -> list[dict[str, NDArray[Any]]]:
    """Batches of 8 of the inputs; the last one repeats its own samples."""
    names, count = ("input_ids", "attention_mask"), len(arrays["input_ids"])
    found: list[dict[str, NDArray[Any]]] = []
    for start in range(0, count, BATCH):
        rows = [start + i % min(BATCH, count - start) for i in range(BATCH)]
        found.append({name: arrays[name][rows] for name in names})
    return found


@pytest.fixture(scope="module")
def logits(programs: Path) -> dict[str, NDArray[Any]]:
    """The logits of the programs for data.npz, called one batch after the other."""
    parts = batches(arrays_of(programs / "data.npz"))
    found: dict[str, NDArray[Any]] = {}
    for name in ("dense.py", "low.py"):
        with LoadedProgram(programs / name) as program:
            found[name] = np.concatenate([program(part)["logits"] for part in parts])
    for name in ("dense.hdp", "pruned.hdp"):
        program = open_program(programs / name)
        found[name] = np.concatenate([simulate(program, p).outputs["logits"] for p in parts])
    return found


@pytest.fixture(scope="module")
def found(programs: Path) -> Json:
    names = ("dense.py", "low.py", "dense.hdp", "pruned.hdp")
    return evaluated(*(programs / n for n in names), data=programs / "data.npz")


@pytest.mark.parametrize("name", ["low.py", "dense.hdp", "pruned.hdp"])
def test_figures_are_those_of_the_outputs(
    found: Json, programs: Path, logits: Mapping[str, NDArray[Any]], name: str
):
    labels = arrays_of(programs / "data.npz")["labels"]
    own, dense = (logits[n].astype(np.float64) for n in (name, "dense.py"))
    right, was_right = (x.argmax(axis=1) == labels for x in (own, dense))
    compared = subject(found, name)["compared"]
    cosines = (
        (own * dense).sum(axis=1) / np.linalg.norm(own, axis=1) / np.linalg.norm(dense, axis=1)
    )
    expected = {
        "accuracy_percent": 100 * right.mean(),
        "accuracy_change_points": 100 * (right.mean() - was_right.mean()),
        "mcc": np.corrcoef(labels, own.argmax(axis=1))[0, 1],
        "changed_predictions_percent": 100 * (own.argmax(1) != dense.argmax(1)).mean(),
        "cosine_mean": cosines.mean(),
        "cosine_least": cosines.min(),
    }
    for key, value in expected.items():
        assert compared[key]["value"] == pytest.approx(value, abs=1e-6), key
    change = np.corrcoef(labels, dense.argmax(axis=1))[0, 1]
    assert compared["mcc_change"]["value"] == pytest.approx(expected["mcc"] - change)
    for key in ("accuracy_percent", "mcc", "f1", "cosine_mean"):
        assert compared[key]["low"] <= compared[key]["value"] <= compared[key]["high"]


def test_costs_are_those_of_the_simulator(found: Json, programs: Path):
    program = open_program(programs / "pruned.hdp")
    hardware = program.manifest.hardware
    parts = batches(arrays_of(programs / "data.npz"))
    results = [simulate(program, part).result for part in parts]
    modelled = subject(found, "pruned.hdp")["modelled"]
    cycles = [result.cycles for result in results]
    joules = [energy_report(result, hardware).joules for result in results]
    assert modelled["batch_p50_cycles"] == np.percentile(cycles, 50)
    assert modelled["batch_p95_cycles"] == pytest.approx(np.percentile(cycles, 95))
    assert modelled["sample_p50_joules"] == pytest.approx(np.percentile(joules, 50) / BATCH)
    assert modelled["batch_p50_seconds"] == pytest.approx(
        np.percentile(cycles, 50) / hardware.clock_hz
    )
    products = [j * c / hardware.clock_hz for j, c in zip(joules, cycles)]
    name = "batch_p95_energy_delay_product_joule_seconds"
    assert modelled[name] == pytest.approx(np.percentile(products, 95))


def test_what_is_measured_is_of_the_program_or_of_the_simulator(found: Json, programs: Path):
    numpy, hdp = (subject(found, n) for n in ("low.py", "dense.hdp"))
    assert numpy["measured"]["batch_p50_cpu_seconds"] > 0
    assert numpy["measured"]["batch_p50_simulator_seconds"] is None
    assert hdp["measured"]["batch_p50_simulator_seconds"] > 0
    assert hdp["measured"]["batch_p50_cpu_seconds"] is None
    assert set(numpy["modelled"].values()) == {None}
    sizes = [(programs / n).stat().st_size for n in ("low.py", "low.safetensors")]
    assert numpy["measured"]["program_bytes"] == sum(sizes)
    assert (hdp["hardware"], numpy["hardware"]) == ("hdp-edge", None)


def test_keys_are_those_that_are_declared(found: Json):
    assert list(found) == list(TOP)
    assert set(found["provenance"]) == set(PROVENANCE)
    for one in found["subjects"]:
        assert set(one) == set(SUBJECT)
        for group in ("compared", "modelled", "measured"):
            assert list(one[group]) == [f.name for f in FIGURES if f.source == group]


def test_the_reference_is_compared_with_nothing(found: Json):
    compared = found["subjects"][0]["compared"]
    assert compared["accuracy_percent"] is not None
    names = [f.name for f in FIGURES if f.source == "compared"]
    empty = {name for name in names if compared[name] is None}
    assert empty == {
        "accuracy_change_points",
        "mcc_change",
        "f1_change",
        "changed_predictions_percent",
        "cosine_mean",
        "cosine_least",
    }


def test_samples_that_fill_the_last_batch_do_not_count(programs: Path, logits: Json):
    """13 samples are a batch of 8, and one of 5 with 3 repeats."""
    found = evaluated(
        *(programs / n for n in ("dense.py", "pruned.hdp")), data=programs / "data.npz", limit=13
    )
    labels = arrays_of(programs / "data.npz")["labels"][:13]
    own = logits["pruned.hdp"][:13].argmax(axis=1)
    assert found["samples"] == 13
    assert subject(found, "pruned.hdp")["batches"] == 2
    accuracy = subject(found, "pruned.hdp")["compared"]["accuracy_percent"]["value"]
    assert accuracy == pytest.approx(100 * (own == labels).mean())


def test_several_processes_find_what_one_does(programs: Path):
    one, two = (
        evaluated(
            programs / "dense.py", programs / "pruned.hdp", data=programs / "data.npz", jobs=n
        )
        for n in (1, 2)
    )
    for group in ("compared", "modelled"):
        assert [s[group] for s in one["subjects"]] == [s[group] for s in two["subjects"]]


# --- Subjects ---------------------------------------------------------------------------------


@pytest.fixture
def here(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of `programs`, which is where commands run."""
    shutil.copytree(programs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


PRUNING = {path: {"hdp": {"rule": "ours", "rho_b": 0.25}} for path in LAYERS}


def write_plan(path: Path, layers: Json) -> None:
    path.write_text(json.dumps({"schema": 1, "layers": layers}))


def test_a_model_runs_as_its_numpy_program(here: Path):
    words = ("dense.hdp", "model.mlir", "--weights", "weights.safetensors")
    found = evaluated(*words, data=here / "data.npz")
    first, second = found["subjects"]
    assert (found["reference"], first["kind"]) == ("model.mlir", "model")
    assert first["runs"] == "NumPy program"
    assert second["compared"]["cosine_least"]["value"] > 0.99


def test_a_model_and_a_plan_on_a_machine(here: Path):
    write_plan(here / "plan.json", PRUNING)
    words = ("plan.json", "--model", "model.mlir", "--weights", "weights.safetensors")
    found = evaluated(*words, "pruned.hdp", data=here / "data.npz", hw="hdp-edge")
    names = [s["name"] for s in found["subjects"]]
    assert names == ["model.mlir", "model.mlir on hdp-edge", "plan.json on hdp-edge", "pruned.hdp"]
    planned, pruned = found["subjects"][2:]
    assert planned["plan_sha256"] is not None
    # The same rule by an option and by a plan is one program.
    assert planned["compared"] == pruned["compared"]
    assert planned["modelled"] == pruned["modelled"]


def test_a_plan_that_prunes_needs_a_machine(here: Path, capsys: Capture):
    write_plan(here / "plan.json", PRUNING)
    words = ["plan.json", "--model", "model.mlir", "--weights", "weights.safetensors"]
    assert tune.main(["eval", *words, "--data", "data.npz"]) == 1
    error = capsys.readouterr().err
    assert "plan.json: the plan prunes attention" in error
    assert "--hw" in error


def test_without_a_model_the_first_program_is_the_reference(found: Json):
    assert found["reference"].endswith("dense.py")


def test_data_without_labels_has_no_scores(here: Path):
    found = evaluated("dense.py", "pruned.hdp", data=here / "unlabelled.npz")
    compared = found["subjects"][1]["compared"]
    assert found["labelled"] is False
    assert found["classes"] == 2  # by the name of the output
    assert compared["accuracy_percent"] is compared["f1_change"] is None
    assert compared["changed_predictions_percent"]["value"] > 0


def test_an_embedding_is_compared_by_its_cosine(here: Path, capsys: Capture):
    (here / "embedder.mlir").write_text(ir_text(BATCH, output="embedding"))
    words = ("embedder.mlir", "--weights", "weights.safetensors", "--hw", "hdp-edge")
    found = evaluated(*words, data=here / "unlabelled.npz")
    compared = found["subjects"][1]["compared"]
    assert found["classes"] is None
    assert compared["changed_predictions_percent"] is None
    assert compared["cosine_mean"]["value"] > 0.99


def test_labels_do_not_make_classes_of_an_embedding(here: Path, capsys: Capture):
    """Its two values would be classes by their number, but the labels go up to 4."""
    (here / "embedder.mlir").write_text(ir_text(BATCH, output="embedding"))
    labels = np.arange(48) % 5
    arrays: Json = {**arrays_of(here / "unlabelled.npz"), "labels": labels}
    np.savez(here / "five.npz", **arrays)
    words = ["eval", "embedder.mlir", "--weights", "weights.safetensors", "--data", "five.npz"]
    assert tune.main(words) == 0
    out = capsys.readouterr().out
    assert "labels not used" in out
    assert "accuracy" not in out


def test_an_output_is_chosen_by_name(here: Path, capsys: Capture):
    assert evaluated("dense.py", data=here / "data.npz", output="logits")["output"] == "logits"
    assert tune.main(["eval", "dense.py", "--data", "data.npz", "--output", "logit"]) == 1
    assert "did you mean 'logits'?" in capsys.readouterr().err


# --- Lengths ----------------------------------------------------------------------------------


def with_length(here: Path, length: int) -> Path:
    """The first tokens of the data, or more columns of padding."""
    arrays = arrays_of(here / "data.npz")
    for name in ("input_ids", "attention_mask"):
        more = max(0, length - LENGTH)
        arrays[name] = np.pad(arrays[name], [(0, 0), (0, more)])[:, :length]
    path = here / f"data-{length}.npz"
    np.savez(path, **arrays)
    return path


def test_longer_data_loses_columns_of_padding(here: Path):
    wide = evaluated("dense.py", "pruned.hdp", data=with_length(here, LENGTH + 7))
    same = evaluated("dense.py", "pruned.hdp", data=here / "data.npz")
    for one, other in zip(wide["subjects"], same["subjects"]):
        assert one["compared"] == other["compared"]
        assert one["modelled"] == other["modelled"]


def test_shorter_data_is_padded(here: Path):
    short = with_length(here, 9)
    arrays = arrays_of(short)
    padded: Json = {
        name: np.pad(arrays[name], [(0, 0), (0, LENGTH - 9)])
        for name in ("input_ids", "attention_mask")
    }
    np.savez(here / "padded.npz", **padded, labels=arrays["labels"])
    one, other = (evaluated("dense.py", "pruned.hdp", data=d) for d in (short, here / "padded.npz"))
    assert [s["compared"] for s in one["subjects"]] == [s["compared"] for s in other["subjects"]]


def test_longer_samples_are_refused(here: Path, capsys: Capture):
    arrays = arrays_of(here / "data.npz")
    wide: Json = {n: np.tile(arrays[n], 2) for n in ("input_ids", "attention_mask")}
    np.savez(here / "long.npz", **wide)
    assert tune.main(["eval", "dense.py", "--data", "long.npz"]) == 1
    error = capsys.readouterr().err
    assert "48 of 48 samples have more than the 12 tokens that dense.py takes" in error
    assert "--length 12" in error


# --- Wrong input ------------------------------------------------------------------------------


def broken(here: Path) -> None:
    """Files that are wrong in one way each."""
    good = arrays_of(here / "data.npz")

    def save(name: str, **changes: Any) -> None:
        arrays: Json = {**good, **changes}
        np.savez(here / name, **{k: v for k, v in arrays.items() if v is not None})

    mask, ids = good["attention_mask"], good["input_ids"]
    save("no_mask.npz", attention_mask=None)
    save("more.npz", other=ids)
    save("uneven.npz", attention_mask=mask[:-1])
    save("masked.npz", attention_mask=mask * (np.arange(len(mask)) != 5)[:, None])
    save("values.npz", attention_mask=mask * 2)
    save("classes.npz", labels=good["labels"] + 7)
    save("float.npz", labels=good["labels"] / 2)
    save("ids.npz", input_ids=ids + VOCABULARY * mask)
    save("empty.npz", **{n: a[:0] for n, a in good.items()})
    save("wide.npz", attention_mask=None, input_ids=np.pad(ids, [(0, 0), (0, 3)]))
    (here / "mine.py").write_text("print('mine')\n")
    (here / "no.py").write_bytes((here / "dense.py").read_bytes())
    (here / "text.hdp").write_text("nothing\n")
    (here / "front.json").write_text('{"producer": "heatc 0.1.0 front"}')
    write_plan(here / "plan.json", {})


WRONG = {
    "eval": (2, "nothing to evaluate"),
    "eval dense.py": (2, "--data or --text"),
    "eval dense.py --data data.npz --text t.csv": (2, "--data or --text"),
    "eval dense.py --data data.npz --length 5": (2, "--length: only --text needs it"),
    "eval dense.py --text t.csv": (2, "text needs a tokenizer"),
    "eval dense.py --data data.npz --metric accurcy": (2, "did you mean 'accuracy'"),
    "eval dense.py --data data.npz --limit 0": (2, "--limit: 0 is below 1"),
    "eval dense.py --data data.npz -j 0": (2, "--jobs: "),
    "eval dense.py --data data.npz -o x.txt": (2, "ends in .json"),
    "eval dense.py dense.py --data data.npz": (2, "'dense.py' is given twice"),
    "eval dense.py --data data.npz --hw hdp-edge": (2, "--hw: programs are not compiled"),
    "eval model.mlir --data data.npz --calibrate data.npz": (2, "only a plan needs data"),
    "eval dense.py --data data.npz --torch": (2, "--torch: programs are not compiled"),
    "eval model.mlir --data data.npz --torch": (1, "IR is no model of PyTorch"),
    "eval model.mlir --data data.npz --batch 4": (2, "--batch: a folder alone"),
    "eval plan.json --data data.npz": (2, "for which model?"),
    "eval dense.py --model dense.hdp --data data.npz": (2, "'dense.hdp' is no model"),
    "eval gone.py --data data.npz": (1, "gone.py: cannot open: no such file"),
    "eval dense.py --data gone.npz": (1, "gone.npz: "),
    "eval mine.py --data data.npz": (1, "not a NumPy program that heatc wrote"),
    "eval no.py --data data.npz": (1, "no.safetensors: cannot open"),
    "eval text.hdp --data data.npz": (1, "text.hdp: "),
    "eval front.json --data data.npz": (1, "a front is nothing that can be evaluated"),
    "eval data.npz --data unlabelled.npz": (1, "data is nothing that can be evaluated"),
    "eval dense.py --data no_mask.npz": (1, "the data has no array 'attention_mask'"),
    "eval dense.hdp --data more.npz": (1, "the program has no input 'other'"),
    "eval dense.py --data uneven.npz": (1, "different numbers of samples"),
    "eval dense.py --data masked.npz": (1, "sample 5 is fully masked"),
    "eval dense.py --data values.npz": (1, "expected 0 and 1 alone"),
    "eval dense.py --data classes.npz": (1, "label 8, the output 'logits' has 2 classes"),
    "eval dense.py --data float.npz": (1, "expected classes 0, 1, ..."),
    "eval dense.py --data ids.npz": (1, "an id is outside 0..39"),
    "eval dense.hdp --data ids.npz -j 2": (1, "is outside 0 to 39"),
    "eval dense.py --data empty.npz": (1, "the data has no samples"),
    "eval dense.py --data wide.npz": (1, "the data has no array 'attention_mask'"),
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_input_is_one_message(here: Path, capsys: Capture, line: str):
    broken(here)
    code, message = WRONG[line]
    assert tune.main([*line.split(), "-q"]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("error: ") == 1
    assert captured.out == ""


# --- What is printed and written --------------------------------------------------------------


def test_the_table_names_units_and_what_is_modelled(here: Path, capsys: Capture):
    assert tune.main(["eval", "dense.py", "pruned.hdp", "--data", "data.npz"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "48 samples, labelled; compared output 'logits'; reference: dense.py"
    )
    text = "\n".join(lines)
    for word in ("accuracy", "points", "cycles", "modelled", "CPU ms", "measured", "simulator s"):
        assert word in text
    assert sum(line.startswith("pruned.hdp ") for line in lines) == 2


@pytest.mark.parametrize("metric", ["mcc", "f1"])
def test_the_table_shows_the_metric(here: Path, capsys: Capture, metric: str):
    words = ["eval", "dense.py", "--data", "data.npz", "--metric", metric]
    assert tune.main(words) == 0
    out = capsys.readouterr().out
    assert metric in out
    assert "accuracy" not in out


def test_json_is_all_that_is_printed(here: Path, capsys: Capture):
    assert tune.main(["eval", "dense.py", "--data", "data.npz", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["producer"].endswith(" evaluation")


def test_an_interrupt_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture):
    """Once the first subject has run."""
    from heatc.tuning.evaluate.hdp_program import HdpProgram

    def interrupted(self: HdpProgram, inputs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(HdpProgram, "run", interrupted)
    before = sorted(here.rglob("*"))
    words = ["dense.py", "dense.hdp", "--data", "data.npz", "-o", "x.json", "-j", "1"]
    assert tune.main(["eval", *words]) == 130
    assert sorted(here.rglob("*")) == before


def test_a_changed_program_is_told_by_its_digest(here: Path):
    before = evaluated("dense.py", data=here / "data.npz")["subjects"][0]["sha256"]
    save_file({**weights(seed=0), "more": np.zeros(3, np.float32)}, here / "other.safetensors")
    (here / "dense.py").write_text((here / "dense.py").read_text() + "# changed\n")
    assert evaluated("dense.py", data=here / "data.npz")["subjects"][0]["sha256"] != before
