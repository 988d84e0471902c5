"""Audio encoders of transformers: mel frames for Whisper, samples for wav2vec2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import transformers

from bench.support.families.entry import (
    HEADS,
    LABELS,
    LAYERS,
    ROUTES,
    WIDTH,
    Arrays,
    Entry,
    Keep,
)
from bench.support.families.text import builder

_T: Any = transformers

FRAMES, MELS = 40, 16
SAMPLES, KERNELS, STRIDES = 130, (10, 3), (5, 2)

_WHISPER = {
    "d_model": WIDTH,
    "encoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "encoder_ffn_dim": 2 * WIDTH,
    "decoder_layers": 1,
    "decoder_attention_heads": HEADS,
    "decoder_ffn_dim": 2 * WIDTH,
    "num_mel_bins": MELS,
    "max_source_positions": FRAMES // 2,
    "vocab_size": 50,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 2,
    "classifier_proj_size": 24,
    "num_labels": LABELS,
}
_WAV2VEC2 = {
    "vocab_size": 30,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
    "conv_dim": (24, 24),
    "conv_kernel": KERNELS,
    "conv_stride": STRIDES,
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 24,
    "num_labels": LABELS,
}
_LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def entries() -> Iterator[Entry]:
    """Every audio encoder with every head."""
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    models = (("base", WhisperEncoder), ("AudioClassification", _T.WhisperForAudioClassification))
    for head, model in models:
        make = builder(model, _T.WhisperConfig, _WHISPER)
        # In a folder the encoder has a head: alone it is no model that AutoModel knows.
        routes = ("archive",) if head == "base" else ROUTES
        yield Entry("Whisper encoder", head, make, _mel_inputs(), axis=FRAMES // 2, routes=routes)
    for head, name, more in (
        ("base", "Wav2Vec2Model", {}),
        ("base, layer norms", "Wav2Vec2Model", _LARGE),
        ("CTC", "Wav2Vec2ForCTC", {}),
        ("SequenceClassification", "Wav2Vec2ForSequenceClassification", {}),
    ):
        make = builder(getattr(_T, name), _T.Wav2Vec2Config, {**_WAV2VEC2, **more})
        masked = bool(more)
        yield Entry(
            "wav2vec2 encoder",
            head,
            make,
            _sample_inputs(masked),
            _padded_samples if masked else lambda inputs, keep: inputs,
            # Only those with layer norms are given a mask; the others' padding is silence.
            ("none", "right") if masked else ("none",),
            axis=frames(SAMPLES),
            positions=_frames_kept,
        )


def frames(samples: int) -> int:
    """How many frames the convolutions make of samples."""
    for kernel, stride in zip(KERNELS, STRIDES):
        samples = (samples - kernel) // stride + 1
    return samples


def _mel_inputs() -> Arrays:
    random = np.random.RandomState(1)
    return {"input_features": random.standard_normal((2, MELS, FRAMES)).astype(np.float32)}


def _sample_inputs(masked: bool) -> Arrays:
    random = np.random.RandomState(1)
    values = random.standard_normal((2, SAMPLES)).astype(np.float32)
    mask = {"attention_mask": np.ones((2, SAMPLES), np.int64)} if masked else {}
    return {"input_values": values, **mask}


def _counts(keep: Keep) -> list[int]:
    """How many samples of each sound are real: as large a part as of tokens."""
    return [SAMPLES if keep[i].all() else int(SAMPLES * keep[i].mean()) for i in (0, 2)]


def _padded_samples(inputs: Arrays, keep: Keep) -> Arrays:
    mask = np.arange(SAMPLES) < np.array(_counts(keep))[:, None]
    values = np.where(mask, inputs["input_values"], 0).astype(np.float32)
    return {"input_values": values, "attention_mask": mask.astype(np.int64)}


def _frames_kept(keep: Keep) -> Keep:
    counts = np.array([frames(count) for count in _counts(keep)])
    return np.arange(frames(SAMPLES)) < counts[:, None]
