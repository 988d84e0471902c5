"""
Hardware descriptions: what a machine has, read from YAML and checked key by key.

`heatc.hardware.schema` is the whole format: a key path, the attribute it sets, its unit and its bounds. A value
is a text with its unit, or `{value: ..., source: ...}` where the source says who claims it.
Everything that a file does not say comes from its `base`, a preset or a file beside it; a file without
`base` says everything. What is wrong with a value is said with the file and line that it comes from.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml

from heatc.errors import HeatcError, UsageError
from heatc.hardware import costs
from heatc.hardware.presets import PRESETS, preset_names
from heatc.hardware.schema import SCHEMA, SCHEMA_VERSION, Key
from heatc.hardware.values import WrongValue, expected, read_value, rendered
from heatc.readers.source import as_path
from heatc.readers.yaml_text import read_yaml

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
    notes = [*near(name, preset_names()), f"the presets: {names}; a file ends in .yaml"]
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
            raise file.error(f"the key {key.path!r} is missing", notes=[expected(key)])
        values[key.attribute] = _value(file, key, entry, clock)
    name, description = file.entries.get("name"), file.entries.get("description")
    hardware = Hardware(
        name.text if name else file.path.stem,
        description=description.text if description else "",
        sources={k.path: s for k in SCHEMA if (s := file.entries[k.path].source)},
        **values,
    )
    if problem := too_large(hardware):
        raise file.error(problem, notes=["such a machine cannot be simulated"])
    return hardware


def too_large(hardware: Hardware) -> str:
    """What makes a machine too large to be simulated, or nothing."""
    on_chip = hardware.cores * hardware.local_buffer_bytes + hardware.shared_buffer_bytes
    if on_chip > MOST_ON_CHIP:
        return (
            f"buffers.local of {hardware.cores} cores and buffers.shared have {on_chip} bytes, "
            f"at most {MOST_ON_CHIP} together"
        )
    pes = hardware.macs_per_cycle
    return f"{pes} PEs in all, at most {MOST_PES}" if pes > MOST_PES else ""


def description_files(path: Path) -> list[Path]:
    """
    A file and those that it is based on, presets left out.

    Raises `HeatcError` for a base that is none, as `load_hardware` does.
    """
    found, own = [path], {_preset_file(name) for name in preset_names()}
    for file in _chain(_File.read(path))[1:]:
        found += [] if file.path in own else [file.path]
    return found


def _with_base(file: _File) -> _File:
    """The file with what its bases say for the keys that it leaves out."""
    keys = {key.path for key in SCHEMA}
    entries = dict(file.entries)
    for base in _chain(file)[1:]:
        inherited = {path: entry for path, entry in base.entries.items() if path in keys}
        entries = inherited | entries
    return _File(file.path, entries)


def _chain(file: _File) -> list[_File]:
    """A file, its base, the base of that, and so on."""
    chain, seen = [file], {file.path.resolve()}
    while (base := chain[-1].entries.get("base")) is not None:
        path = _base_file(chain[-1], base)
        if path.resolve() in seen:
            way = " -> ".join(f.path.name for f in [*chain, _File(path, {})])
            raise chain[-1].error(f"'base' goes round in a circle: {way}", base)
        seen.add(path.resolve())
        chain.append(_File.read(path))
        chain[-1].check_keys()
    return chain


def _base_file(file: _File, base: _Entry) -> Path:
    """The file of a base: a preset's, or one that is named from the folder of the file."""
    if base.text in preset_names():
        return _preset_file(base.text)
    path = file.path.parent / base.text
    if base.text.endswith((".yaml", ".yml")) and os.path.isfile(path):
        return path
    names = ", ".join(preset_names())
    notes = [*near(base.text, preset_names()), f"the presets: {names}; a file ends in .yaml"]
    raise file.error(f"'base' is neither a preset nor a file: {base.text[:80]!r}", base, notes)


def _value(file: _File, key: Key, entry: _Entry, clock: int) -> Any:
    try:
        return read_value(key, entry.text, clock)
    except WrongValue as error:
        raise file.error(f"{key.path}: {error}", entry, error.notes) from None


def near(name: str, known: Iterable[str]) -> list[str]:
    """A note with the names that are like one that is unknown, if there are any."""
    found = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return [f"did you mean {' or '.join(map(repr, found))}?"] if found else []


# --- The file as text -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """A leaf of a file: its text as written, where it stands, its source."""

    text: str
    line: int
    file: Path
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
        place = f"{entry.file}:{entry.line}" if entry else str(self.path)
        return HeatcError(message, place=place, notes=list(notes))

    def leaves(self, node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, _Entry]]:
        """Every leaf below `node` with its key path; at most one level of nesting exists."""
        for key_node, child in cast(list[tuple[yaml.Node, yaml.Node]], node.value):
            here = _Entry("", key_node.start_mark.line + 1, self.path)
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
        entry = _Entry(str(node.value).strip(), node.start_mark.line + 1, self.path)
        if not entry.text:
            raise self.error(f"{path}: the value is empty", entry)
        return entry

    def _sourced(self, path: str, node: yaml.MappingNode) -> _Entry:
        parts: dict[str, _Entry] = {}
        for key, child in cast(list[tuple[yaml.ScalarNode, yaml.Node]], node.value):
            here = _Entry("", key.start_mark.line + 1, self.path)
            if key.value not in ("value", "source") or key.value in parts:
                raise self.error(f"{path}: expected 'value' and 'source' once each", here)
            if not isinstance(child, yaml.ScalarNode):
                raise self.error(f"{path}.{key.value}: expected a text", here)
            parts[key.value] = self._leaf(f"{path}.{key.value}", child)
        value, source = parts["value"], parts.get("source")
        said = " ".join(source.text.split()) if source else ""
        return _Entry(value.text, value.line, self.path, said)

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
        notes = [*near(path, known), f"keys here: {', '.join(beside)}"]
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
            low, high = rendered(key, key.low), rendered(key, key.high)
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
    if problem := too_large(hardware):
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
        value: Any = rendered(key, getattr(hardware, key.attribute))
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
