"""The action expressions are over documented variables, and priced rows."""

from __future__ import annotations

import pytest

from heatc.hardware.costs import ACTIONS, MAC_WIDTHS
from heatc.isa.actions import ENERGY, ENERGY_CONSTANTS, MAC_ACTION, VECTOR_ENERGY, WORK_VARIABLES
from heatc.isa.table import ISA, Engine


def _names(expression: str) -> set[str]:
    return set(compile(expression, "<energy>", "eval").co_names)


TABLES = (ENERGY, VECTOR_ENERGY)


@pytest.mark.parametrize("mnemonic", ISA)
def test_expressions_are_over_documented_names(mnemonic: str):
    found = [pair for table in TABLES for pair in table.get(mnemonic, {}).items()]
    for action, expression in found:
        assert action in ACTIONS or action == MAC_ACTION
        assert _names(expression) <= {*WORK_VARIABLES, *ENERGY_CONSTANTS}, action


def test_every_variable_is_used():
    widths = {"bits_a", "bits_b"}  # these choose the row of a `mac`
    every = [actions for table in TABLES for actions in table.values()]
    used = {n for actions in every for e in actions.values() for n in _names(e)}
    assert WORK_VARIABLES.keys() - widths <= used


def test_every_row_is_some_instructions():
    used = {action for table in TABLES for actions in table.values() for action in actions}
    priced = {a for a in ACTIONS if not a.startswith(("mac_", "fuse_"))}
    assert priced == used - {MAC_ACTION}
    assert {f"mac_{width}" for width in MAC_WIDTHS} <= set(ACTIONS)


def test_every_engine_does_more_than_issue():
    for entry in ISA.values():
        assert (set(entry.energy) == {"instruction"}) == (entry.engine is Engine.CONTROL)
