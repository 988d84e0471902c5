"""
config.json of Hugging Face folders: read, and bounded by the weights that are there.

transformers believes every number of it: 10^7 labels are a minute and 2 GB of names, a billion
layers are a loop that never ends. The weights say how large the model can be.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from heatc.errors import HeatcError
from heatc.readers.json_text import read_json

Shapes = Mapping[str, Sequence[int]]

LARGEST_CONFIG = 8 << 20
LARGEST_NUMBER = 1 << 24
"""No extent, token id or position of a model is above it."""

_PARTS = re.compile(r"(?<!per_)(layers?|blocks?|experts?|groups?|stages?)$")
_FEWEST_PARTS = 64
_LABELS = "num_labels"


def read_config(folder: Path, needed_by: Path | None = None) -> dict[str, Any]:
    """The configuration of a folder; raises `HeatcError` where it is missing or malformed."""
    path = folder / "config.json"
    if not path.exists():
        why = "a state dict holds no architecture" if needed_by else "no config.json in the folder"
        raise HeatcError(
            why,
            place=str(needed_by or folder),
            notes=[f"expected the model's config.json as {path}"],
        )
    # transformers writes Infinity and NaN as Python does.
    return read_json(path, "a configuration", LARGEST_CONFIG, finite=False)


def check_config(config: Mapping[str, Any], shapes: Shapes, place: str) -> None:
    """
    Refuse numbers that the weights cannot have.

    `shapes` are those of all weights. Raises `HeatcError` naming the key.
    """
    widest = max((extent for shape in shapes.values() for extent in shape), default=0)
    parts = max(len(shapes), _FEWEST_PARTS)
    for key, value in _numbers(config, ""):
        name = key.rpartition(".")[2]
        if name == _LABELS and value > widest:
            _fail(key, value, f"no weight has an extent above {widest}", place)
        if _PARTS.search(name) and value > parts:
            _fail(key, value, f"the weights are {len(shapes)} tensors", place)
        if abs(value) > LARGEST_NUMBER:
            _fail(key, value, f"no weight has an extent above {widest}", place)


def _fail(key: str, value: int, why: str, place: str) -> None:
    raise HeatcError(
        f"{key} is {str(value)[:40]}, {why}",
        place=place,
        notes=["config.json and the weights belong to different models, or it is damaged"],
    )


def _numbers(value: Any, key: str) -> Iterator[tuple[str, int]]:
    """Every integer with its dotted key, those of lists under the key of the list."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, key)
    elif type(value) is int:
        yield key, value


@contextlib.contextmanager
def bounded_modules(tensors: int, place: str) -> Generator[None]:
    """
    Stop a model from being built of more modules than so many weights can belong to.

    Raises `HeatcError` inside of the constructor.
    """
    from torch.nn.modules import module

    most, count = 16 * tensors + 1024, 0

    def register(owner: Any, name: str, submodule: Any) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise HeatcError(
                f"the model has more than {most} modules, the weights are {tensors} tensors",
                place=place,
                notes=["config.json and the weights belong to different models, or it is damaged"],
            )

    handle = module.register_module_module_registration_hook(register)
    try:
        yield
    finally:
        handle.remove()
