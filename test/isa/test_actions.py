"""The action expressions are over documented variables, and priced rows."""

from __future__ import annotations

import pytest

from heatc.hardware.costs import ACTIONS, MAC_WIDTHS
from heatc.isa.table import ENERGY_CONSTANTS, ISA, MAC_ACTION, WORK_VARIABLES, Engine


def _names(expression: str) -> set[str]:
    return set(compile(expression, "<energy>", "eval").co_names)


EVERY = [actions for entry in ISA.values() for actions in (entry.energy, entry.vector_energy)]


@pytest.mark.parametrize("mnemonic", ISA)
def test_expressions_are_over_documented_names(mnemonic: str):
    entry = ISA[mnemonic]
    for action, expression in [*entry.energy.items(), *entry.vector_energy.items()]:
        assert action in ACTIONS or action == MAC_ACTION
        assert _names(expression) <= {*WORK_VARIABLES, *ENERGY_CONSTANTS}, action


def test_every_variable_is_used():
    widths = {"bits_a", "bits_b"}  # these choose the row of a `mac`
    used = {n for actions in EVERY for e in actions.values() for n in _names(e)}
    assert WORK_VARIABLES.keys() - widths <= used


def test_every_row_is_some_instructions():
    used = {action for actions in EVERY for action in actions} | {"instruction"}
    priced = {a for a in ACTIONS if not a.startswith(("mac_", "fuse_"))}
    assert priced == used - {MAC_ACTION}
    assert {f"mac_{width}" for width in MAC_WIDTHS} <= set(ACTIONS)


def test_every_engine_does_more_than_issue():
    for entry in ISA.values():
        assert bool(entry.energy) == (entry.engine is not Engine.CONTROL)
