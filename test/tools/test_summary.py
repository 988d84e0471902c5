"""What commands tell at their end: the table and the JSON have the same facts, declared once."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from heatc.backends.hdp import open_program, simulate
from heatc.readers.npz import open_npz
from heatc.tools import COMMANDS, tune
from heatc.tools.main import main as heatc
from heatc.tools.reference.summary import SECTIONS
from heatc.tools.run import main as hdp_run
from heatc.tools.summary.changes import change_rows
from heatc.tools.summary.keys import Section
from heatc.tools.summary.next_steps import step
from heatc.tools.summary.texts import ratio_text, table, value_text

INPUTS = "input_ids=1x12:i64,attention_mask=1x12:i64"
WIDTH, LAYERS, HIDDEN, WORDS, PLACES = 32, 2, 64, 100, 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT classifier of 2 layers."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=HIDDEN,
        max_position_embeddings=PLACES,
    )
    folder = tmp_path_factory.mktemp("model") / "my model"
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "data.npz"
    ids = rng.integers(1, WORDS, (3, 12))
    np.savez(path, input_ids=ids, attention_mask=np.ones_like(ids))
    return path


def compiled(model: Path, output: Path, *options: str) -> dict[str, Any]:
    """The JSON of a compilation."""
    file = output.with_suffix(".json")
    arguments = [str(model), "--inputs", INPUTS, "-o", str(output), "--json", str(file)]
    assert heatc([*arguments, *options]) == 0
    return json.loads(file.read_text())


def parameters() -> int:
    """Of the model, counted by hand."""
    embeddings = (WORDS + PLACES + 2) * WIDTH + 2 * WIDTH
    layer = 4 * (WIDTH * WIDTH + WIDTH) + 2 * WIDTH * HIDDEN + HIDDEN + WIDTH + 4 * WIDTH
    return embeddings + LAYERS * layer + (WIDTH * WIDTH + WIDTH) + (2 * WIDTH + 2)


def multiply_accumulates() -> int:
    """Of 12 tokens through the layers, of one through the head."""
    products = 12 * (4 * WIDTH * WIDTH + 2 * WIDTH * HIDDEN)
    return LAYERS * (products + 2 * 12 * 12 * WIDTH) + WIDTH * WIDTH + 2 * WIDTH


def test_a_dense_program_stands_alone(model: Path, tmp_path: Path, data: Path):
    """Its counts are the model's, its cost what hdp-run says of the same run."""
    told = compiled(model, tmp_path / "dense.hdp")
    own = told["compiled"]
    assert told["dense"] is None
    assert own["parameters_count"] == parameters()
    assert own["multiply_accumulates_count"] == multiply_accumulates()
    run = simulate(open_program(tmp_path / "dense.hdp"), first_of(data))
    assert own["total_cycles"] == run.result.cycles
    assert told["agreement"]["least_cosine"] > 0.99
    assert told["factorised"] == told["pruned"] == []
    assert told["narrowed"]["weights_by_width_count"]["16"] > 0


def first_of(data: Path) -> dict[str, Any]:
    """The first sample, which is the program's batch."""
    return {name: array[:1] for name, array in open_npz(data).items()}


def test_dense_beside_a_pruned_program(model: Path, tmp_path: Path):
    dense = compiled(model, tmp_path / "dense.hdp")["compiled"]
    told = compiled(
        model, tmp_path / "pruned.hdp", "--hdp-rule=ours", "--rho-b=0.3", "--compare-dense"
    )
    assert told["dense"] == dense
    assert told["compiled"]["total_cycles"] > dense["total_cycles"]
    assert [p["rule"] for p in told["pruned"]] == ["ours"] * LAYERS
    assert told["pruned"][0]["path"] == "bert.encoder.layer.0.attention.self"
    assert told["pruned"][0]["options"]["rho_b"] == [0.3]


@pytest.mark.parametrize("output", ["small.py", "small.hdp"])
def test_dense_beside_a_factorised_program(model: Path, tmp_path: Path, output: str):
    heat = "low-rank,ratio=0.5,init=plain,layers=*encoder*"
    told = compiled(model, tmp_path / output, "--heat", heat)
    layers = told["factorised"]
    assert len(layers) == 6 * LAYERS
    less = sum(x["dense_parameters_count"] - x["parameters_count"] for x in layers)
    query = next(x for x in layers if x["path"].endswith("0.attention.self.query"))
    assert query["parameters_count"] == 2 * WIDTH * query["ranks_count"][0]
    dense, own = told["dense"], told["compiled"]
    assert own["parameters_count"] == dense["parameters_count"] - less
    assert dense["multiply_accumulates_count"] == multiply_accumulates()


