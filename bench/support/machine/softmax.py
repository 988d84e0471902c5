"""The part `softmax` of bench/machine.py: the unit's exponential, and embeddings with it."""

from __future__ import annotations

import math
import statistics
from unittest import mock

import numpy as np
import torch

from bench import main_job
from bench.support import programs
from bench.support.data import texts as data
from bench.support.machine.setup import Bench, Table
from bench.support.parts import Part
from bench.support.report import Row
from heatc.isa import units
from oracle import bert as oracle

HIDDEN = main_job.HIDDEN


def softmax_part(bench: Bench) -> Part:
    """The exp unit on all of its inputs, and what the unit does to sentence embeddings."""
    row, table = exponential_errors()
    return Part([row], {
        "softmax: 2^-d by the whole part of d": table,
        "softmax: MiniLM embeddings, unit against exact softmax": softmax_embeddings(bench),
    })  # fmt: skip


def exponential_errors() -> tuple[Row, Table]:
    """Every distance until the result is 0: all fractions, for each whole part of d."""
    fractions = np.arange(1 << units.EXP_BITS, dtype=np.int64)
    table: Table = []
    polynomial = 0.0
    for shift in range(units.EXP_BITS + 1):
        found = units.exp2_unit(fractions + (shift << units.EXP_BITS)).astype(np.float64)
        exact = np.exp2(units.EXP_BITS - shift - fractions / 2.0**units.EXP_BITS)
        relative = 100 * float(np.max(np.abs(found - exact) / exact))
        if shift == 0:
            polynomial = relative
        table.append({
            "whole part of d": shift, "inputs": len(fractions),
            "largest relative error, %": relative,
            "largest error, 2^-16": float(np.max(np.abs(found - exact))),
        })  # fmt: skip
    what = "softmax unit: max relative error of exp, the polynomial on all 65,536 fractions"
    return Row(what, polynomial, "%", 0.4, "<="), table


def exact_softmax(
    scores: torch.Tensor, point: int, scale: float, included: torch.Tensor | None = None
) -> torch.Tensor:
    """`oracle.softmax` in float64, rounded once to the probabilities' codes."""
    values = scores.to(torch.float64) * 2.0**-point * scale
    if included is not None:
        values = values.masked_fill(~included, -math.inf)
    result = torch.softmax(values, -1).nan_to_num()
    return torch.round(result * 2.0**units.PROBABILITY_POINT).to(torch.int64)


def softmax_embeddings(bench: Bench) -> Table:
    """Cosines of sentence embeddings of the oracle with and without the unit's approximations."""
    texts = data.sentences("test", bench.sizes.sentences)
    inputs = data.encode(texts[:1], 64)
    table: Table = []
    rules = {"none": ("--hdp-rule=none",), "paper, rho_B 0": programs.paper(0.0, 0.0)}
    for rule, options in rules.items():
        program = bench.compiled(data.model_folder(), inputs, "hdp-edge", *options)
        chosen = oracle.Rule("none") if rule == "none" else oracle.Rule("paper", 0.0, 0.0)
        encoder = oracle.load(data.model_folder(), programs.points(program.path), chosen)
        cosines: list[float] = []
        for ids in data.token_ids(texts, 64):
            arguments = (ids, range(len(ids)), [0] * len(ids))
            with_unit = encoder(*arguments).outputs[HIDDEN].double().mean(0)
            with mock.patch.object(oracle, "softmax", exact_softmax):
                exact = encoder(*arguments).outputs[HIDDEN].double().mean(0)
            cosines.append(float(torch.nn.functional.cosine_similarity(with_unit, exact, dim=0)))
        table.append({
            "rule": rule, "sentences": len(cosines), "least cosine": min(cosines),
            "median cosine": statistics.median(cosines),
        })  # fmt: skip
    return table
