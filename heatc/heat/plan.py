"""The part of plan.json that says how a layer is factorised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from heatc.errors import HeatcError
from heatc.heat.formats import FORMATS, Modes, Spec, parse_format, parse_shape, shape_text

KEYS = ("format", "shape", "ranks", "path", "fuse")


@dataclass(frozen=True)
class LayerHeat:
    """
    `{"format": "tt", "shape": "8x8x12|12x8x8", "ranks": [8, 64, 64, 64, 8], "path": [[0, 1], ...]}`.

    `shape` may be absent for low-rank. `path` is in single-assignment form (operand 0 is the
    layer's input, the factors follow; of an embedding table the operands are the factors alone),
    absent where `order-contractions` is to choose. `fuse` says of the steps' results that they
    stay on the chip (true, or so many tokens at a time) or that none does (false), None where
    `fuse-einsums` is to choose.
    """

    format: str
    shape: tuple[Modes, Modes] | None
    ranks: Modes
    path: tuple[tuple[int, int], ...] | None = None
    fuse: bool | int | None = None

    def spec(self, inputs: int, outputs: int) -> Spec:
        """The format of a layer of so many inputs and outputs; `HeatcError` where it cannot be."""
        ins, outs = self.shape or ((inputs,), (outputs,))
        return Spec(parse_format(self.format), ins, outs, self.ranks)


def layer_heat(value: Any, error: Callable[[str, str], HeatcError]) -> LayerHeat:
    """Read and check one entry; `error(key, message)` makes the error to raise."""
    if not isinstance(value, dict):
        raise error("", "expected an object")
    entry = cast("dict[str, Any]", value)
    for key in entry:
        if key not in KEYS:
            raise error(key, f"unknown key, expected one of {', '.join(KEYS)}")
    format_ = entry.get("format")
    if format_ not in FORMATS:
        raise error("format", f"expected one of {', '.join(FORMATS)}, got {format_!r}")
    ranks = _integers(entry.get("ranks"))
    if ranks is None:
        raise error("ranks", f"expected a list of positive integers, got {entry.get('ranks')!r}")
    shape = _shape(entry.get("shape"), format_, error)
    fuse = entry.get("fuse")
    if fuse is not None and (not isinstance(fuse, int) or (fuse is not False and fuse < 1)):
        raise error("fuse", f"expected a boolean, a number of tokens or null, got {fuse!r}")
    path = _path(entry.get("path"), error)
    layer = LayerHeat(format_, shape, ranks, path, fuse)
    if shape is not None:
        try:
            layer.spec(0, 0)
        except HeatcError as wrong:
            raise error("ranks", wrong.message) from None
    return layer


def _integers(value: Any) -> Modes | None:
    if not isinstance(value, list):
        return None
    numbers = cast("list[Any]", value)
    if any(type(n) is not int or n < 1 for n in numbers):
        return None
    return tuple(numbers)


def _shape(
    value: Any, format_: str, error: Callable[[str, str], HeatcError]
) -> tuple[Modes, Modes] | None:
    if value is None and format_ == "low-rank":
        return None
    if not isinstance(value, str):
        raise error("shape", f"expected inputs|outputs, e.g. '8x8x12|12x8x8', got {value!r}")
    try:
        return parse_shape(value)
    except HeatcError as wrong:
        raise error("shape", wrong.message) from None


def _path(
    value: Any, error: Callable[[str, str], HeatcError]
) -> tuple[tuple[int, int], ...] | None:
    if value is None:
        return None
    pairs = cast("list[Any]", value) if isinstance(value, list) else []
    if not pairs or any(not _is_pair(p) for p in pairs):
        raise error("path", f"expected a list of pairs of operands, got {value!r}")
    return tuple((int(a), int(b)) for a, b in pairs)


def _is_pair(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    pair = cast("list[Any]", value)
    return len(pair) == 2 and all(type(n) is int and n >= 0 for n in pair)


def entry(
    spec: Spec, path: Sequence[Sequence[int]] | None = None, fuse: bool | int | None = None
) -> dict[str, Any]:
    """The entry of plan.json that gives a spec, its path and its fusion back."""
    found: dict[str, Any] = {"format": spec.format, "ranks": list(spec.ranks)}
    if spec.format != "low-rank":
        found["shape"] = shape_text(spec.inputs, spec.outputs)
    if path is not None:
        found["path"] = [list(pair) for pair in path]
    if fuse is not None:
        found["fuse"] = fuse
    return found
