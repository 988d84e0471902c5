"""The captured model: as many fresh compilations of it as a run needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from heatc.api import Compilation
from heatc.dialects import nn
from heatc.files import safetensors_bytes, together
from heatc.heat.options import plan_options
from heatc.interpreter import input_names, main_function
from heatc.interpreter.values import element_type
from heatc.kinds import PLAN, PLAN_FACTORS
from heatc.names import factors_file
from heatc.plan import Plan, read_plan
from heatc.targets import Numpy, Options
from heatc.targets.base import Target
from heatc.verify import Settings
from heatc.weights import WeightStore

TOKENS = 8192
"""Tokens that factors are made near on, half of what they are without training."""


@dataclass(frozen=True)
class CapturedModel:
    """A module at the captured level, its weights, and the name that it came by."""

    module: ModuleOp
    weights: WeightStore
    source: str

    @classmethod
    def of(cls, captured: Compilation) -> CapturedModel:
        """What a compilation captured, before it runs."""
        return cls(captured.module.clone(), captured.weights, captured.source)

    @property
    def inputs(self) -> str:
        """The inputs as `heatc --inputs` takes them."""
        function = main_function(self.module)
        words: list[str] = []
        for name, value in zip(input_names(function), function.body.block.args):
            shape = "x".join(map(str, nn.shape_of(value)))
            words.append(f"{name}={shape}:{element_type(value)}")
        return ",".join(words)

    def compilation(self, options: Options, verify: Settings | None = None) -> Compilation:
        """A compilation of the model that has not run; factors of it are its own."""
        made = Compilation(options, quiet=True, verify=verify)
        made.adopt(self.module.clone(), self.weights.copy(), self.source)
        return made

    def planned(
        self, plan: Path | None, target: Target, verify: Settings | None = None
    ) -> Compilation:
        """The model under a plan that brings its factors, or as it is."""
        return self.compilation(options_of(plan, target), verify)

    def factorised(self, plan: Path, data: Path) -> Compilation:
        """
        The model with the layers of a plan that brings no factors, run to the factorised level.

        Factors are near the weights on the inputs of `data`. The moments of layer inputs are those
        of the dense model, which the cache keeps for all plans.
        """
        heat = {**plan_options(data), "statistics": ("original",), "tokens": (TOKENS,)}
        found = _of_any_model(plan)
        made = self.compilation(
            Options(Numpy(), plan=found, level=0, heat=heat, calibrate=str(data))
        )
        made.run()
        return made


def options_of(plan: Path | None, target: Target) -> Options:
    """Those of a plan that brings its factors; at the packed level for the NumPy target."""
    level = 0 if isinstance(target, Numpy) else 2
    if plan is None:
        return Options(target, level=level)
    found = _of_any_model(plan)
    return Options(target, plan=found, level=level, heat=plan_options(None) if found.heat else None)


def _of_any_model(plan: Path) -> Plan:
    """A plan of this run: it is for this model, whose digest is not computed again."""
    return replace(read_plan(plan), model_sha256=None)


def write_plan(
    path: Path, plan: Mapping[str, Any], factors: WeightStore | None, names: tuple[str, ...] = ()
) -> None:
    """A plan, and those of the weights beside it that are its factors."""
    data = {key: value for key, value in plan.items() if key not in ("producer", "factors")}
    with together() as files:
        if factors is not None:
            content = safetensors_bytes({name: factors[name] for name in names}, PLAN_FACTORS)
            files.open(factors_file(path)).write(content)
            digest = hashlib.sha256(content).hexdigest()
            data["factors"] = {"file": factors_file(path).name, "sha256": digest}
        files.open(path, "w").write(PLAN.json_text(data))


def copy_plan(source: Path, target: Path) -> None:
    """A plan under another name, with the factors that it names."""
    plan = read_plan(source)
    factors = None if plan.factors is None else plan.factors.open()
    write_plan(target, plan_text(source), factors, () if factors is None else tuple(factors))


def plan_text(path: Path) -> dict[str, Any]:
    """A plan as its text has it."""
    return json.loads(path.read_text(encoding="utf-8"))
