"""The parts `plans`, `headline`, `heads` and `second` of bench/hdp_accuracy.py: points with a goal."""

from __future__ import annotations

import numpy as np

from bench.support.accuracy import calibration
from bench.support.accuracy.plans import (
    GOALS,
    INTEGERS,
    PLANS,
    Compiled,
    by_head,
    compiled,
    heads_only,
    plan,
    values_spared,
    write_plan,
)
from bench.support.accuracy.runs import OURS, Bench, judged, say, tokenized
from bench.support.accuracy.statistics import (
    Compared,
    compare,
    entry,
    matthews,
    matthews_lost,
    percent,
    standard_error,
)
from bench.support.data import teacher
from bench.support.data import texts as data
from bench.support.parts import Part
from bench.support.report import Json, Row
from oracle import rules
from oracle.rules import Rule


def part_plans() -> Part:
    """Calibrates on unlabelled training sentences and writes the plans."""
    bench = Bench(teacher.SENTIMENT)
    table: dict[str, Json] = {}
    for name, sparsity in GOALS.items():
        chosen = plan(bench, sparsity, integers=INTEGERS.get(name, 0))
        write_plan(PLANS / f"snippets-{name}.json", chosen)
        table[name] = {
            "wanted_percent": percent(sparsity),
            "heads_always_pruned_by_layer": [
                sum(tau == calibration.ALWAYS for tau in by_head(rule.tau_h)) for rule in chosen
            ],
            "layers_with_integer_scores": [
                index for index, rule in enumerate(chosen) if rule.pruned_score == "int"
            ],
            "mean_rho_b_by_layer": [round(float(np.mean(rule.rho_b)), 3) for rule in chosen],
        }
    return Part(tables={"plans": table})


def part_headline() -> Part:
    """Net sparsity at a point lost, at no loss, and rule `ours` with its defaults."""
    bench = Bench(teacher.SENTIMENT)
    part, entries = Part(), list[Json]()
    settings: dict[str, Compiled] = {
        name: compiled(teacher.SENTIMENT, PLANS / f"snippets-{name}.json")
        for name in ("85", "75", "90")
    }
    uncalibrated = Compiled(Bench(teacher.SENTIMENT, OURS), [rules.ours()] * bench.layers)
    settings["ours, uncalibrated defaults"] = uncalibrated
    losses: dict[str, dict[str, Compared]] = {}
    sparsity: dict[str, float] = {}
    errors: dict[str, float] = {}
    for sentences in judged():
        dense = bench.run(Rule(), sentences)
        errors[sentences.name] = standard_error(dense, sentences)
        line = entry("none", dense, dense, sentences)
        entries.append(line | {"value_products_spared_percent": 0.0})
        for name, one in settings.items():
            pruned = one.run(sentences)
            label = f"ours, plan {name} %" if name in GOALS else name
            spared = percent(values_spared(pruned, one.rules))
            line = entry(label, pruned, dense, sentences)
            entries.append(line | {"value_products_spared_percent": spared})
            losses.setdefault(name, {})[sentences.name] = compare(pruned, dense, sentences)
            sparsity[name] = min(sparsity.get(name, 1.0), pruned.net_sparsity)
    what = "net attention sparsity at <= 1.0 point lost on test and on out of domain, each"
    for name, goal in (("85", 0.85), ("90", 0.90)):
        part.rows.append(Row(f"{what}: plan {name} %", sparsity[name], "share", goal, ">="))
        part.rows += [
            Row(f"{what}: plan {name} %, lost on {key}", one.points_lost, "points", 1.0, "<=")
            for key, one in losses[name].items()
        ]
    what = "net sparsity at no loss within the standard error and <= 2 % changed predictions"
    layers = f"{INTEGERS['75']} layers of it spare no value product"
    part.rows.append(Row(f"{what}: plan 75 % ({layers})", sparsity["75"], "share", 0.75, ">="))
    for key, one in losses["75"].items():
        error = round(errors[key], 2)
        part.rows.append(Row(f"{what}: lost on {key}", one.points_lost, "points", error, "<="))
        part.rows.append(Row(f"{what}: changed on {key}", one.changed, "%", 2.0, "<="))
    part.tables["headline"] = entries
    return part


def part_heads() -> Part:
    """Heads pruned beside SpAtten's rule, at 17 % and 35 %."""
    bench = Bench(teacher.SENTIMENT)
    part, entries = Part(), list[Json]()
    chosen: dict[int, Compiled] = {}
    for share in (17, 35):
        path = PLANS / f"snippets-heads-{share}.json"
        write_plan(path, heads_only(bench, share / 100 + 0.03))
        chosen[share] = compiled(teacher.SENTIMENT, path)
    pruned_share: dict[int, float] = {}
    what = "heads pruned at no loss within the standard error"
    rows: list[Row] = []
    for sentences in judged():
        dense = bench.run(Rule(), sentences)
        for share, one in chosen.items():
            ours = one.run(sentences)
            peer = bench.run(Rule("spatten", ratio=share / 100), sentences)
            entries.append(entry(f"ours, head gate {share} %", ours, dense, sentences))
            entries.append(entry(f"spatten {share} %", peer, dense, sentences))
            pruned_share[share] = min(pruned_share.get(share, 1.0), ours.head_sparsity)
            lost = compare(ours, dense, sentences).points_lost
            if share == 17:
                error = round(standard_error(dense, sentences), 2)
                rows.append(Row(f"{what}: lost on {sentences.name}", lost, "points", error, "<="))
                continue
            less = compare(peer, dense, sentences).points_lost - lost
            rows.append(
                Row(f"heads pruned, at 35 % fewer points lost than SpAtten's rule: fewer on "
                    f"{sentences.name}", less, "points", 0.01, ">=")
            )  # fmt: skip
    part.rows = [Row(what, pruned_share[17], "share", 0.17, ">="), *rows]
    part.tables["heads"] = entries
    return part


def part_second() -> Part:
    """The second task: bigram shift, scored by MCC."""
    try:
        source, _ = data.shift_source()
        sentences = tokenized(f"bigram shift ({source}), test", data.bigram_shift("test"))
    except data.MissingError as error:
        say(f"no second task: {error}")
        return Part()
    bench = Bench(teacher.BIGRAM_SHIFT)
    dense = bench.run(Rule(), sentences)
    part, entries = Part(), list[Json]()
    for goal in (0.67, 0.77):
        chosen = plan(bench, goal, "bigram shift")
        name = f"{round(100 * goal) - 2}"
        path = PLANS / f"bigram-shift-{name}.json"
        write_plan(path, chosen)
        pruned = compiled(teacher.BIGRAM_SHIFT, path).run(sentences)
        lost, low, high = matthews_lost(pruned, dense, sentences)
        labels = sentences.labels
        entries.append(
            entry(f"ours, plan {name} %", pruned, dense, sentences)
            | {
                "mcc_dense_points": round(matthews(dense.logits.argmax(-1).numpy(), labels), 2),
                "mcc_points": round(matthews(pruned.logits.argmax(-1).numpy(), labels), 2),
                "mcc_lost_points": round(lost, 2),
                "mcc_lost_interval_95": [round(low, 2), round(high, 2)],
            }
        )
        if goal == 0.67:
            what = "second task (MCC): net sparsity at <= 1 point of MCC"
            part.rows.append(Row(what, pruned.net_sparsity, "share", 0.65, ">="))
            part.rows.append(Row(f"{what}: lost", lost, "points of MCC", 1.0, "<="))
    part.tables["second task"] = entries
    return part
