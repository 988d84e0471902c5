"""oracle/rules.py: every rule against the oracle, brute force, or what must follow from it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from oracle import bert as oracle
from oracle import rules
from oracle.bert import AttentionPoints
from oracle.rules import Ranking, Rule

Pruned = Literal["zero", "neginf", "int", "mean"]

pytestmark = pytest.mark.torch

POINTS = AttentionPoints(query=11, key=10, value=12, scores=16, output=11)


def codes(
    length: int, seed: int = 0, heads: int = 3, batch: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """Random q, k and v codes (B, H, L, 8) with values of a few units."""
    generator = torch.Generator().manual_seed(seed)
    shape = (3, batch, heads, length, 8)
    q, k, v = (torch.randn(shape, generator=generator) * 3000).round().to(torch.int64)
    return q, k, v


@pytest.mark.parametrize("length", [1, 2, 7, 12])
@pytest.mark.parametrize("pruned", ["zero", "neginf", "int", "mean"])
@pytest.mark.parametrize(("rho_b", "tau_h"), [(-0.5, 0.0), (0.0, 6.0), (0.25, 0.0)])
def test_paper_is_the_oracles(length: int, pruned: Pruned, rho_b: float, tau_h: float):
    operands = codes(length)
    found = rules.attention(*operands, POINTS, rules.paper(rho_b, tau_h, pruned))
    for row in range(2):
        q, k, v = (x[row].transpose(0, 1).flatten(1) for x in operands)
        rule = oracle.Rule("paper", rho_b, tau_h, pruned)
        expected = oracle.attention(q, k, v, 3, POINTS, rule)
        assert torch.equal(found.output[row].transpose(0, 1).flatten(1), expected.output)
        assert found.blocks is not None
        assert expected.blocks is not None
        assert torch.equal(found.blocks[row], expected.blocks)
        assert found.heads is not None
        assert expected.heads is not None
        assert torch.equal(found.heads[row], expected.heads)


@pytest.mark.parametrize("finer", [0, 1, 2, 14])
def test_split_gives_back_the_code(finer: int):
    q, _, _ = codes(9)
    integer, fraction, bits = rules.split(q, POINTS.query, finer)
    assert bits == min(finer, POINTS.query)
    shift = POINTS.query - bits
    assert torch.equal((integer << shift) + fraction, q)
    assert int(fraction.abs().max()) < 2**shift
    assert bool(((fraction == 0) | (fraction.sign() == q.sign())).all())


@pytest.mark.parametrize("block", [(2, 2), (1, 1), (4, 2), (3, 5)])
def test_importance_by_hand(block: tuple[int, int]):
    q, k, _ = codes(7, batch=1, heads=1)
    whole = rules.parts(q, k, POINTS, 2).whole
    theta = rules.block_sums(rules.importance(whole, "positive"), block)[0, 0]
    rows = whole[0, 0].tolist()
    for i, j in ((0, 0), (theta.shape[0] - 1, theta.shape[1] - 1)):
        expected = Fraction(0)
        for row in rows[i * block[0] : (i + 1) * block[0]]:
            mean = Fraction(sum(row), 7)
            part = row[j * block[1] : (j + 1) * block[1]]
            expected += sum((max(x - mean, Fraction(0)) for x in part), Fraction(0))
        assert int(theta[i, j]) == expected * 7


def test_ours_prunes_a_flat_head_alone_and_attends_with_the_mean_query():
    q, k, v = codes(8, batch=1)
    q[:, 1] = 2 * 2**POINTS.query  # whole numbers, the same for every token
    found = rules.attention(q, k, v, POINTS, rules.ours(0.0, (0.0, 1e6, 0.0)))
    assert found.heads is not None
    assert found.heads.tolist() == [[True, False, True]]
    plain = rules.attention(q, k, v, POINTS, rules.ours(0.0))
    assert torch.equal(found.output[:, [0, 2]], plain.output[:, [0, 2]])
    # Every query is the mean query and has no fraction, so pruning no score is the same.
    k[:, 1] = (k[:, 1] >> 10) << 10
    found = rules.attention(q, k, v, POINTS, rules.ours(0.0, (0.0, 1e6, 0.0)))
    dense = rules.attention(q, k, v, POINTS, Rule("none"))
    assert torch.equal(found.output[:, 1], dense.output[:, 1])


def test_gated_mean_is_the_mean_value():
    q, k, v = codes(5)
    rule = Rule("ours", 2, "positive", "mean", "mean", 0.0, 1e6)
    found = rules.attention(q, k, v, POINTS, rule)
    mean = v.double().mean(-2, keepdim=True) * 2.0 ** (POINTS.output - POINTS.value)
    assert torch.equal(found.output, torch.round(mean).long().expand_as(v))


def test_exact_scores_are_the_dense_ones():
    q, k, _ = codes(9)
    split = rules.parts(q, k, POINTS, 1)
    assert torch.equal(
        rules.kept_scores(split, POINTS, approximate=False), rules.dense_scores(q, k, POINTS)
    )
    assert not torch.equal(rules.kept_scores(split, POINTS), rules.dense_scores(q, k, POINTS))


@pytest.mark.parametrize(
    ("density", "expected"),
    [(0.01, [0, 1, 0, 0]), (0.5, [1, 1, 0, 0]), (0.51, [1, 1, 1, 0]), (1.0, [1, 1, 1, 1])],
)
def test_topk_takes_the_left_of_equals(density: float, expected: list[int]):
    theta = torch.tensor([[[[3, 5, 3, 3]]]])
    assert rules.topk(theta, density)[0, 0, 0].int().tolist() == expected


def test_low_bits():
    code = torch.tensor([[[[-5000, 2048, 0, 7]]]])
    low, length = rules.low_bits(code, 4)
    assert int(length) == 13
    assert low.flatten().tolist() == [-5, 2, 0, 0]
    assert rules.low_bits(code, 2)[0].flatten().tolist() == [-1, 0, 0, 0]  # half to even
    nothing, length = rules.low_bits(torch.zeros_like(code), 4)
    assert int(length) == 0
    assert int(nothing.abs().max()) == 0


def test_energon_filters_survivors_again():
    q, k, _ = codes(16)
    one = rules.energon(q, k, Rule("energon", alpha=(0.0, -0.999)))
    two = rules.energon(q, k, Rule("energon", alpha=(0.0, 0.3)))
    assert bool((one | ~two).all())
    assert 0 < int(two.sum()) < int(one.sum()) < one.numel()
    scores = (rules.low_bits(q, 2)[0].double() @ rules.low_bits(k, 2)[0].double().mT)[1, 2]
    first = scores >= scores.mean(-1, keepdim=True)
    scores = (rules.low_bits(q, 4)[0].double() @ rules.low_bits(k, 4)[0].double().mT)[1, 2]
    for row in range(16):
        left = scores[row][first[row]]
        limit = 0.3 * float(left.max()) + 0.7 * float(left.sum() / len(left))
        expected = [bool(f) and float(s) >= limit for s, f in zip(scores[row], first[row])]
        assert two[1, 2, row].tolist() == expected


def test_sanger_keeps_one_of_every_row():
    q, k, v = codes(11)
    kept = rules.sanger(q, k, POINTS, Rule("sanger", threshold=0.9999), 1 / math.sqrt(8))
    assert bool((kept.sum(-1) >= 1).all())
    more = rules.sanger(q, k, POINTS, Rule("sanger", threshold=0.01), 1 / math.sqrt(8))
    assert bool((more | ~kept).all())
    found = rules.attention(q, k, v, POINTS, Rule("sanger", threshold=0.01))
    assert found.blocks is not None
    assert torch.equal(found.blocks, more)


@pytest.mark.parametrize(("ratio", "numbers"), [(0.0, [12] * 6), (0.35, [12, 11, 9, 7, 6, 4])])
def test_spatten_ranks_heads_layer_by_layer(ratio: float, numbers: list[int]):
    ranking, before = Ranking(6), torch.ones(2, 12, dtype=torch.bool)
    totals = torch.zeros(2, 12, dtype=torch.float64)
    for layer, number in enumerate(numbers):
        q, k, v = codes(6, seed=layer, heads=12)
        dense = rules.attention(q, k, v, POINTS, Rule("none")).output
        found = rules.attention(q, k, v, POINTS, Rule("spatten", ratio=ratio), ranking)
        assert found.heads is not None
        assert found.heads.sum(-1).tolist() == [number, number]
        assert bool((before | ~found.heads).all())
        for row in range(2):
            kept, dropped = totals[row][found.heads[row]], totals[row][~found.heads[row]]
            assert layer == 0 or not len(dropped) or float(kept.min()) >= float(dropped.max())
        assert torch.equal(found.output, dense * found.heads[..., None, None])
        totals += found.output.abs().sum((-1, -2)).double() * 2.0**-POINTS.output
        before = found.heads


def test_shares():
    q, k, v = codes(5)
    found = rules.attention(q, k, v, POINTS, rules.ours(0.0, (0.0, 1e6, 0.0)))
    assert found.blocks is not None
    blocks, kept, net, heads, at_work = rules.shares(found, 5)
    assert (blocks, heads, at_work) == (2 * 3 * 9, 6, 4)
    assert kept == int(found.blocks.sum())
    assert net == int(found.blocks[:, [0, 2]].sum())
    assert rules.shares(rules.attention(q, k, v, POINTS, Rule()), 5) == (54, 54, 54, 6, 6)
