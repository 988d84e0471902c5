"""The worked example of insert_hdp.mlir, executed: every intermediate against numbers by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.interpreter import make_interpreter
from heatc.interpreter.reference import Head, attend
from heatc.interpreter.values import Packing
from heatc.passes.insert_hdp import InsertHdpPass
from heatc.rules import make_rule
from heatc.weights import WeightStore

EXAMPLE = Path(__file__).parent / "insert_hdp.mlir"
Values = dict[str, list[NDArray[Any]]]

Q = [
    [1.5, 0, 0, 0],
    [0, 1, 0, 0],
    [2, 0, 0, 0.5],
    [0, -1.5, 0, 0],
    [0, 0, 1, 0],
    [0, 0, 2.5, 1],
    [1, 1, 0, 0],
    [0, 0, 0, -2],
]
K = [
    [1, 0, 0, 0.5],
    [2, 0, 0, 0],
    [0, 1, 0, 0],
    [0, -3.5, 0, 0],
    [0, 0, 1, 0],
    [0, 0, 0, 1],
    [1, 1, 0.5, 0],
    [0, 0, 2, -1],
]
INTEGER_Q = [
    [1, 0, 0, 0],
    [0, 1, 0, 0],
    [2, 0, 0, 0],
    [0, -1, 0, 0],
    [0, 0, 1, 0],
    [0, 0, 2, 1],
    [1, 1, 0, 0],
    [0, 0, 0, -2],
]
FRACTION_Q = [
    [0.5, 0, 0, 0],
    [0, 0, 0, 0],
    [0, 0, 0, 0.5],
    [0, -0.5, 0, 0],
    [0, 0, 0, 0],
    [0, 0, 0.5, 0],
    [0, 0, 0, 0],
    [0, 0, 0, 0],
]
A = [
    [1, 2, 0, 0, 0, 0, 1, 0],
    [0, 0, 1, -3, 0, 0, 1, 0],
    [2, 4, 0, 0, 0, 0, 2, 0],
    [0, 0, -1, 3, 0, 0, -1, 0],
    [0, 0, 0, 0, 1, 0, 0, 2],
    [0, 0, 0, 0, 2, 1, 0, 3],
    [1, 2, 1, -3, 0, 0, 2, 0],
    [0, 0, 0, 0, 0, -2, 0, 2],
]
THETA = [[3, 4, 0, 2], [6, 4, 0, 3], [0, 0, 4, 5], [3, 4, 2, 4]]
KEPT = {
    # Theta 3.125, 4.625, 3.625, 3.625
    0.5: [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]],
    # the means 2.25, 3.25, 2.25, 3.25
    0.0: [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]],
    # min / 2 + mean / 2: 1.125, 1.625, 1.125, 2.625
    -0.5: [[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 1, 1], [1, 1, 0, 1]],
}
# Kept blocks of rho_B = 0.5: Q K^T without F_Q F_K. Row 2 loses 0.5 * 0.5 of 2.25, row 5 of 1.25.
SCORES = [
    [0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 1, -3.5, 0, 0, 0, 0],
    [2, 4, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 1, 0, 0.5, 2],
    [0, 0, 0, 0, 2.5, 1, 1, 4],
    [0, 0, 1, -3.5, 0, 0, 2, 0],
    [0, 0, 0, 0, 0, 0, 0, 2],
]
# The mean integer score of what each row prunes: 4 / 6, 1 / 6, 2 / 6, 1 / 6, 0, 0, 3 / 4, -2 / 4.
PRUNED_MEAN = [4 / 6, 1 / 6, 2 / 6, 1 / 6, 0, 0, 3 / 4, -2 / 4]
VALUES = np.arange(32.0).reshape(8, 4) / 4 - 3


def paper(rho_b: float, **options: Any) -> Head:
    return Head.of(make_rule("paper", {"rho_b": rho_b, **options}), 0)


def transformed(**options: Any) -> ModuleOp:
    context = make_context()
    module = Parser(context, EXAMPLE.read_text(), EXAMPLE.name).parse_module()
    InsertHdpPass(rule="paper", **options).apply(context, module)
    module.verify()
    return module


def execute(**options: Any) -> Values:
    """The results of every op of the example, by op name."""
    seen: Values = {}

    def observe(op: Operation, results: Any) -> None:
        if op.parent_op() is not None and op.name.startswith("attn."):
            seen.setdefault(op.name.removeprefix("attn."), []).extend(map(np.asarray, results))

    interpreter = make_interpreter(transformed(**options), WeightStore({}), observe)
    tokens = [np.array(x, np.float32) for x in (Q, K, VALUES)]
    packing = Packing.of(np.ones((1, 8), np.bool_))
    (out,) = interpreter.call_op("worked_example", (*tokens, packing))
    return {**seen, "out": [out]}


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.array([[0.0 if s == -math.inf else math.exp(s) for s in row] for row in scores])
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("rho_b", KEPT)
def test_masks(rho_b: float):
    seen = execute(rho_b=rho_b)
    integer_q, fraction_q, integer_k, fraction_k = seen["split"]
    assert integer_q.tolist() == INTEGER_Q
    assert fraction_q.tolist() == FRACTION_Q
    assert (integer_k + fraction_k).tolist() == K
    assert integer_k[3].tolist() == [0, -3, 0, 0]
    assert seen["integer_scores"][0][0, 0].tolist() == A
    assert seen["block_importance"][0][0, 0].tolist() == THETA
    assert seen["block_mask"][0][0, 0].astype(int).tolist() == KEPT[rho_b]
    assert "head_gate" not in seen


@pytest.mark.parametrize("pruned_score", ["zero", "neginf", "int", "mean"])
def test_scores(pruned_score: str):
    seen = execute(rho_b=0.5, pruned_score=pruned_score)
    kept = np.kron(KEPT[0.5], np.ones((2, 2))).astype(bool)
    replacement = {
        "zero": np.zeros((8, 8)),
        "neginf": np.full((8, 8), -math.inf),
        "int": np.array(A, float),
        "mean": np.repeat(np.array(PRUNED_MEAN)[:, None], 8, 1),
    }[pruned_score]
    expected = np.where(kept, SCORES, replacement)
    np.testing.assert_allclose(seen["merge_scores"][0][0, 0], expected, rtol=1e-6)
    probabilities = softmax(expected * 0.5)
    np.testing.assert_allclose(seen["softmax"][0][0, 0], probabilities, atol=1e-6)
    np.testing.assert_allclose(seen["out"][0], probabilities @ VALUES, atol=1e-5)
    # The same in one piece, which --execute-each compares with.
    rule = paper(0.5, pruned_score=pruned_score)
    whole = attend(np.array(Q), np.array(K), VALUES, 0.5, rule)
    np.testing.assert_allclose(whole, probabilities @ VALUES, atol=1e-12)


@pytest.mark.parametrize(("tau_h", "is_kept"), [(0.5, True), (0.6875, True), (0.75, False)])
def test_head_gate(tau_h: float, is_kept: bool):
    """theta_Head is 44, 44 / 64 = 0.6875 per score."""
    seen = execute(rho_b=0.5, tau_h=tau_h)
    assert seen["head_gate"][0].tolist() == [[is_kept]]
    assert seen["out"][0].any() == is_kept
    whole = attend(np.array(Q), np.array(K), VALUES, 0.5, paper(0.5, tau_h=tau_h))
    assert whole.any() == is_kept


def test_a_row_without_a_kept_block_gives_zeros():
    """Theta of equal blocks can lie a rounding above all of them: then nothing is left to attend."""
    theta = next(t for t in range(1, 1000) if 0.1 * t + 0.9 * t > t)
    q = np.array([[float(theta), 0.0]] * 1)
    rule = paper(0.1, pruned_score="neginf")
    whole = attend(q, np.array([[1.0, 0.0]]), np.ones((1, 2)), 1.0, rule)
    assert whole.tolist() == [[0.0, 0.0]]
