"""
Hardware to search together with plans: a base, keys with lists of values, and a budget.

    base: hdp-edge
    budget: [area <= 12 mm2, energy <= 5 mJ]
    cores: [4, 8, 16]
    buffers:
      shared: [512 KiB, 1 MiB]
    dram.bandwidth: [12.8 GB/s, 25.6 GB/s]

Keys and values are those of a hardware file (`heatc.hardware`). `area` bounds the machine's area,
`energy` the joules of one run of a plan on it.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, cast

import yaml

from heatc.errors import HeatcError
from heatc.hardware import SCHEMA, Hardware, load_hardware, preset_names
from heatc.hardware.costs import area_mm2
from heatc.hardware.units import AREA, ENERGY
from heatc.readers.yaml_text import read_yaml
from heatc.temporary import scratch_folder

MOST_MACHINES = 64
"""Machines within the budget that one search takes."""

MOST_COMBINATIONS = 1 << 11

_LARGEST_FILE = 1 << 20
_DEEPEST = 8
_BOUND = re.compile(r"(area|energy)\s*<=\s*(.+)")
_ATTO, _NM2_PER_MM2 = 1e-18, 1e12


@dataclass(frozen=True)
class HardwareSpace:
    """
    The machines of a file.

    Attributes:
        base: the machine that all else is compared with; it need not be among `machines`.
        machines: those within the budget of area, in the order of the lists.
        combinations: how many there are without a budget.
        most_mm2, most_joules: the budget, None where there is none.
    """

    base: Hardware
    machines: tuple[Hardware, ...]
    combinations: int
    most_mm2: float | None
    most_joules: float | None


def area(hardware: Hardware) -> float:
    """Modelled area in mm2."""
    return sum(area_mm2(hardware).values())


def read_hardware_space(path: str) -> HardwareSpace:
    """Read and check a file; `HeatcError` names the line of what is wrong."""
    reader = _Reader(path)
    axes, base, budget = reader.read()
    count = math.prod(map(len, axes.values()))
    if count > MOST_COMBINATIONS:
        reader.fail(f"{count} combinations of values, at most {MOST_COMBINATIONS} are looked at")
    combinations = list(itertools.product(*axes.values()))
    machines: list[Hardware] = []
    for values in combinations:
        hardware = reader.hardware(base, dict(zip(axes, values)))
        if "area" not in budget or area(hardware) <= budget["area"]:
            machines.append(hardware)
    whole = load_hardware(base)
    if not machines:
        raise HeatcError(
            f"none of {len(combinations)} machines is within the budget of {budget['area']:g} mm2",
            place=path,
            notes=[f"the base {base!r} has {area(whole):.4g} mm2"],
        )
    if len(machines) > MOST_MACHINES:
        raise HeatcError(
            f"{len(machines)} machines are within the budget, at most {MOST_MACHINES} are searched",
            place=path,
            notes=["give fewer values, or a smaller budget"],
        )
    bounds = budget.get("area"), budget.get("energy")
    return HardwareSpace(whole, tuple(machines), len(combinations), *bounds)


class _Reader:
    def __init__(self, path: str):
        self.path = path

    def fail(self, message: str, node: yaml.Node | None = None, *notes: str) -> NoReturn:
        place = self.path if node is None else f"{self.path}:{node.start_mark.line + 1}"
        raise HeatcError(message, place=place, notes=notes)

    def read(self) -> tuple[dict[str, list[yaml.ScalarNode]], str, dict[str, float]]:
        """Lists of values by key, the base, and the budget."""
        entries = dict(self._entries(self._root(), ""))
        base_node, budget_node = entries.pop("base", None), entries.pop("budget", None)
        base = self._base(base_node)
        budget = {} if budget_node is None else self._budget(budget_node)
        if not entries:
            self.fail("no key has a list of values", None, "e.g. cores: [4, 8, 16]")
        axes = {key: self._values(key, node) for key, node in entries.items()}
        for key, values in axes.items():
            for value in values:
                self.hardware(base, {key: value})
        return axes, base, budget

    def _root(self) -> yaml.MappingNode:
        root = read_yaml(self.path, "a hardware space", _LARGEST_FILE, _DEEPEST)
        if not isinstance(root, yaml.MappingNode):
            self.fail("expected a mapping of keys such as 'cores: [4, 8]'", root)
        return root

    def _entries(self, node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, yaml.Node]]:
        known = [key.path for key in SCHEMA]
        seen: set[str] = set()
        for key_node, child in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            path = f"{prefix}{key_node.value}"
            if path in seen:
                self.fail(f"the key {path!r} is given twice", key_node)
            seen.add(path)
            if isinstance(child, yaml.MappingNode) and not prefix:
                yield from self._entries(child, f"{path}.")
            elif path in known or path in ("base", "budget"):
                yield path, child
            else:
                self.fail(f"unknown key {path!r}", key_node, *_near(path, known))

    def _base(self, node: yaml.Node | None) -> str:
        names = ", ".join(preset_names())
        if not isinstance(node, yaml.ScalarNode) or node.value not in preset_names():
            self.fail("'base' names a preset", node, f"the presets: {names}")
        return str(node.value)

    def _scalars(self, key: str, node: yaml.Node) -> list[yaml.ScalarNode]:
        nodes = (
            cast("list[yaml.Node]", node.value) if isinstance(node, yaml.SequenceNode) else [node]
        )
        found = [n for n in nodes if isinstance(n, yaml.ScalarNode)]
        if not found or len(found) < len(nodes):
            self.fail(f"{key}: expected a list of values", node)
        return found

    def _values(self, key: str, node: yaml.Node) -> list[yaml.ScalarNode]:
        found = self._scalars(key, node)
        texts = [str(n.value) for n in found]
        if len(set(texts)) < len(texts):
            self.fail(f"{key}: a value stands twice", node)
        return found

    def _budget(self, node: yaml.Node) -> dict[str, float]:
        found: dict[str, float] = {}
        for entry in self._scalars("budget", node):
            match = _BOUND.fullmatch(str(entry.value).strip())
            if match is None or match[1] in found:
                self.fail(
                    f"budget: malformed bound {entry.value!r}",
                    entry,
                    "expected 'area <= 12 mm2' or 'energy <= 5 mJ', each once",
                )
            unit, scale = (AREA, 1 / _NM2_PER_MM2) if match[1] == "area" else (ENERGY, _ATTO)
            try:
                found[match[1]] = float(unit.parse(match[2])) * scale
            except ValueError as error:
                self.fail(f"budget: {error}, found {match[2]!r}", entry)
        return found

    def hardware(self, base: str, values: dict[str, yaml.ScalarNode]) -> Hardware:
        """The base with other values; the loader of hardware files says what is wrong with them."""
        texts = {key: str(node.value) for key, node in values.items()}
        tree: dict[str, object] = {"base": base, "name": _name(base, texts)}
        for key, text in texts.items():
            section, _, leaf = key.rpartition(".")
            inner = cast("dict[str, object]", tree.setdefault(section, {})) if section else tree
            inner[leaf] = text
        with scratch_folder() as folder:
            file = folder / "hardware.yaml"
            file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
            try:
                return load_hardware(file)
            except HeatcError as error:
                self.fail(error.message, next(iter(values.values())), *error.notes)


def _name(base: str, texts: dict[str, str]) -> str:
    """`hdp-edge, cores 4, buffers.shared 512 KiB`."""
    return ", ".join([base, *(f"{key} {text}" for key, text in texts.items())])


def _near(name: str, known: list[str]) -> list[str]:
    near = difflib.get_close_matches(name, known, n=3)
    section = name.split(".")[0]
    beside = [k for k in known if k.split(".")[0] == section] or [k for k in known if "." not in k]
    return [
        *([f"did you mean {' or '.join(map(repr, near))}?"] if near else []),
        f"keys here: {', '.join(beside)}",
    ]
