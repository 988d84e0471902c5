"""The files that `hdp-run --stats DIR` writes: their streams, and what each of them holds."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from heatc import kinds
from heatc.backends.hdp.container import Program
from heatc.backends.hdp.simulation import Simulation
from heatc.backends.hdp.timeline import Timeline
from heatc.commands import HDP_RUN
from heatc.files import Batch, make_folder
from heatc.hardware import render
from heatc.names import KEPT_MASKS, TIMELINE
from heatc.readers.npz import write_npz
from heatc.tools.comparison import Difference
from heatc.tools.layer_stats import COLUMNS, NO_PATH, layers_csv, layers_of
from heatc.tools.quantities import FUNCTIONAL
from heatc.tools.run_stats import (
    Figure,
    Run,
    file_sha256,
    program_json,
    stats_json,
    stats_text,
)


@dataclass(frozen=True)
class StatsFolder:
    """
    The folder of `--stats`, whose files appear with the others of the command.

    Attributes:
        streams: by name.
        keep_masks: how many inputs masks are kept of, from the first one on.
    """

    streams: Mapping[str, IO[bytes]]
    keep_masks: int

    @classmethod
    def open(cls, files: Batch, values: Mapping[str, Any]) -> StatsFolder | None:
        """The folder that the options name, None where they name none."""
        if values["stats"] is None:
            return None
        make_folder(values["stats"])
        named = HDP_RUN.outputs({name: values[name] for name in ("stats", "model", "keep_masks")})
        streams = {output.path.name: files.open(output.path) for output in named}
        return cls(streams, values["keep_masks"])

    def write(self, content: StatsContent) -> None:
        """Write every file."""
        texts = content.texts()
        found = {name: text.encode() for name, text in texts.items()}
        if self.keep_masks:
            found[KEPT_MASKS] = content.masks(self.keep_masks)
        beside = {n: hashlib.sha256(d).hexdigest() for n, d in found.items() if n in _BESIDE}
        found["stats.json"] = content.stats(beside).encode()
        for name, stream in self.streams.items():
            stream.write(found[name])


_BESIDE = ("layers.csv", TIMELINE, KEPT_MASKS)
"""The files that stats.json names by their digests: those of another run may lie beside it."""


@dataclass(frozen=True)
class StatsContent:
    """What is written about a run."""

    rows: Sequence[Figure]
    simulation: Simulation
    program: Program
    run: Run
    model: str
    timeline: Timeline | None
    inputs: Path | None
    differences: Sequence[Difference] | None

    def texts(self) -> dict[str, str]:
        """The texts by name, without stats.json."""
        modelled = self.model != FUNCTIONAL
        columns = [c for c in COLUMNS if modelled or c.group == FUNCTIONAL]
        texts = {
            "stats.txt": stats_text(self.rows),
            "layers.csv": layers_csv(self._layers(modelled), columns),
            "hardware.yaml": kinds.HARDWARE.line() + render(self.run.hardware),
            "program.json": program_json(self.program),
        }
        if self.timeline is not None:
            found = kinds.TIMELINE.json_text(self.timeline.to_json(NO_PATH), indent=None)
            texts[TIMELINE] = found
        return texts

    def _layers(self, modelled: bool):
        if not modelled or self.timeline is None:
            return layers_of(self.simulation, self.program)
        leakage = self.run.energy(lambda e: sum(e.leakage_joules.values()))
        watched = (self.timeline.pc_time, leakage)
        return layers_of(self.simulation, self.program, self.run.pc_joules, *watched)

    def masks(self, count: int) -> bytes:
        """masks.npz of the first inputs."""
        stream, kept = io.BytesIO(), {n: a[:count] for n, a in self.simulation.masks.items()}
        write_npz(stream, kept, kinds.MASKS)
        return stream.getvalue()

    def stats(self, beside: Mapping[str, str]) -> str:
        """stats.json; `beside` are the digests of files of the same run."""
        more: dict[str, Any] = {"files": dict(beside)}
        if self.inputs is not None:
            more["inputs"] = {"file": self.inputs.name, "sha256": file_sha256(self.inputs)}
        if self.differences is not None:
            more["agreement"] = {d.name: _agreement(d) for d in self.differences}
        return stats_json(
            self.rows, self.simulation, self.program, self.run.hardware, self.model, more
        )


def _agreement(difference: Difference) -> dict[str, Any]:
    """Its figures; null where a figure is not finite, which JSON has no number for."""
    figures = (difference.max_abs_error, difference.cosine, difference.min_cosine)
    error, cosine, least = (x if math.isfinite(x) else None for x in figures)
    return {
        "max_abs_error": error,
        "cosine": cosine,
        "min_cosine": least,
        "holds": difference.holds,
    }
