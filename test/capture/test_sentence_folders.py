"""Folders of sentence-transformers: read by heatc's own code, held against the published equations."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_support import MakeBert, names_of, refuse

import heatc
from heatc.capture import capture_path, parse_inputs

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

INPUTS = "input_ids=3x9:i64,attention_mask=3x9:i64"
OLD = "sentence_transformers.models."
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
}
FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def pooled_old(modes: Sequence[str]) -> dict[str, Any]:
    """The config.json of a Pooling, as versions up to 5 write it."""
    return {"word_embedding_dimension": 32, **{key: mode in modes for mode, key in FLAGS.items()}}


def sentence_folder(
    folder: Path,
    model: Any,
    modules: Sequence[tuple[str, dict[str, Any]]],
    *,
    encoder: str = "",
    types: dict[str, str] | None = None,
) -> Path:
    """A folder as sentence-transformers lays it out; `encoder` is the folder of the model in it."""
    (folder / encoder).mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder / encoder)
    settings = json.dumps({"max_seq_length": 12, "do_lower_case": False})
    (folder / encoder / "sentence_bert_config.json").write_text(settings)
    kinds = ["Transformer", *(kind for kind, _ in modules)]
    entries = [
        {
            "idx": i,
            "name": str(i),
            "path": encoder if i == 0 else f"{i}_{kind}",
            "type": (types or {}).get(kind, f"{OLD}{kind}"),
        }
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    for entry, (_, config) in zip(entries[1:], modules):
        path = folder / str(entry["path"])
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text(json.dumps(config))
    return folder


def run(folder: Path, tmp_path: Path, inputs: dict[str, Any], specs: str = INPUTS) -> Any:
    """What the compiled program gives."""
    program = tmp_path / "sentence.py"
    heatc.compile(folder, parse_inputs(specs), target="numpy", output=program)
    np.savez(tmp_path / "in.npz", **{name: value.numpy() for name, value in inputs.items()})
    words = [sys.executable, program, tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run(words, check=True)
    found = np.load(tmp_path / "out.npz")
    assert list(found) == ["sentence_embedding"]
    return found["sentence_embedding"]


@pytest.fixture
def sentences() -> dict[str, Any]:
    """Three of them: whole, padded on the right, one token."""
    torch.manual_seed(2)
    mask = torch.ones(3, 9, dtype=torch.int64)
    mask[1, 6:] = 0
    mask[2, 1:] = 0
    return {"input_ids": torch.randint(0, 100, (3, 9)), "attention_mask": mask}


def tokens_of(model: Any, inputs: dict[str, Any]) -> Any:
    with torch.no_grad():
        return model(**inputs).last_hidden_state


def pooled(mode: str, tokens: Any, mask: Any) -> Any:
    """One sentence at a time, of its real tokens alone."""
    rows: list[Any] = []
    for row, real in zip(tokens, mask.bool()):
        kept = row[real]
        places = (torch.nonzero(real)[:, 0] + 1).float()[:, None]
        rows.append(
            {
                "cls": row[0],
                "max": kept.max(0).values,
                "mean": kept.mean(0),
                "mean_sqrt_len_tokens": kept.sum(0) / len(kept) ** 0.5,
                "weightedmean": (kept * places).sum(0) / places.sum(),
                "lasttoken": kept[-1],
            }[mode]
        )
    return torch.stack(rows)


@pytest.mark.parametrize("mode", FLAGS)
def test_poolings(
    make_bert: MakeBert, tmp_path: Path, sentences: dict[str, Any], mode: str
) -> None:
    model = make_bert()
    folder = sentence_folder(tmp_path / "model", model, [("Pooling", pooled_old([mode]))])
    found = run(folder, tmp_path, sentences)
    expected = pooled(mode, tokens_of(model, sentences), sentences["attention_mask"])
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_left_padding(make_bert: MakeBert, tmp_path: Path, sentences: dict[str, Any]) -> None:
    """Means and the last token are those of the real tokens, wherever they stand."""
    model = make_bert()
    modes = ["mean", "weightedmean", "lasttoken", "max"]
    config = {"embedding_dimension": 32, "pooling_mode": modes, "include_prompt": True}
    folder = sentence_folder(tmp_path / "model", model, [("Pooling", config)], types=NEW)
    mask = sentences["attention_mask"].flip(1)
    mask[0, 3] = 0
    inputs = {**sentences, "attention_mask": mask}
    tokens = tokens_of(model, inputs)
    expected = torch.cat([pooled(mode, tokens, mask) for mode in modes], -1)
    np.testing.assert_allclose(run(folder, tmp_path, inputs), expected.numpy(), atol=1e-5)


def test_several_modes_of_older_versions(
    make_bert: MakeBert, tmp_path: Path, sentences: dict[str, Any]
) -> None:
    """They lie side by side in the order of the class, not of the file."""
    model = make_bert()
    modules = [("Pooling", pooled_old(["mean", "max", "cls"]))]
    found = run(sentence_folder(tmp_path / "m", model, modules), tmp_path, sentences)
    tokens = tokens_of(model, sentences)
    order = ("cls", "max", "mean")
    expected = [pooled(mode, tokens, sentences["attention_mask"]) for mode in order]
    np.testing.assert_allclose(found, torch.cat(expected, -1).numpy(), atol=1e-5)


def dense(folder: Path, wide: int, *, is_bin: bool, bias: bool = True) -> Any:
    """The weights of the module `2_Dense`; gives them."""
    from safetensors.torch import save_file

    torch.manual_seed(5)
    linear = torch.nn.Linear(32, wide, bias=bias)
    state = {f"linear.{name}": tensor for name, tensor in linear.state_dict().items()}
    if is_bin:
        torch.save(state, folder / "2_Dense" / "pytorch_model.bin")
    else:
        save_file(state, folder / "2_Dense" / "model.safetensors")
    return linear


DENSE = {"in_features": 32, "out_features": 20, "bias": True}


@pytest.mark.parametrize("is_bin", [True, False])
@pytest.mark.parametrize("types", [None, NEW])
def test_dense_and_normalize(
    make_bert: MakeBert,
    tmp_path: Path,
    sentences: dict[str, Any],
    is_bin: bool,
    types: dict[str, str] | None,
) -> None:
    """The layout with the encoder in `0_Transformer`, too."""
    model = make_bert()
    settings = {**DENSE, "activation_function": "torch.nn.modules.activation.Tanh"}
    modules = [("Pooling", pooled_old(["mean"])), ("Dense", settings), ("Normalize", {})]
    encoder = "0_Transformer" if is_bin else ""
    folder = sentence_folder(tmp_path / "m", model, modules, encoder=encoder, types=types)
    linear = dense(folder, 20, is_bin=is_bin)
    found = run(folder, tmp_path, sentences)
    mean = pooled("mean", tokens_of(model, sentences), sentences["attention_mask"])
    with torch.no_grad():
        expected = linear(mean).tanh()
        expected /= expected.square().sum(-1, keepdim=True).sqrt()
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_dense_with_a_residual(
    make_bert: MakeBert, tmp_path: Path, sentences: dict[str, Any]
) -> None:
    model = make_bert()
    settings = {**DENSE, "out_features": 32, "use_residual": True}
    settings |= {"activation_function": "torch.nn.modules.linear.Identity", "bias": False}
    modules = [("Pooling", pooled_old(["cls"])), ("Dense", settings)]
    folder = sentence_folder(tmp_path / "m", model, modules)
    linear = dense(folder, 32, is_bin=False, bias=False)
    first = tokens_of(model, sentences)[:, 0]
    with torch.no_grad():
        expected = linear(first) + first
    found = run(folder, tmp_path, sentences)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_inputs_of_a_sentence_folder(make_bert: MakeBert, tmp_path: Path) -> None:
    """As long as max_seq_length says, where --inputs is left out."""
    folder = sentence_folder(tmp_path / "m", make_bert(), [("Pooling", pooled_old(["mean"]))])
    captured = capture_path(folder)
    assert names_of(captured) == (
        ["input_ids", "attention_mask", "token_type_ids"],
        ["sentence_embedding"],
    )
    assert "tensor<1x12xi64>" in str(captured.module)
    assert "encoder.embeddings.word_embeddings.weight" in captured.weights


def test_an_encoder_without_a_pooler(
    make_bert: MakeBert, tmp_path: Path, sentences: dict[str, Any], capfd: Any
) -> None:
    """What the embedding is not computed from may be missing; a head is of no use."""
    model = make_bert("BertForMaskedLM")
    folder = sentence_folder(tmp_path / "m", model, [("Pooling", pooled_old(["mean"]))])
    found = run(folder, tmp_path, sentences)
    expected = pooled("mean", tokens_of(model.bert, sentences), sentences["attention_mask"])
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert "BertModel has no use for 5 weights: cls.predictions.bias" in capfd.readouterr().err


def test_an_encoder_that_lacks_what_is_read(make_bert: MakeBert, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = sentence_folder(tmp_path / "m", make_bert(), [("Pooling", pooled_old(["mean"]))])
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    error = refuse(folder, match="lacks weights that the outputs are computed from")
    assert error.notes[0] == "1 missing: encoder.layer.1.output.dense.bias"


def test_an_encoder_of_t5(tmp_path: Path) -> None:
    """sentence-t5: the encoder of a model that is saved with its decoder."""
    make_config: Any = transformers.T5Config
    settings = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(make_config(vocab_size=50, **settings))
    folder = sentence_folder(tmp_path / "m", model, [("Pooling", pooled_old(["mean"]))])
    captured = capture_path(folder)
    assert names_of(captured) == (["input_ids", "attention_mask"], ["sentence_embedding"])
    assert not [name for name in captured.weights if "decoder" in name]


MEAN = ("Pooling", pooled_old(["mean"]))


@pytest.mark.parametrize(
    ("modules", "match"),
    [
        ([], "no module pools"),
        ([MEAN, ("LSTM", {})], "'LSTM' of sentence-transformers is not supported"),
        ([("Pooling", {"pooling_mode": "median"})], "pooling_mode is"),
        ([("Pooling", {"word_embedding_dimension": 64})], "the pooled width is 64"),
        ([MEAN, ("Dense", {**DENSE, "in_features": 31})], "in_features is 31"),
        ([MEAN, ("Dense", {**DENSE, "activation_function": "os.system"})], "activation"),
        ([MEAN, ("Normalize", {"module_input_name": "token_embeddings"})], "module_input_name"),
    ],
)
def test_refused_modules(make_bert: MakeBert, tmp_path: Path, modules: Any, match: str) -> None:
    folder = sentence_folder(tmp_path / "m", make_bert(), modules)
    if len(modules) > 1 and modules[1][0] == "Dense":
        dense(folder, 20, is_bin=False)
    refuse(folder, match=match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"type": "modeling_own.Transformer"}, "'modeling_own.Transformer' is not supported"),
        ({"type": f"{OLD}WordEmbeddings"}, "the first module is WordEmbeddings"),
        ({"path": "../elsewhere"}, "unsafe path"),
    ],
)
def test_refused_encoders(
    make_bert: MakeBert, tmp_path: Path, change: dict[str, str], match: str
) -> None:
    folder = sentence_folder(tmp_path / "m", make_bert(), [MEAN])
    entries = json.loads((folder / "modules.json").read_text())
    entries[0] |= change
    (folder / "modules.json").write_text(json.dumps(entries))
    refuse(folder, match=match)
    (folder / "modules.json").write_text("[1]")
    refuse(folder, match="expected a list of modules")


def test_the_files_of_a_sentence_folder(make_bert: MakeBert, tmp_path: Path) -> None:
    """A plan is for these files, and nothing is written over them."""
    from heatc.commands import model_files
    from heatc.plan import model_sha256

    modules = [("Pooling", pooled_old(["mean"])), ("Dense", DENSE)]
    folder = sentence_folder(tmp_path / "m", make_bert(), modules, encoder="0_Transformer")
    dense(folder, 20, is_bin=True)
    names = {str(path.relative_to(folder)) for path in model_files(folder)}
    assert names == {
        "modules.json",
        "0_Transformer/config.json",
        "0_Transformer/model.safetensors",
        "0_Transformer/sentence_bert_config.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/pytorch_model.bin",
    }
    before = model_sha256(folder)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooled_old(["cls"])))
    assert model_sha256(folder) != before


@pytest.mark.model
def test_the_real_model(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2 as it is published."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from bench.support.data import texts

    try:
        folder = texts.sentence_folder()
    except texts.MissingError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    mask = torch.ones(2, 16, dtype=torch.int64)
    mask[1, 10:] = 0
    inputs = {"input_ids": torch.randint(1000, 20000, (2, 16)), "attention_mask": mask}
    found = run(folder, tmp_path, inputs, INPUTS.replace("3x9", "2x16"))
    model = transformers.BertModel.from_pretrained(folder).eval()
    expected = torch.nn.functional.normalize(pooled("mean", tokens_of(model, inputs), mask))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
