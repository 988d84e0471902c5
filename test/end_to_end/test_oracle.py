"""
The oracle's own checks: it is a BERT, and each of its equations is the one of the page.

Nothing here touches heatc: an oracle that was wrong in the same way as the program would pass
every comparison between the two.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

import pytest

pytest.importorskip("torch", reason="the oracle is written in torch")

import torch

from bench.support.data import texts as data
from oracle import bert as oracle

pytestmark = pytest.mark.torch

POINTS = oracle.AttentionPoints(query=4, key=4, value=8, scores=8, output=8)

# Values of the worked example in quarters: Q (8, 4) and K^T (8, 4).
Q = [
    [9, -4, 2, 0],
    [5, 6, -8, 1],
    [-3, 2, 4, 7],
    [0, -9, 4, 4],
    [8, 8, -1, 3],
    [4, 0, 0, -5],
    [-6, 1, 12, 2],
    [3, -2, 5, -4],
]
K = [
    [4, 4, -3, 1],
    [-8, 2, 0, 5],
    [6, -5, 4, 0],
    [1, 1, 1, -9],
    [12, 0, -4, 4],
    [-2, 7, 8, 3],
    [0, -4, 2, 2],
    [5, 5, -5, 5],
]


def codes(quarters: list[list[int]]) -> torch.Tensor:
    """Codes at point 4 of values given in quarters."""
    return torch.tensor(quarters) * 4


def listed(values: torch.Tensor) -> Any:
    """The values as nested lists."""
    return cast(Any, values).tolist()


# ---- rounding ---------------------------------------------------------------------------------


def test_quantize_rounds_half_to_even_and_saturates() -> None:
    values = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 40000.0, -40000.0]).double()
    assert listed(oracle.quantize(values, 0)) == [0, 2, 2, 0, -2, 32767, -32768]


def test_requantize_rounds_half_to_even_and_saturates() -> None:
    codes = torch.tensor([1, 3, 5, -1, -3, -5, 2**17]).double()
    assert listed(oracle.requantize(codes, 1, 0)) == [0, 2, 2, 0, -2, -2, 32767]
    assert listed(oracle.requantize(codes, 0, 1)) == [2, 6, 10, -2, -6, -10, 32767]


def test_split_truncates_toward_zero_and_keeps_the_sign() -> None:
    integer, fraction = oracle.integer_fraction(torch.tensor([27, -27, 15, -15, 16]), 4)
    assert listed(integer) == [1, -1, 0, 0, 1]
    assert listed(fraction) == [11, -11, 15, -15, 0]


def test_split_of_integers_has_no_fraction() -> None:
    integer, fraction = oracle.integer_fraction(torch.tensor([3, -5]), -2)
    assert listed(integer) == [12, -20]
    assert listed(fraction) == [0, 0]


# ---- the worked example -----------------------------------------------------------------------


def truncated(quarters: int) -> int:
    """The integer part of a value in quarters, by Python's own truncation."""
    return math.trunc(Fraction(quarters, 4))


def brute_scores(i: int, j: int) -> int:
    """One integer score of the worked example."""
    return sum(truncated(a) * truncated(b) for a, b in zip(Q[i], K[j]))


def brute_theta() -> list[list[int]]:
    """Block importances of the worked example, by loops."""
    return [
        [
            sum(abs(brute_scores(i, j)) for i in (2 * r, 2 * r + 1) for j in (2 * c, 2 * c + 1))
            for c in range(4)
        ]
        for r in range(4)
    ]


def test_worked_example_importances() -> None:
    """Q 8x4, K 4x8, blocks 2x2; the first block by hand."""
    q, k = codes(Q)[None], codes(K)[None]
    theta = oracle.block_importance(oracle.integer_scores(q, k, POINTS))
    # I_Q = (2 -1 0 0), (1 1 -2 0); I_K = (1 1 0 0), (-2 0 0 1): |1| + |-4| + |2| + |-2|.
    assert theta[0, 0, 0] == 9
    assert listed(theta[0]) == brute_theta()


