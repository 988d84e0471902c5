"""
Time against ops: every step of a compilation, on models of 500 to 8,000 ops.

    python bench/scaling.py                    writes bench/results/scaling.json
    python bench/scaling.py --quick            few ops; writes nothing
    python bench/scaling.py --only layers      one family (see --help); writes nothing

Three families of models are compiled for both targets: encoder layers one after the other, one
long chain of sums, and many linears of one value. A step is capture (from an archive, without
torch), a pass, the verification of the module after it, or writing the program. Its exponent is
that of the power of ops that its CPU time grows with between the two largest models: 1 is linear.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from bench.main_job import quiet
from bench.support import report
from bench.support.parts import Part
from bench.support.report import Json, Row
from heatc.api import Compilation, make_context
from heatc.targets import Hdp, Numpy, Options, Target

SIZES = (500, 1000, 2000, 4000, 8000)
QUICK = (125, 250, 500)
TARGETS: dict[str, tuple[Target, str]] = {"numpy": (Numpy(), "py"), "hdp-edge": (Hdp(), "hdp")}
WIDTH, HEADS, LENGTH, VOCABULARY = 8, 2, 8, 16
SEED = 0

MOST = 1.25
"""The largest exponent of what is not superlinear: n log n has 1.08 here, the rest is noise."""

LEAST_SECONDS = 0.25
"""A step that takes less on the largest model says nothing about how it grows."""


class _Embedded(nn.Module):
    """Embeddings and a norm, what each family begins with."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.norm(self.embedding(ids))


class _Layer(nn.Module):
    """One encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.norm, self.last = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2)

        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        y = nn.functional.scaled_dot_product_attention(q, k, v, keep)
        x = self.norm(x + self.o(y.transpose(1, 2).reshape(batch, length, WIDTH)))
        return self.last(x + self.down(nn.functional.gelu(self.up(x))))


class _Layers(nn.Module):
    """Layers one after the other."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.embedded = _Embedded()
        self.layer = nn.ModuleList(_Layer() for _ in range(count))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x, keep = self.embedded(input_ids), (attention_mask != 0)[:, None, None, :]
        for layer in self.layer:
            x = layer(x, keep)
        return x


class _Sums(nn.Module):
    """One chain of sums."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.embedded, self.head, self.count = _Embedded(), nn.Linear(WIDTH, WIDTH), count

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        y = x = self.embedded(input_ids)
        for _ in range(self.count):
            y = y + x
        return self.head(y)


class _Wide(nn.Module):
    """Many linears of one value, and their sum."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.embedded, self.last = _Embedded(), nn.LayerNorm(WIDTH)
        self.parts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(count))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.embedded(input_ids)
        found = [part(x) for part in self.parts]
        total = found[0]
        for y in found[1:]:
            total = total + y
        return self.last(total)


FAMILIES: dict[str, tuple[Callable[[int], nn.Module], int]] = {
    "layers": (_Layers, 33),
    "sums": (_Sums, 1),
    "wide": (_Wide, 4),
}
"""A model of some units, and the ops of a unit."""


@dataclass(frozen=True)
class Measured:
    """The CPU seconds of every step of one compilation, and the ops that capture gave."""

    ops: int
    seconds: Mapping[str, float]


