"""
What debug.json says: where instructions come from, where named tensors lie.

    {
      "locations": [{"pc": 0, "path": "embeddings", "source": "modeling_bert.py:90"}, ...],
      "tensors": {"encoder.layer.0.attention.self.query": {"address": 64, "dtype": "i16",
                  "rows": 128, "cols": 384, "point": 11, "pc": 12}, ...},
      "attentions": {"encoder.layer.0.attention.self": {"mask_pcs": [40], "round_pcs": [], "gate_pcs": [41],
                     "heads": 12, "dim": 32, "block": [2, 2]}, ...}
    }

A location holds from its pc to the next one. A tensor is complete after its `pc` (an integer or
a list) has retired for the last time; an address is free for other tensors afterwards. Its `rows`
are -1 where they are the packed tokens of the run.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, cast

from heatc.errors import HeatcError
from heatc.isa.table import BLOCK, DTYPES, HEADS, ISA, TILE_DTYPES
from heatc.isa.units import block_count
from heatc.isa.words import Inst
from heatc.rules import MOST_BLOCK

TOKENS = -1

_DECIDES = {"mask_pcs": "mask", "round_pcs": "mask", "gate_pcs": "heads"}
"""What the instructions decide that a list of pcs of an attention may name."""


class Location(NamedTuple):
    """A module path and a source line, empty where unknown."""

    path: str = ""
    source: str = ""

    def __str__(self) -> str:
        return f"{self.path} ({self.source})" if self.path and self.source else self[0] or self[1]


class TensorInfo(NamedTuple):
    """
    A named tensor: byte address, ISA dtype, shape, binary point (None: a float), and its writers.

    `rows` is TOKENS where it is the number of packed tokens. `shared`: it lies in the shared
    buffer, else in DRAM.
    """

    address: int
    dtype: str
    rows: int
    cols: int
    point: int | None
    pcs: tuple[int, ...]
    shared: bool = False


class AttentionInfo(NamedTuple):
    """An attention: the pcs of its decisions, its heads and their width, and the size of a block."""

    mask_pcs: tuple[int, ...]
    round_pcs: tuple[int, ...]
    """Those of the first of two rounds of masks."""
    gate_pcs: tuple[int, ...]
    heads: int
    dim: int
    block: tuple[int, int]

    def blocks(self, length: int) -> tuple[int, int]:
        """Rows and columns of the mask of a sequence."""
        return block_count(length, self.block[0]), block_count(length, self.block[1])


class Locations:
    """Where each instruction comes from."""

    def __init__(self, debug: Mapping[str, Any]):
        entries = cast(list[Any], _checked(debug.get("locations", []), list, "locations"))
        table: list[tuple[int, Location]] = []
        for i, value in enumerate(entries):
            entry = cast(dict[str, Any], _checked(value, dict, f"locations[{i}]"))
            pc = _integer(entry.get("pc"), f"locations[{i}].pc")
            texts = (entry.get("path") or "", entry.get("source") or "")
            path, source = (_checked(text, str, f"locations[{i}]") for text in texts)
            table.append((pc, Location(_one_line(path), _one_line(source))))
        table.sort(key=lambda row: row[0])
        self.starts = [pc for pc, _ in table]
        self._locations = [location for _, location in table]

    def at(self, pc: int) -> Location:
        """The location of an instruction."""
        index = bisect_right(self.starts, pc) - 1
        return self._locations[index] if index >= 0 else Location()


def named_tensors(debug: Mapping[str, Any]) -> dict[str, TensorInfo]:
    """The named tensors by symbol."""
    result: dict[str, TensorInfo] = {}
    for name, value in _checked(debug.get("tensors", {}), dict, "tensors").items():
        key = f"tensors.{name}"
        entry = cast(dict[str, Any], _checked(value, dict, key))
        address, cols = (_integer(entry.get(k), f"{key}.{k}") for k in ("address", "cols"))
        rows = _integer(entry.get("rows"), f"{key}.rows", TOKENS)
        dtype = cast(str, _checked(entry.get("dtype"), str, f"{key}.dtype"))
        if dtype not in DTYPES or dtype in TILE_DTYPES:
            _fail(f"{key}.dtype", "the element type of a tensor")
        point = entry.get("point")
        if point is not None:
            point = _integer(point, f"{key}.point", -64, 64)
        shared = bool(_checked(entry.get("shared", False), bool, f"{key}.shared"))
        pcs = _pcs(entry.get("pc"), key)
        result[name] = TensorInfo(address, dtype, rows, cols, point, pcs, shared)
    return result


def attentions(debug: Mapping[str, Any]) -> dict[str, AttentionInfo]:
    """The attentions by module path."""
    result: dict[str, AttentionInfo] = {}
    for name, value in _checked(debug.get("attentions", {}), dict, "attentions").items():
        key = f"attentions.{name}"
        entry = cast(dict[str, Any], _checked(value, dict, key))
        result[name] = AttentionInfo(
            _pcs(entry.get("mask_pcs", []), key),
            _pcs(entry.get("round_pcs", []), key),
            _pcs(entry.get("gate_pcs", []), key),
            _integer(entry.get("heads"), f"{key}.heads", 1, HEADS),
            _integer(entry.get("dim"), f"{key}.dim", 1, 1 << 16),
            _block(entry.get("block", list(BLOCK)), f"{key}.block"),
        )
    return result


# --- Against the program ----------------------------------------------------------------------


def check_debug(
    debug: Mapping[str, Any], program: Sequence[Inst], sizes: Mapping[str, int], place: str
) -> None:
    """
    Raise `HeatcError` where debug.json is malformed, or not that of the program.

    `sizes` are the bytes of its memories, `dram` and `shared`.
    """
    try:
        for pc in Locations(debug).starts:
            _expect_pc(pc, program, "locations")
        for name, tensor in named_tensors(debug).items():
            _check_tensor(f"tensors.{name[:80]}", tensor, program, sizes)
        for name, attention in attentions(debug).items():
            _check_attention(f"attentions.{name[:80]}", attention, program)
    except HeatcError as error:
        raise HeatcError(error.message, place=place, notes=error.notes) from None


def _check_tensor(
    key: str, tensor: TensorInfo, program: Sequence[Inst], sizes: Mapping[str, int]
) -> None:
    # What the packed tokens of a run take is known when it runs.
    rows, size = max(tensor.rows, 0), sizes["shared" if tensor.shared else "dram"]
    end = tensor.address + rows * tensor.cols * DTYPES[tensor.dtype]
    if end > size:
        _fail(key, f"bytes below {size}, not {tensor.address} to {end}")
    for pc in tensor.pcs:
        _expect_pc(pc, program, f"{key}.pc")


def _check_attention(key: str, attention: AttentionInfo, program: Sequence[Inst]) -> None:
    for field, decision in _DECIDES.items():
        pcs: tuple[int, ...] = getattr(attention, field)
        for pc in pcs:
            _expect_pc(pc, program, f"{key}.{field}")
            if program[pc].instruction.decides != decision:
                expected = " or ".join(m for m, row in ISA.items() if row.decides == decision)
                _fail(f"{key}.{field}", f"{expected} at pc {pc}, not {program[pc].mnemonic}")


def _expect_pc(pc: int, program: Sequence[Inst], key: str) -> None:
    if pc >= len(program):
        _fail(key, f"a pc below {len(program)}, the number of instructions, not {pc}")


# --- Values -----------------------------------------------------------------------------------


def _block(value: object, key: str) -> tuple[int, int]:
    extents = cast("list[object]", _checked(value, list, key))
    if len(extents) != 2:
        _fail(key, "a list of two extents")
    return _integer(extents[0], key, 1, MOST_BLOCK), _integer(extents[1], key, 1, MOST_BLOCK)


def _pcs(value: object, key: str) -> tuple[int, ...]:
    values: Sequence[object] = cast(list[object], value) if isinstance(value, list) else [value]
    return tuple(_integer(v, f"{key}: a pc") for v in values)


def _integer(value: object, key: str, low: int = 0, high: int = 1 << 40) -> int:
    if type(value) is not int or not low <= value <= high:
        _fail(key, f"an integer from {low} to {high}")
    return value


_KINDS = {list: "a list", dict: "an object", str: "a text", bool: "true or false"}


def _checked(value: Any, kind: type, key: str) -> Any:
    if not isinstance(value, kind):
        _fail(key, _KINDS[kind])
    return value


def _fail(key: str, expected: str) -> NoReturn:
    raise HeatcError(
        f"{key}: expected {expected}",
        place="debug.json",
        notes=["compile the model again with this heatc"],
    )


def _one_line(text: str) -> str:
    """The text without what would break a line or reach the terminal as a command."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
