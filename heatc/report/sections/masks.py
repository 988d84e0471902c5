"""Which blocks of scores and which heads attention kept, for chosen inputs, as pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from heatc.report.chart import Block, Control, Panels, key
from heatc.report.html import Cell, Html, details, table, tag
from heatc.report.material import Masks, Material, SimulatedRun
from heatc.report.png import png_url

BUDGET = 1_000_000
"""Characters of all pictures of the page."""

Bools = NDArray[np.bool_]


def draw(material: Material) -> Sequence[Block]:
    """Pictures of every head, with a choice of run, attention, input and head; a table of shares."""
    runs = [run for run in material.simulated if run.masks]
    if not runs:
        return []
    attentions = list(dict.fromkeys(name for run in runs for name in run.masks))
    samples = max(len(masks.lengths) for run in runs for masks in run.masks.values())
    parts = _parts(runs, attentions, samples, material)
    shown = 1 + max(int(name.rpartition("-")[2]) for name in parts)
    heads = max(_head_count(masks) for run in runs for masks in run.masks.values())
    panels = Panels(
        "masks-panels",
        [
            Control("Run", [run.name for run in runs]),
            Control("Attention", attentions),
            Control("Input", [f"input {n + 1}" for n in range(shown)]),
        ],
        parts,
        "Head",
        [f"head {n + 1}" for n in range(heads)],
    )
    tables = [_table(run) for run in runs]
    return [_lead(runs), panels, details("The same as a table", *tables)]


def _lead(runs: Sequence[SimulatedRun]) -> Html:
    blocks = {m.block for run in runs for m in run.masks.values() if m.block is not None}
    size = ""
    if len(blocks) == 1:
        rows, columns = next(iter(blocks))
        size = f" of {rows} queries and {columns} keys"
    return tag(
        "p",
        f"A square is a block of scores{size}; queries go down, keys go right. Coloured blocks were "
        "kept, the others were pruned. Functional: the program's own decisions about these inputs.",
        class_="lead",
    )


def _head_count(masks: Masks) -> int:
    decisions = masks.blocks if masks.blocks is not None else masks.heads
    return 0 if decisions is None else decisions.shape[1]


def _parts(
    runs: Sequence[SimulatedRun], attentions: Sequence[str], samples: int, material: Material
) -> dict[str, Html]:
    """The panels by their key, input by input as long as there is room."""
    parts: dict[str, Html] = {}
    room = BUDGET
    for sample in range(samples):
        new = {
            key(n, m, sample): _heads(run.masks[name], sample)
            for n, run in enumerate(runs)
            for m, name in enumerate(attentions)
            if name in run.masks and sample < len(run.masks[name].lengths)
        }
        room -= sum(map(len, new.values()))
        if room < 0 and parts:
            material.remarks.append(
                f"masks: {sample} of {samples} inputs are shown, the page has no room for more"
            )
            break
        parts |= new
    return parts


def _heads(masks: Masks, sample: int) -> Html:
    figures = [_head(masks, sample, head) for head in range(_head_count(masks))]
    length = masks.lengths[sample]
    return tag("div", tag("p", f"{length} tokens"), tag("div", *figures, class_="heads"))


def _head(masks: Masks, sample: int, head: int) -> Html:
    told = _told(masks, sample, head)
    gone = masks.heads is not None and not masks.heads[sample, head]
    kept = _blocks(masks, sample, head)
    picture = None
    if kept is not None and kept.size:
        rows, columns = kept.shape
        picture = tag(
            "img",
            src=png_url(kept),
            alt=f"head {head + 1}: {told}",
            width=columns,
            height=rows,
            style=f"aspect-ratio:{columns}/{rows}",
        )
    return tag(
        "figure",
        picture,
        tag("figcaption", tag("b", f"head {head + 1}"), f" {told}"),
        class_="head gone" if gone else "head",
        data_item=head,
    )


def _blocks(masks: Masks, sample: int, head: int) -> Bools | None:
    """The blocks of the sequence, without those of its padding."""
    if masks.blocks is None:
        return None
    kept = masks.blocks[sample, head]
    if masks.block is None:
        return kept
    rows, columns = (math.ceil(masks.lengths[sample] / extent) for extent in masks.block)
    return kept[:rows, :columns]


def _told(masks: Masks, sample: int, head: int) -> str:
    if masks.heads is not None and not masks.heads[sample, head]:
        return "pruned by the gate"
    kept = _blocks(masks, sample, head)
    if kept is None or not kept.size:
        return "kept"
    return f"{100 * float(kept.mean()):.0f} % of blocks kept"


def _table(run: SimulatedRun) -> Html:
    heads = max(map(_head_count, run.masks.values()))
    head = ["Attention", "Input", *(f"head {n + 1}" for n in range(heads))]
    return table(
        head, list(_rows(run)), caption=f"Kept blocks of each head, {run.name}, functional"
    )


def _rows(run: SimulatedRun) -> Iterator[list[Cell]]:
    for name, masks in run.masks.items():
        for sample in range(len(masks.lengths)):
            cells = [Cell(name), Cell(f"input {sample + 1}")]
            for head in range(_head_count(masks)):
                text = _told(masks, sample, head).replace(" of blocks kept", "")
                cells.append(Cell(text, classes="number"))
            yield cells
