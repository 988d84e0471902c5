"""The intervals of host ops."""

from __future__ import annotations

import pytest
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.dialects import nn
from heatc.passes.analysis.ranges import Range, range_of


@pytest.mark.parametrize(
    ("predicate", "limit", "expected"),
    [
        ("gt", -4.0, (-4.0, 9.0)),
        ("ge", -4.0, (-4.0, 9.0)),
        ("lt", 5.0, (-1e9, 5.0)),
        ("le", 5.0, (-1e9, 5.0)),
        ("gt", 20.0, (0.0, 20.0)),
        ("ne", 5.0, (-1e9, 9.0)),
    ],
)
def test_a_choice_by_a_comparison(predicate: str, limit: float, expected: tuple[float, float]):
    t, b = "tensor<4xf32>", "tensor<4xi1>"
    text = f"""func.func @main(%x: {t}) -> {t} {{
  %limit = nn.full {{value = {limit:e} : f64}} : tensor<f32>
  %zero = nn.full {{value = 0.0 : f64}} : tensor<f32>
  %c = nn.compare %x, %limit {{predicate = "{predicate}"}} : ({t}, tensor<f32>) -> {b}
  %r = nn.where %c, %x, %zero : ({b}, {t}, tensor<f32>) -> {t}
  func.return %r : {t}
}}"""
    module = Parser(make_context(), text).parse_module()
    (where,) = (op for op in module.walk() if isinstance(op, nn.WhereOp))
    ranges = [Range.of(0.0, 1.0), Range.of(-1e9, 9.0), Range.of(0.0, 0.0)]
    assert range_of(where, ranges).whole == expected