def test_a_dense_model_that_takes_long_is_left_out(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from heatc.tools.summary import dense

    monkeypatch.setattr(dense, "expected_seconds", lambda compilation: 1e6)
    told = compiled(model, tmp_path / "pruned.hdp", "--hdp-rule=ours")
    assert told["dense"]["parameters_count"] == told["compiled"]["parameters_count"]
    assert told["dense"]["total_cycles"] is None
    assert "--compare-dense" in capsys.readouterr().out


def test_where_table_and_json_go(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = tmp_path / "x.mlir"
    base = [str(model), "--inputs", INPUTS, "--target=numpy"]
    assert heatc([*base, "-o", str(text)]) == 0
    again = [str(text), "--target=numpy", "--no-verify"]
    capsys.readouterr()

    assert heatc([*again, "-o", str(tmp_path / "a.py")]) == 0
    assert "parameters" in capsys.readouterr().out
    assert heatc([*again, "-o", str(tmp_path / "a.py"), "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert heatc([*again, "-o", str(tmp_path / "a.py"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["command"] == "heatc"
    assert heatc([*again, "--emit=ir", "-o", "-"]) == 0
    captured = capsys.readouterr()
    assert "func.func" in captured.out
    assert "parameters" not in captured.out
    assert heatc([*again, "--emit=ir", "-o", "-", "--json", "-"]) == 2
    assert "both go to standard output" in capsys.readouterr().err


def test_json_replaces_nobody_elses_file(model: Path, tmp_path: Path):
    file = tmp_path / "mine.json"
    file.write_text("{}")
    arguments = [str(model), "--inputs", INPUTS, "-o", str(tmp_path / "a.py"), "--json", str(file)]
    assert heatc(arguments) == 1
    assert file.read_text() == "{}"


def test_a_run(model: Path, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]):
    program = tmp_path / "p.hdp"
    compiled(model, program, "--hdp-rule=ours")
    capsys.readouterr()
    outputs = tmp_path / "out.npz"
    words = [str(program), "--inputs", str(data), "-o", str(outputs)]
    assert hdp_run([*words, "--json", str(tmp_path / "r.json")]) == 0
    out = capsys.readouterr().out
    told = json.loads((tmp_path / "r.json").read_text())
    assert f"{told['modelled']['total_cycles']:,}" in out
    assert told["functional"]["passes_count"] == 3
    assert told["agreement"] is None
    reference = ["--reference", str(outputs), "--json", "-"]
    assert hdp_run([*words[:3], *reference]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [a["least_cosine"] for a in told["agreement"]] == [1.0]
    assert hdp_run([*words[:3], "--model=functional", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["modelled"] is None


def test_an_attention_of_which_nothing_is_left_is_told(
    model: Path, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
):
    program = tmp_path / "p.hdp"
    compiled(model, program, "--hdp-rule=ours", "--tau-h=1e9", "--no-verify")
    capsys.readouterr()
    assert hdp_run([str(program), "--inputs", str(data)]) == 0
    err = capsys.readouterr().err
    assert "hdp-run: warning: nothing is left of an attention" in err
    assert "heads of bert.encoder.layer.1.attention.self" in err


# --- Declarations -----------------------------------------------------------------------------


def keys_of(data: Any, sections: Sequence[Section[Any]]) -> None:
    """Every key of a file is declared, and every declared key is there."""
    named = {section.name: section for section in sections}
    assert set(data) == {"producer", "schema", "command", "next", *named}
    for name, section in named.items():
        found = data[name]
        objects = found if section.is_list else [found]
        for one in objects or ():
            assert one is None or set(one) == {key.name for key in section.keys}


def test_every_key_is_declared(
    model: Path, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
):
    told = compiled(
        model, tmp_path / "p.hdp", "--hdp-rule=ours", "--heat=low-rank,rank=8,init=plain"
    )
    keys_of(told, SECTIONS["heatc"])
    capsys.readouterr()
    assert hdp_run([str(tmp_path / "p.hdp"), "--inputs", str(data), "--json", "-"]) == 0
    keys_of(json.loads(capsys.readouterr().out), SECTIONS["hdp-run"])


UNITS: Mapping[str, tuple[str, ...]] = {
    "count": ("_count",),
    "bytes": ("_bytes",),
    "s": ("_seconds",),
    "J": ("_joules",),
    "J s": ("_joule_seconds",),
    "%": ("_percent",),
    "cycles": ("_cycles",),
}


@pytest.mark.parametrize("command", SECTIONS)
def test_every_number_has_its_unit_in_its_name(command: str):
    for section in SECTIONS[command]:
        for key in section.keys:
            assert key.name.endswith(UNITS.get(key.unit, ("",))), key.name
            assert key.meaning


def test_next_steps_are_commands_that_exist(model: Path, tmp_path: Path, data: Path):
    """Each line is taken by the parser of its command, whatever is in the paths."""
    folder = tmp_path / "a folder's"
    folder.mkdir()
    told = [
        compiled(model, folder / "a.hdp"),
        compiled(model, folder / "b.hdp", "--hdp-rule=ours"),
        compiled(model, folder / "a.py"),
    ]
    lines = [step["command"] for one in told for step in one["next"]]
    assert len(lines) >= 3
    for line in lines:
        program, *words = shlex.split(line)
        assert program in COMMANDS
        if program == tune.PROG:
            parser = import_module(tune.COMMANDS[words[0]].module).make_parser()
            words = words[1:]
        else:
            parser = import_module({"hdp-run": "heatc.tools.run"}[program]).make_parser()
        parser.parse_args(words)


# --- Texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "s", "-"),
        (12345, "cycles", "12,345"),
        (0.0342, "J", "34.2 mJ"),
        (1.455e-9, "J s", "1.455 nJ s"),
        (0.0, "s", "0 s"),
        (999, "bytes", "999 bytes"),
        (53460, "bytes", "53.46 kB"),
        (92.59, "%", "92.6 %"),
        (11341.833, "cycles", "11,341.8"),
    ],
)
def test_values_with_units(value: float | None, unit: str, text: str):
    assert value_text(value, unit) == text


def test_less_is_less():
    assert ratio_text(200, 100) == "2.00x less"
    assert ratio_text(100, 150) == "1.50x more"
    assert ratio_text(5, 5) == "the same"
    assert ratio_text(None, 5) == ""
    assert ratio_text(5, 0) == "none left"


def test_tables_are_aligned():
    assert table([("a", "1", "x"), ("bcd", "22")]) == "a    1   x\nbcd  22"


def test_steps_are_quoted():
    assert step("why", "hdp-run", "a b.hdp", None).command == "hdp-run 'a b.hdp'"


def test_rows_of_no_change():
    from heatc.tools.summary.changes import Changes

    assert [row[1] for row in change_rows(Changes())] == ["no layer", "no attention", "nothing"]
