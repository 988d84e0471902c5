"""
Whose weights are whose: the names of a checkpoint, and those of a model of transformers.

transformers renames, splits and merges tensors when it loads a folder, by tables of its own. Those
are asked here, on names and on shapes; the tensors stay in their files. Beside that, wrappers put a
prefix before all names (`module.` of DataParallel, `_orig_mod.` of torch.compile), which
transformers does not know.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from heatc.capture.checkpoint import FLOATS, Checkpoint, Stored
from heatc.errors import HeatcError
from heatc.weights import Array

_WRAPPERS = ("module.", "_orig_mod.", "model.", "base_model.")
_DEEPEST = 6
"""Prefixes that stand before one another."""

_LEGACY_ENDS = ((".gamma", ".weight"), (".beta", ".bias"))
_F32 = np.dtype("<f4")


@dataclass(frozen=True)
class Cast:
    """A tensor of a file as float32."""

    stored: Stored

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's."""
        return self.stored.shape

    def read(self) -> Array:
        """The elements, cast."""
        return self.stored.cast(_F32)


@dataclass(frozen=True)
class Converted:
    """One of the tensors that a conversion makes."""

    conversion: _Conversion
    name: str
    shape: tuple[int, ...]

    def read(self) -> Array:
        """Convert, and take this tensor of the results."""
        return self.conversion.run(on_meta=False)[self.name].numpy()


Source = Stored | Converted


@dataclass
class _Conversion:
    """A conversion of transformers' table that merges, splits or turns tensors."""

    converter: Any
    model: Any
    target: str
    parts: dict[str, list[Stored]] = field(default_factory=dict[str, list[Stored]])

    def run(self, *, on_meta: bool) -> dict[str, Any]:
        """The tensors that come out, by name."""
        import torch

        def tensor(stored: Stored) -> Any:
            if on_meta:
                return torch.empty(stored.shape, dtype=torch.float32, device="meta")
            return torch.from_numpy(stored.cast(_F32))

        converter = copy.deepcopy(self.converter)
        for pattern, parts in self.parts.items():
            converter.collected_tensors[pattern] = [tensor(stored) for stored in parts]
        made = converter.convert(self.target, model=self.model, config=self.model.config)
        return {name: t[0] if isinstance(t, list) else t for name, t in made.items()}


@dataclass(frozen=True)
class Fit:
    """
    What a checkpoint is to a model.

    Attributes:
        sources: where each parameter and buffer of the model is, by the model's name.
        unused: names of the checkpoint that the model does not have.
        missing: parameters that the checkpoint lacks, one name of those that are tied.
        optional: those that transformers does not miss.
    """

    sources: Mapping[str, Source]
    unused: list[str]
    missing: list[str]
    optional: list[str]


def fit(path: Path, model: Any, checkpoint: Checkpoint) -> Fit:
    """
    The weights by the model's names, under the prefix that leaves fewest of them missing.

    `model` may be on torch's meta device. Raises `HeatcError` for a conversion that fails.
    """
    best: Fit | None = None
    for names in _spellings(list(checkpoint)):
        found = _fit(path, model, {new: checkpoint[old] for new, old in names.items()})
        if best is None or len(found.missing) < len(best.missing):
            best = found
        if not best.missing:
            break
    assert best is not None
    return best


def parameter_groups(model: Any) -> list[dict[str, Any]]:
    """Parameters by name; tied ones in one group."""
    groups: dict[int, dict[str, Any]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), {})[name] = parameter
    return list(groups.values())


# ---- prefixes ---------------------------------------------------------------------------------


def _spellings(names: list[str]) -> Iterator[dict[str, str]]:
    """The names as they are, and without one prefix after the other, each with its old name."""
    # torch.compile of a part of a model puts its prefix in the middle.
    spelled = {name.replace("_orig_mod.", ""): name for name in names}
    yield dict(spelled) if len(spelled) == len(names) else {name: name for name in names}
    for _ in range(_DEEPEST):
        prefix = _prefix(list(spelled))
        if not prefix:
            return
        shorter = {new.removeprefix(prefix): old for new, old in spelled.items()}
        if len(shorter) != len(spelled):
            return
        spelled = shorter
        yield dict(spelled)


def _prefix(names: list[str]) -> str:
    """What stands before the names: a wrapper's prefix, or the first part that all share."""
    for wrapper in _WRAPPERS:
        if any(name.startswith(wrapper) for name in names):
            return wrapper
    firsts = {name.partition(".")[0] for name in names if "." in name}
    return f"{firsts.pop()}." if len(firsts) == 1 and all("." in n for n in names) else ""


