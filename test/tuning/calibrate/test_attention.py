"""The vectorised rule against the definition in one piece, and the measurements against both."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from heatc.interpreter import reference
from heatc.interpreter.values import Packing
from heatc.rules import Rule, make_rule
from heatc.tuning.calibrate.attention import attend, block_total
from heatc.tuning.calibrate.candidates import (
    CALIBRATED_SCORES,
    FINER,
    GATED,
    IMPORTANCES,
    RHO_B,
    Block,
)
from heatc.tuning.calibrate.measure import MOST_ROWS, measure, measured_rows
from heatc.tuning.common.packed_model import Attention, Paused

HEADS, DIM = 3, 8
LENGTHS = (5, 1, 6, 0, 5, 2)


@pytest.fixture
def paused() -> Paused:
    """A batch of random sequences, one of them empty, in front of an attention."""
    rng = np.random.default_rng(0)
    mask = np.arange(6) < np.array(LENGTHS)[:, None]
    q, k, v = (rng.normal(size=(sum(LENGTHS), HEADS * DIM)).astype(np.float32) for _ in range(3))
    columns = rng.normal(size=(12, HEADS, DIM))
    metric = np.einsum("ohd,ohe->hde", columns, columns)
    attention = Attention(0, "layer.0", HEADS, DIM**-0.5, metric)
    return Paused(attention, Packing.of(mask), q * 2, k * 2, v, {})


def by_definition(paused: Paused, rule: Rule) -> NDArray[np.float64]:
    """The same attention, a head and a sequence at a time, by the interpreter's reference."""
    out = np.zeros(paused.v.shape)
    for rows in paused.packing.sequences():
        for head in range(HEADS):
            if rows.stop == rows.start:
                continue
            own = slice(head * DIM, (head + 1) * DIM)
            q, k, v = (x[rows, own].astype(np.float64) for x in (paused.q, paused.k, paused.v))
            of_head = reference.Head.of(rule, head)
            out[rows, own] = reference.attend(q, k, v, paused.attention.scale, of_head)
    return out


@pytest.mark.parametrize("pruned", ["zero", "neginf", "int", "mean"])
@pytest.mark.parametrize("importance", ["abs", "positive"])
@pytest.mark.parametrize("gated", ["zero", "mean", "col"])
def test_the_rule_is_the_one_that_is_defined(
    paused: Paused, pruned: str, importance: str, gated: str
):
    options = {"importance": importance, "pruned_score": pruned, "gated": gated, "finer": 1}
    tau = 0.9 if importance == "positive" else 8.0
    rule = make_rule("ours", {**options, "rho_b": (-0.3, 0.2, 0.7), "tau_h": (0.0, tau, 0.1)})
    out, decisions = attend(paused, rule)
    np.testing.assert_allclose(out, by_definition(paused, rule), atol=2e-5)
    blocks = block_total(np.array(LENGTHS), (2, 2))
    assert (decisions.kept_blocks <= blocks[:, None]).all()
    # The thresholds of this test prune some heads and some blocks, not all.
    assert 0 < decisions.kept_heads.sum() < 5 * HEADS
    assert 0 < decisions.kept_blocks.sum() < HEADS * blocks.sum()


@pytest.mark.parametrize("block", [(1, 2), (2, 4), (4, 4), (8, 8)])
def test_blocks_of_other_sizes(paused: Paused, block: Block):
    rule = make_rule("ours", {"pruned_score": "zero", "rho_b": 0.3, "block": block})
    out, decisions = attend(paused, rule)
    expected = by_definition(paused, rule)
    np.testing.assert_allclose(out, expected, atol=2e-5)
    measured, _ = measure(paused, np.ones(len(LENGTHS), np.bool_), block)
    f, i, p = (
        FINER.index(rule.finer),
        IMPORTANCES.index(rule.importance),
        CALIBRATED_SCORES.index("zero"),
    )
    r = RHO_B.index(0.3)
    np.testing.assert_array_equal(measured.kept[f, i, r], decisions.kept_blocks)
    found = measured.error[f, i, p, r, 2, 1]
    assert found == pytest.approx(change(paused, expected, 1, 2), rel=1e-3, abs=1e-4)
    blocks = block_total(np.array(LENGTHS), block)
    np.testing.assert_array_equal(attend(paused, None, block)[1].kept_blocks[:, 0], blocks)


def test_without_a_rule_attention_is_dense(paused: Paused):
    out, decisions = attend(paused, None)
    np.testing.assert_allclose(out, by_definition(paused, Rule()), atol=2e-5)
    np.testing.assert_array_equal(
        decisions.kept_blocks, np.repeat(block_total(np.array(LENGTHS), (2, 2))[:, None], HEADS, 1)
    )


