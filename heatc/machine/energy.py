"""
Energy and area of a run: action counts times the hardware file's costs, and leakage times time.

All of it is modelled (docs/design/energy.md): the actions come from the executed instructions and
the run's own masks, their costs from the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from heatc.hardware import Hardware
from heatc.hardware.costs import ACTIONS, MAC_WIDTHS, SPLITS, action_joules, leakage_watts
from heatc.machine.machine import RunResult
from heatc.machine.work import charged

Joules = NDArray[np.float64]

UNITS: tuple[str, ...] = (
    "pe",
    "se",
    "adder",
    "softmax",
    "vector",
    "local",
    "shared",
    "dram",
    "dma",
    "host",
    "sequencer",
)
"""What energy is told apart by."""

_UNIT_OF = {
    **{action: "pe" for action in ACTIONS if action.startswith(("mac_", "fuse_"))},
    **{"requantise": "pe", "block": "se", "add": "adder", "instruction": "sequencer"},
}
_INDEX = {action: i for i, action in enumerate(ACTIONS)}


def unit_of(action: str) -> str:
    """The unit that an action belongs to."""
    return _UNIT_OF.get(action) or action.split("_")[0]


@dataclass(frozen=True)
class EnergyReport:
    """
    Where the energy of one or more runs went; all of it is modelled.

    `dynamic_joules` and `leakage_joules` are by unit (`UNITS`), `pc_joules` (dynamic) by
    instruction of the program, `path_joules` (dynamic) by module path. `delay_product` is the sum
    over runs of energy times time, in joule seconds. `table` names the hardware file.
    """

    table: str
    seconds: float
    delay_product: float
    dynamic_joules: Mapping[str, float]
    leakage_joules: Mapping[str, float]
    actions: Mapping[str, float] = field(repr=False)
    pc_joules: Joules = field(repr=False)

    @property
    def joules(self) -> float:
        """Dynamic energy and leakage of all units."""
        return sum(self.dynamic_joules.values()) + sum(self.leakage_joules.values())

    def unit_joules(self, unit: str) -> float:
        """Dynamic energy and leakage of a unit."""
        return self.dynamic_joules.get(unit, 0.0) + self.leakage_joules.get(unit, 0.0)


# --- Actions ----------------------------------------------------------------------------------


def mac_counts(result: RunResult, hardware: Hardware) -> dict[str, int]:
    """Multiply-accumulates by the widths of their operands in bits (`8x16`), however multiplied."""
    apart = replace(hardware, split_bits=SPLITS[0])
    totals = action_counts(result, apart).sum(axis=0)
    return {width: round(totals[_INDEX[f"mac_{width}"]]) for width in MAC_WIDTHS}


def action_counts(result: RunResult, hardware: Hardware) -> NDArray[np.float64]:
    """How often each instruction of the program did each action: (pcs, `ACTIONS`)."""
    counts = np.zeros((len(result.pc_counts), len(ACTIONS)))
    counts[:, _INDEX["instruction"]] = result.pc_counts
    for pc, row, count in charged(result.work, hardware):
        counts[pc, row] += count
    return counts


# --- Costs ------------------------------------------------------------------------------------


def energy_report(results: RunResult | Sequence[RunResult], hardware: Hardware) -> EnergyReport:
    """
    The energy of runs of one program; `hardware` is what it ran on.

    Runs are one after the other: energy and time are sums over them.
    """
    runs = [results] if isinstance(results, RunResult) else list(results)
    costs, watts = np.array(action_joules(hardware)), leakage_watts(hardware)
    pcs = len(runs[0].pc_counts) if runs else 0
    counts = np.zeros((pcs, len(ACTIONS)))
    seconds, product = 0.0, 0.0
    for run in runs:
        mine = action_counts(run, hardware)
        time = run.cycles / hardware.clock_hz
        product += (float((mine @ costs).sum()) + sum(watts.values()) * time) * time
        counts, seconds = counts + mine, seconds + time
    pc_joules = counts @ costs
    return EnergyReport(
        table=hardware.name,
        seconds=seconds,
        delay_product=product,
        dynamic_joules=_by_unit(counts.sum(axis=0) * costs),
        leakage_joules={unit: power * seconds for unit, power in watts.items()},
        actions=dict(zip(ACTIONS, counts.sum(axis=0).tolist())),
        pc_joules=pc_joules,
    )


def _by_unit(joules: Joules) -> dict[str, float]:
    result = dict.fromkeys(UNITS, 0.0)
    for action, value in zip(ACTIONS, joules.tolist()):
        result[unit_of(action)] += value
    return result
