"""
Hugging Face folders and state dicts: the architecture from config.json, the weights mapped.

The model is built without memory for its parameters, which then become views of the mapped
file: exporting reads none of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr

from heatc.capture.checkpoint import Checkpoint, from_tensor, read_checkpoint
from heatc.capture.config import read_config
from heatc.capture.exported import capture_program, export, import_torch
from heatc.capture.hf_inputs import check_names, default_inputs, examples, parameters
from heatc.capture.hf_model import Built, build_model, quiet_transformers
from heatc.capture.inputs import InputSpec
from heatc.capture.pickle_file import load, state_dict
from heatc.capture.placeholders import Placeholders
from heatc.errors import HeatcError
from heatc.readers.model_folder import MODULES
from heatc.remarks import Remark, RemarkSink
from heatc.weights import WeightStore

if TYPE_CHECKING:
    import torch

    from heatc.capture.sentence import SentenceFolder

Inputs = Mapping[str, InputSpec] | None
Captured = tuple[ModuleOp, WeightStore]


@dataclass(frozen=True)
class LoadedModel:
    """
    A live module, ready to be exported.

    Attributes:
        path: the MODEL that it was made of.
        model: the module whose graph is captured.
        inputs: an example of each input by name, without memory.
        options: what `forward` is told beside tensors.
        placeholders: which of its parameters have no elements yet, and what makes them.
        whole: the model of transformers, of which `model` may be the encoder; None where it is none.
        sentence: what the folder of sentence-transformers says, if it is one.
    """

    path: Path
    model: Any
    inputs: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    placeholders: Placeholders = field(default_factory=Placeholders)
    whole: Any = None
    sentence: SentenceFolder | None = None

    def export(self) -> torch.export.ExportedProgram:
        """Its graph, with static shapes; raises `HeatcError` where torch cannot export it."""
        with quiet_transformers() if self.whole is not None else contextlib.nullcontext():
            return export(self.model, {**self.inputs, **self.options})


def capture_folder(folder: Path, inputs: Inputs, remarks: RemarkSink) -> Captured:
    """
    Capture a folder of transformers, or one of sentence-transformers, which has a modules.json.

    Raises `HeatcError`: files missing or damaged, an architecture that transformers cannot
    build, weights that do not fit it, or an unsupported model.
    """
    return _capture(load_folder(folder, inputs, remarks))


def load_folder(folder: Path, inputs: Inputs, remarks: RemarkSink) -> LoadedModel:
    """The model of such a folder, its weights mapped; raises `HeatcError` as `capture_folder` does."""
    import_torch("a Hugging Face folder")
    if (folder / MODULES).is_file():
        return _load_sentence_model(folder, inputs, remarks)
    return _load(folder, read_config(folder), read_checkpoint(folder), inputs, remarks)


def capture_pickle(
    path: Path,
    inputs: Inputs,
    remarks: RemarkSink,
    *,
    trusted: bool,
    records: Collection[int] | None = None,
) -> Captured:
    """
    Capture a `.pt` state dict beside its config.json; a pickled module only if trusted.

    Raises `HeatcError` as `load_pickle` does, or for an unsupported model.
    """
    return _capture(load_pickle(path, inputs, remarks, trusted=trusted, records=records))


def load_pickle(
    path: Path,
    inputs: Inputs,
    remarks: RemarkSink,
    *,
    trusted: bool,
    records: Collection[int] | None = None,
) -> LoadedModel:
    """
    The model of a `.pt` state dict beside its config.json, or of a pickled module if trusted.

    `records` are the sizes in bytes of the records that hold its storages, None where the file has
    no records. Raises `HeatcError` if the file is a pickled module and not trusted, damaged, or no
    state dict.
    """
    torch = import_torch("a .pt file")
    content = load(path, trusted=trusted)
    if isinstance(content, torch.nn.Module):
        return _load_module(path, cast("torch.nn.Module", content), inputs)
    tensors = state_dict(path, content, records)
    config = read_config(path.parent, needed_by=path)
    checkpoint = {name: from_tensor(tensor) for name, tensor in tensors.items()}
    return _load(path, config, checkpoint, inputs, remarks)


def _load_module(path: Path, module: torch.nn.Module, inputs: Inputs) -> LoadedModel:
    if not inputs:
        raise HeatcError(
            "a pickled module does not say what its inputs are",
            place=str(path),
            notes=['give them, for example --inputs "input_ids=1x128:i64"'],
        )
    module.eval()
    check_names(inputs, parameters(module), path)
    return LoadedModel(path, module, examples(inputs))


def _load(
    path: Path,
    config: Mapping[str, Any],
    checkpoint: Checkpoint,
    inputs: Inputs,
    remarks: RemarkSink,
) -> LoadedModel:
    with quiet_transformers():
        built = build_model(
            path, config, checkpoint, tolerates=lambda model: _is_for_encoder(model, inputs)
        )
        model, told = built.model, list(built.remarks)
        if _is_for_encoder(model, inputs):
            told.append(
                f"the encoder of {type(model).__name__} is compiled: name decoder_input_ids in "
                "--inputs for the whole model"
            )
            model = model.get_encoder()
        specs = inputs or default_inputs(model)
        check_names(specs, parameters(model), path)
    _tell(path, told, remarks)
    return LoadedModel(
        path, model, examples(specs), _options(model), built.placeholders, built.model
    )


def _load_sentence_model(folder: Path, inputs: Inputs, remarks: RemarkSink) -> LoadedModel:
    from heatc.capture.sentence import read_sentence_folder

    found = read_sentence_folder(folder)
    with quiet_transformers():
        built: Built = build_model(
            found.encoder,
            read_config(found.encoder),
            read_checkpoint(found.encoder),
            is_base=True,
            tolerates=lambda model: True,
        )
        encoder = built.model
        if _is_for_encoder(encoder, None):
            encoder = encoder.get_encoder()
        specs = inputs or default_inputs(encoder, found.length)
        check_names(specs, parameters(encoder), folder)
        model = found.model(encoder, _options(encoder), built.placeholders)
    _tell(folder, [*built.remarks, *found.remarks], remarks)
    return LoadedModel(
        folder,
        model,
        examples(specs),
        placeholders=built.placeholders,
        whole=built.model,
        sentence=found,
    )


def _capture(loaded: LoadedModel) -> Captured:
    return _signed(loaded.path, *capture_program(loaded.export(), loaded.placeholders))


def _is_for_encoder(model: Any, inputs: Inputs) -> bool:
    """
    Whether a model is an encoder with a decoder that nothing is given to.

    Heads that classify make the decoder's inputs themselves.
    """
    if not getattr(model.config, "is_encoder_decoder", False):
        return False
    if "decoder_input_ids" not in parameters(model):
        return False
    given = any(name.startswith("decoder_") for name in inputs or ())
    return not given and (model.can_generate() or model.base_model is model)


def _options(model: Any) -> dict[str, Any]:
    """What `forward` is told beside tensors: a compiled model keeps nothing for another run."""
    return {"use_cache": False} if "use_cache" in parameters(model) else {}


def _tell(path: Path, texts: list[str], remarks: RemarkSink) -> None:
    for text in texts:
        remarks(Remark("", str(path), text, {}, (), True))


def _signed(path: Path, module: ModuleOp, weights: WeightStore) -> Captured:
    module.attributes["heatc.source"] = DictionaryAttr({"model": StringAttr(path.resolve().name)})
    return module, weights.copy(path)
