"""
The named pass pipelines and how they are run.

`pipeline_text(options)` is what `heatc-opt -p` takes; the driver runs nothing else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.transforms import get_all_passes
from xdsl.utils.arg_spec import parse_pipeline

from heatc.files import atomic_write, make_folder
from heatc.kinds import IR
from heatc.names import phase_file
from heatc.rules import Rule, spelling
from heatc.universe import HEATC_UNIVERSE

RAISE = ("canonicalize", "raise-attention", "raise-einsum", "cse", "dce", "pack-tokens", "dce")
PATHS = ("order-contractions", "lower-contractions")


@dataclass(frozen=True)
class Options:
    """
    What the user asked for, as far as it decides the pipeline.

    `hw` is the name of a preset or the path of a YAML file, None for the NumPy target. `rule` is
    the pruning rule of every attention; `plan` the path of a plan that says it for each instead.
    `heat` is what `heat-decompose` is told, None where weights stay as they are. `level` is
    -O0..-O3; no level changes what is computed, -O3 searches longer for contraction paths. `padding`
    is what becomes of masked positions, see `heatc.passes.pack_tokens`.
    """

    hw: str | None = None
    rule: Rule = field(default_factory=Rule)
    plan: str | None = None
    level: int = 2
    heat: str | None = None
    padding: str = "skip"


def _spelled(value: Any) -> str:
    """A pass option that reads back as `value`; numbers of pass options have no exponents."""
    if isinstance(value, tuple):
        return ",".join(_spelled(v) for v in cast("tuple[Any, ...]", value))
    if not isinstance(value, float):
        return str(value)
    text = format(Decimal(repr(value)), "f")
    return text if "." in text else f"{text}.0"


def _quoted(path: str) -> str:
    """A path as a string of a pass option."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _insert_hdp(options: Options) -> str:
    """The pass that chooses how attention is computed, with its options."""
    if options.plan is not None:
        return f"insert-hdp{{plan={_quoted(options.plan)}}}"
    words = [f"rule={options.rule.name}"]
    words += [f"{spelling(k)}={_spelled(v)}" for k, v in options.rule.options.items()]
    return f"insert-hdp{{{' '.join(words)}}}"


def _order_contractions(options: Options) -> str:
    """The pass that chooses contraction paths: those of least energy x latency on a machine."""
    if options.hw is None:
        return PATHS[0]
    search = " search=long" if options.level > 2 else ""
    return f'order-contractions{{objective=edp hw="{options.hw}"{search}}}'


def _fuse_einsums(options: Options) -> str:
    """The pass that keeps results between the steps of a layer on the chip, with its options."""
    words = [] if options.hw is None else [f'hw="{options.hw}"']
    words += [] if options.plan is None else [f"plan={_quoted(options.plan)}"]
    return f"fuse-einsums{{{' '.join(words)}}}" if words else "fuse-einsums"


def pipeline_text(options: Options) -> str:
    """The pipeline as `heatc-opt -p` takes it."""
    pack = (
        "pack-tokens" if options.padding == "skip" else f"pack-tokens{{padding={options.padding}}}"
    )
    passes = [pack if name == "pack-tokens" else name for name in RAISE]
    if options.heat is not None:
        passes.append(f"heat-decompose{{{options.heat}}}")
    passes += [_order_contractions(options), PATHS[1]]
    if options.hw is None:
        if options.level > 0:
            passes += ["fuse-projections", "dce"]
        return ",".join([*passes, _fuse_einsums(options)])
    passes += [
        _fuse_einsums(options),
        "shape-products",
        "fold-weights",
        _insert_hdp(options),
        "partition-host",
        "assign-fixed-point",
        f'tile-for-hdp{{hw="{options.hw}"}}',
        "lower-to-hdp",
        f'allocate-buffers{{hw="{options.hw}"}}',
    ]
    return ",".join(passes)


def pass_names(options: Options) -> list[str]:
    """The names of the pipeline's passes, in order."""
    return [spec.name for spec in parse_pipeline(pipeline_text(options))]


def build(text: str) -> tuple[ModulePass, ...]:
    """The passes of a pipeline text; raises `ValueError` for an unknown pass or option."""
    known = {**get_all_passes(), **HEATC_UNIVERSE.all_passes}
    specs = list(parse_pipeline(text))
    unknown = [spec.name for spec in specs if spec.name not in known]
    if unknown:
        raise ValueError(f"unknown pass {unknown[0]!r}")
    return tuple(known[spec.name]().from_pass_spec(spec) for spec in specs)


class Instrument:
    """Watches a pipeline; the methods of this base class do nothing."""

    def before(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Called before a pass runs."""

    def after(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Called after a pass ran and the module was verified."""


@dataclass
class DumpPhases(Instrument):
    """Writes the IR after every pass to `folder/NN-pass.mlir`, `00-captured.mlir` first."""

    folder: Path
    _count: int = 0

    def before(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Write what capture gave, once."""
        if self._count == 0:
            make_folder(self.folder)
            self._write("captured", module)

    def after(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Write the result of a pass."""
        self._write(pass_.name, module)

    def _write(self, name: str, module: ModuleOp) -> None:
        with atomic_write(self.folder / phase_file(self._count, name), "w") as stream:
            stream.write(f"{IR.line()}{module!s}\n")
        self._count += 1


@dataclass
class PrintAfter(Instrument):
    """Prints the IR to stderr after the named passes, or after all."""

    names: frozenset[str]
    everything: bool = False

    def after(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Print where asked for."""
        if self.everything or pass_.name in self.names:
            print(f"// IR after {pass_.name}:\n{module!s}", file=sys.stderr)


@dataclass
class Timing(Instrument):
    """Seconds per pass, verification included."""

    seconds: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    _start: float = 0.0

    def before(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def after(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Stop it."""
        self.seconds.append((pass_.name, time.perf_counter() - self._start))


def run_passes(
    ctx: Context,
    module: ModuleOp,
    passes: Sequence[ModulePass],
    instruments: Iterable[Instrument] = (),
    progress: Callable[[str], None] | None = None,
) -> None:
    """Run passes in order, verifying the module before the first and after each."""
    watchers = tuple(instruments)
    module.verify()
    for pass_ in passes:
        if progress is not None:
            progress(pass_.name)
        for watcher in watchers:
            watcher.before(pass_, module)
        pass_.apply(ctx, module)
        module.verify()
        for watcher in watchers:
            watcher.after(pass_, module)
