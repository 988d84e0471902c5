"""The part `dynamic` of bench/hdp_accuracy.py: what changes with the input, what a static choice loses."""

from __future__ import annotations

import numpy as np
import torch

from bench.support.accuracy import calibration
from bench.support.accuracy.plans import measured
from bench.support.accuracy.runs import OURS, Bench, Set, curve_set
from bench.support.accuracy.statistics import entry, percent
from bench.support.data import teacher
from bench.support.parts import Part
from bench.support.report import Json
from oracle import rules
from oracle.encoder import Encoder, Outcome
from oracle.rules import Rule

HEAD_SHARES = (0.2, 0.35, 0.5)
SHOWN_SHARE = 0.35
"""Share of heads pruned of the table by head"""


def part_dynamic() -> Part:
    """How importance changes with the input, and what a static choice of heads loses."""
    dense = Bench(teacher.SENTIMENT).run(Rule(), curve_set())
    bench, sentences = Bench(teacher.SENTIMENT, OURS), curve_set()
    importance = measured(bench, "snippets").importance
    entries: list[Json] = []
    shown: Outcome | None = None
    for share in HEAD_SHARES:
        tau = round(float(importance.flatten().quantile(share)), 4)
        dynamic = bench.run(rules.ours(calibration.RATIOS[0], tau), sentences)
        static = bench.run(weakest(importance, share), sentences)
        for name, found in (
            ("dynamic: one tau_H", dynamic),
            ("static: weakest in the mean", static),
        ):
            entries.append(entry(name, found, dense, sentences) | {"setting": share})
        shown = dynamic if share == SHOWN_SHARE else shown
    assert shown is not None
    gates = torch.stack(shown.heads)
    rates = 1 - gates.float().mean(0)
    table: dict[str, Json] = {
        "rules": entries,
        "heads": int(rates.numel()),
        "heads_pruned_for_every_sentence": int((rates == 1).sum()),
        "heads_pruned_for_no_sentence": int((rates == 0).sum()),
        "heads_that_depend_on_the_sentence": int(((rates > 0) & (rates < 1)).sum()),
        "share_of_sentences_that_prune_a_head": [
            [round(float(x), 3) for x in layer] for layer in rates
        ],
        "agreement": agreement_of_heads(~gates),
        "importance": importance_between(importance),
        "blocks": agreement_of_blocks(bench, sentences),
    }
    return Part(tables={"dynamic and static heads": table})


def weakest(importance: torch.Tensor, share: float) -> list[Rule]:
    """Rules that always prune a share of the heads, those of least mean importance (N, H, n)."""
    weak = importance.mean(-1)
    limit = weak.flatten().sort().values[round(share * weak.numel())]
    return [
        rules.ours(
            calibration.RATIOS[0],
            tuple(calibration.ALWAYS if bool(x < limit) else 0.0 for x in layer),
        )
        for layer in weak
    ]


def overlap(sets: torch.Tensor) -> float:
    """The mean over pairs of rows of how much is in both, as a share of what is in either."""
    found = sets.flatten(1).double()
    both = found @ found.T
    sizes = found.sum(-1)
    either = sizes[:, None] + sizes[None] - both
    above = torch.ones_like(both).triu(1).bool() & (either > 0)
    return float((both[above] / either[above]).mean())


def agreement_of_heads(pruned: torch.Tensor) -> dict[str, Json]:
    """Pruned heads (n, layers, heads) of two sentences compared, in the mean over all pairs."""
    count = len(pruned)
    rate, share = pruned.double().mean(0), float(pruned.double().mean())
    # Of n (n - 1) ordered pairs; a sentence is no pair with itself.
    same = (rate**2 + (1 - rate) ** 2) * count / (count - 1) - 1 / (count - 1)
    return {
        "same decision for a head": percent(float(same.mean())),
        "same decision if drawn at this share": percent(share**2 + (1 - share) ** 2),
        "pruned in both, of those pruned in either": percent(overlap(pruned)),
        "the same if drawn at this share": percent(share / (2 - share)),
    }


def importance_between(importance: torch.Tensor) -> dict[str, Json]:
    """How a head's importance (N, H, n) varies over the calibration sentences."""
    spread = importance.std(-1) / importance.mean(-1)
    ranks = importance.flatten(0, 1).T.argsort(-1).argsort(-1).double()
    correlation = torch.corrcoef(ranks)
    above = torch.ones_like(correlation).triu(1).bool()
    return {
        "sentences": importance.shape[-1],
        "deviation / mean of a head, median": round(float(spread.median()), 3),
        "deviation / mean of a head, greatest": round(float(spread.max()), 3),
        "rank correlation of all heads, two sentences": round(float(correlation[above].mean()), 3),
    }


BLOCK_RATIO = 0.5
"""rho_B at which kept blocks of two sentences are compared"""


def agreement_of_blocks(bench: Bench, sentences: Set) -> dict[str, Json]:
    """Kept blocks of sentences of one length, the one with the most sentences, by layer."""
    lengths = [len(row) for row in sentences.rows]
    length = max(set(lengths), key=lambda one: (lengths.count(one), one))
    ids = torch.tensor([row for row in sentences.rows if len(row) == length])
    rule = [rules.ours(BLOCK_RATIO)] * bench.layers
    _, attentions = Encoder(bench.model, bench.points, rule).forward(ids)
    layers: list[Json] = []
    for index, one in enumerate(attentions):
        assert one.blocks is not None
        heads = one.blocks.unbind(1)
        kept = [float(head.double().mean()) for head in heads]
        layers.append(
            {
                "layer": index,
                "blocks kept, %": percent(float(np.mean(kept))),
                "kept in both, of those kept in either, %": percent(
                    float(np.mean([overlap(head) for head in heads]))
                ),
                "the same if drawn at this share, %": percent(
                    float(np.mean([share / (2 - share) for share in kept]))
                ),
            }
        )
    return {"length": length, "sentences": len(ids), "rho_b": BLOCK_RATIO, "layers": layers}
