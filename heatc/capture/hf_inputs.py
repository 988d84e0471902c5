"""
The inputs of a model of transformers: what a family takes where the user does not say.

The parameters of `forward` decide which inputs there are, the configuration how large they are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from heatc.capture.inputs import InputSpec
from heatc.errors import HeatcError

DEFAULT_LENGTH = 128
"""Tokens of a text."""

_IMAGE_SIZE = 224
_CHANNELS = 3
_SAMPLES = 16_000
"""A second of sound."""

Find = Callable[[Any, Any, int], InputSpec | None]


def parameters(module: Any) -> list[str]:
    """The names that `forward` takes; transformers' own takes `**kwargs` too, for options."""
    signature = inspect.signature(module.forward).parameters
    return [n for n, p in signature.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]


def default_inputs(module: Any, length: int = DEFAULT_LENGTH) -> dict[str, InputSpec]:
    """
    One text of `length` tokens or as long as the model allows, one image, or one piece of sound.

    Raises `HeatcError` where the family's inputs are not known here.
    """
    config = module.config
    taken = parameters(module)
    found = {name: find(module, config, length) for name, find in _INPUTS.items() if name in taken}
    specs = {name: spec for name, spec in found.items() if spec is not None}
    main = getattr(module, "main_input_name", "input_ids")
    if main not in specs:
        raise HeatcError(
            f"the size of input {main!r} of {type(module).__name__} is not known",
            notes=['give the inputs, for example --inputs "input_ids=1x128:i64"'],
        )
    return specs


def _ids(module: Any, config: Any, length: int) -> InputSpec | None:
    limit = _positions(module, config)
    return InputSpec((1, min(length, limit)), "i64")


def _mask(module: Any, config: Any, length: int) -> InputSpec | None:
    # Beside sound it says which samples there are: whoever needs it gives it.
    return _ids(module, config, length) if "input_ids" in parameters(module) else None


def _segments(module: Any, config: Any, length: int) -> InputSpec | None:
    types = getattr(config, "type_vocab_size", 0)
    return _ids(module, config, length) if types else None


def _positions(module: Any, config: Any) -> int:
    """How many tokens the table of positions is for."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return DEFAULT_LENGTH
    for part in module.modules():
        # RoBERTa's positions begin behind the index of padding.
        if hasattr(part, "create_position_ids_from_input_ids"):
            return max(1, limit - 1 - (getattr(part, "padding_idx", None) or 0))
    return limit


def _image(module: Any, config: Any, length: int) -> InputSpec | None:
    vision = getattr(config, "vision_config", config)
    channels = getattr(vision, "num_channels", _CHANNELS)
    size = getattr(vision, "image_size", _IMAGE_SIZE)
    if isinstance(size, dict):
        size = [size.get("height"), size.get("width")]
    sides = list(cast("list[Any]", size)) if isinstance(size, list | tuple) else [size, size]
    if len(sides) != 2 or not all(type(n) is int and n > 0 for n in (channels, *sides)):
        return None
    return InputSpec((1, channels, *sides), "f32")


def _samples(module: Any, config: Any, length: int) -> InputSpec | None:
    frames, bins = getattr(config, "max_length", None), getattr(config, "num_mel_bins", None)
    if isinstance(frames, int) and isinstance(bins, int):
        return InputSpec((1, frames, bins), "f32")  # a spectrogram, as in AST
    return InputSpec((1, _SAMPLES), "f32")


def _features(module: Any, config: Any, length: int) -> InputSpec | None:
    bins = getattr(config, "num_mel_bins", None)
    # Whisper's first convolution halves the frames.
    positions = getattr(config, "max_source_positions", None)
    if not isinstance(bins, int) or not isinstance(positions, int):
        return None
    return InputSpec((1, bins, 2 * positions), "f32")


_INPUTS: dict[str, Find] = {
    "input_ids": _ids,
    "pixel_values": _image,
    "input_values": _samples,
    "input_features": _features,
    "attention_mask": _mask,
    "token_type_ids": _segments,
}


def check_names(specs: Mapping[str, InputSpec], taken: list[str], place: Path) -> None:
    """Raise `HeatcError` for an input that `forward` does not take."""
    for name in specs:
        if name not in taken and taken:
            raise HeatcError(
                f"the model has no input {name!r}",
                place=str(place),
                notes=[f"forward takes {', '.join(taken)}"],
            )


def examples(specs: Mapping[str, InputSpec]) -> dict[str, Any]:
    """Tensors of the declared shapes; they have no memory: exporting looks at shapes alone."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    dtypes = {
        "f32": torch.float32,
        "i64": torch.int64,
        "i32": torch.int32,
        "i16": torch.int16,
        "i8": torch.int8,
        "u8": torch.uint8,
        "i1": torch.bool,
    }
    with FakeTensorMode():
        return {n: torch.zeros(s.shape, dtype=dtypes[s.dtype]) for n, s in specs.items()}
