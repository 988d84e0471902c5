"""
docs/hdp_accuracy.md and its pictures, written from bench/results/hdp_accuracy.json alone.

`python bench/hdp_accuracy.py --page` makes them anew without running anything.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import figures
from bench.support import report

DOCS = report.ROOT / "docs"
PAGE = DOCS / "hdp_accuracy.md"
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#555555")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 360, 56, 16, 216, 44

Entry = Mapping[str, Any]

COLUMNS = {
    "rule": "rule",
    "setting": "setting",
    "set": "set",
    "blocks_pruned_percent": "blocks pruned, %",
    "heads_pruned_percent": "heads pruned, %",
    "net_sparsity_percent": "net sparsity, %",
    "value_products_spared_percent": "value products spared, %",
    "accuracy_percent": "accuracy, %",
    "points_lost": "points lost",
    "interval_95": "95 % interval",
    "mcc_dense_points": "MCC dense, points",
    "mcc_points": "MCC, points",
    "mcc_lost_points": "MCC lost, points",
    "mcc_lost_interval_95": "95 % interval of that",
    "changed_percent": "predictions changed, %",
}

TEXTS = {
    "headline": (
        "Net sparsity and accuracy",
        "Plans are calibrated per head on 256 unlabelled training sentences "
        "(bench/results/plans/); `none` is the dense program in the same fixed point. Each plan has "
        "the binary points that `heatc --plan` gives it: scores of 11 or 12 fraction bits where the "
        "dense program has 18 or 20, since they are sums of integer parts. In two layers of plan 75 % "
        "pruned scores keep their integer part (`int`), which spares their fraction products and no "
        "product with V: the share of those that are spared is a column of its own.",
    ),
    "heads": (
        "Heads pruned, beside SpAtten's rule",
        "rho_B = -0.999 leaves only those blocks out in which no score is above its row's mean. A "
        "pruned head of `ours` attends with its mean query; one of `spatten` gives 0.",
    ),
    "second task": (
        "Second task: bigram shift",
        "Sentences with two neighbouring words swapped in half of them, a stand-in for CoLA; the "
        "interval of MCC is from 2,000 resamplings.",
    ),
    "accuracy against sparsity": (
        "Accuracy against sparsity, every rule",
        "`energon` and `sanger` prune single scores, the others blocks of 2 x 2. Here and in the next "
        "three sections all rules have the binary points of the dense program, so that rules alone "
        "differ.",
    ),
    "accuracy against heads pruned, MiniLM": ("Accuracy against heads pruned, MiniLM", ""),
    "accuracy against heads pruned, BERT-Tiny shape": (
        "Accuracy against heads pruned, BERT-Tiny shape",
        "2 layers of 2 heads, trained from scratch on the snippets: no evidence about pruning of "
        "trained models, only about how much one of four heads is.",
    ),
    "approximation": (
        "The approximation",
        "F_Q F_K dropped, as the machine does, and added, which would cost a third product.",
    ),
    "combined": (
        "Everything combined",
        "What each means of a plan does alone: F_Q F_K left out (all blocks kept, integer parts with "
        "2 fraction bits), the plan's blocks, the plan's heads (with nearly all blocks); all three "
        "together. Binary points are those of the compiled plan.",
    ),
    "compiled program, plan 85 %, test": (
        "The compiled program",
        "Predictions of `heatc --plan`'s program by `hdp-run`, with the binary points that the "
        "compiler gives it, and how many logits are those of the PyTorch form, bit for bit.",
    ),
    "compiled program, plan 85 %, out of domain": ("The compiled program, out of domain", ""),
    "calibration": (
        "Calibration by heatc-tune",
        "`heatc-tune calibrate` on the same 256 sentences, without labels, beside the plan of the "
        "bench's own calibration (bench/support/accuracy/calibration.py). Its goal bounds the share of blocks of the "
        "mean sentence, below that of pooled blocks: sentences out of domain are shorter.",
    ),
    "calibration time": ("Calibration by heatc-tune: time", ""),
    "attention at 512 tokens": (
        "Attention on hdp-edge, BERT-Base shape, 512 tokens, at the 85 % plan's sparsity",
        "Modelled cycles, bytes and joules of the attention of one layer, beside the dense program "
        "of the same compiler on the same machine. Weights are random, so a plan is one setting "
        "of rule `ours` for all heads whose net sparsity comes nearest to that of the plan on the "
        "test sentences: with the plan's share of heads always pruned, or by blocks alone.",
    ),
    "attention at 512 tokens: cycles by instruction": (
        "The same: busy cycles by instruction",
        "Of `heads and blocks`; the mean over cores. `scores` is the integer pass, `frac` the "
        "fractions of kept blocks, `colsum` and `wide` are the means of rows, the sum of V for "
        "pruned scores and the mean query of pruned heads; `mm` are the scores of dense attention.",
    ),
    "attention at 512 tokens: energy by instruction": (
        "The same: energy by instruction, uJ",
        "Without leakage.",
    ),
    "attention at 512 tokens: energy by unit": ("The same: energy by unit, uJ", ""),
    "the net sparsity at which attention starts to cost less": (
        "The net sparsity at which attention starts to cost less",
        "BERT-Base shape, random weights, one layer. Below these sparsities the integer pass and "
        "what else decides cost more than pruning saves; `never`: at none that was measured.",
    ),
    "what it buys: attention": (
        "What it buys: attention, a layer",
        "MiniLM with the 85 % plan on real sentences, joined to full length; the plan was "
        "calibrated on at most 64 tokens. BERT-Base as above.",
    ),
    "what it buys: whole model": (
        "What it buys: the whole model",
        "Host operators and linear layers included. BERT-Base has 12 layers, extended from "
        "programs of one layer and of two.",
    ),
}

PICTURES = {
    "accuracy against sparsity": ("sparsity", "net_sparsity_percent", "net sparsity, %"),
    "accuracy against heads pruned, MiniLM": ("heads", "heads_pruned_percent", "heads pruned, %"),
    "accuracy against heads pruned, BERT-Tiny shape": (
        "heads_tiny", "heads_pruned_percent", "heads pruned, %",
    ),
}  # fmt: skip


class Line(NamedTuple):
    """A named line of a picture; points are (x, y)."""

    name: str
    points: list[tuple[float, float]]


def write(results: Path) -> None:
    """Writes page and pictures."""
    content = json.loads(results.read_text(encoding="utf-8"))
    for path, text in [(PAGE, page(results, content)), *pictures(content)]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def page(results: Path, content: Mapping[str, Any]) -> str:
    """The page's Markdown."""
    rows = [row.cells()[1:] for row in figures.read(results)]
    parts = [
        "# Accuracy of pruned attention",
        "Written by `python bench/hdp_accuracy.py` from bench/results/hdp_accuracy.json; do not "
        "edit. Teacher: MiniLM fine-tuned on VADER movie-review snippets, binary; test is 1,500 "
        "of them, out of domain 3,000 sentences of imdb, yelp and amazon reviews. No retraining. "
        "Every accuracy is that of the bit-exact fixed-point form of the whole model. Sparsity is "
        "pooled over blocks of real tokens; net = all blocks of a pruned head count as pruned. "
        "Points lost are paired differences to the dense program, with 95 % intervals. The rules "
        "are those of [design/rules.md](design/rules.md).",
        "## Figures with a goal",
        figures.table([figures.HEADER[1:], *rows]),
    ]
    tables = content["tables"]
    for key, (title, text) in TEXTS.items():
        if key not in tables:
            continue
        parts.append(f"## {title}")
        parts += [text] if text else []
        if key in PICTURES:
            parts.append(f"![{title}](images/hdp_accuracy_{PICTURES[key][0]}.svg)")
        parts.append(entries_table(tables[key]))
    if "dynamic and static heads" in tables:
        parts += dynamic(tables["dynamic and static heads"])
    return "\n\n".join(parts) + "\n"


