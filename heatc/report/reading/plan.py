"""plan.json: how each layer is factorised and pruned."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from heatc.errors import HeatcError
from heatc.heat.formats import Spec, find_format, shape_text
from heatc.heat.plan import LayerHeat
from heatc.plan import LARGEST_PLAN, Plan, read_plan
from heatc.readers.json_text import parse_json
from heatc.readers.source import read_bytes
from heatc.report.material import PlanLayer, PlanRun
from heatc.report.reading.source import source_file
from heatc.weights import WeightStore


def looks_like_plan(path: Path) -> bool:
    """Whether a file without a mark has the keys of a plan, which may be written by hand."""
    try:
        found = parse_json(read_bytes(path, "a plan", LARGEST_PLAN), str(path))
    except HeatcError:
        return False
    return {"schema", "layers"} <= set(found)


def read_plan_run(path: Path, name: str) -> PlanRun:
    """The plan, with the sizes of its factors where its file of factors is there."""
    plan, files = read_plan(path), [source_file(path)]
    weights = None
    if plan.factors is not None and plan.factors.path.is_file():
        weights = plan.factors.open()
        files.append(source_file(plan.factors.path))
    paths = dict.fromkeys([*plan.heat, *plan.rules])
    layers = [_layer(plan, layer, weights) for layer in paths]
    return PlanRun(name, plan, layers, files)


def _layer(plan: Plan, path: str, weights: WeightStore | None) -> PlanLayer:
    heat, rule = plan.heat.get(path), plan.layers.get(path, {}).get("hdp")
    told = None if rule is None else _rule_text(rule)
    if heat is None:
        return PlanLayer(path, None, None, None, None, None, told)
    parameters, dense = _parameters(path, heat, weights)
    shape = None if heat.shape is None else shape_text(*heat.shape)
    return PlanLayer(path, heat.format, shape, heat.ranks, parameters, dense, told)


def _parameters(
    path: str, heat: LayerHeat, weights: WeightStore | None
) -> tuple[int | None, int | None]:
    """Elements of the factors and of the dense weight, None where neither shape nor factors tell."""
    if heat.shape is not None:
        spec = Spec(heat.format, *heat.shape, heat.ranks)
        return spec.parameters, math.prod(spec.inputs) * math.prod(spec.outputs)
    if weights is None or not find_format(heat.format).is_matrix or not heat.ranks:
        return None, None
    sizes = [math.prod(weights.shape(f"{path}.{i}")) for i in (0, 1) if f"{path}.{i}" in weights]
    if len(sizes) != 2:
        return None, None
    # Each of the two factors has the rank, and one extent of the matrix.
    rank = heat.ranks[0]
    return sum(sizes), (sizes[0] // rank) * (sizes[1] // rank)


def _rule_text(rule: Mapping[str, Any]) -> str:
    words = [str(rule.get("rule", ""))]
    words += [f"{key} {_value_text(value)}" for key, value in rule.items() if key != "rule"]
    return ", ".join(words)


def _value_text(value: Any) -> str:
    """A value; of many numbers, one a head, their range."""
    if not isinstance(value, list):
        return value if isinstance(value, str) else json.dumps(value)
    values = cast("list[Any]", value)
    if len(values) <= 2 or not all(isinstance(v, int | float) for v in values):
        return "x".join(str(v) for v in values)
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