@pytest.mark.parametrize("rho_b", [-0.5, 0.0, 0.25, 1.0, -1.0])
def test_worked_example_mask(rho_b: float) -> None:
    theta = brute_theta()
    expected: list[list[bool]] = []
    for row in theta:
        mean = Fraction(sum(row), 4)
        weight = Fraction(rho_b)
        if rho_b >= 0:
            threshold = weight * max(row) + (1 - weight) * mean
        else:
            threshold = -weight * min(row) + (1 + weight) * mean
        expected.append([value >= threshold for value in row])
    mask = oracle.block_mask(torch.tensor(theta)[None], rho_b)
    assert listed(mask[0]) == expected


def test_worked_example_mask_at_zero_is_the_row_mean() -> None:
    mask = oracle.block_mask(torch.tensor([[[9, 3, 4, 0], [2, 2, 2, 2]]]), 0.0)
    assert listed(mask[0]) == [[True, False, True, False], [True, True, True, True]]


def test_worked_example_scores_drop_fraction_times_fraction() -> None:
    q, k = codes(Q)[None], codes(K)[None]
    scores = oracle.kept_scores(q, k, POINTS)[0]
    for i in range(8):
        for j in range(8):
            value = Fraction(0)
            for a, b in zip(Q[i], K[j]):
                lost = (Fraction(a, 4) - truncated(a)) * (Fraction(b, 4) - truncated(b))
                value += Fraction(a, 4) * Fraction(b, 4) - lost
            assert Fraction(int(scores[i, j]), 2**8) == value


def test_odd_lengths_have_partial_blocks() -> None:
    theta = oracle.block_importance(torch.ones(1, 5, 5, dtype=torch.int64))
    assert listed(theta[0]) == [[4, 4, 2], [4, 4, 2], [2, 2, 1]]


def test_head_gate_counts_scores_not_blocks() -> None:
    theta = torch.full((2, 2, 2), 9)
    theta[1] = 8
    assert listed(oracle.head_gate(theta, 3, 4.0)) == [True, False]
    assert listed(oracle.head_gate(theta, 3, 0.0)) == [True, True]


@pytest.mark.parametrize("pruned_score", ["zero", "neginf", "int", "mean"])
def test_pruned_scores(pruned_score: Literal["zero", "neginf", "int", "mean"]) -> None:
    whole = torch.tensor([[[3, -1, 5], [2, 2, 2], [0, 7, 8]]])
    kept = torch.tensor([[[True, False, False], [True, True, True], [False, False, True]]])
    rule = oracle.Rule("paper", pruned_score=pruned_score)
    result = listed(oracle.pruned_scores(whole, kept, rule, 2)[~kept])
    expected = {"zero": [0] * 4, "neginf": [0] * 4, "int": [-4, 20, 0, 28], "mean": [8, 8, 14, 14]}
    assert result == expected[pruned_score]