def change(paused: Paused, out: NDArray[np.float64], head: int, sequence: int) -> float:
    """The squared size of what the next linear sees of a change of one head."""
    rows = paused.packing.sequences()[sequence]
    own = slice(head * DIM, (head + 1) * DIM)
    delta = (out - by_definition(paused, Rule()))[rows, own]
    return float(np.einsum("ld,de,le->", delta, paused.attention.metric[head], delta))


@pytest.mark.parametrize("pruned", CALIBRATED_SCORES)
@pytest.mark.parametrize("importance", IMPORTANCES)
def test_measured_errors_and_counts_are_those_of_the_rule(
    paused: Paused, pruned: str, importance: str
):
    measured, dense = measure(paused, np.ones(len(LENGTHS), np.bool_))
    np.testing.assert_allclose(dense, by_definition(paused, Rule()), atol=2e-5)
    f, i, p, r = 0, IMPORTANCES.index(importance), CALIBRATED_SCORES.index(pruned), RHO_B.index(0.3)
    options = {"finer": FINER[f], "importance": importance, "pruned_score": pruned, "rho_b": 0.3}
    rule = make_rule("ours", options)
    out = by_definition(paused, rule)
    for sequence, head in ((0, 0), (2, 1), (4, 2), (3, 0)):
        expected = change(paused, out, head, sequence)
        found = measured.error[f, i, p, r, sequence, head]
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    np.testing.assert_array_equal(measured.kept[f, i, r], attend(paused, rule)[1].kept_blocks)


@pytest.mark.parametrize("gated", GATED)
def test_measured_errors_of_pruned_heads_are_those_of_the_rule(paused: Paused, gated: str):
    measured, _ = measure(paused, np.ones(len(LENGTHS), np.bool_))
    options = {"finer": FINER[1], "gated": gated, "tau_h": 1e6}
    out = by_definition(paused, make_rule("ours", options))
    found = measured.gated[1, GATED.index(gated)]
    assert found[0, 1] == pytest.approx(change(paused, out, 1, 0), rel=1e-3, abs=1e-4)


def test_of_long_sequences_whole_block_rows_are_measured():
    np.testing.assert_array_equal(measured_rows(5, 2), np.arange(5))
    rows = measured_rows(401, 2)
    assert len(rows) == MOST_ROWS - 1  # the last block row is partial
    np.testing.assert_array_equal(rows[0::2] % 2, 0)
    np.testing.assert_array_equal(rows[1::2], rows[0:-1:2] + 1)
    assert rows[0] == 0
    assert rows[-1] == 400
    # The last of eight block rows is the row 400 alone.
    np.testing.assert_array_equal(measured_rows(401, 8).reshape(-1)[:8], np.arange(8))
    assert len(measured_rows(401, 8)) == MOST_ROWS - 7


def test_a_sample_of_rows_estimates_the_whole(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(3)
    mask = np.ones((2, 97), np.bool_)
    q, k, v = (rng.normal(size=(194, HEADS * DIM)).astype(np.float32) for _ in range(3))
    attention = Attention(0, "layer.0", HEADS, DIM**-0.5, np.broadcast_to(np.eye(8), (3, 8, 8)))
    long = Paused(attention, Packing.of(mask), q * 2, k * 2, v, {})
    sampled = measure(long, np.ones(2, np.bool_))[0]
    monkeypatch.setattr("heatc.tuning.calibrate.measure.MOST_ROWS", 1000)
    everything = measure(long, np.ones(2, np.bool_))[0]
    # A sample of a head's rows is coarse, of all of them it is not.
    pruned = slice(RHO_B.index(0.3), None)
    ours, theirs = (m.error[..., pruned, :, :].sum(axis=(4, 5)) for m in (sampled, everything))
    np.testing.assert_allclose(ours, theirs, rtol=0.25)
    np.testing.assert_allclose(sampled.kept, everything.kept, rtol=0.12)
    np.testing.assert_allclose(sampled.score, everything.score, rtol=0.05)
    np.testing.assert_allclose(sampled.size, everything.size, rtol=0.1)


def test_only_chosen_sequences_are_measured(paused: Paused):
    chosen = np.array([True, False, False, False, False, False])
    measured, _ = measure(paused, chosen)
    assert measured.error[..., 0, :].any()
    assert not measured.error[..., 1:, :].any()
    assert measured.part(chosen).size.shape == (1,)
