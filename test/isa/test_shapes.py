"""The shape rules: what they are over, what they give, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from heatc.isa.shapes import RULES, Shape, WrongShapeError
from heatc.isa.table import ISA, SHAPE_NAMES, FieldKind
from heatc.machine.clocks import up
from heatc.machine.execution import wider

STATE: dict[str, Any] = {
    "up": up,
    "min": min,
    "wider": wider,
    "r60": 11,
    "parts": 2,
    "block_rows": 2,
    "block_columns": 4,
}


def _shape(mnemonic: str, field: str, shapes: dict[str, Shape], **operands: int) -> Shape:
    rule = RULES[mnemonic]
    return rule.shape(field, rule.sizes({**STATE, **operands}, shapes))


@pytest.mark.parametrize("mnemonic", ISA)
def test_what_is_written_has_a_shape(mnemonic: str):
    """A tile or host register has no other shape than the one that an instruction gives it."""
    row = ISA[mnemonic]
    kinds = (FieldKind.TILE, FieldKind.HOST)
    assert {n for n in row.writes if row.field(n).kind in kinds} <= row.shapes.keys()


@pytest.mark.parametrize("mnemonic", ISA)
def test_a_result_follows_from_what_is_read(mnemonic: str):
    """With any sizes of the operands each result has a shape: its names all have a size by then."""
    row, rule = ISA[mnemonic], RULES[mnemonic]
    known = {**STATE, **dict.fromkeys(rule.operands, 1)}
    reads = [name for name in row.shapes if name in {access.field for access in row.accesses}]
    sizes = dict.fromkeys(rule.names - known.keys(), 3)
    shapes = {name: rule.shape(name, {**known, **sizes}) for name in reads}
    found = rule.sizes(known, shapes)
    assert all(len(rule.result(name, found)) == 2 for name in row.results)


def test_names_are_documented():
    state = {name for rule in RULES.values() for name in rule.names} & SHAPE_NAMES.keys()
    assert state == SHAPE_NAMES.keys()


@pytest.mark.parametrize(("transposed", "b"), [(0, (3, 5)), (1, (5, 3))])
def test_product(transposed: int, b: Shape):
    assert _shape("mm", "acc", {"a": (4, 3), "b": b}, b_transposed=transposed) == (4, 5)


def test_sizes_must_agree():
    with pytest.raises(WrongShapeError, match=r"shape of b is \(3, 5\), expected \(3, 4\)"):
        _shape("mm", "acc", {"a": (2, 4), "b": (3, 5)}, b_transposed=1)


def test_importances_are_of_blocks_of_the_sequence():
    shapes = {"q": (5, 3), "k": (4, 3)}
    assert _shape("scores", "a", shapes) == (5, 11)
    assert _shape("scores", "theta", shapes) == (3, 3)


def test_rows_of_a_mask_come_after_those_before():
    """Query row 8 of core 0 is row 4 of its own tile where two cores share a head: block row 2."""
    assert _shape("mask", "m", {"theta": (3, 3)}, row_reg=8) == (5, 3)


def test_a_part_is_clipped():
    sizes = {"row_reg": 6, "col_reg": 0, "rows": 4, "cols": 5}
    assert _shape("ld", "t", {"d": (8, 4)}, **sizes) == (2, 4)


@pytest.mark.parametrize(
    ("mnemonic", "operands", "shape"),
    [
        ("hred", {}, (4, 1)),
        ("hredr", {"group": 2}, (2, 6)),
        ("hshape", {"columns": 8}, (3, 8)),
        ("hcut", {"columns": 2}, (4, 2)),
    ],
)
def test_a_register_becomes_another_shape(mnemonic: str, operands: dict[str, int], shape: Shape):
    rule = RULES[mnemonic]
    sizes = rule.sizes({**STATE, **operands}, {"h": (4, 6)})
    assert (rule.shape("h", sizes), rule.result("h", sizes)) == ((4, 6), shape)


def test_sides_of_one_are_repeated():
    rule = RULES["hop"]
    found = [
        rule.result("h", rule.sizes(STATE, {"h": h, "g": g}))
        for h, g in (((4, 1), (1, 6)), ((1, 1), (4, 6)), ((0, 3), (1, 3)), ((1, 3), (0, 1)))
    ]
    assert found == [(4, 6), (4, 6), (0, 3), (0, 3)]
