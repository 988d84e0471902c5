"""The part `attention` of bench/machine.py: dense attention against rule `paper`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple, cast

from bench.support import programs
from bench.support.machine.setup import PRESETS, Bench, Table, random_inputs
from bench.support.machine.watch import attention_joules, measure, on_split_pes, with_ratio
from bench.support.parts import Part
from bench.support.report import Json

RHO_B = (-0.5, 0.0, 0.25, 0.5)
SWEEP = (-0.9, *RHO_B, 0.9)
"""The issue's ratios, and both ends, so that the break-even is inside of what is measured"""
SPLITS = (16, 8, 4)
"""`pe_array.split`: PEs of one 16-bit multiplier, and of ones that split"""


class Point(NamedTuple):
    """What an attention costs against a dense one on PEs that do not split; `pruned` in %."""

    pruned: float
    cycles: float
    joules: float


def attention_part(bench: Bench) -> Part:
    """Attention of BERT-Base, dense against rule `paper`, at several lengths, on both presets."""
    model = bench.bert("bert-base-attention", num_hidden_layers=bench.sizes.layers)
    table: Table = []
    pays: Table = []
    for target in PRESETS:
        for length in bench.sizes.lengths:
            inputs = random_inputs(length)
            dense = measure(bench.compiled(model, inputs, target, "--hdp-rule=none"), inputs)
            key: dict[str, Json] = {"preset": target, "S": length}
            first = {**key, "rule": "dense", "against dense": 1.0, **dense.attention()}
            table.append(first)
            for score in ("zero", "neginf"):
                options = (*programs.paper(0.0, 0.0), f"--pruned-score={score}")
                program = bench.compiled(model, inputs, target, *options)
                points = {split: list[Point]() for split in SPLITS}
                for rho_b in SWEEP if score == "neginf" else RHO_B:
                    changed = with_ratio(program, rho_b)
                    found = measure(changed, inputs)
                    ratio = found.watch.cycles / dense.watch.cycles
                    entry = found.attention()
                    pruned = cast(float, entry["blocks pruned, %"])
                    for split in SPLITS:
                        narrow = on_split_pes(changed, inputs, found, split)
                        joules = attention_joules(narrow) / attention_joules(dense)
                        points[split].append(
                            Point(pruned, narrow.watch.cycles / dense.watch.cycles, joules)
                        )
                    rule = f"paper, rho_B {rho_b:g}, pruned score {score}"
                    table.append({**key, "rule": rule, "against dense": ratio, **entry})
                for split in SPLITS:
                    most = max(points[split])
                    pays.append({
                        **key, "pruned score": score, "PEs split to, bit": split,
                        "cheaper than dense from, % of blocks pruned": break_even(
                            [(p.pruned, p.cycles) for p in points[split]]
                        ),
                        "at the most pruned, % of blocks": most.pruned,
                        "cycles against dense there": most.cycles,
                        "energy against dense there": most.joules,
                    })  # fmt: skip
    return Part([], {
        "attention: BERT-Base, dense against rule paper": table,
        "attention: the sparsity at which pruning starts to pay": pays,
    })  # fmt: skip


def break_even(points: Sequence[tuple[float, float]]) -> float | None:
    """Where the cost falls to 1, by linear interpolation; None if it does not."""
    ordered = sorted(points)
    if ordered[0][1] <= 1:
        return ordered[0][0]
    for (x0, y0), (x1, y1) in itertools.pairwise(ordered):
        if y1 <= 1:
            return x0 + (y0 - 1) / (y0 - y1) * (x1 - x0)
    return None
