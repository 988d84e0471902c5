"""The folder of `hdp-run --stats`: figures, modules, timeline, masks, hardware."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.hardware import from_json, render
from heatc.names import KEPT_MASKS, TIMELINE
from heatc.readers.json_text import read_json
from heatc.readers.npz import read_npz
from heatc.readers.source import decode, read_bytes
from heatc.report.material import Masks, Module, SimulatedRun, SourceFile, Strip, Timeline
from heatc.report.numbers import Number
from heatc.report.reading.source import (
    LARGEST_JSON,
    LARGEST_TEXT,
    Part,
    expect_schema,
    source_file,
)

LAYERS = "layers.csv"
SCHEMA = 1

Array = NDArray[Any]


def read_stats_folder(path: Path, name: str) -> SimulatedRun:
    """
    The run of a stats.json; files beside it are read where it names them.

    Raises `HeatcError` where the file is not as hdp-run writes it, and where a file beside it is of
    another run.
    """
    stats = Part(read_json(path, "stats.json", LARGEST_JSON), str(path))
    expect_schema(stats, SCHEMA)
    _check(stats)
    files = [source_file(path)]
    layers = _beside(stats, path, LAYERS, files)
    timeline = _beside(stats, path, TIMELINE, files)
    masks = _beside(stats, path, KEPT_MASKS, files)
    hardware = from_json(stats.get("hardware").value, str(path))
    return SimulatedRun(
        name=name,
        folder=path.parent,
        stats=stats.value,
        modules=[] if layers is None else _modules(layers),
        timeline=None if timeline is None else _timeline(timeline),
        masks={} if masks is None else _masks(masks, stats),
        hardware=hardware,
        hardware_text=render(hardware),
        files=files,
    )


def _check(stats: Part) -> None:
    """Whatever sections take for granted."""
    for group in ("functional", *(["modelled"] if stats.has("modelled") else [])):
        for figure in stats.get(group).parts().values():
            figure.number()
    program = stats.get("program")
    for key in ("file", "producer"):
        program.get(key).text()
    for key in ("options", "source"):
        program.get(key).object()
    if stats.has("inputs"):
        for key in ("file", "sha256"):
            stats.get("inputs").get(key).text()
    agreement = stats.get("agreement").parts() if stats.has("agreement") else {}
    for output in agreement.values():
        for key in ("max_abs_error", "cosine", "min_cosine"):
            output.get(key).number()


def _beside(stats: Part, path: Path, name: str, files: list[SourceFile]) -> Path | None:
    """A file of the same run, which is noted in `files`; None where there is none."""
    file = path.parent / name
    # Folders of older versions have a layers.csv, and no digests.
    named = stats.get("files").object() if stats.has("files") else {LAYERS: None}
    if name not in named or not file.is_file():
        return None
    found = source_file(file)
    if named[name] not in (None, found.sha256):
        raise HeatcError(
            f"the file is not of the run that {path.name} tells of",
            place=str(file),
            notes=["run hdp-run --stats again"],
        )
    files.append(found)
    return file


# --- layers.csv -------------------------------------------------------------------------------


def _modules(path: Path) -> list[Module]:
    text = decode(read_bytes(path, LAYERS, LARGEST_TEXT), str(path))
    rows = csv.reader(io.StringIO(text))
    try:
        head = next(rows, list[str]())
        if head[:1] != ["module_path"]:
            raise HeatcError("the first column is not module_path", place=f"{path}:1")
        return [_module(head, row, f"{path}:{rows.line_num}") for row in rows]
    except csv.Error as error:
        raise HeatcError(f"no CSV: {error}", place=f"{path}:{rows.line_num}") from None


def _module(head: list[str], row: list[str], place: str) -> Module:
    if len(row) != len(head):
        raise HeatcError(f"expected {len(head)} columns, found {len(row)}", place=place)
    return Module(row[0], {name: _number(cell, place) for name, cell in zip(head[1:], row[1:])})


def _number(text: str, place: str) -> Number:
    if not text:
        return None
    try:
        number = int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise HeatcError(f"expected a number, found {text[:60]!r}", place=place)
    return number


# --- timeline.json ----------------------------------------------------------------------------


def _timeline(path: Path) -> Timeline:
    timeline = Part(read_json(path, "timeline.json", LARGEST_JSON), str(path))
    expect_schema(timeline, 1)
    units = {track: count.integer(1) for track, count in timeline.get("units").parts().items()}
    modules = timeline.get("modules").parts()
    return Timeline(
        timeline.get("total_cycles").integer(),
        units,
        _strip(timeline.get("whole_run"), units),
        {name: _strip(part, units) for name, part in modules.items()},
    )


def _strip(part: Part, units: Mapping[str, int]) -> Strip:
    busy: dict[str, list[int]] = {}
    for track, cycles in part.get("busy_cycles").parts().items():
        if track not in units:
            raise part.error(f"the engine {track!r} has no number of units")
        busy[track] = [one.integer() for one in cycles.list()]
    return Strip(part.get("first_cycle").integer(), part.get("bin_cycles").integer(1), busy)


# --- masks.npz --------------------------------------------------------------------------------


def _masks(path: Path, stats: Part) -> dict[str, Masks]:
    arrays = read_npz(path)
    lengths = _array(arrays, "lengths", 1, "iu", path)
    names = [key.split("/", 1)[1] for key in arrays if key.startswith(("mask/", "gate/"))]
    found: dict[str, Masks] = {}
    for name in dict.fromkeys(names):
        blocks = _decisions(arrays, f"mask/{name}", 4, len(lengths), path)
        heads = _decisions(arrays, f"gate/{name}", 2, len(lengths), path)
        found[name] = Masks(blocks, heads, [int(n) for n in lengths], _block(stats, name))
    return found


def _decisions(
    arrays: dict[str, Array], key: str, axes: int, samples: int, path: Path
) -> NDArray[np.bool_] | None:
    if key not in arrays:
        return None
    array = _array(arrays, key, axes, "b", path)
    if len(array) != samples:
        raise HeatcError(f"{key}: expected {samples} inputs, found {len(array)}", place=str(path))
    return array


def _array(arrays: dict[str, Array], key: str, axes: int, dtypes: str, path: Path) -> Array:
    array = arrays.get(key)
    if array is None or array.ndim != axes or array.dtype.kind not in dtypes:
        raise HeatcError(f"{key}: expected an array of {axes} axes", place=str(path))
    return array


def _block(stats: Part, name: str) -> tuple[int, int] | None:
    """Query rows and key columns of a block; None where the options of the program do not say it."""
    options = stats.get("program").get("options")
    if options.has("plan") and options.get("plan").has(name):
        options = options.get("plan").get(name)
    if not options.has("block"):
        return None
    extents = [extent.integer(1) for extent in options.get("block").list()]
    return (extents[0], extents[1]) if len(extents) == 2 else None
