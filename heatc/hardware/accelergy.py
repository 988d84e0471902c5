"""
Costs from Accelergy's tables: an ERT (energy a component's action) and an ART (its area).

    from heatc.hardware import load_hardware
    from heatc.hardware.accelergy import import_ert

    mapping = {
        "energy.mac_16x16": "chip.pe[1..256].mac.compute",
        "energy.local_read": "chip.local_buffer.read / 8",
        "leakage.pe": "chip.pe[1..256].mac.leak",
        "area.pe": "chip.pe[1..256].mac",
    }
    hardware = import_ert(load_hardware("hdp-edge"), "ERT.yaml", mapping, art="ART.yaml")

`mapping` has a row of the hardware file for each of its values: an action of the ERT as
`COMPONENT.ACTION`, for `area` a component of the ART. `/ N` divides the value: by the bytes that an
action moves, or the lanes or MiB that a component has. Names may leave out the counts in brackets
that Accelergy appends. Accelergy writes picojoules and square micrometres; `leakage` rows take the
energy of an action a cycle, at the clock of the hardware. Rows that are not mapped stay.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

from heatc.errors import HeatcError
from heatc.hardware.costs import ROWS, Row
from heatc.hardware.description import Hardware
from heatc.readers.source import as_path
from heatc.readers.yaml_text import read_yaml, values

_ATTO_PER_PICO, _NM2_PER_UM2 = 10**6, 10**6
_NANOWATTS_PER_WATT, _PICO = 10**9, 1e-12
_LARGEST_FILE = 16 << 20
_DEEPEST = 16
_COUNTS = re.compile(r"\[[^\]]*\]")

Table = dict[str, float]
"""Values by name; names are without counts in brackets."""


def import_ert(
    hardware: Hardware,
    ert: str | os.PathLike[str],
    mapping: Mapping[str, str],
    art: str | os.PathLike[str] | None = None,
) -> Hardware:
    """
    The hardware with costs from Accelergy's files, its `sources` saying so.

    Raises:
        HeatcError: a file is not a table, or the mapping names what the file or the hardware
            format does not have; it names the file and the row.
    """
    energies = _read(as_path(ert, "an ERT"), "ERT")
    areas = _read(as_path(art, "an ART"), "ART") if art is not None else {}
    rows = {row.path: row for row in ROWS}
    values: dict[str, int] = {}
    sources = dict(hardware.sources)
    for path, text in mapping.items():
        row = rows.get(path)
        if row is None:
            known = "rows of energy, leakage and area, such as energy.mac_16x16"
            raise HeatcError(f"the mapping names {path!r}", place=str(ert), notes=[known])
        is_area = path.startswith("area.")
        place = Path(art if is_area and art is not None else ert)
        number = _look_up(areas if is_area else energies, text, path, place)
        values[row.attribute] = _in_base_units(row, number, hardware, place)
        sources[path] = f"Accelergy: {text} of {place.name}"
    return dataclasses.replace(hardware, sources=sources, **cast("dict[str, Any]", values))


def _in_base_units(row: Row, number: float, hardware: Hardware, place: Path) -> int:
    section = row.path.split(".")[0]
    if section == "leakage":
        number *= _PICO * hardware.clock_hz * _NANOWATTS_PER_WATT
    else:
        number *= _NM2_PER_UM2 if section == "area" else _ATTO_PER_PICO
    if not row.low <= round(number) <= row.high:
        raise HeatcError(f"{row.path}: {number:g} is out of range", place=str(place))
    return round(number)


def _look_up(table: Table, text: str, path: str, place: Path) -> float:
    name, _, divisor = (part.strip() for part in text.partition("/"))
    name = _COUNTS.sub("", name)
    if name not in table:
        some = ", ".join(sorted(table)[:8]) or "nothing: is the file given?"
        raise HeatcError(f"{path}: no {name!r}", place=str(place), notes=[f"there are {some}"])
    try:
        parts = float(divisor or 1)
    except ValueError:
        parts = 0.0
    if not 0 < parts < math.inf:
        raise HeatcError(f"{path}: {text!r} does not divide by a number", place=str(place))
    return table[name] / parts


# --- Files ------------------------------------------------------------------------------------


def _read(path: Path, kind: str) -> Table:
    node = read_yaml(path, f"an {kind}", _LARGEST_FILE, _DEEPEST)
    root = None if node is None else values(node, str(path))
    tables = _mapping(_mapping(root).get(kind)).get("tables")
    if not isinstance(tables, list):
        _fail(path, f"expected '{kind}: tables:' as Accelergy writes them")
    result: Table = {}
    for entry in cast(list[Any], tables):
        result.update(_component(path, _mapping(entry), kind))
    return result


def _mapping(value: object) -> dict[Any, Any]:
    return cast(dict[Any, Any], value) if isinstance(value, dict) else {}


def _component(path: Path, entry: dict[Any, Any], kind: str) -> Table:
    name = entry.get("name")
    if not isinstance(name, str):
        _fail(path, "a table without a name")
    name = _COUNTS.sub("", name)
    if kind == "ART":
        return {name: _number(path, name, entry.get("area"))}
    actions = entry.get("actions")
    result: Table = {}
    for value in cast(list[Any], actions) if isinstance(actions, list) else ():
        action = _mapping(value)
        if not isinstance(action.get("name"), str):
            _fail(path, f"{name}: an action without a name")
        key = f"{name}.{action['name']}"
        if key not in result:  # of actions told apart by arguments, the first one
            result[key] = _number(path, key, action.get("energy"))
    return result


def _number(path: Path, name: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        _fail(path, f"{name}: expected a number, found {value!r}")
    return float(value)


def _fail(path: Path, message: str) -> NoReturn:
    raise HeatcError(message, place=str(path))