# ---- transformers' tables ---------------------------------------------------------------------


def _fit(path: Path, model: Any, tensors: Checkpoint) -> Fit:
    from transformers.core_model_loading import dot_natural_key

    table = _Table(model)
    sources: dict[str, Source] = {}
    conversions: dict[str, _Conversion] = {}
    unused: list[str] = []
    for name in sorted(tensors, key=dot_natural_key):
        new, pattern = table.rename(name)
        if new not in table.expected or (pattern is None and new in sources):
            unused.append(name)
        elif pattern is None:
            sources[new] = tensors[name]
        else:
            conversion = _Conversion(table.converter(pattern), model, new)
            conversion = conversions.setdefault(new, conversion)
            conversion.parts.setdefault(pattern, []).append(tensors[name])
    for conversion in conversions.values():
        sources |= _converted(path, conversion)
    missing, optional = _missing(model, sources)
    return Fit(sources, _without_ignored(model, unused), missing, optional)


class _Table:
    """How the installed transformers renames the keys of a checkpoint of a model."""

    def __init__(self, model: Any):
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        self.prefix = model.base_model_prefix
        self.expected = model.state_dict()
        entries = get_model_conversion_mapping(model)
        self._renamings = [e for e in entries if isinstance(e, WeightRenaming)]
        self._converters = [e for e in entries if isinstance(e, WeightConverter)]

    def rename(self, name: str) -> tuple[str, str | None]:
        """The model's name of a key, and the pattern of the conversion that it goes through."""
        new, pattern = self._rename(name)
        if new in self.expected:
            return new, pattern
        for old_end, new_end in _LEGACY_ENDS:
            if name.endswith(old_end):
                return self._rename(name.removesuffix(old_end) + new_end)
        return new, pattern

    def _rename(self, name: str) -> tuple[str, str | None]:
        from transformers.core_model_loading import rename_source_key

        tables = (self._renamings, self._converters)
        new, pattern = rename_source_key(name, *tables, self.prefix, self.expected)
        if new in self.expected:
            return new, pattern
        # A name that is the model's own already was not to be renamed.
        plain, _ = rename_source_key(name, [], [], self.prefix, self.expected)
        return (plain, None) if plain in self.expected else (new, pattern)

    def converter(self, pattern: str) -> Any:
        """The conversion that a pattern belongs to."""
        return next(c for c in self._converters if pattern in c.source_patterns)


def _converted(path: Path, conversion: _Conversion) -> dict[str, Source]:
    """What a conversion gives; it is tried on shapes alone."""
    strange = [s for parts in conversion.parts.values() for s in parts if s.dtype not in FLOATS]
    try:
        if strange:
            raise TypeError(f"a tensor has element type {strange[0].dtype}")
        made = conversion.run(on_meta=True)
    # transformers' own code, on whatever tensors the file has.
    except Exception as error:
        steps = ", ".join(type(step).__name__ for step in conversion.converter.operations)
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise HeatcError(
            f"the tensors of weight {conversion.target!r} cannot be converted: {reason}",
            place=str(path),
            notes=[
                f"transformers' table for this model says {steps}",
                "load the model with transformers and save it: model.save_pretrained(folder)",
            ],
        ) from None
    return {name: Converted(conversion, name, tuple(t.shape)) for name, t in made.items()}


def _missing(model: Any, sources: Mapping[str, Source]) -> tuple[list[str], list[str]]:
    """What the model needs and the checkpoint lacks; second, what transformers does not miss."""
    import torch

    lacking = [
        next(iter(group)) for group in parameter_groups(model) if not group.keys() & sources.keys()
    ]
    for name, module in model.named_modules():
        # Statistics of the training data: only the checkpoint has them.
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            own = {f"{name}.{n}" for n, _ in module.named_buffers() if n.startswith("running_")}
            lacking += sorted(own - sources.keys())
    kept = SimpleNamespace(missing_keys=set(lacking), unexpected_keys=set[str]())
    model._adjust_missing_and_unexpected_keys(kept)
    missing = [name for name in lacking if name in kept.missing_keys]
    return missing, [name for name in lacking if name not in kept.missing_keys]


def _without_ignored(model: Any, unused: list[str]) -> list[str]:
    """Without what transformers itself passes over, such as buffers of its older versions."""
    found = SimpleNamespace(missing_keys=set[str](), unexpected_keys=set(unused))
    model._adjust_missing_and_unexpected_keys(found)
    buffers = {name for name, _ in model.named_buffers()}
    prefix = f"{model.base_model_prefix}."
    return [
        name
        for name in unused
        if name in found.unexpected_keys and name.removeprefix(prefix) not in buffers
    ]
