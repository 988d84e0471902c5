"""
Hardware descriptions: what a machine has, read from YAML and checked key by key.

`SCHEMA` is the whole format: a key path, the attribute it sets, its unit and its bounds. A value
is a text with its unit, or `{value: ..., source: ...}` where the source says who claims it.
Everything that a file does not say comes from its `base`; a file without `base` says everything.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml

from heatc.errors import HeatcError, UsageError
from heatc.hardware import costs, units
from heatc.hardware.presets import PRESETS, preset_names
from heatc.hardware.units import Unit
from heatc.readers.source import as_path
from heatc.readers.yaml_text import read_yaml
from heatc.rules import MOST_BLOCK

SCHEMA_VERSION = 1

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""The one in C where PyYAML has it: the text is the same."""

_LARGEST_FILE = 1 << 20
_DEEPEST = 8


@dataclass(frozen=True)
class Hardware(costs.Costs):
    """
    One HDP machine. Units are in the names; a size is in bytes.

    `sources` says for each key path of the file where its value comes from; it takes no part in
    comparisons.
    """

    name: str
    cores: int
    pe_rows: int
    pe_columns: int
    fold_overlap: bool
    """Whether a fold of the PE array fills while the one before it empties."""
    split_bits: int
    """Width of the narrowest multipliers that a PE splits into; 16: it does not split."""
    clock_hz: int
    local_buffer_bytes: int
    """Of each core."""
    shared_buffer_bytes: int
    shared_bytes_per_cycle: int
    """What the shared buffer moves from and to all cores together."""
    dram_bytes_per_second: int
    dram_latency_cycles: int
    dram_capacity_bytes: int
    se_lanes: int
    blocks: tuple[tuple[int, int], ...]
    """(query rows, key columns) of the blocks of scores that the sparsity engine ranks."""
    adder_lanes: int
    softmax_lanes: int
    vector_lanes: int
    """Of a core's vector unit; 0: the machine has none, element-wise work is the host's."""
    host_ops_per_second: int
    host_bytes_per_second: int
    host_call_cycles: int
    fetch_upon_mask: bool
    """`ldm` fetches only the rows that its mask wants."""
    early_head_exit: bool
    """A head that the gate prunes executes nothing more."""
    stage_overlap: bool
    """The engines of a core work at the same time."""
    local_a_stationary: bool
    """The queries stay in the local buffer while keys pass."""
    block_importance_in_array: bool
    """The PE array's accumulators emit the block sums."""
    description: str = dataclasses.field(default="", compare=False)
    sources: Mapping[str, str] = dataclasses.field(
        default_factory=dict[str, str], compare=False, hash=False
    )

    @property
    def macs_per_cycle(self) -> int:
        """Peak multiply-accumulates a cycle of all cores."""
        return self.cores * self.pe_rows * self.pe_columns

    @property
    def dram_bytes_per_cycle(self) -> float:
        """DRAM bandwidth in bytes a machine cycle."""
        return self.dram_bytes_per_second / self.clock_hz

    def to_json(self) -> dict[str, Any]:
        """The description for a manifest: attribute names (with units) to integers and texts."""
        return {**dataclasses.asdict(self), "sources": dict(self.sources)}


@dataclass(frozen=True)
class Key:
    """
    One key of the file.

    `units` are the units it may be written in (none: a plain integer); a time is converted to
    cycles of the clock, rounded up. `low` and `high` bound the attribute, `choices` are all of its
    values if there are few.
    """

    path: str
    attribute: str
    units: tuple[Unit, ...]
    low: int
    high: int
    choices: tuple[int, ...] = ()

    @property
    def kind(self) -> type[int]:
        """The attribute's type, or that of its numbers: `bool` of a switch, else `int`."""
        return bool if self.units == (units.SWITCH,) else int

    @property
    def is_blocks(self) -> bool:
        """Whether the attribute is sizes of blocks, whose extents the bounds are of."""
        return self.units == (units.BLOCKS,)


_KIB, _GIGA, _TERA = 1 << 10, 10**9, 10**12

