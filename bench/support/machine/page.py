"""docs/machine_figures.md: what bench/machine.py measured, as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import figures
from bench.support import report
from bench.support.machine.models import TAU_H
from bench.support.machine.setup import FULL
from bench.support.report import Json

PAGE = report.ROOT / "docs" / "machine_figures.md"


NOTES: Mapping[str, str] = {
    "scalesim": """\
The `validation` preset has one array, ideal memory, and folds one after the other. SCALE-Sim's
output-stationary fold takes `k + rows + columns - 2` cycles, results included
(`systolic_compute_os.py`: k steps, skewed over rows and columns), and folds follow one another:
`folds * (k + rows + columns - 2)`, which is what `mm` costs with `fold_overlap: false`, so the two
agree exactly: what the comparison tests is that instructions, tiles and accounting add nothing to it.
hdp-edge and hdp-server let folds overlap (one fill and drain an instruction) and charge the results'
way out (`drain`), which SCALE-Sim hides. Its operations on heads are single products here.
SCALE-Sim reports the index of the last cycle as "Total Cycles"; its cycles here are one more.
Its times are those of its classes without trace files, which its command always writes.

With finite bandwidth the two model different memories. heatc: one DMA engine for all operands, A
loaded once, B and C in double-buffered parts of 64 columns; a stall is what is left of the total
after the PE cycles. SCALE-Sim: a port of its own for each operand; what fits the first half of an
SRAM is there before cycle 0 at no cost; its read buffer is a window over the operand in prefetch
order that only moves forward and wraps around, so a fold that needs weights which the window has
left waits until the whole operand has passed; and each wait is added twice (`read_buffer.py`:
`offset += potential_stall_cycles`, once always and once if positive). This is read off its source,
not traced. With an SRAM that holds the operand, all of it is prefetched and nothing stalls. The last
column is the bound of a single port.
""",
    "attention": """\
BERT-Base with random weights (seed 0), of which only {layers} layers are run, since all are alike; figures
are for one layer, from the first to the last work of its attention. Masks of random weights are
meaningless for accuracy and fine for cost. `dense` is the same compiler, int16, without pruning.
The integer pass is work too: rule `paper` computes I_Q I_K everywhere and two more products on kept
blocks, so that it starts behind dense; integer and fraction parts are two planes each of Q and K, so that
more bytes move, and where a head's keys do not fit the local buffer they are fetched again
for every tile of queries and every product ("MACs a DRAM byte" is the operand reuse). "K columns that
no row needs" is what fetch-upon-mask can save: far less than the blocks pruned. `pruned score zero` is the paper's rule and still multiplies
all probabilities with V; `neginf` leaves pruned scores out of the softmax and of P V.
"PEs split to" is `pe_array.split`, 16 for the presets' PEs of one 16-bit multiplier: where they split, the
integer pass and the fraction products take fewer steps, since their planes are as narrow as their binary
points allow (docs/design/energy.md, operand widths). Programs and masks are the same, the tiles those planned
for the preset; dense attention has 16-bit operands, takes the same cycles on any of them, and is the one
on the preset here. There are no planes of 4 bit: such PEs take the cycles of 8-bit ones and cost more.
""",
    "models": """\
BERT-Tiny: 2 layers, width 128, 2 heads; with random weights its integer scores are all 0, so that every
block is as important as every other and none is pruned. MiniLM runs on real sentences, joined to full
length. Embedding, layer norm, GELU and pooling run on the host and are charged.
""",
    "mechanisms": """\
MiniLM on real sentences joined to 128 tokens, rule `paper` with rho_B 0.25, tau_H {tau}, pruned score
`neginf`, so that fetch-upon-mask and head exit have work to save. With the head gate
of this setting a head's work is ordered by the gate and `stage_overlap` finds nothing to overlap; the
second table has it without a gate. `fold_overlap` is an assumption of ours and no mechanism of the paper,
as are PEs that split (`pe_array.split`), which no preset has.
""",
    "softmax": """\
The unit computes 2^-d for distances d >= 0 with 16 fraction bits: a polynomial on the fraction,
shifted by the whole part. The figure with a goal is that of the polynomial on every fraction. The
result keeps 16 fraction bits, so the *relative* error of small powers grows with every shift, while
the absolute one stays below the second column's bound; small powers hardly count in a softmax.
""",
    "speed": "Medians of this computer, warm, in one process, both programs taking turns.\n",
}


def write(results: Path) -> None:
    """Writes the page of a result file."""
    PAGE.write_text(page(json.loads(results.read_text(encoding="utf-8"))), encoding="utf-8")


def page(content: Mapping[str, Any]) -> str:
    """docs/machine_figures.md: rows and tables of the result file."""
    values = {"layers": FULL.layers, "tau": TAU_H}
    lines = [
        "# The machine model's figures",
        "",
        "Written by `python bench/machine.py` from bench/results/machine.json; do not edit.",
        "Cycles, bytes and joules are modelled, seconds are this computer's.",
        "",
    ]
    cells = [
        (r["what"], cell(r["measured"]), f"{r['sense']} {cell(r['goal'])}", r["unit"], "yes" if r["holds"] else "NO")
        for r in content["rows"]
    ]  # fmt: skip
    lines += [figures.table([("what", "measured", "goal", "unit", "holds"), *cells]), ""]
    shown = ""
    for name, entries in content["tables"].items():
        part = name.split(":")[0]
        if part != shown:
            origin = content["provenance"]["parts"][part]
            lines += [f"## {part.capitalize()}", "", NOTES[part].format(**values)]
            lines += [f"{origin['date']}, commit {origin['commit']}, {origin['cpu']}.", ""]
            shown = part
        header = list(dict.fromkeys(key for entry in entries for key in entry))
        body = [[cell(entry.get(key)) for key in header] for entry in entries]
        lines += [f"### {name.split(': ', 1)[1]}", "", figures.table([header, *body]), ""]
    return "\n".join(lines).rstrip() + "\n"


def cell(value: Json) -> str:
    """A value of a table for people."""
    if value is None:
        return "never"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.7f}" if 0.999 < value < 1 else f"{value:.4g}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{int(value):,}"
    return str(value)
