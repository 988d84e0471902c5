"""Runs of a tiny classifier, made by the commands themselves, and what a page says."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tiny_classifier import LAYERS, LENGTH, VOCABULARY, ir_text, weights

from heatc import kinds
from heatc.tools import main, report, run, tune
from heatc.tuning.compress.figures import units

BATCH, SAMPLES, KEPT = 4, 8, 3
SCRIPT = "</script><script>window.hacked = 1</script>"
NAMES = (SCRIPT, "<img src=x onerror='window.hacked = 1'>", "$x$ <b>bold</b> &amp; %{y} 'q' \"q\"")
"""Of modules that mean harm."""


@dataclass(frozen=True)
class Made:
    """
    What the commands wrote.

    Attributes:
        folder: with dense/, pruned/ (of hdp-run --stats), sweep/, front/, eval.json, heat.json, both.json.
        page: the page of all of it.
    """

    folder: Path
    page: Path

    def stats(self, name: str) -> dict[str, Any]:
        """stats.json of a run."""
        return json.loads((self.folder / name / "stats.json").read_text())

    def modules(self, name: str) -> list[dict[str, str]]:
        """layers.csv of a run."""
        with (self.folder / name / "layers.csv").open(newline="") as stream:
            return list(csv.DictReader(stream))

    @property
    def runs(self) -> list[str]:
        """What the page is made of, as paths of the command line."""
        names = ("dense", "pruned", "front", "eval.json", "heat.json", "both.json", "sweep")
        return [str(self.folder / name) for name in names]


def call(tool: Any, *words: object) -> None:
    """Run a command, which has to end well."""
    assert tool.main([str(word) for word in words]) == 0


def make(folder: Path) -> Made:
    """Every file, by the commands."""
    model = folder / "model.mlir"
    model.write_text(ir_text(batch=BATCH))
    save_file(weights(seed=0), folder / "w.safetensors")
    rng = np.random.default_rng(1)
    lengths = rng.integers(5, LENGTH + 1, SAMPLES)
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int64)
    ids = rng.integers(0, VOCABULARY, (SAMPLES, LENGTH)) * mask
    np.savez(folder / "in.npz", input_ids=ids, attention_mask=mask)
    labels = rng.integers(0, 2, SAMPLES)
    np.savez(folder / "labelled.npz", input_ids=ids, attention_mask=mask, labels=labels)
    compile_ = (model, "--weights", folder / "w.safetensors", "--target", "hdp-edge")
    rules = {
        "dense": ("--hdp-rule=none",),
        "pruned": ("--hdp-rule=ours", "--rho-b=0.5", "--tau-h=0.2"),
    }
    inputs = ("--inputs", folder / "in.npz", "-q")
    for name, words in rules.items():
        program = folder / f"{name}.hdp"
        call(main, *compile_, "-o", program, *words)
        compared = ("-o", folder / "golden.npz")
        if name == "pruned":
            compared = ("--reference", folder / "golden.npz", "--min-cosine", "-1")
        kept = ("--stats", folder / name, "--keep-masks", KEPT)
        call(run, program, *inputs, *kept, *compared)
    sweep = ("--sweep", "dram.bandwidth=6.4,12.8,25.6 GB/s", "--sweep", "clock=250,500 MHz")
    call(run, folder / "pruned.hdp", *inputs, *sweep, "--stats", folder / "sweep")
    programs = (folder / "dense.hdp", folder / "pruned.hdp")
    data = ("--data", folder / "labelled.npz", "-o", folder / "eval.json")
    call(tune, "eval", *programs, *data)
    _write_plans(folder)
    _write_front(folder / "front")
    made = Made(folder, folder / "page.html")
    call(report, *made.runs, "-o", made.page, "-q")
    return made


def _write_plans(folder: Path) -> None:
    layers = {
        "encoder.layer.0.output.dense": {
            "heat": {"format": "tt", "shape": "4x4|4x4", "ranks": [4, 8, 4]}
        },
        "encoder.layer.1.output.dense": {"heat": {"format": "low-rank", "ranks": [3]}},
    }
    rule = {"rule": "ours", "point": 2, "rho_b": [0.25, 0.5, 0.5, 0.75]}
    both = {**layers, LAYERS[0]: {"hdp": rule}}
    for name, own in (("heat", layers), ("both", both)):
        plan = {"schema": 2, "seed": 0, "layers": own}
        (folder / f"{name}.json").write_text(json.dumps(plan))


def _write_front(folder: Path) -> None:
    """A front of three points, of which the last one was chosen; only two have their plans."""
    folder.mkdir()
    dense = figures(0.0, 8e-6)
    points = [{**figures(0.5 / k, 1e-6 * k), "file": f"{k - 1:02d}.json"} for k in (1, 2, 3)]
    data = {
        "schema": 1,
        "hw": "hdp-edge",
        "tokens": LENGTH,
        "layers": ["a", "b", "c"],
        "dense": dense,
        "uniform": [figures(0.6, 2e-6)],
        "points": points,
        "chosen": {**points[2], "file": "plan.json", "goal": "edp>=2x"},
    }
    (folder / "front.json").write_text(kinds.FRONT.json_text(data))
    heat = {"heat": {"format": "low-rank", "ranks": [2]}}
    for name in ("00.json", "plan.json"):
        plan = {"schema": 2, "layers": {"a": heat, "b": heat}}
        (folder / name).write_text(kinds.PLAN.json_text(plan))


def compressed_front() -> dict[str, Any]:
    """What `heatc-tune compress` writes of a model that loses accuracy, and of two plans."""
    nothing = dict.fromkeys(units())
    lost = {"accuracy_drop": 1.5, "accuracy_drop_low": 0.5, "accuracy_drop_high": 2.75}
    plans = [
        {"edp": 2e-6, "weight_bytes": 1_500_000, "file": "01.json"},
        {"edp": 1e-6, "weight_bytes": 10**6, "accuracy_drop": 2.5, "file": "02.json"},
    ]
    return {
        "schema": 1,
        "command": "heatc-tune compress",
        "hw": "hdp-edge",
        "goals": ["accuracy-drop<=1"],
        "goals_met": False,
        "chosen": None,
        "nearest": "01.json",
        "judged_by": {"basis": "labels", "meaning": "accuracy lost against labels"},
        "figures": units(),
        "dense": {**nothing, "edp": 8e-6, "weight_bytes": 4_000_000},
        "points": [{**nothing, **lost, **plan} for plan in plans],
    }


def figures(proxy: float, edp: float) -> dict[str, float]:
    """The figures of a point."""
    costs = {"seconds": 2e-3, "joules": edp / 2e-3, "cycles": 1_000_000}
    return {"proxy": proxy, "edp": edp, **costs, "parameters": 768, "macs": 9216}


def make_hostile(made: Made, folder: Path) -> Path:
    """The pruned run under names that mean harm, in a folder of such a name."""
    place = folder / "<b>&'\"run"
    shutil.copytree(made.folder / "pruned", place)
    rows = made.modules("pruned")
    old = dict(zip([row["module_path"] for row in rows], NAMES))
    for row in rows:
        row["module_path"] = old.get(row["module_path"], row["module_path"])
    with (place / "layers.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    timeline = json.loads((place / "timeline.json").read_text())
    timeline["modules"] = {old.get(k, k): v for k, v in timeline["modules"].items()}
    (place / "timeline.json").write_text(json.dumps(timeline))
    stats = json.loads((place / "stats.json").read_text())
    stats["program"]["source"]["model"] = SCRIPT
    stats["agreement"] = {SCRIPT: next(iter(stats["agreement"].values()))}
    for name in ("layers.csv", "timeline.json"):
        stats["files"][name] = hashlib.sha256((place / name).read_bytes()).hexdigest()
    (place / "stats.json").write_text(json.dumps(stats))
    heat = {"heat": {"format": "low-rank", "ranks": [2]}}
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"schema": 2, "layers": {name: heat for name in NAMES}}))
    page = folder / "page.html"
    call(report, place, plan, "-o", page, "--title", SCRIPT, "-q")
    return page


# --- What a page says -------------------------------------------------------------------------


@dataclass
class Node:
    """An element: its attributes, and the text in it."""

    tag: str
    attributes: dict[str, str]
    children: list[Node] = field(default_factory=list["Node"])
    words: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        """All text in it, in order as far as the elements are."""
        return " ".join(" ".join([*self.words, *(c.text for c in self.children)]).split())

    def all(self, tag: str, class_: str = "") -> list[Node]:
        """The elements in it."""
        found = [node for child in self.children for node in child.all(tag, class_)]
        is_one = self.tag == tag and class_ in ("", *self.attributes.get("class", "").split())
        return [self, *found] if is_one else found

    def by_id(self, name: str) -> Node:
        """The element with an id."""
        found = [n for c in self.children for n in c._with_id(name)]
        assert len(found) == 1, (name, len(found))
        return found[0]

    def _with_id(self, name: str) -> list[Node]:
        own = [self] if self.attributes.get("id") == name else []
        return own + [n for c in self.children for n in c._with_id(name)]


_VOID = {"meta", "img", "br", "input"}
"""Elements without an end."""


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in _VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].words.append(data)


def parsed(path: Path) -> Node:
    """The elements of a page, whose tags have to match."""
    parser = _Parser()
    parser.feed(path.read_text(encoding="utf-8"))
    assert len(parser.open) == 1
    return parser.open[0]


def chart(page: Node, name: str) -> dict[str, Any]:
    """The data of a chart."""
    return json.loads("".join(page.by_id(f"{name}-data").words))


_PREFIXES = {"": 1.0, "G": 1e9, "M": 1e6, "k": 1e3, "m": 1e-3, "µ": 1e-6, "n": 1e-9}


def value_of(text: str, unit: str) -> float:
    """The number in `31.3 mJ`, in the unit itself."""
    found = re.match(r"([\d,.e+-]+)(?: (\S?)" + re.escape(unit) + r")?$", text)
    assert found is not None, (text, unit)
    return float(found[1].replace(",", "")) * _PREFIXES[found[2] or ""]