def archive(family: str, ops: int, folder: Path) -> Path:
    """A model of about so many ops as a torch.export archive."""
    path = folder / f"{family}-{ops}.pt2"
    if path.exists():
        return path
    make, unit = FAMILIES[family]
    torch.manual_seed(SEED)
    ones = torch.ones(1, LENGTH, dtype=torch.long)
    inputs: dict[str, Any] = {"input_ids": ones, "attention_mask": ones.clone()}
    with torch.no_grad():
        model = make(max(2, ops // unit)).eval()
        exported = torch.export.export(model, (), kwargs=inputs, strict=False)
    torch.export.save(exported, path)
    return path


def measure(model: Path, target: str) -> Measured:
    """Compile an archive step by step."""
    chosen, suffix = TARGETS[target]
    compilation = Compilation(Options(chosen))
    seconds: defaultdict[str, float] = defaultdict(float)
    number: Counter[str] = Counter()

    def timed(name: str, step: Callable[[], object]) -> None:
        start = time.process_time()
        step()
        seconds[name] += time.process_time() - start

    timed("capture", lambda: compilation.capture(model))
    module, context = (
        compilation.module,
        make_context(compilation.weights, hardware=compilation.hardware),
    )
    ops = sum(1 for _ in module.walk())
    for pass_ in compilation.passes:
        number[pass_.name] += 1
        again = f" ({number[pass_.name]})" if number[pass_.name] > 1 else ""
        timed(f"{pass_.name}{again}", lambda p=pass_: p.apply(context, module))
        timed("verification of all", module.verify)
    form = "hdp" if suffix == "hdp" else "numpy"
    timed(f"write {form}", lambda: compilation.write(model.with_suffix(f".{suffix}"), form))
    return Measured(ops, seconds)


def exponent(step: str, found: Sequence[Measured]) -> float:
    """The power of ops that a step's time grows with between the two largest models."""
    before, after = found[-2], found[-1]
    ratio = after.seconds[step] / max(before.seconds[step], 1e-6)
    return math.log(max(ratio, 1e-6)) / math.log(after.ops / before.ops)


def family_part(family: str, sizes: Sequence[int], folder: Path) -> Part:
    """One family on both targets."""
    part = Part()
    for target in TARGETS:
        with quiet():
            found = [measure(archive(family, ops, folder), target) for ops in sizes]
        steps = list(found[-1].seconds)
        grown = {step: exponent(step, found) for step in steps}
        telling = [s for s in steps if found[-1].seconds[s] >= LEAST_SECONDS]
        worst = max(telling, key=lambda s: grown[s], default=steps[0])
        what = f"no pass is superlinear in ops: {family}, {target}, {found[-1].ops} ops"
        part.rows.append(Row(f"{what}: largest exponent", grown[worst], "power of ops", MOST, "<="))
        table: list[Json] = [
            {
                "step": step,
                **{f"{m.ops} ops, s": m.seconds[step] for m in found},
                "exponent": grown[step],
            }
            for step in steps
        ]
        part.tables[f"{family}: {target}"] = table
        show(f"{family}, {target}: CPU seconds by ops", found, grown)
    return part


def show(title: str, found: Sequence[Measured], grown: Mapping[str, float]) -> None:
    """Prints one table of steps over ops."""
    table = Table("step", *(str(m.ops) for m in found), "exponent", title=title)
    for step, power in grown.items():
        table.add_row(step, *(f"{m.seconds[step]:.3f}" for m in found), f"{power:.2f}")
    Console().print(table)


def main(arguments: Sequence[str]) -> int:
    """Runs the families asked for; 0 if every row holds."""
    parser = argparse.ArgumentParser(description="CPU time against ops, step by step")
    parser.add_argument("--only", action="append", choices=list(FAMILIES), help="one family alone")
    parser.add_argument("--quick", action="store_true", help="few ops")
    parser.add_argument("-o", "--output", type=Path, help="default for a whole run only")
    options = parser.parse_args(arguments)
    whole = not options.only and not options.quick
    output = options.output or (report.RESULTS / "scaling.json" if whole else None)
    total = Part()
    with tempfile.TemporaryDirectory(prefix="heatc-scaling-") as folder:
        for family in options.only or FAMILIES:
            part = family_part(family, QUICK if options.quick else SIZES, Path(folder))
            total.rows += part.rows
            total.tables |= part.tables
    report.show(total.rows)
    if output is not None:
        command = " ".join(["python bench/scaling.py", *arguments])
        report.write(output, total.rows, total.tables, report.provenance(command, SEED))
    return int(not all(row.holds for row in total.rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
