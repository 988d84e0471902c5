"""
Parameters without memory: an export looks at their shapes alone, their elements are made later.

A parameter that is cast or converted from its file is an address range that nobody touches. The
address says what stands behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heatc.errors import HeatcError
from heatc.weights import Array, LazyArray

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Absent:
    """A parameter that its checkpoint lacks."""

    name: str
    shape: tuple[int, ...]

    def read(self) -> Array:
        """Raises `HeatcError`."""
        raise absent_error([self.name])


class Placeholders:
    """Tensors of float32 that have no elements yet, and where those come from."""

    def __init__(self) -> None:
        self._sources: dict[int, LazyArray] = {}
        self._kept: list[torch.Tensor] = []

    def lazy(self, source: LazyArray) -> torch.Tensor:
        """A tensor that stands for what a source makes."""
        import torch

        # One element more: an address of its own for a tensor that is empty.
        size = 1
        for extent in source.shape:
            size *= extent
        memory = torch.empty(size + 1, dtype=torch.float32)
        tensor = memory[:size].view(source.shape)
        self._kept.append(memory)
        self._sources[tensor.data_ptr()] = source
        return tensor

    def absent(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        """A tensor for a parameter that is missing; whoever reads it is refused."""
        return self.lazy(Absent(name, tuple(shape)))

    def source(self, tensor: torch.Tensor) -> LazyArray | None:
        """What makes the elements of a tensor, None for one that has them."""
        return None if tensor.is_meta else self._sources.get(tensor.data_ptr())


def absent_error(names: Iterable[str]) -> HeatcError:
    """The error for a model that reads what its checkpoint lacks."""
    found = sorted(names)
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return HeatcError(
        "the checkpoint lacks weights that the outputs are computed from",
        notes=[
            f"{len(found)} missing: {', '.join(found[:8])}{more}",
            "check that config.json names the architecture the weights belong to",
        ],
    )
