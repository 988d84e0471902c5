"""The parts `curves`, `head_curves`, `approximation` and `combined` of bench/hdp_accuracy.py."""

from __future__ import annotations

from dataclasses import replace

from bench.support.accuracy import calibration
from bench.support.accuracy.plans import PLANS, heads_only, measured, plan, read_plan
from bench.support.accuracy.runs import OURS, Bench, curve_set
from bench.support.accuracy.statistics import entry
from bench.support.data import teacher
from bench.support.parts import Part
from bench.support.report import Json
from oracle import rules
from oracle.rules import Rule


def part_curves() -> Part:
    """Accuracy against block sparsity for every rule."""
    bench, sentences = Bench(teacher.SENTIMENT), curve_set()
    dense = bench.run(Rule(), sentences)
    settings: list[tuple[str, float | str, Rule | list[Rule]]] = []
    for rho in (-0.5, 0.0, 0.25, 0.5):
        settings.append(("paper", rho, rules.paper(rho)))
    for rho in (-0.5, 0.0, 0.25, 0.5):
        settings.append(("paper, pruned -inf", rho, rules.paper(rho, 0.0, "neginf")))
    for rho in (0.0, 0.25, 0.5, 0.7):
        settings.append(("ours, one rho_B", rho, rules.ours(rho)))
    for sparsity in (0.7, 0.77, 0.82, 0.87, 0.91, 0.94):
        settings.append(("ours, calibrated", sparsity, plan(bench, sparsity)))
    for density in (0.5, 0.3, 0.2, 0.1):
        settings.append(("topk", density, Rule("topk", density=density)))
    for alpha in ((-0.2, -0.2), (0.0, 0.0), (0.1, 0.1), (0.2, 0.2)):
        settings.append(("energon", str(alpha), Rule("energon", alpha=alpha)))
    for threshold in (0.002, 0.02, 0.05, 0.1):
        settings.append(("sanger", threshold, Rule("sanger", threshold=threshold)))
    entries: list[Json] = []
    for name, value, rule in settings:
        found = entry(name, bench.run(rule, sentences), dense, sentences)
        entries.append(found | {"setting": value})
    return Part(tables={"accuracy against sparsity": entries})


def part_head_curves() -> Part:
    """Accuracy against heads pruned beside SpAtten's rule, MiniLM and a BERT-Tiny shape."""
    part = Part()
    for title, recipe, shares in (
        ("MiniLM", teacher.SENTIMENT, (0.1, 0.2, 0.35, 0.5)),
        ("BERT-Tiny shape", teacher.SENTIMENT_TINY, (0.25, 0.5)),
    ):
        bench, sentences = Bench(recipe), curve_set()
        dense = bench.run(Rule(), sentences)
        importance = measured(bench, "snippets").importance
        entries: list[Json] = []
        for share in shares:
            tau = round(float(importance.flatten().quantile(share)), 4)
            one = rules.ours(calibration.RATIOS[0], tau)
            settings: dict[str, Rule | list[Rule]] = {
                "ours, calibrated": heads_only(bench, share),
                "ours, one tau_H": one,
                "ours, one tau_H, pruned heads give 0": replace(one, gated="zero"),
                "spatten": Rule("spatten", ratio=share),
            }
            for name, rule in settings.items():
                found = entry(name, bench.run(rule, sentences), dense, sentences)
                entries.append(found | {"setting": share})
        part.tables[f"accuracy against heads pruned, {title}"] = entries
    return part


def part_approximation() -> Part:
    """The dropped product of fractions on and off."""
    bench, sentences = Bench(teacher.SENTIMENT), curve_set()
    dense = bench.run(Rule(), sentences)
    settings = {
        "paper, rho_B 0": rules.paper(),
        "ours, rho_B 0.25": rules.ours(0.25),
        "paper, rho_B -0.999": rules.paper(-0.999),
        "ours, rho_B -0.999": rules.ours(-0.999),
    }
    entries: list[Json] = []
    for name, rule in settings.items():
        for kept in (False, True):
            outcome = bench.run(replace(rule, approximate=not kept), sentences)
            label = f"{name}, F_Q F_K {'added' if kept else 'dropped'}"
            entries.append(entry(label, outcome, dense, sentences))
    return Part(tables={"approximation": entries})


def part_combined() -> Part:
    """What each of approximation, blocks and heads of a plan does alone, and all together."""
    dense = Bench(teacher.SENTIMENT).run(Rule(), curve_set())
    bench, sentences = Bench(teacher.SENTIMENT, OURS), curve_set()
    entries: list[Json] = []
    everything = Rule("topk", finer=rules.ours().finer, density=1.0)
    chosen, few = read_plan(PLANS / "snippets-85.json"), calibration.RATIOS[0]
    settings: dict[str, Rule | list[Rule]] = {
        "approximation alone, all blocks kept": everything,
        "plan 85 %: blocks, no head gate": [replace(one, tau_h=0.0) for one in chosen],
        f"plan 85 %: heads, rho_B {few}": [replace(one, rho_b=few) for one in chosen],
        "plan 85 %: everything combined": chosen,
    }
    for label, rule in settings.items():
        entries.append(entry(label, bench.run(rule, sentences), dense, sentences))
    return Part(tables={"combined": entries})