def dynamic(found: Mapping[str, Any]) -> list[str]:
    """The section on head importance that changes with the input."""
    rates = found["share_of_sentences_that_prune_a_head"]
    header = ("layer", *(f"head {index}" for index in range(len(rates[0]))))
    body = [(str(layer), *(f"{100 * x:.0f} %" for x in line)) for layer, line in enumerate(rates)]
    heads, importance, blocks = found["agreement"], found["importance"], found["blocks"]
    return [
        "## Heads: chosen by input or once for all",
        f"One tau_H for all heads, aimed at 35 % of them, prunes "
        f"{found['heads_pruned_for_every_sentence']} of {found['heads']} heads for every sentence, "
        f"{found['heads_pruned_for_no_sentence']} for none, and "
        f"{found['heads_that_depend_on_the_sentence']} for some sentences only. "
        "Static: as many heads, those that are weakest in the mean of the calibration sentences.",
        entries_table(found["rules"]),
        "Share of the sentences for which the one tau_H prunes a head, at setting 0.35:",
        "![Share of the sentences that prune a head](images/hdp_accuracy_head_rates.svg)",
        figures.table([header, *body]),
        "## How importance changes with the input",
        "Heads, two sentences compared, at setting 0.35, in %:",
        figures.table([("what", "%"), *((key, f"{x:g}") for key, x in heads.items())]),
        "Importance of heads over the calibration sentences:",
        figures.table([("what", "value"), *((key, f"{x:,}") for key, x in importance.items())]),
        f"Blocks, rho_B = {blocks['rho_b']:g}: the {blocks['sentences']} sentences of "
        f"{blocks['length']} tokens, the same head in two of them, in the mean over pairs and heads. "
        "The less they agree, the more a mask chosen once would miss.",
        entries_table(blocks["layers"]),
    ]