SCHEMA: tuple[Key, ...] = (
    Key("clock", "clock_hz", (units.FREQUENCY,), 10**6, 100 * _GIGA),
    Key("cores", "cores", (), 1, 1024),
    Key("pe_array.rows", "pe_rows", (), 1, 1024),
    Key("pe_array.columns", "pe_columns", (), 1, 1024),
    Key("pe_array.fold_overlap", "fold_overlap", (units.SWITCH,), 0, 1),
    Key(
        "pe_array.split",
        "split_bits",
        (units.WIDTH,),
        costs.SPLITS[0],
        costs.SPLITS[-1],
        costs.SPLITS,
    ),
    Key("buffers.local", "local_buffer_bytes", (units.BYTES,), _KIB, 1 << 26),
    Key("buffers.shared", "shared_buffer_bytes", (units.BYTES,), _KIB, 1 << 30),
    Key(
        "buffers.shared_bandwidth",
        "shared_bytes_per_cycle",
        (units.BYTES_PER_CYCLE,),
        1,
        1 << 20,
    ),
    Key("dram.bandwidth", "dram_bytes_per_second", (units.BANDWIDTH,), 10**6, 1000 * _TERA),
    Key("dram.latency", "dram_latency_cycles", (units.TIME, units.CYCLES), 0, 10**6),
    Key("dram.capacity", "dram_capacity_bytes", (units.BYTES,), _KIB, 1 << 40),
    Key("sparsity_engine.lanes", "se_lanes", (), 1, 1 << 16),
    Key("sparsity_engine.blocks", "blocks", (units.BLOCKS,), 1, MOST_BLOCK),
    Key("adder.lanes", "adder_lanes", (), 1, 1 << 16),
    Key("softmax_unit.lanes", "softmax_lanes", (), 1, 1 << 16),
    Key("vector_unit.lanes", "vector_lanes", (), 0, 1 << 16),
    *(Key(*row) for row in costs.ROWS),
    Key("host.operations", "host_ops_per_second", (units.OPERATIONS,), 10**6, 1000 * _TERA),
    Key("host.bandwidth", "host_bytes_per_second", (units.BANDWIDTH,), 10**6, 1000 * _TERA),
    Key("host.call", "host_call_cycles", (units.TIME, units.CYCLES), 0, 10**9),
    Key("mechanisms.fetch_upon_mask", "fetch_upon_mask", (units.SWITCH,), 0, 1),
    Key("mechanisms.early_head_exit", "early_head_exit", (units.SWITCH,), 0, 1),
    Key("mechanisms.stage_overlap", "stage_overlap", (units.SWITCH,), 0, 1),
    Key("mechanisms.local_a_stationary", "local_a_stationary", (units.SWITCH,), 0, 1),
    Key("mechanisms.block_importance_in_array", "block_importance_in_array", (units.SWITCH,), 0, 1),
)

MOST_ON_CHIP = 1 << 30
"""Bytes of all buffers together: whoever simulates the machine holds them."""

MOST_PES = 1 << 22

_TEXTS = ("name", "description", "schema", "base")


# --- Loading ----------------------------------------------------------------------------------


def load_hardware(name_or_path: str | os.PathLike[str]) -> Hardware:
    """
    The hardware of a preset's name or of a YAML file.

    A name that is neither is a `UsageError`; whatever is wrong inside a file is a `HeatcError`
    that names the key path and its line.
    """
    name = str(as_path(name_or_path, "a hardware file"))
    if name in preset_names():
        return _preset(name)
    if not name.endswith((".yaml", ".yml")) and os.sep not in name and not os.path.exists(name):
        raise _unknown_preset(name)
    return _load(Path(name))


@functools.cache
def _preset(name: str) -> Hardware:
    return _load(_preset_file(name))


def _preset_file(name: str) -> Path:
    path = PRESETS.find(name)
    assert path is not None
    return path


def _unknown_preset(name: str) -> UsageError:
    names = ", ".join(preset_names())
    notes = [*_near(name, preset_names()), f"the presets: {names}; a file ends in .yaml"]
    return UsageError(f"unknown hardware {name!r}", notes=notes)


