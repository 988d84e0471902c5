"""
What a user meets: the README's commands, the demo, the report, the way back, waiting times.

    python bench/people.py                  all parts; writes bench/results/people.json
    python bench/people.py --only pace      some parts; the others keep their rows
    python bench/people.py --only help --no-write

The machine should be doing nothing else: times are judged.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# Idle OpenMP threads that spin steal the second core from the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from bench.support import browser, parts, report
from bench.support.data import texts as data
from bench.support.parts import Part
from bench.support.people import chain, pace
from bench.support.report import ROOT, Json, Row

SEED = 0
TOOLS = {
    "heatc": "heatc.tools.main",
    "heatc-opt": "heatc.tools.opt",
    "heatc-tune": "heatc.tools.tune",
    "heatc-report": "heatc.tools.report",
    "heatc-export": "heatc.tools.export",
    "hdp-run": "heatc.tools.run",
    "hdp-objdump": "heatc.tools.objdump",
    "hdp-as": "heatc.tools.assemble",
}


def chain_part(folder: Path) -> Part:
    """README's chain on two models."""
    found = Part()
    for name, make in chain.MODELS.items():
        place = folder / name.partition(",")[0]
        place.mkdir()
        make(place)
        ran = list(chain.run(place))
        right = sum(command.code == 0 for command in ran)
        what = f"README's chain, copied line by line, {name}: commands that end 0, of {len(chain.lines())}"
        found.rows.append(Row(what, right, "commands", len(chain.lines()), ">="))
        found.tables[f"chain: {name}"] = [
            {"command": c.line, "exit_code": c.code, "seconds": round(c.seconds, 1)} for c in ran
        ]
        for command in ran:
            if command.code:
                print(f"{command.line} ended with {command.code}:\n{command.said}", file=sys.stderr)
        _exported(place, name, found)
    return found


def _exported(place: Path, name: str, found: Part) -> None:
    """What heatc-export measured of its own files, against the plan's NumPy program."""
    path = place / "exported" / "export.json"
    if not path.is_file():
        return
    for form, error in json.loads(path.read_text(encoding="utf-8"))["largest_difference"].items():
        what = f"exported {form} against the plan's NumPy program, {name}: largest difference"
        found.rows.append(Row(what, error, "absolute", 1e-4, "<="))


def demo_part(folder: Path) -> Part:
    """`make demo` from an empty cache of features, and the page that it makes."""
    place = folder / "demo"
    cache = folder / "cache"
    cache.mkdir()
    (cache / "heatc").mkdir()
    (cache / "heatc" / "data").symlink_to(data.cache_folder())
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "demo.py"), str(place)],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(f"the demo ended with {done.returncode}: {done.stderr[-2000:]}")
    print(done.stdout)
    rows = [
        Row("make demo after set-up, features computed anew", seconds, "s", 120, "<="),
        Row(
            "make demo: accuracy, EDP and report in it",
            _has_all(done.stdout, place),
            "yes = 1",
            1,
            ">=",
        ),
    ]
    with browser.chromium() as opened:
        page = browser.measured(opened, place / "report.html")
    rows += [
        Row("report page of the demo: size", page["bytes"] / 1e6, "MB", 5, "<="),
        Row("report page of the demo: renders, all pictures", page["drawn_ms"] / 1e3, "s", 2, "<="),
        Row("report page of the demo: console errors", page["complaints"], "errors", 0, "<="),
        Row(
            "report page of the demo: requests that leave it", page["requests"], "requests", 0, "<="
        ),
    ]
    return Part(rows)


def _has_all(text: str, place: Path) -> int:
    return int("accuracy" in text and "EDP" in text and (place / "report.html").is_file())


