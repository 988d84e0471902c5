"""Rules as the entries of plan.json; `heatc.plan` reads them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from heatc.plan import SCHEMA
from heatc.rules import OPTIONS, Rule


def plan_data(
    rules: Mapping[str, Rule],
    *,
    model_sha256: str | None = None,
    hw_sha256: str | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """A plan of pruning rules by module path."""
    return {
        "schema": SCHEMA,
        "model_sha256": model_sha256,
        "hw_sha256": hw_sha256,
        "seed": seed,
        "layers": {path: {"hdp": rule_data(rule)} for path, rule in rules.items()},
    }


def rule_data(rule: Rule) -> dict[str, Any]:
    """A rule under the keys of plan.json; of values that may be one a head, one stands alone."""
    data: dict[str, Any] = {"rule": rule.name}
    for name, value in rule.options.items():
        option = OPTIONS[name]
        plain = list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
        single = option.count is None and len(plain) == 1
        data[option.key or name] = plain[0] if single else plain
    return data
