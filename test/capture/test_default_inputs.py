"""What a folder's program takes where --inputs is left out, family by family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from capture_support import names_of, refuse

from heatc.capture import capture_path, parse_inputs
from heatc.capture.hf_inputs import default_inputs
from heatc.capture.hf_model import quiet_transformers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXT = {"vocab_size": 60, **SMALL}
PAIR = {
    "vocab_size": 60,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}
T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
TOKENS = "input_ids={0}:i64,attention_mask={0}:i64"


def model_of(kind: str, config: str, settings: dict[str, Any]) -> Any:
    make_config: Any = getattr(transformers, config)
    with torch.device("meta"), quiet_transformers():
        return getattr(transformers, kind)(make_config(**settings)).eval()


@pytest.mark.parametrize(
    ("kind", "config", "settings", "expected"),
    [
        ("BertModel", "Bert", TEXT, TOKENS + ",token_type_ids={0}:i64"),
        ("DistilBertModel", "DistilBert", {"dim": 32, "n_heads": 4, "hidden_dim": 64}, TOKENS),
        ("GPT2Model", "GPT2", {"n_embd": 32, "n_head": 4, "n_layer": 1}, TOKENS),
        ("DebertaV2Model", "DebertaV2", {**TEXT, "type_vocab_size": 0}, TOKENS),
        ("CLIPTextModel", "CLIPText", TEXT, TOKENS.format("1x77")),
        ("T5EncoderModel", "T5", T5, TOKENS),
        ("ViTModel", "ViT", {**SMALL, "num_channels": 1}, "pixel_values=1x1x224x224:f32"),
        (
            "ViTModel",
            "ViT",
            {**SMALL, "image_size": [32, 64], "patch_size": 16},
            "pixel_values=1x3x32x64:f32",
        ),
        (
            "CLIPModel",
            "CLIP",
            {"text_config": TEXT, "vision_config": {**SMALL, "image_size": 64}},
            "input_ids=1x77:i64,pixel_values=1x3x64x64:f32,attention_mask=1x77:i64",
        ),
        ("Wav2Vec2Model", "Wav2Vec2", TEXT, "input_values=1x16000:f32"),
        ("ASTModel", "AST", SMALL, "input_values=1x1024x128:f32"),
    ],
)
def test_families(kind: str, config: str, settings: dict[str, Any], expected: str) -> None:
    model = model_of(kind, f"{config}Config", settings)
    assert default_inputs(model) == parse_inputs(expected.format("1x128"))


@pytest.mark.parametrize("bins", [80, 128])
def test_whisper(bins: int) -> None:
    model = model_of(
        "WhisperModel", "WhisperConfig", {**PAIR, "num_mel_bins": bins, "pad_token_id": 0}
    )
    found = default_inputs(model.get_encoder())
    assert found == parse_inputs(f"input_features=1x{bins}x3000:f32")


def test_positions_that_begin_behind_padding() -> None:
    model = model_of("RobertaModel", "RobertaConfig", {**TEXT, "max_position_embeddings": 24})
    assert default_inputs(model)["input_ids"].shape == (1, 22)


def save(kind: str, config: str, settings: dict[str, Any], folder: Path) -> Path:
    torch.manual_seed(0)
    make_config: Any = getattr(transformers, config)
    with quiet_transformers():
        getattr(transformers, kind)(make_config(**settings)).eval().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "config", "settings"),
    [
        ("BartModel", "BartConfig", {**PAIR, "max_position_embeddings": 24}),
        ("BartForConditionalGeneration", "BartConfig", {**PAIR, "max_position_embeddings": 24}),
        ("T5ForConditionalGeneration", "T5Config", T5),
    ],
)
def test_the_encoder_of_a_pair(
    kind: str, config: str, settings: dict[str, Any], tmp_path: Path, capfd: Any
) -> None:
    folder = save(kind, config, settings, tmp_path)
    captured = capture_path(folder)
    assert names_of(captured) == (["input_ids", "attention_mask"], ["last_hidden_state"])
    assert f"remark: the encoder of {kind} is compiled" in capfd.readouterr().err


def test_the_whole_of_a_pair(tmp_path: Path, capfd: Any) -> None:
    """Its inputs say so; what a cache would keep is no output."""
    settings = {**PAIR, "max_position_embeddings": 24}
    folder = save("BartModel", "BartConfig", settings, tmp_path)
    captured = capture_path(folder, parse_inputs("input_ids=1x8:i64,decoder_input_ids=1x4:i64"))
    assert names_of(captured)[1] == ["last_hidden_state", "encoder_last_hidden_state"]
    assert "remark" not in capfd.readouterr().err


def test_the_weights_of_an_encoder_alone(tmp_path: Path) -> None:
    """A decoder that nobody asks for may be missing; the encoder may not."""
    from safetensors.numpy import load_file, save_file

    settings = {**PAIR, "max_position_embeddings": 24}
    folder = save("BartModel", "BartConfig", settings, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: t for name, t in tensors.items() if not name.startswith("decoder.")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    assert names_of(capture_path(folder))[1] == ["last_hidden_state"]
    refuse(
        folder,
        match="do not fit BartModel",
        inputs=parse_inputs("input_ids=1x8:i64,decoder_input_ids=1x4:i64"),
    )
    del kept["encoder.layernorm_embedding.bias"]
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    refuse(folder, match="lacks weights that the outputs are computed from")


def test_a_decoder_keeps_nothing(tmp_path: Path) -> None:
    """The cache of GPT-2 is no output."""
    settings = {"vocab_size": 60, "n_embd": 32, "n_head": 4, "n_layer": 1, "n_positions": 24}
    folder = save("GPT2LMHeadModel", "GPT2Config", settings, tmp_path)
    assert names_of(capture_path(folder)) == (["input_ids", "attention_mask"], ["logits"])


def test_nested_outputs(tmp_path: Path) -> None:
    """All hidden states, one name each; outputs keep their names where the file wants a tuple."""
    settings = {**TEXT, "output_hidden_states": True, "return_dict": False}
    folder = save("BertModel", "BertConfig", settings, tmp_path)
    assert names_of(capture_path(folder))[1] == [
        "last_hidden_state",
        "pooler_output",
        "hidden_states_0",
        "hidden_states_1",
    ]