def entries_table(entries: Sequence[Entry]) -> str:
    """A Markdown table with the columns that its entries have; columns of other names as they are."""
    found = dict.fromkeys(key for one in entries for key in one)
    if not any(key not in COLUMNS for key in found):
        found = dict.fromkeys(key for key in COLUMNS if key in found)
    body = [tuple(_cell(one.get(key)) for key in found) for one in entries]
    return figures.table([tuple(COLUMNS.get(key, key) for key in found), *body])


def pictures(content: Mapping[str, Any]) -> list[tuple[Path, str]]:
    """Every picture's file and SVG."""
    found: list[tuple[Path, str]] = []
    for key, (name, x, label) in PICTURES.items():
        entries = content["tables"].get(key, [])
        lines: dict[str, Line] = {}
        for one in entries:
            line = lines.setdefault(one["rule"], Line(one["rule"], []))
            line.points.append((one[x], one["accuracy_percent"]))
        if lines:
            path = DOCS / "images" / f"hdp_accuracy_{name}.svg"
            found.append((path, svg([*lines.values()], label, "accuracy, %")))
    if "dynamic and static heads" in content["tables"]:
        rates = content["tables"]["dynamic and static heads"][
            "share_of_sentences_that_prune_a_head"
        ]
        found.append((DOCS / "images" / "hdp_accuracy_head_rates.svg", heat_map(rates)))
    return found


CELL = 40


def heat_map(rates: Sequence[Sequence[float]]) -> str:
    """Shares by layer (downwards) and head, white for 0 and black for 1, each with its percent."""
    width, height = LEFT + CELL * len(rates[0]) + 8, TOP + CELL * len(rates) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" text-anchor="middle">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for layer, line in enumerate(rates):
        down = TOP + CELL * layer
        parts.append(f'<text x="{LEFT - 12}" y="{down + CELL / 2 + 4:g}">{layer}</text>')
        for head, share in enumerate(line):
            left, grey = LEFT + CELL * head, round(255 * (1 - share))
            ink = "white" if share > 0.5 else "black"
            parts += [
                f'<rect x="{left}" y="{down}" width="{CELL}" height="{CELL}" '
                f'fill="rgb({grey},{grey},{grey})" stroke="#ddd"/>',
                f'<text x="{left + CELL / 2:g}" y="{down + CELL / 2 + 4:g}" fill="{ink}">'
                f"{100 * share:.0f}</text>",
            ]
    bottom = TOP + CELL * len(rates)
    parts += [
        f'<text x="{LEFT + CELL * (head + 0.5):g}" y="{bottom + 16}">{head}</text>'
        for head in range(len(rates[0]))
    ]
    parts += [
        f'<text x="{LEFT + CELL * len(rates[0]) / 2:g}" y="{height - 8}">'
        "head; % of the sentences that prune it</text>",
        f'<text transform="translate(14 {TOP + CELL * len(rates) / 2:g}) rotate(-90)">layer</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def svg(lines: Sequence[Line], x_label: str, y_label: str) -> str:
    """Lines through points, with axes and a legend."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    low_x, high_x = _span(xs)
    low_y, high_y = _span(ys)

    def at(x: float, y: float) -> tuple[float, float]:
        right = LEFT + (x - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)
        return round(right, 1), round(down, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for step in range(5):
        x, y = low_x + (high_x - low_x) * step / 4, low_y + (high_y - low_y) * step / 4
        left, down = at(x, y)
        parts += [
            f'<path d="M{LEFT} {down}H{WIDTH - RIGHT}M{left} {TOP}V{HEIGHT - BOTTOM}" '
            'stroke="#ddd" fill="none"/>',
            f'<text x="{left}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{x:g}</text>',
            f'<text x="{LEFT - 6}" y="{down + 4}" text-anchor="end">{y:g}</text>',
        ]
    for index, line in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        placed = [at(x, y) for x, y in sorted(line.points)]
        path = " ".join(f"{x},{y}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in placed]
        y = TOP + 12 + 18 * index
        left = WIDTH - RIGHT + 12
        parts += [
            f'<path d="M{left} {y - 4}h16" stroke="{colour}" stroke-width="2"/>',
            f'<text x="{left + 22}" y="{y}">{html.escape(line.name)}</text>',
        ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts += [
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(x_label)}</text>',
        f'<text transform="translate(14 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_label)}</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Bounds at multiples of 4 that hold all values: four steps with whole labels."""
    low = 4 * int(min(values) // 4)
    high = 4 * -int(-max(values) // 4)
    return float(low), float(max(high, low + 4))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " to ".join(f"{x:g}" for x in value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
