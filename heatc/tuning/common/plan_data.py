"""Rules as the entries of plan.json; `heatc.plan` reads them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from heatc.plan import SCHEMA
from heatc.rules import Rule, find_rule, known_options
from heatc.tuning.common.factorised import FactorisedLayers


def plan_data(
    rules: Mapping[str, Rule],
    *,
    model_sha256: str | None = None,
    hw: str | None = None,
    hw_sha256: str | None = None,
    seed: int | None = None,
    factorised: FactorisedLayers | None = None,
) -> dict[str, Any]:
    """
    A plan of pruning rules by module path, and of factorised layers where there are any.

    Their file is named as it stands beside the plan.
    """
    layers: dict[str, dict[str, Any]] = {}
    if factorised is not None:
        layers = {path: {"heat": entry} for path, entry in factorised.heat.items()}
    for path, rule in rules.items():
        layers[path] = {**layers.get(path, {}), "hdp": rule_data(rule)}
    plan: dict[str, Any] = {
        "schema": SCHEMA,
        "model_sha256": model_sha256,
        "hw": hw,
        "hw_sha256": hw_sha256,
        "seed": seed,
        "layers": layers,
    }
    if factorised is not None:
        for path, widths in factorised.widths.items():
            layers[path] = {**layers.get(path, {}), "widths": dict(widths)}
        plan["factors"] = {"file": factorised.file.name, "sha256": factorised.sha256}
    return plan


def rule_data(rule: Rule) -> dict[str, Any]:
    """A rule under the keys of plan.json; of values that may be one a head, one stands alone."""
    data: dict[str, Any] = {"rule": rule.name}
    known = known_options(find_rule(rule.name))
    for name, value in rule.options.items():
        option = known[name]
        plain = list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
        single = option.count is None and len(plain) == 1
        data[option.key or name] = plain[0] if single else plain
    return data
