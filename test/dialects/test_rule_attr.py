"""Rules of plans and options become attributes and come back."""

from __future__ import annotations

import pytest

from heatc.dialects.attn_rule import RuleAttr
from heatc.rules import RULE_NAMES, make_rule

OPTIONS = {
    "paper": {"rho_b": (0.1, -1 / 3), "tau_h": 1.3, "pruned_score": "zero", "block": (4, 2)},
    "ours": {"finer": 3, "tau_h": (1.1, 0.0), "gated": "mean"},
    "energon": {"alpha": (0.1, 0.7)},
}


@pytest.mark.parametrize("name", RULE_NAMES)
def test_a_rule_comes_back(name: str):
    rule = make_rule(name, OPTIONS.get(name, {}))
    assert RuleAttr.of(rule).rule == rule


def test_options_that_are_left_out_have_the_defaults():
    attribute = RuleAttr.of(make_rule("ours", {}))
    few = RuleAttr(attribute.rule_name, type(attribute.options)({}))
    assert few.rule == attribute.rule
