"""A value is used after it was defined, where it is known, or the text is refused."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import ModuleOp

from heatc.api import make_context
from heatc.errors import HeatcError
from heatc.parsing import parse_module


def parsed(text: str, *, ordered: bool = True) -> ModuleOp:
    return parse_module(make_context(), text.encode(), "x.mlir", ordered=ordered)


LATER = """
func.func @f(%a: i64) -> i64 {
  %0 = arith.addi %1, %a : i64
  %1 = arith.addi %a, %a : i64
  func.return %0 : i64
}
"""
OWN = """
func.func @f(%a: i64) -> i64 {
  %0 = arith.addi %a, %0 : i64
  func.return %0 : i64
}
"""
INSIDE = """
func.func @f(%a: i1, %b: i64) -> i64 {
  %0 = scf.if %a -> (i64) {
    scf.yield %1 : i64
  } else {
    scf.yield %b : i64
  }
  %1 = arith.addi %b, %b : i64
  func.return %0 : i64
}
"""
ALONE = """
%0 = hdp.tensor "x" activation dram i16 [4, 4]
%1 = hdp.alias %1 [8, 4]
"""
GOOD = """
func.func @f(%a: i1, %b: i64) -> i64 {
  %0 = scf.if %a -> (i64) {
    %1 = arith.addi %b, %b : i64
    scf.yield %1 : i64
  } else {
    scf.yield %b : i64
  }
  func.return %0 : i64
}
func.func @g(%a: i1, %b: i64) -> i64 {
  cf.cond_br %a, ^bb1, ^bb2
^bb2:
  %2 = arith.addi %1, %b : i64
  func.return %2 : i64
^bb1:
  %1 = arith.addi %b, %b : i64
  cf.br ^bb2
}
"""


@pytest.mark.parametrize(
    ("text", "place"),
    [(LATER, "x.mlir:3:"), (OWN, "x.mlir:3:"), (INSIDE, "x.mlir:4:"), (ALONE, "x.mlir:3:")],
)
def test_what_is_refused(text: str, place: str):
    with pytest.raises(HeatcError, match="is not defined before this use") as caught:
        parsed(text)
    assert caught.value.place.startswith(place)


def test_without_the_check_it_is_taken():
    assert "arith.addi" in str(parsed(LATER, ordered=False))


def test_regions_see_what_is_around_them_and_blocks_come_in_any_order():
    assert len(parsed(GOOD).ops) == 2
