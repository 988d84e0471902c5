"""Every family of encoders, small and random, against PyTorch: as a live module and as an archive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_support import count_ops, save

from heatc import interpreter
from heatc.api import make_context
from heatc.capture import Captured, capture_exported, capture_path
from heatc.capture.exported import export
from heatc.pipeline import build, run_passes

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

TEXT = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 16,
    "patch_size": 4,
}
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
DEBERTA = {
    **TEXT,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "position_biased_input": False,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "conv_kernel_size": 3,
    "conv_act": "gelu",
}
MODERN = {**TEXT, **ENDS, "local_attention": 4, "cls_token_id": 1, "sep_token_id": 2}
WHISPER = {
    **ENDS,
    "vocab_size": 60,
    "num_mel_bins": 8,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "d_model": 32,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "max_source_positions": 12,
    "decoder_start_token_id": 1,
}
WAVES = {
    **TEXT,
    "conv_dim": (16, 16),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 18,
    "num_conv_pos_embedding_groups": 4,
}
T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}


def words() -> dict[str, Any]:
    """Two sentences, one with padding at its end."""
    mask = torch.ones(2, 10, dtype=torch.int64)
    mask[1, 7:] = 0
    ids = torch.randint(5, 60, (2, 10))
    return {"input_ids": torch.where(mask > 0, ids, 1), "attention_mask": mask}


def pixels() -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, 16, 16)}


def spectrum() -> dict[str, Any]:
    return {"input_features": torch.randn(2, 8, 24)}


def waves() -> dict[str, Any]:
    mask = torch.ones(2, 200, dtype=torch.int64)
    mask[1, 130:] = 0
    return {"input_values": torch.randn(2, 200), "attention_mask": mask}


def whisper(config: Any) -> Any:
    return transformers.WhisperModel(config).encoder


FAMILIES: dict[str, tuple[str | Callable[..., Any], str, dict[str, Any], Callable[..., Any]]] = {
    "roberta": ("RobertaForSequenceClassification", "RobertaConfig", TEXT, words),
    "distilbert": (
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        {"vocab_size": 60, "dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64},
        words,
    ),
    "electra": ("ElectraForPreTraining", "ElectraConfig", {**TEXT, "embedding_size": 16}, words),
    "albert": ("AlbertModel", "AlbertConfig", {**TEXT, "embedding_size": 16}, words),
    "mpnet": ("MPNetModel", "MPNetConfig", TEXT, words),
    "deberta": ("DebertaV2ForTokenClassification", "DebertaV2Config", DEBERTA, words),
    "modernbert": ("ModernBertForSequenceClassification", "ModernBertConfig", MODERN, words),
    "vit": ("ViTForImageClassification", "ViTConfig", IMAGE, pixels),
    "deit": ("DeiTModel", "DeiTConfig", IMAGE, pixels),
    "beit": ("BeitModel", "BeitConfig", {**IMAGE, "use_relative_position_bias": True}, pixels),
    "clip_text": ("CLIPTextModel", "CLIPTextConfig", {**TEXT, **ENDS}, words),
    "clip_vision": ("CLIPVisionModel", "CLIPVisionConfig", IMAGE, pixels),
    "whisper": (whisper, "WhisperConfig", WHISPER, spectrum),
    "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2Config", WAVES, waves),
    "t5": ("T5EncoderModel", "T5Config", T5, words),
}


def make(name: str) -> tuple[Any, dict[str, Any]]:
    """A model of a family in evaluation mode, and inputs."""
    kind, config, settings, inputs = FAMILIES[name]
    torch.manual_seed(0)
    made = getattr(transformers, config)(**settings)
    model = kind(made) if callable(kind) else getattr(transformers, kind)(made)
    return model.eval(), inputs()


def check(captured: Captured, model: Any, inputs: dict[str, Any]) -> None:
    """All outputs within 1e-5, before and after constants are folded."""
    with torch.no_grad():
        expected = model(**inputs)
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    for passes in ("", "canonicalize,cse,fold-constants"):
        run_passes(make_context(captured.weights), captured.module, build(passes))
        found = interpreter.execute(captured.module, arrays, captured.weights)
        assert found
        for key, array in found.items():
            np.testing.assert_allclose(array, expected[key].numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str, tmp_path: Path) -> None:
    model, inputs = make(name)
    program = export(model, inputs)
    check(capture_exported(program), model, inputs)
    check(capture_path(save(program, tmp_path / "model.pt2")), model, inputs)


def test_torch_encoder_with_a_mask(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
            self.encoder = torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

        def forward(self, x: Any, mask: Any) -> Any:
            return {"output": self.encoder(x, src_key_padding_mask=mask == 0)}

    model = Model().eval()
    inputs = {"x": torch.randn(2, 10, 32), "mask": words()["attention_mask"]}
    program = export(model, inputs)
    whole = program.run_decompositions()
    check(capture_exported(program), model, inputs)
    check(capture_path(save(program, tmp_path / "model.pt2")), model, inputs)
    captured = capture_path(save(whole, tmp_path / "whole.pt2"))
    assert count_ops(captured.module)["nn.linear"] == 4
    check(captured, model, inputs)