def _load(path: Path) -> Hardware:
    return _build(_File.read(path))


def _build(file: _File) -> Hardware:
    file.check_keys()
    file = _with_base(file)
    clock_entry = file.entries.get("clock")
    clock = _value(file, SCHEMA[0], clock_entry, 1) if clock_entry else 1
    values: dict[str, Any] = {}
    for key in SCHEMA:
        entry = file.entries.get(key.path)
        if entry is None:
            raise file.error(f"the key {key.path!r} is missing", notes=[_expected(key)])
        values[key.attribute] = (
            _blocks(file, key, entry) if key.is_blocks else _value(file, key, entry, clock)
        )
    name, description = file.entries.get("name"), file.entries.get("description")
    hardware = Hardware(
        name.text if name else file.path.stem,
        description=description.text if description else "",
        sources={k.path: s for k in SCHEMA if (s := file.entries[k.path].source)},
        **values,
    )
    if problem := _too_large(hardware):
        raise file.error(problem, notes=["such a machine cannot be simulated"])
    return hardware


def _too_large(hardware: Hardware) -> str:
    """What makes a machine too large to be simulated, or nothing."""
    on_chip = hardware.cores * hardware.local_buffer_bytes + hardware.shared_buffer_bytes
    if on_chip > MOST_ON_CHIP:
        return (
            f"buffers.local of {hardware.cores} cores and buffers.shared have {on_chip} bytes, "
            f"at most {MOST_ON_CHIP} together"
        )
    pes = hardware.macs_per_cycle
    return f"{pes} PEs in all, at most {MOST_PES}" if pes > MOST_PES else ""


def _with_base(file: _File, above: tuple[str, ...] = ()) -> _File:
    """The file with what its base says for the keys that it leaves out; `above` are based on it."""
    base = file.entries.get("base")
    if base is None:
        return file
    if base.text not in preset_names():
        names = ", ".join(preset_names())
        raise file.error(f"'base' is not a preset: {base.text!r}", base, [f"the presets: {names}"])
    if base.text in above:
        raise file.error(f"'base' goes round in a circle: {base.text!r}", base)
    inherited = _with_base(_File.read(_preset_file(base.text)), (*above, base.text)).entries
    keys = {key.path for key in SCHEMA}
    entries = {path: entry for path, entry in inherited.items() if path in keys}
    return _File(file.path, entries | file.entries)


def _blocks(file: _File, key: Key, entry: _Entry) -> tuple[tuple[int, int], ...]:
    try:
        sizes = units.BLOCKS.parse_sizes(entry.text)
    except ValueError as error:
        raise file.error(f"{key.path}: {error}, found {entry.text!r}", entry) from None
    if any(extent > key.high for size in sizes for extent in size):
        raise file.error(f"{key.path}: {entry.text!r} has an extent above {key.high}", entry)
    return sizes


def _value(file: _File, key: Key, entry: _Entry, clock: int) -> int:
    number = _parse(file, key, entry, clock)
    if number.denominator != 1:
        raise file.error(
            f"{key.path}: {entry.text!r} is not a whole number", entry, [_expected(key)]
        )
    if not key.low <= number <= key.high:
        low, high = (_render(key, bound) for bound in (key.low, key.high))
        raise file.error(f"{key.path}: {entry.text!r} is outside {low} to {high}", entry)
    if key.choices and number not in key.choices:
        known = ", ".join(str(_render(key, choice)) for choice in key.choices)
        raise file.error(f"{key.path}: {entry.text!r} is none of {known}", entry)
    return key.kind(number)


def _parse(file: _File, key: Key, entry: _Entry, clock: int) -> Fraction:
    if not key.units:
        if not entry.text.isascii() or not entry.text.isdecimal() or len(entry.text) > 18:
            raise file.error(f"{key.path}: expected a whole number, found {entry.text!r}", entry)
        return Fraction(entry.text)
    reason = ""
    for unit in key.units:
        try:
            number = unit.parse(entry.text)
        except ValueError as error:
            reason = reason or str(error)
            continue
        return Fraction(math.ceil(number * clock)) if unit is units.TIME else number
    raise file.error(f"{key.path}: {reason}, found {entry.text!r}", entry)