def pace_part(folder: Path) -> Part:
    """First output and silence of the commands that take long, on MiniLM."""
    place = folder / "pace"
    place.mkdir()
    chain.minilm(place)
    text = ["--tokenizer", "model", "--length", "64", "--limit", "512"]
    longer = "input_ids=1x128:i64,attention_mask=1x128:i64"
    commands: dict[str, tuple[str, list[str]]] = {
        "heatc-tune data": ("tune", ["data", "--text", "train.csv", *text, "-o", "train.npz"]),
        "heatc -o model.py": ("main", ["model", "--inputs", longer, "-o", "model.py"]),
        "heatc -o model.hdp": ("main", ["model", "--inputs", longer, "-o", "model.hdp"]),
        "hdp-run": ("run", ["model.hdp", "--inputs", "run.npz", "-o", "out.npz"]),
        "heatc-tune calibrate": (
            "tune",
            [
                "calibrate",
                "model",
                "--data",
                "train.npz",
                "--goal",
                "sparsity>=0.5",
                "-o",
                "c.json",
            ],
        ),
        "heatc-tune search": (
            "tune",
            ["search", "model", "--data", "train.npz", "--hw", "hdp-edge-vector", "-o", "front"],
        ),
        "heatc-tune distill": (
            "tune",
            [
                "distill",
                "model",
                "--plan",
                "front/03.json",
                "--data",
                "train.npz",
                "--epochs",
                "1+1",
                "-o",
                "d.json",
            ],
        ),
        "heatc-tune eval": ("tune", ["eval", "model", "front/03.json", "--data", "train.npz"]),
        "heatc-export": ("export", ["model", "--plan", "d.json", "-o", "exported"]),
    }
    found: list[Json] = []
    firsts, silences = [0.0], [0.0]
    for name, (tool, arguments) in commands.items():
        if name == "hdp-run":
            _pad(place / "train.npz", place / "run.npz", 128, 32)
        measured = pace.pace(f"heatc.tools.{tool}", arguments, place)
        found.append(
            {"command": name, **{f"{k}_s": round(v, 2) for k, v in measured._asdict().items()}}
        )
        firsts.append(measured.first)
        silences.append(measured.silence)
    rows = [
        Row("first output or progress of any command", max(firsts), "s", 2, "<="),
        Row("then at least every: longest silence of any command", max(silences), "s", 10, "<="),
    ]
    return Part(rows, {"pace: MiniLM": found})


def _pad(source: Path, target: Path, length: int, count: int) -> None:
    """The first samples of a file, padded to a length."""
    import numpy as np

    with np.load(source) as arrays:
        longer = {
            name: np.pad(arrays[name][:count], ((0, 0), (0, length - arrays[name].shape[1])))
            for name in ("input_ids", "attention_mask")
        }
    with target.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **longer)


def help_part(folder: Path) -> Part:
    """Start-up of every `--help`."""
    from heatc.tools.tune import COMMANDS

    asked = {name: (module, ["--help"]) for name, module in TOOLS.items()}
    asked |= {f"heatc-tune {c}": ("heatc.tools.tune", [c, "--help"]) for c in COMMANDS}
    seconds = {name: pace.startup(*what) for name, what in asked.items()}
    slowest = max(seconds, key=lambda name: seconds[name])
    row = Row(f"startup of every --help, the slowest: {slowest}", seconds[slowest], "s", 0.3, "<=")
    table: list[Json] = [{"command": name, "seconds": round(s, 3)} for name, s in seconds.items()]
    return Part([row], {"help: start-up": table})


PARTS: dict[str, Callable[[Path], Part]] = {
    "chain": chain_part,
    "demo": demo_part,
    "pace": pace_part,
    "help": help_part,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for; 0 if every goal is reached."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description="what a user meets")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="one part alone")
    parser.add_argument("--no-write", action="store_true", help="print the rows alone")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="heatc-people-") as name:
        folder = Path(name)
        chosen = {part: PARTS[part] for part in options.only or PARTS}
        try:
            found = parts.run({k: lambda run=run: run(folder) for k, run in chosen.items()})
        except (data.MissingError, RuntimeError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    rows = [row for part in found.values() for row in part.rows]
    report.show(rows, Console())
    if not options.no_write:
        origin = report.provenance(" ".join(["python bench/people.py", *words]), SEED)
        parts.merge(report.RESULTS / "people.json", found, list(PARTS), origin)
    return int(not all(row.holds for row in rows))


if __name__ == "__main__":
    sys.exit(main())