def test_pruned_head_is_zero_and_others_are_not() -> None:
    q = torch.cat([codes(Q), codes(Q) // 16], 1)
    k = torch.cat([codes(K), codes(K) // 16], 1)
    v = torch.arange(64).reshape(8, 8) - 20
    rule = oracle.Rule("paper", tau_h=0.5)
    result = oracle.attention(q, k, v, 2, POINTS, rule)
    assert result.heads is not None
    assert listed(result.heads) == [True, False]
    assert result.output[:, 4:].abs().max() == 0
    assert result.output[:, :4].abs().max() > 0


# ---- the softmax unit -------------------------------------------------------------------------


def test_scale_constant() -> None:
    for width in (8, 32, 64, 100):
        scale = 1 / math.sqrt(width)
        multiplier, shift = oracle.scale_constant(scale)
        assert 2**15 <= multiplier < 2**16
        assert multiplier * 2.0**-shift == pytest.approx(scale * math.log2(math.e), rel=2**-16)


@pytest.mark.parametrize("point", [3, 8, 12, 20])
@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_softmax_unit_is_close_to_softmax(point: int, length: int) -> None:
    generator = torch.Generator().manual_seed(point * 100 + length)
    values = torch.randn(50, length, generator=generator).double() * 12
    scores = oracle.quantize(values, point, bits=32)
    scale = 1 / math.sqrt(32)
    result = oracle.dequantize(oracle.softmax(scores, point, scale), oracle.PROBABILITY_POINT)
    expected = torch.softmax(oracle.dequantize(scores, point) * scale, -1)
    assert (result - expected).abs().max() < 2e-3
    assert (result.sum(-1) - 1).abs().max() < 4e-3


@pytest.mark.parametrize(
    ("power", "total", "expected"), [(65536, 31, 0), (49152, 29, 2), (40960, 28, 2), (57344, 28, 4)]
)
def test_softmax_unit_rounds_half_to_even(power: int, total: int, expected: int) -> None:
    """An entry of this power in a row that adds up to 2^total: its probability is n + 1/2."""
    # With this scale and point a distance between scores is what the exponential takes.
    scale, point = math.log(2), 16
    powers = oracle.exponential(torch.arange(2**18 + 1))
    others = 2**total - power
    parts = [p for p in (2**15, 2**14, 2**13) if others % 2**16 & p]
    distances = [0] * (others >> 16)
    distances += [int(torch.nonzero(powers == p)[0]) for p in (*parts, power)]
    assert sum(listed(powers[torch.tensor(distances)])) == 2**total
    result = oracle.softmax(-torch.tensor([distances]), point, scale)
    assert power * 2.0 ** (14 - total) % 1 == 0.5
    assert result[0, -1] == expected


def test_softmax_unit_leaves_excluded_entries_out() -> None:
    scores = torch.tensor([[5, 100, 3, 3]])
    included = torch.tensor([[True, False, True, False]])
    alone = oracle.softmax(torch.tensor([[5, 3]]), 2, 0.5)
    result = oracle.softmax(scores, 2, 0.5, included)
    assert listed(result) == [[alone[0, 0], 0, alone[0, 1], 0]]


def test_softmax_unit_of_a_single_key_is_one() -> None:
    assert listed(oracle.softmax(torch.tensor([[-77]]), 4, 0.3)) == [[2**14]]


def test_exponential_is_close_over_the_whole_range() -> None:
    distance = torch.arange(0, 20 * 2**16, 97)
    exact = 2.0 ** (16 - distance.double() / 2**16)
    assert (oracle.exponential(distance) - exact).abs().max() < 2**16 * 0.003


# ---- the whole model --------------------------------------------------------------------------


def measured_points(folder: Path, texts: list[list[int]]) -> dict[str, int]:
    """Binary points from the ranges that the PyTorch model shows, one bit of room above."""
    transformers = pytest.importorskip("transformers")
    model: Any = transformers.BertModel.from_pretrained(folder).eval()
    largest: dict[str, float] = {}

    def watch(name: str) -> Any:
        def hook(_module: object, _inputs: object, output: Any) -> None:
            value: Any = output if isinstance(output, torch.Tensor) else next(iter(output))
            if isinstance(value, torch.Tensor):
                largest[name] = max(largest.get(name, 0.0), float(value.abs().max()))

        return hook

    for name, module in model.named_modules():
        module.register_forward_hook(watch(name))
    with torch.no_grad():
        for ids in texts:
            model(torch.tensor([ids]))
    largest |= {name: float(value.abs().max()) for name, value in model.state_dict().items()}
    points = {name: 14 - math.ceil(math.log2(value + 1e-9)) for name, value in largest.items()}
    for index in range(model.config.num_hidden_layers):
        base = f"encoder.layer.{index}.attention.self"
        points[f"{base}.scores"] = 16
    return points


def compare(folder: Path, texts: list[list[int]]) -> float:
    """The least cosine between the oracle's and PyTorch's hidden states, over all tokens."""
    transformers = pytest.importorskip("transformers")
    model: Any = transformers.BertModel.from_pretrained(folder).eval()
    oracle_model = oracle.load(folder, measured_points(folder, texts), oracle.Rule())
    least = 1.0
    for ids in texts:
        trace = oracle_model(ids, range(len(ids)), [0] * len(ids))
        with torch.no_grad():
            expected = model(torch.tensor([ids]))
        for name in ("last_hidden_state", "pooler_output"):
            ours, theirs = trace.outputs[name], expected[name][0]
            cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=-1)
            least = min(least, float(cosine.min()))
    return least


def test_oracle_is_the_tiny_bert(tiny: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    texts = [listed(torch.randint(0, 96, (n,), generator=generator)) for n in (1, 2, 9, 32)]
    assert compare(tiny, texts) > 0.999


@pytest.mark.model
def test_oracle_is_the_real_bert(minilm: Path) -> None:
    assert compare(minilm, data.token_ids(data.EXAMPLES, 64)) > 0.999
