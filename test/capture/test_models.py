"""What is captured from BERT models: ops, names, locations, shapes and numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_support import (
    MakeBert,
    bert_inputs,
    check_round_trip,
    count_ops,
    main_of,
    names_of,
    save,
    text_of,
)
from xdsl.dialects.builtin import FileLineColLoc, NameLoc

from heatc.capture import Captured, capture_exported, capture_module, capture_path
from heatc.capture.exported import export
from heatc.dialects.einsum import WeightOp

pytestmark = pytest.mark.torch


def check_numbers(captured: Captured, model: Any, inputs: dict[str, Any]) -> None:
    """Compare with PyTorch at all positions that are not masked."""
    import torch

    interpreter = pytest.importorskip("heatc.interpreter")
    with torch.no_grad():
        expected = model(**inputs)
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    found = interpreter.execute(captured.module, arrays, captured.weights)
    real = arrays["attention_mask"].astype(bool)
    for name, array in found.items():
        reference = expected[name].numpy()
        both = (array, reference)
        if reference.shape[:2] == real.shape:
            both = (array[real], reference[real])
        np.testing.assert_allclose(*both, atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("batch", [1, 3])
def test_encoder(make_bert: MakeBert, attention: str, batch: int) -> None:
    model, inputs = make_bert(attention=attention), bert_inputs(batch)
    captured = capture_module(model, inputs)
    counts = count_ops(captured.module)
    assert counts["nn.linear"] == 13
    assert counts["nn.layer_norm"] == 5
    assert counts["nn.gelu"] == 2
    assert counts["nn.embedding"] == 3
    assert counts["nn.sdpa"] == (2 if attention == "sdpa" else 0)
    assert counts["nn.softmax"] == (0 if attention == "sdpa" else 2)
    assert counts["nn.matmul"] == (0 if attention == "sdpa" else 4)
    assert {name.partition(".")[0] for name in counts} == {"nn", "einsum", "func"}
    assert names_of(captured) == (list(inputs), ["last_hidden_state", "pooler_output"])
    results: Any = main_of(captured.module).function_type.outputs
    shapes = [type_.get_shape() for type_ in results]
    assert shapes == [(batch, 8, 32), (batch, 32)]
    check_round_trip(captured.module)
    check_numbers(captured, model, inputs)


@pytest.mark.parametrize(
    ("kind", "outputs"),
    [
        ("BertForSequenceClassification", ["logits"]),
        ("BertForQuestionAnswering", ["start_logits", "end_logits"]),
        ("BertForMaskedLM", ["logits"]),
    ],
)
def test_heads(make_bert: MakeBert, kind: str, outputs: list[str]) -> None:
    model, inputs = make_bert(kind), bert_inputs(3)
    captured = capture_module(model, inputs)
    assert names_of(captured)[1] == outputs
    check_numbers(captured, model, inputs)


def test_decomposed_program(make_bert: MakeBert) -> None:
    """`run_decompositions` leaves native_layer_norm, addmm, permute, _softmax and the like."""
    model, inputs = make_bert(attention="eager"), bert_inputs(3)
    captured = capture_exported(export(model, inputs).run_decompositions())
    assert count_ops(captured.module)["nn.layer_norm"] == 5
    check_numbers(captured, model, inputs)


def test_tied_weights_share_one_name(make_bert: MakeBert, tmp_path: Path) -> None:
    program = export(make_bert("BertForMaskedLM"), bert_inputs())
    for captured in (capture_exported(program), capture_path(save(program, tmp_path / "m.pt"))):
        used = [key for op in captured.module.walk() if isinstance(op, WeightOp) for key in op.keys]
        assert len(used) == len(set(used)) == len(captured.weights)
        assert "cls.predictions.decoder.weight" not in used
        assert "bert.embeddings.word_embeddings.weight" in used


def test_token_types_may_be_left_out(make_bert: MakeBert) -> None:
    model, inputs = make_bert(), bert_inputs(3)
    del inputs["token_type_ids"]
    captured = capture_module(model, inputs)
    assert names_of(captured)[0] == ["input_ids", "attention_mask"]
    check_numbers(captured, model, inputs)


def test_hidden_states_are_named(make_bert: MakeBert) -> None:
    captured = capture_module(make_bert(output_hidden_states=True), bert_inputs())
    hidden = [f"hidden_states_{i}" for i in range(3)]
    assert names_of(captured)[1] == ["last_hidden_state", "pooler_output", *hidden]


def test_locations(archive: Path) -> None:
    captured = capture_path(archive)
    locations: dict[str, list[tuple[str, str, int]]] = {}
    for op in main_of(captured.module).body.block.ops:
        assert isinstance(op.location, NameLoc)
        line = op.location.location
        assert isinstance(line, FileLineColLoc)
        entry = (op.location.desc.data, line.filename.data, line.line.data)
        locations.setdefault(op.name, []).append(entry)
    query = next(entry for entry in locations["nn.linear"] if entry[0].endswith("query"))
    assert query[0] == "encoder.layer.0.attention.self.query"
    assert query[1] == "modeling_bert.py"
    assert query[2] > 0
    assert ("embeddings.LayerNorm", "modeling_bert.py") in [
        e[:2] for e in locations["nn.layer_norm"]
    ]
    assert all(entry[0] for entry in locations["einsum.weight"])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_archive_and_live_program_agree(
    make_bert: MakeBert, attention: str, tmp_path: Path
) -> None:
    program = export(make_bert(attention=attention), bert_inputs(3))
    live, read = capture_exported(program), capture_path(save(program, tmp_path / "x.bin"))
    assert read.module.attributes.pop("heatc.source") is not None
    assert text_of(read.module) == text_of(live.module)
    assert set(read.weights) == set(live.weights)
    for name, array in live.weights.items():
        np.testing.assert_array_equal(read.weights[name], array)


def test_only_used_weights_are_kept(archive: Path) -> None:
    captured = capture_path(archive)
    used = {key for op in captured.module.walk() if isinstance(op, WeightOp) for key in op.keys}
    assert set(captured.weights) == used
    # The model owns it, and no op reads it because token types are given.
    assert "embeddings.token_type_ids" not in used
    assert "dense<" not in text_of(captured.module)


def test_weights_are_mapped_read_only(archive: Path) -> None:
    for array in capture_path(archive).weights.values():
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_archive_needs_no_torch(archive: Path) -> None:
    code = (
        "import sys; from heatc.capture import capture_path; "
        f"capture_path({str(archive)!r}); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
