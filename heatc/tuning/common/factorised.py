"""What calibration takes over from a plan: which layers are factorised, and their factors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from heatc.files import Batch, safetensors_bytes, write_safetensors
from heatc.kinds import PLAN_FACTORS
from heatc.names import factors_file
from heatc.plan import Plan, model_sha256
from heatc.weights import WeightStore


@dataclass(frozen=True)
class FactorisedLayers:
    """
    The factorised layers of a plan.

    Attributes:
        heat: their entries by module path, as they stand in plan.json.
        file: the safetensors file of their factors.
        sha256: its digest.
        hw, hw_sha256: name and digest of the machine that the plan was made for, None where it does
            not say.
        widths: of the operands of layers, by module path, as the plan says them.
    """

    heat: Mapping[str, Any]
    file: Path
    sha256: str
    hw: str | None = None
    hw_sha256: str | None = None
    widths: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])

    @classmethod
    def of(cls, plan: Plan, weights: WeightStore, folder: Path) -> FactorisedLayers:
        """
        The layers of a plan after `heat-decompose` ran on `weights`.

        Factors that the plan does not bring are written to `factors.safetensors` in `folder`.
        """
        file = folder / "factors.safetensors"
        if plan.factors is not None:
            file = plan.factors.path
        else:
            write_safetensors(file, {name: weights[name] for name in weights.added}, PLAN_FACTORS)
        return cls(
            heat_entries(plan), file, model_sha256(file), plan.hw, plan.hw_sha256, plan.widths
        )

    def beside(self, plan: Path, files: Batch) -> FactorisedLayers:
        """The same with the factors in a file beside a plan, which `files` writes."""
        file = factors_file(plan)
        content = safetensors_bytes(WeightStore.open(self.file), PLAN_FACTORS)
        files.open(file).write(content)
        return replace(self, file=file, sha256=hashlib.sha256(content).hexdigest())


def heat_entries(plan: Plan) -> dict[str, Any]:
    """The `heat` entries of a plan that was read, by module path, as its text has them."""
    return {path: plan.layers[path]["heat"] for path in plan.heat}
