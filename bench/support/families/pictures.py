"""Vision encoders of transformers: square pictures of square patches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import transformers

from bench.support.families.entry import HEADS, LABELS, LAYERS, WIDTH, Arrays, Entry
from bench.support.families.text import builder

_T: Any = transformers

_SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": LABELS,
}
_MODELS = (
    ("ViT", "base", "ViTModel", "ViTConfig", {}),
    ("ViT", "ImageClassification", "ViTForImageClassification", "ViTConfig", {}),
    ("DeiT", "base", "DeiTModel", "DeiTConfig", {}),
    ("DeiT", "ImageClassification", "DeiTForImageClassification", "DeiTConfig", {}),
    ("DeiT", "with teacher", "DeiTForImageClassificationWithTeacher", "DeiTConfig", {}),
    ("BEiT", "base", "BeitModel", "BeitConfig", {}),
    ("BEiT", "base, relative", "BeitModel", "BeitConfig", {"use_relative_position_bias": True}),
    ("BEiT", "ImageClassification", "BeitForImageClassification", "BeitConfig", {}),
    ("CLIP vision", "base", "CLIPVisionModel", "CLIPVisionConfig", {"projection_dim": 24}),
    (
        "CLIP vision",
        "projection",
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        {"projection_dim": 24},
    ),
)


def picture_inputs() -> Arrays:
    """Two pictures of three colours."""
    random = np.random.RandomState(1)
    return {"pixel_values": random.standard_normal((2, 3, 32, 32)).astype(np.float32)}


def entries() -> Iterator[Entry]:
    """Every vision encoder with every head."""
    for family, head, model, config, more in _MODELS:
        make = builder(getattr(_T, model), getattr(_T, config), {**_SIZES, **more})
        yield Entry(family, head, make, picture_inputs(), axis=17)
