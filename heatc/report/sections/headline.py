"""The headline: a card for each run, with what it costs and what it gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from heatc.report.chart import Block
from heatc.report.html import Html, badge, tag
from heatc.report.material import Material, SimulatedRun
from heatc.report.numbers import NOTHING, Difference, Number, full, interval

DRAM_BYTES = "dram_bytes"

FIGURES = (
    ("energy_delay_product_joule_seconds", "Energy × delay", "J s"),
    ("total_cycles", "Cycles", "count"),
    ("time_seconds", "Time", "s"),
    ("energy_joules", "Energy", "J"),
    (DRAM_BYTES, "To and from DRAM", "bytes"),
)
"""Of a card: the figure, what it is called, its unit; modelled, sums over all passes."""

SHARES = (("kept_blocks_percent", "Blocks kept"), ("kept_heads_percent", "Heads kept"))


class Row(NamedTuple):
    """A figure of a card."""

    name: str
    text: str
    kind: str
    difference: Difference | None = None


def draw(material: Material) -> Sequence[Block]:
    """A card for each run; the others are compared with the first one."""
    runs = material.simulated
    if not runs:
        return []
    cards = [_card(run, material) for run in runs]
    return [_machine(runs), *_remarks(runs), tag("div", *cards, class_="cards")]


def dram_bytes(run: SimulatedRun) -> Number:
    """Bytes read from and written to DRAM."""
    parts = [run.figure(f"dram_{way}_bytes") for way in ("read", "written")]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def figure(run: SimulatedRun, name: str) -> Number:
    """A figure of a card."""
    return dram_bytes(run) if name == DRAM_BYTES else run.figure(name)


def _machine(runs: Sequence[SimulatedRun]) -> Html:
    models = ", ".join(dict.fromkeys(run.model for run in runs))
    texts = [
        f"{hw.name}: {hw.cores} cores of {hw.pe_rows} × {hw.pe_columns} PEs at "
        f"{hw.clock_hz / 1e6:g} MHz, DRAM of {full(hw.dram_bytes_per_second, 'bytes/s')}"
        for hw in dict.fromkeys(run.hardware for run in runs)
    ]
    samples = runs[0].figure("passes_count")
    passes = "" if samples is None else f" Figures are sums over {samples:,} passes of the program."
    return tag(
        "p",
        f"Model {models} on {'; '.join(texts)}.{passes}",
        f" Percentages compare with {runs[0].name}, the first run." if len(runs) > 1 else None,
        class_="lead",
    )


def _remarks(runs: Sequence[SimulatedRun]) -> Iterator[Html]:
    """What makes figures of two runs differ besides the programs."""
    first = runs[0]
    for run in runs[1:]:
        for what in _unlike(first, run):
            text = f"{run.name} and {first.name} ran {what}: their figures do not compare like with like."
            yield tag("p", text, class_="remark")


def _unlike(first: SimulatedRun, run: SimulatedRun) -> Iterator[str]:
    if run.model != first.model:
        yield "different models"
    if run.hardware != first.hardware:
        yield "on different machines"
    digests = [r.stats.get("inputs", {}).get("sha256") for r in (first, run)]
    if None not in digests and digests[0] != digests[1]:
        yield "on different inputs"
    elif run.figure("passes_count") != first.figure("passes_count"):
        yield "a different number of passes"


def _card(run: SimulatedRun, material: Material) -> Html:
    made = [
        tag(
            "div",
            tag("dt", row.name, " ", badge(row.kind)),
            tag("dd", tag("span", row.text, class_="figure"), _chip(row.difference)),
        )
        for row in _rows(run, material)
    ]
    options = run.stats["program"]["options"]
    return tag(
        "article",
        tag("h3", run.name),
        tag("p", _what(options, run.stats["program"]["file"]), class_="what"),
        tag("dl", *made),
        class_="card",
    )


def _what(options: Mapping[str, Any], file: str) -> str:
    """Which program it is, in words."""
    chosen: list[Mapping[str, Any]] = [options]
    if isinstance(options.get("plan"), dict):
        # By the path of each attention, as its plan says.
        chosen = [own for own in options["plan"].values() if isinstance(own, dict)]
    rules = dict.fromkeys(str(own.get("hdp_rule", "none")) for own in chosen)
    names = " and ".join(name for name in rules if name not in ("none", "None"))
    pruning = f"pruning by rule {names}" if names else "no pruning"
    factorised = "heat-decompose" in str(options.get("pipeline", ""))
    return f"{file}: {'factorised, ' if factorised else ''}{pruning}"


def _chip(difference: Difference | None) -> Html | None:
    if difference is None or not difference.text:
        return None
    return tag("span", str(difference), class_=f"chip {difference.verdict}".rstrip())


def _rows(run: SimulatedRun, material: Material) -> Iterator[Row]:
    """What some run has has a row in each card, so that cards can be read across."""
    runs = material.simulated
    if any(_accuracy(other, material) for other in runs):
        yield Row("Accuracy", _accuracy(run, material) or NOTHING, "compared")
    for name, title, unit in FIGURES:
        if any(figure(other, name) is not None for other in runs):
            yield _cost(run, runs[0], (name, title, unit))
    for name, title in SHARES:
        if any(other.figure(name) is not None for other in runs):
            value = run.figure(name)
            yield Row(title, "all" if value is None else f"{value:.1f} %", "functional")
    for output in dict.fromkeys(name for other in runs for name in _agreement(other)):
        yield Row(f"Cosine, {output}", _cosine(_agreement(run).get(output)), "functional")


def _cost(run: SimulatedRun, first: SimulatedRun, of: tuple[str, str, str]) -> Row:
    name, title, unit = of
    value = figure(run, name)
    compared = None if run is first else Difference(name, value, figure(first, name))
    return Row(title, full(value, unit), "modelled", compared)


def _agreement(run: SimulatedRun) -> dict[str, dict[str, Number]]:
    """By output, what `hdp-run --reference` found."""
    return run.stats.get("agreement", {})


def _cosine(found: dict[str, Number] | None) -> str:
    if found is None or found["cosine"] is None or found["min_cosine"] is None:
        return NOTHING
    return f"{found['cosine']:.5f}, least {found['min_cosine']:.5f}"


def _accuracy(run: SimulatedRun, material: Material) -> str | None:
    """From an evaluation of the very program, None where there is none."""
    digest = run.stats["program"].get("sha256")
    subjects = [s for e in material.evaluations for s in e.data["subjects"]]
    found = [s["compared"].get("accuracy_percent") for s in subjects if s["sha256"] == digest]
    return next((interval(accuracy, "%") for accuracy in found if accuracy is not None), None)
