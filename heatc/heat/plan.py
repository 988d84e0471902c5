"""The part of plan.json that says how a layer is factorised."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from heatc.errors import HeatcError
from heatc.heat.formats import (
    REGISTRY,
    Modes,
    Spec,
    find_format,
    parse_shape,
    rank_limits,
    shape_text,
)
from heatc.readers.fields import short

MOST_RANK = 1 << 20
MOST_GROWTH = 4
"""How many times the elements of a layer its factors may have."""

MOST_RANKS = 16
MOST_STEPS = 64
MOST_TOKENS = 1 << 30

_LONGEST_SHAPE = 128

KEYS = ("format", "shape", "ranks", "path", "fuse")


@dataclass(frozen=True)
class LayerHeat:
    """
    `{"format": "tt", "shape": "8x8x12|12x8x8", "ranks": [8, 64, 64, 64, 8], "path": [[0, 1], ...]}`.

    - `shape` may be absent for a format of one mode a side, such as low-rank.
    - `path` is in single-assignment form. Operand 0 is the layer's input, and the factors follow.
      For an embedding table the operands are the factors alone. It is absent where
      `order-contractions` is to choose.
    - `fuse` says whether the steps' results stay on the chip: true, false, or so many tokens at a
      time. It is None where `fuse-einsums` is to choose.
    """

    format: str
    shape: tuple[Modes, Modes] | None
    ranks: Modes
    path: tuple[tuple[int, int], ...] | None = None
    fuse: bool | int | None = None

    def spec(self, inputs: int, outputs: int, *, is_table: bool = False) -> Spec:
        """
        The format of a layer of so many inputs and outputs; of a table inputs may be added.

        Raises `HeatcError`, which begins with the key that is wrong, where it does not fit: before
        anything is built of it.
        """
        ins, outs = self.shape or ((inputs,), (outputs,))
        missing = math.prod(ins) - inputs
        if math.prod(outs) != outputs or not 0 <= missing <= (inputs if is_table else 0):
            text = shape_text(ins, outs)
            raise HeatcError(f"shape: {text} does not fit a layer of {inputs} to {outputs}")
        try:
            spec = Spec(self.format, ins, outs, self.ranks)
        except HeatcError as error:
            raise HeatcError(f"ranks: {error.message}") from None
        for rank, most in zip(self.ranks, rank_limits(spec.format, ins, outs)):
            if rank > most:
                raise HeatcError(
                    f"ranks: {rank} is above {most}, all that {spec.format} of a layer of {inputs} "
                    f"to {outputs} can use there"
                )
        if spec.parameters > MOST_GROWTH * inputs * outputs:
            raise HeatcError(
                f"ranks: the factors have {spec.parameters} elements, the layer {inputs * outputs}"
            )
        return spec


def layer_heat(value: Any, error: Callable[[str, str], HeatcError]) -> LayerHeat:
    """Read and check one entry; `error(key, message)` makes the error to raise."""
    if not isinstance(value, dict):
        raise error("", "expected an object")
    entry = cast("dict[str, Any]", value)
    for key in entry:
        if key not in KEYS:
            raise error(key, f"unknown key, expected one of {', '.join(KEYS)}")
    format_ = entry.get("format")
    if not isinstance(format_, str) or REGISTRY.find(format_) is None:
        known = ", ".join(REGISTRY.names)
        raise error("format", f"expected one of {known}, got {short(format_)}")
    ranks = _integers(entry.get("ranks"))
    if ranks is None:
        raise error(
            "ranks",
            f"expected up to {MOST_RANKS} integers from 1 to {MOST_RANK}, "
            f"got {short(entry.get('ranks'))}",
        )
    shape = _shape(entry.get("shape"), format_, error)
    fuse = entry.get("fuse")
    is_number = isinstance(fuse, int) and (fuse is False or 1 <= fuse <= MOST_TOKENS)
    if fuse is not None and not is_number:
        raise error("fuse", f"expected a boolean, a number of tokens or null, got {short(fuse)}")
    path = _path(entry.get("path"), error)
    if shape is not None:
        try:
            Spec(format_, *shape, ranks)
        except HeatcError as wrong:
            raise error("ranks", wrong.message) from None
    return LayerHeat(format_, shape, ranks, path, fuse)


def _integers(value: Any) -> Modes | None:
    if not isinstance(value, list):
        return None
    numbers = cast("list[Any]", value)
    if len(numbers) > MOST_RANKS or any(type(n) is not int for n in numbers):
        return None
    if any(not 1 <= n <= MOST_RANK for n in numbers):
        return None
    return tuple(numbers)


def _shape(
    value: Any, format_: str, error: Callable[[str, str], HeatcError]
) -> tuple[Modes, Modes] | None:
    if value is None and find_format(format_).is_matrix:
        return None
    if not isinstance(value, str) or len(value) > _LONGEST_SHAPE:
        raise error("shape", f"expected inputs|outputs, e.g. '8x8x12|12x8x8', got {short(value)}")
    try:
        return parse_shape(value)
    except HeatcError as wrong:
        raise error("shape", wrong.message) from None


def _path(
    value: Any, error: Callable[[str, str], HeatcError]
) -> tuple[tuple[int, int], ...] | None:
    if value is None:
        return None
    is_list = isinstance(value, list)
    pairs: list[Any] = cast("list[Any]", value) if is_list else []
    if not 0 < len(pairs) <= MOST_STEPS or any(not _is_pair(p) for p in pairs):
        raise error("path", f"expected a list of pairs of operands, got {short(value)}")
    return tuple((int(a), int(b)) for a, b in pairs)


def _is_pair(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    pair = cast("list[Any]", value)
    return len(pair) == 2 and all(type(n) is int and 0 <= n <= MOST_STEPS for n in pair)


def entry(
    spec: Spec, path: Sequence[Sequence[int]] | None = None, fuse: bool | int | None = None
) -> dict[str, Any]:
    """The entry of plan.json that gives a spec, its path and its fusion back."""
    found: dict[str, Any] = {"format": spec.format, "ranks": list(spec.ranks)}
    if not find_format(spec.format).is_matrix:
        found["shape"] = shape_text(spec.inputs, spec.outputs)
    if path is not None:
        found["path"] = [list(pair) for pair in path]
    if fuse is not None:
        found["fuse"] = fuse
    return found