def _expected(key: Key) -> str:
    examples = " or ".join(repr(unit.example) for unit in key.units) or "a whole number"
    return f"expected {examples}"


def _near(name: str, known: Iterable[str]) -> list[str]:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return [f"did you mean {' or '.join(map(repr, near))}?"] if near else []


# --- The file as text -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """A leaf of the file: its text as written, the line it stands on, its source."""

    text: str
    line: int
    source: str = ""


@dataclass(frozen=True)
class _File:
    """The leaves of a hardware file by key path."""

    path: Path
    entries: dict[str, _Entry]

    @classmethod
    def read(cls, path: Path) -> _File:
        root = read_yaml(path, "a hardware file", _LARGEST_FILE, _DEEPEST)
        file = cls(path, {})
        if not isinstance(root, yaml.MappingNode):
            raise file.error("expected a mapping of keys such as 'cores: 8'")
        for key, entry in file.leaves(root, ""):
            if key in file.entries:
                raise file.error(f"the key {key!r} is given twice", entry)
            file.entries[key] = entry
        return file

    def error(
        self, message: str, entry: _Entry | None = None, notes: Iterable[str] = ()
    ) -> HeatcError:
        place = f"{self.path}:{entry.line}" if entry else str(self.path)
        return HeatcError(message, place=place, notes=list(notes))

    def leaves(self, node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, _Entry]]:
        """Every leaf below `node` with its key path; at most one level of nesting exists."""
        for key_node, child in cast(list[tuple[yaml.Node, yaml.Node]], node.value):
            here = _Entry("", key_node.start_mark.line + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.error("a key is a plain text", here)
            path = f"{prefix}{key_node.value}"
            if isinstance(child, yaml.ScalarNode):
                yield path, self._leaf(path, child)
            elif isinstance(child, yaml.MappingNode) and _is_sourced(child):
                yield path, self._sourced(path, child)
            elif isinstance(child, yaml.MappingNode) and not prefix:
                yield from self.leaves(child, f"{path}.")
            else:
                raise self.error(f"{path}: expected one value, found a collection", here)

    def _leaf(self, path: str, node: yaml.ScalarNode) -> _Entry:
        entry = _Entry(str(node.value).strip(), node.start_mark.line + 1)
        if not entry.text:
            raise self.error(f"{path}: the value is empty", entry)
        return entry

    def _sourced(self, path: str, node: yaml.MappingNode) -> _Entry:
        parts: dict[str, _Entry] = {}
        for key, child in cast(list[tuple[yaml.ScalarNode, yaml.Node]], node.value):
            here = _Entry("", key.start_mark.line + 1)
            if key.value not in ("value", "source") or key.value in parts:
                raise self.error(f"{path}: expected 'value' and 'source' once each", here)
            if not isinstance(child, yaml.ScalarNode):
                raise self.error(f"{path}.{key.value}: expected a text", here)
            parts[key.value] = self._leaf(f"{path}.{key.value}", child)
        value, source = parts["value"], parts.get("source")
        return _Entry(value.text, value.line, " ".join(source.text.split()) if source else "")

    def check_keys(self) -> None:
        """Refuses keys that the schema does not know, and files of another schema."""
        schema = self.entries.get("schema")
        if schema is not None and schema.text != str(SCHEMA_VERSION):
            message = f"made for schema {schema.text}, this heatc reads {SCHEMA_VERSION}"
            raise self.error(message, schema)
        known = [*(key.path for key in SCHEMA), *_TEXTS]
        for path, entry in self.entries.items():
            if path not in known:
                raise self._unknown_key(path, entry, known)

    def _unknown_key(self, path: str, entry: _Entry, known: list[str]) -> HeatcError:
        section = path.split(".")[0]
        beside = [k for k in known if k.startswith(f"{section}.")] or sorted(
            {k.split(".")[0] for k in known}
        )
        notes = [*_near(path, known), f"keys here: {', '.join(beside)}"]
        return self.error(f"unknown key {path!r}", entry, notes)


def _is_sourced(node: yaml.MappingNode) -> bool:
    keys = [key.value for key, _ in cast(list[tuple[yaml.Node, Any]], node.value)]
    return "value" in keys


# --- Manifest and text ------------------------------------------------------------------------


def from_json(value: object, place: str) -> Hardware:
    """What `Hardware.to_json` wrote, checked like a file; `place` names it in errors."""

    def fail(message: str) -> NoReturn:
        raise HeatcError(message, place=place, notes=["compile the model again"])

    if not isinstance(value, dict):
        fail("expected the hardware as an object")
    data = cast(dict[str, Any], value)
    for key in SCHEMA:
        number = data.get(key.attribute)
        if key.is_blocks:
            if not _are_blocks(key, number):
                fail(
                    f"{key.attribute}: expected pairs of {key.low} to {key.high}, found {number!r}"
                )
            continue
        if type(number) is not key.kind or not key.low <= cast(int, number) <= key.high:
            low, high = _render(key, key.low), _render(key, key.high)
            fail(f"{key.attribute}: expected {low} to {high}, found {number!r}")
        if key.choices and number not in key.choices:
            fail(f"{key.attribute}: expected one of {key.choices}, found {number!r}")
    if not isinstance(data.get("name"), str) or not isinstance(data.get("description"), str):
        fail("name and description: expected texts")
    sources = data.get("sources")
    if not isinstance(sources, dict):
        fail("sources: expected an object")
    texts = {str(k): str(v) for k, v in cast(dict[Any, Any], sources).items()}
    numbers: dict[str, Any] = {key.attribute: data[key.attribute] for key in SCHEMA}
    numbers["blocks"] = tuple((pair[0], pair[1]) for pair in numbers["blocks"])
    hardware = Hardware(data["name"], description=data["description"], sources=texts, **numbers)
    if problem := _too_large(hardware):
        fail(problem)
    return hardware


def _are_blocks(key: Key, value: Any) -> bool:
    """Whether a manifest's value is sizes of blocks."""
    pairs = cast("list[Any]", value) if isinstance(value, list | tuple) else []
    return bool(pairs) and all(
        isinstance(pair, list | tuple)
        and [type(n) for n in cast("list[Any]", pair)] == [int, int]
        and all(key.low <= n <= key.high for n in cast("list[int]", pair))
        for pair in pairs
    )


def render(hardware: Hardware) -> str:
    """The resolved description as YAML that `load_hardware` reads back as the same hardware."""
    tree: dict[str, Any] = {"schema": SCHEMA_VERSION, "name": hardware.name}
    if hardware.description:
        tree["description"] = hardware.description
    for key in SCHEMA:
        value: Any = _render(key, getattr(hardware, key.attribute))
        if source := hardware.sources.get(key.path):
            value = {"value": value, "source": source}
        section, _, leaf = key.path.rpartition(".")
        place = cast(dict[str, Any], tree.setdefault(section, {})) if section else tree
        place[leaf] = value
    text = yaml.dump(tree, Dumper=_DUMPER, sort_keys=False, width=100, allow_unicode=True)
    return text + _render_area(hardware)


def _render_area(hardware: Hardware) -> str:
    """Comments that say how large the machine is, modelled."""
    areas = costs.area_mm2(hardware)
    lines = [f"#   {part}: {area:.4g} mm2" for part, area in areas.items()]
    return "\n".join([f"# area, modelled: {sum(areas.values()):.4g} mm2", *lines, ""])


def _render(key: Key, value: Any) -> str | int:
    """A value as the file writes it; what may be a time is written in the cycles it became."""
    if key.is_blocks:
        return units.BLOCKS.render_sizes(value)
    if key.kind is bool:
        return bool(value)
    return key.units[-1].render(value) if key.units else value
