"""The table that is printed: subjects in rows, first what agrees, then what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatc.tuning.evaluate.figures import LEVEL, METRIC_FIGURES

Json = Any
NOTHING = "-"


@dataclass(frozen=True)
class Column:
    """A column: two lines of heading, and the text of a subject."""

    title: str
    unit: str
    text: Callable[[Json], str]


def table(found: Mapping[str, Json]) -> str:
    """The text for people, of what eval.json says; the first subject is the reference."""
    names = short_names([s["name"] for s in found["subjects"]])
    reference = names[[s["name"] for s in found["subjects"]].index(found["reference"])]
    labels = "labelled" if found["labelled"] else "without labels"
    if found["labelled"] and found["classes"] is None:
        labels = "labels not used (the output is taken for an embedding)"
    head = (
        f"{found['samples']} samples, {labels}; compared output {found['output']!r}; "
        f"reference: {reference}; [low, high]: {LEVEL} % intervals"
    )
    blocks = [head, _block(names, found["subjects"], _agreement(found)), _COST]
    return "\n\n".join([*blocks, _block(names, found["subjects"], _costs())])


_COST = "cost of a sample: p50 / p95 over batches of a sample's share of its batch"


def short_names(names: Sequence[str]) -> list[str]:
    """The last part of each path, or all of it where two would be alike."""
    last = [Path(name).name or name for name in names]
    return [short if last.count(short) == 1 else name for short, name in zip(last, names)]


def _block(names: Sequence[str], subjects: Sequence[Json], columns: Sequence[Column]) -> str:
    kept = [(c, [c.text(s) for s in subjects]) for c in columns]
    kept = [(c, texts) for c, texts in kept if any(text != NOTHING for text in texts)]
    rows = [["", *(c.title for c, _ in kept)], ["", *(c.unit for c, _ in kept)]]
    rows += [[name, *(texts[i] for _, texts in kept)] for i, name in enumerate(names)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if k == 0 else text.rjust(width)
            for k, (text, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


# --- Columns ----------------------------------------------------------------------------------


def _agreement(found: Mapping[str, Json]) -> list[Column]:
    score, change = METRIC_FIGURES[found["metric"]]
    is_share = score.endswith("_percent")
    digits, unit = (1, "%") if is_share else (3, "")
    return [
        Column(found["metric"], unit, _compared(score, digits)),
        Column("change", "points" if is_share else "", _compared(change, digits, sign=True)),
        Column("changed predictions", "%", _compared("changed_predictions_percent", 1)),
        Column("cosine, mean", "", _compared("cosine_mean", 4)),
        Column("least", "", _compared("cosine_least", 4)),
    ]


def _compared(name: str, digits: int, *, sign: bool = False) -> Callable[[Json], str]:
    form = f"{'+' if sign else ''}.{digits}f"

    def text(subject: Json) -> str:
        found = subject["compared"][name]
        if found is None:
            return NOTHING
        value = f"{found['value']:{form}}"
        if found["low"] is None:
            return value
        return f"{value} [{found['low']:{form}}, {found['high']:{form}}]"

    return text


def _costs() -> list[Column]:
    """Of a sample, so that programs of different batches stand side by side."""
    return [
        Column("batch", "samples", lambda s: str(s["batch_samples"])),
        Column("machine", "", lambda s: s["hardware"] or NOTHING),
        Column("cycles", "modelled", _pair("modelled", "cycles", 1.0, ",.0f")),
        Column("ms", "modelled", _pair("modelled", "seconds", 1e3, ",.4g")),
        Column("mJ", "modelled", _pair("modelled", "joules", 1e3, ",.4g")),
        Column("CPU ms", "measured", _pair("measured", "cpu_seconds", 1e3, ",.4g")),
        Column("simulator s", "measured", _pair("measured", "simulator_seconds", 1.0, ".3g")),
        Column("MB", "program", lambda s: f"{s['measured']['program_bytes'] / 1e6:,.2f}"),
    ]


def _pair(group: str, quantity: str, scale: float, form: str) -> Callable[[Json], str]:
    def text(subject: Json) -> str:
        values = [subject[group][f"sample_{p}_{quantity}"] for p in ("p50", "p95")]
        if None in values:
            return NOTHING
        return " / ".join(f"{value * scale:{form}}" for value in values)

    return text
