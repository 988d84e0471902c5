"""
What candidates cost on a machine, timed as `order-contractions` times paths: fused, as compiled.

Layers of one extent share costs, and so do all searches on one machine: they are kept in the user's
cache folder under the digest of heatc's code and of the hardware's description.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path as File
from typing import Any

from heatc.errors import InfeasibleError
from heatc.files import atomic_write, make_folder
from heatc.hardware import Hardware, load_hardware, render
from heatc.heat.formats import Format, Spec
from heatc.heat.statistics import cache_root
from heatc.passes.analysis.costs import QUICK, layer_cost, machine_front
from heatc.passes.analysis.paths import Network, Path
from heatc.passes.analysis.ranks import layer_network
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.common.workers import Json, Workers
from heatc.tuning.search.candidates import Extent
from heatc.tuning.search.result_cache import ResultCache, code_digest

_CHUNK = 4
"""Specs that one task times."""

_MODEL = ("dialects", "passes", "isa", "hardware", "heat", "machine")
"""The folders that costs depend on."""


@dataclass(frozen=True)
class Variant:
    """
    A candidate computed along a contraction path, with its costs on one machine.

    Attributes:
        spec, path: None of the dense layer.
        cycles, seconds, joules: modelled.
        macs: multiply-accumulates along the path.
    """

    spec: Spec | None
    path: Path | None
    cycles: float
    seconds: float
    joules: float
    macs: int

    @property
    def is_dense(self) -> bool:
        """Whether it is the layer as it is."""
        return self.spec is None


@dataclass(frozen=True)
class Machine:
    """A machine by the text of its description, which other processes read too."""

    name: str
    text: str

    @classmethod
    def of(cls, hardware: Hardware) -> Machine:
        """The machine of a description."""
        return cls(hardware.name, render(hardware))

    @property
    def sha256(self) -> str:
        """As `heatc.plan.hardware_sha256`."""
        return sha256(self.text.encode()).hexdigest()

    @property
    def file(self) -> str:
        """A file with the description, in the user's cache folder."""
        return _file_of(self.text)


@functools.cache
def _file_of(text: str) -> str:
    folder = make_folder(cache_root() / "hardware")
    path = folder / f"{sha256(text.encode()).hexdigest()[:24]}.yaml"
    with atomic_write(path, "w") as stream:
        stream.write(text)
    return str(path)


def cost_candidates(
    machine: Machine,
    wanted: Mapping[Extent, Sequence[Spec]],
    cache_folder: File,
    workers: Workers,
    progress: ProgressCallback,
) -> dict[Extent, dict[Spec | None, tuple[Variant, ...]]]:
    """
    The variants of every candidate that no other variant of it beats in energy and latency.

    None stands for the dense layer; a candidate that the machine cannot do has no variants.
    """
    key = f"{code_digest(*_MODEL)}-{machine.sha256[:24]}"
    cache = ResultCache(cache_folder / key)
    tasks: dict[str, tuple[Any, ...]] = {}
    chunks: dict[str, tuple[Extent, list[Spec | None]]] = {}
    for extent, specs in wanted.items():
        for part in _chunks([None, *specs]):
            texts = [_text(spec) for spec in part]
            digest = sha256(repr(texts).encode()).hexdigest()[:16]
            name = f"{extent.inputs}-{extent.outputs}-{extent.rows}-{digest}"
            sizes = (extent.inputs, extent.outputs, extent.rows)
            tasks[name], chunks[name] = (machine.text, sizes, texts), (extent, part)
    results = cache.results(workers, time_specs, tasks, f"costs on {machine.name}", progress)
    found: dict[Extent, dict[Spec | None, tuple[Variant, ...]]] = {extent: {} for extent in wanted}
    for name, (extent, part) in chunks.items():
        for spec, variants in zip(part, results[name]):
            found[extent][spec] = tuple(_variant(spec, variant) for variant in variants)
    return found


def _chunks(specs: Sequence[Spec | None]) -> Iterable[list[Spec | None]]:
    return (list(specs[k : k + _CHUNK]) for k in range(0, len(specs), _CHUNK))


def _text(spec: Spec | None) -> Json:
    """A spec as plain values."""
    return (
        None if spec is None else [spec.format, *map(list, (spec.inputs, spec.outputs, spec.ranks))]
    )


def _spec(text: Json) -> Spec | None:
    if text is None:
        return None
    format_: Format = text[0]
    ins, outs, ranks = (tuple(modes) for modes in text[1:])
    return Spec(format_, ins, outs, ranks)


def _variant(spec: Spec | None, found: Json) -> Variant:
    path = None if spec is None else tuple((a, b) for a, b in found["path"])
    figures = (found[name] for name in ("cycles", "seconds", "joules", "macs"))
    return Variant(spec, path, *figures)


def time_specs(hardware: str, sizes: tuple[int, int, int], texts: Json) -> Json:
    """The variants of some candidates of an extent on the machine of a description, as JSON."""
    extent, machine = Extent(*sizes), load_hardware(_file_of(hardware))
    return [_timed(extent, _spec(text), machine) for text in texts]


def _timed(extent: Extent, spec: Spec | None, hw: Hardware) -> Json:
    if spec is None:
        network = dense_network(extent)
        return [_entry(network, ((0, 1),), hw, extent.macs, fused=False)]
    network = layer_network(spec, extent.rows)
    try:
        front = machine_front(network, "edp", hw, most=QUICK)
    except InfeasibleError:
        return []
    return [_entry(network, one.path, hw, one.cost.macs, fused=True) for one in front]


def _entry(network: Network, path: Path, hw: Hardware, macs: int, *, fused: bool) -> Json:
    cost = layer_cost(network, path, hw, fused=fused)
    if not cost.is_possible:
        raise InfeasibleError(f"a layer {network.equation!r} does not run: {cost.refused}")
    figures = {"cycles": cost.cycles, "seconds": cost.seconds, "joules": cost.joules}
    return {"path": [list(pair) for pair in path], **figures, "macs": macs}


def dense_network(extent: Extent) -> Network:
    """A layer as it is."""
    sizes = {"t": extent.rows, "a": extent.inputs, "m": extent.outputs}
    return Network.of(("ta", "ma"), "tm", sizes, [1])
