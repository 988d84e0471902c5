"""
Folders of sentence-transformers: modules.json says which modules a sentence passes, in order.

The files are those that sentence-transformers writes (its `Module.save` and `Pooling`, `Dense`,
`Normalize`, `LayerNorm`), of the versions from 0.2 to 6; the package itself is not needed. The one
output is `sentence_embedding`, (B, D) float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from heatc.capture.checkpoint import FLOATS, read_checkpoint
from heatc.capture.hf_inputs import DEFAULT_LENGTH
from heatc.capture.hf_names import Cast
from heatc.capture.placeholders import Placeholders
from heatc.errors import HeatcError
from heatc.readers.json_text import parse_json, read_json
from heatc.readers.model_folder import CONFIG, ENCODER_SETTINGS, MODULES
from heatc.readers.source import read_bytes

_LARGEST = 1 << 20
_PACKAGE = "sentence_transformers"
_ENCODERS = (
    "Transformer",
    # Names of the first versions.
    *("BERT", "RoBERTa", "DistilBERT", "ALBERT", "CamemBERT", "XLMRoBERTa", "XLNet", "T5"),
)
_EMBEDDING = "sentence_embedding"

# The order in which earlier versions put several poolings side by side.
_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Part:
    """One module behind the encoder: its kind, its folder, and the config.json in there."""

    kind: str
    folder: Path
    config: Mapping[str, Any]

    def error(self, message: str, *notes: str) -> HeatcError:
        """An error at this module."""
        return HeatcError(message, place=str(self.folder / CONFIG), notes=notes)


@dataclass(frozen=True)
class SentenceFolder:
    """
    What a folder says.

    Attributes:
        encoder: the folder of the encoder, a folder of transformers.
        length: tokens of a text where the user does not say.
        parts: the modules behind the encoder, in order.
        remarks: what the user is to know.
    """

    encoder: Path
    length: int
    parts: list[Part]
    remarks: list[str] = field(default_factory=list[str])

    def model(self, encoder: Any, options: Mapping[str, Any], placeholders: Placeholders) -> Any:
        """
        The encoder and what follows it as one module; `options` are told to the encoder.

        Raises `HeatcError` for a module that heatc does not know or whose weights do not fit.
        """
        from heatc.capture.sentence_modules import SentenceModel

        width = encoder.config.get_text_config().hidden_size
        steps: list[Any] = []
        for part in self.parts:
            if part.kind not in _BUILDERS:
                raise part.error(
                    f"a module {part.kind!r} of sentence-transformers is not supported",
                    f"supported are Transformer, {', '.join(_BUILDERS)}",
                )
            step, width = _BUILDERS[part.kind](part, width, placeholders)
            if step is not None:
                steps.append(step)
        return SentenceModel(encoder, steps, options).eval()


def read_sentence_folder(folder: Path) -> SentenceFolder:
    """
    What the modules.json of a folder says.

    Raises `HeatcError` for a malformed one, and where no encoder comes first or nothing pools.
    """
    place = folder / MODULES
    entries = _entries(place)
    kinds = [_kind(entry, place) for entry in entries]
    folders = [_below(folder, entry, place) for entry in entries]
    if not kinds or kinds[0] not in _ENCODERS:
        raise HeatcError(
            f"the first module is {kinds[0] if kinds else 'missing'}, expected Transformer",
            place=str(place),
            notes=["give the folder of a transformers model in it, if there is one"],
        )
    if "Pooling" not in kinds:
        raise HeatcError(
            "no module pools the tokens to a sentence embedding",
            place=str(place),
            notes=[f"its modules are {', '.join(kinds)}"],
        )
    parts = [
        Part(kind, path, read_json(path / CONFIG, "a module's configuration", _LARGEST))
        if (path / CONFIG).is_file()
        else Part(kind, path, {})
        for kind, path in zip(kinds[1:], folders[1:])
    ]
    return SentenceFolder(folders[0], _length(folders[0]), parts)


def _entries(place: Path) -> list[Mapping[str, Any]]:
    # The file is a list, and what reads JSON takes objects.
    data = read_bytes(place, "the modules of a sentence model", _LARGEST)
    value = parse_json(b'{"modules": ' + data + b"}", str(place))["modules"]
    if not isinstance(value, list) or not all(isinstance(e, dict) for e in cast("Any", value)):
        raise HeatcError("expected a list of modules", place=str(place))
    return cast("list[Mapping[str, Any]]", value)


def _kind(entry: Mapping[str, Any], place: Path) -> str:
    """The class of a module without its package, whose folders differ from version to version."""
    package, _, rest = str(entry.get("type", "")).partition(".")
    if package != _PACKAGE or not rest:
        raise HeatcError(
            f"a module of type {str(entry.get('type'))[:80]!r} is not supported",
            place=str(place),
            notes=["it is code of its own, which heatc does not run"],
        )
    return rest.rpartition(".")[2]


def _below(folder: Path, entry: Mapping[str, Any], place: Path) -> Path:
    name = str(entry.get("path", ""))
    if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise HeatcError(f"unsafe path {name[:80]!r} of a module", place=str(place))
    return folder / name


def _length(encoder: Path) -> int:
    for path in sorted(encoder.glob(ENCODER_SETTINGS)):
        most = read_json(path, "an encoder's settings", _LARGEST).get("max_seq_length")
        if isinstance(most, int) and most > 0:
            return min(DEFAULT_LENGTH, most)
    return DEFAULT_LENGTH


# ---- one module -------------------------------------------------------------------------------


def _pooling(part: Part, width: int, placeholders: Placeholders) -> tuple[Any, int]:
    from heatc.capture.sentence_modules import POOLINGS, Pooling

    told = part.config.get("pooling_mode")
    if told is None:
        told = [mode for key, mode in _POOLING_KEYS.items() if part.config.get(key)] or ["mean"]
    modes = [told] if isinstance(told, str) else told
    if not isinstance(modes, list) or not modes or any(m not in POOLINGS for m in modes):
        raise part.error(
            f"pooling_mode is {str(modes)[:80]}", f"supported are {', '.join(POOLINGS)}"
        )
    known = part.config.get("embedding_dimension", part.config.get("word_embedding_dimension"))
    if known is not None and known != width:
        raise part.error(f"the pooled width is {known}, the encoder's tokens have {width}")
    return Pooling(modes), len(modes) * width


def _normalize(part: Part, width: int, placeholders: Placeholders) -> tuple[Any, int]:
    from heatc.capture.sentence_modules import Normalize

    _check_features(part)
    return Normalize(), width


def _dense(part: Part, width: int, placeholders: Placeholders) -> tuple[Any, int]:
    from heatc.capture.sentence_modules import Dense

    _check_features(part)
    wide, bias = part.config.get("out_features"), bool(part.config.get("bias", True))
    if part.config.get("in_features") != width or not isinstance(wide, int) or wide < 1:
        raise part.error(
            f"in_features is {part.config.get('in_features')}, out_features {wide}: "
            f"what comes before gives {width}"
        )
    residual = bool(part.config.get("use_residual", False))
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (wide, width)}
    if bias:
        shapes["linear.bias"] = (wide,)
    if residual and wide != width:
        shapes["residual.weight"] = (wide, width)
    weights = _weights(part, shapes, placeholders)
    return Dense(weights, _activation(part), residual), wide


def _layer_norm(part: Part, width: int, placeholders: Placeholders) -> tuple[Any, int]:
    from heatc.capture.sentence_modules import LayerNorm

    shapes = {"norm.weight": (width,), "norm.bias": (width,)}
    return LayerNorm(_weights(part, shapes, placeholders)), width


def _dropout(part: Part, width: int, placeholders: Placeholders) -> tuple[Any, int]:
    return None, width


_BUILDERS: dict[str, Callable[[Part, int, Placeholders], tuple[Any, int]]] = {
    "Pooling": _pooling,
    "Dense": _dense,
    "Normalize": _normalize,
    "LayerNorm": _layer_norm,
    "Dropout": _dropout,
}
"""A module, None for one that does nothing, and the width of what it gives."""


def _check_features(part: Part) -> None:
    for key in ("module_input_name", "module_output_name"):
        if (part.config.get(key) or _EMBEDDING) != _EMBEDDING:
            raise part.error(f"{key} is {part.config[key]!r}, supported is {_EMBEDDING!r}")


def _activation(part: Part) -> Any:
    """The activation of a Dense module: one of torch.nn; what names none has the hyperbolic tangent."""
    import torch

    name = str(part.config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    found = getattr(torch.nn, name.rpartition(".")[2], None)
    if not name.startswith("torch.nn.") or not isinstance(found, type):
        raise part.error(
            f"the activation {name[:80]!r} is not supported", "supported are those of torch.nn"
        )
    return found()


def _weights(
    part: Part, shapes: Mapping[str, tuple[int, ...]], placeholders: Placeholders
) -> dict[str, Any]:
    """The tensors of a module by name; raises `HeatcError` for others, missing and more ones."""
    checkpoint = read_checkpoint(part.folder)
    odd = sorted(shapes.keys() ^ checkpoint.keys())
    if odd:
        raise part.error(f"weight {odd[0]!r} is {'missing' if odd[0] in shapes else 'unexpected'}")
    for name, stored in checkpoint.items():
        if stored.shape != shapes[name] or stored.dtype not in FLOATS:
            raise part.error(
                f"weight {name!r} has shape {stored.shape} of {stored.dtype}, "
                f"expected {shapes[name]} of f32"
            )
    return {name: placeholders.lazy(Cast(stored)) for name, stored in checkpoint.items()}
