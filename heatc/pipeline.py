"""
The named pass pipelines and how they are run.

`pipeline(options)` is what the driver runs, `pipeline_text` the same as `heatc-opt -p` takes it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.transforms import get_all_passes
from xdsl.utils.arg_spec import ArgSpec, parse_pipeline

from heatc.dialects import attn
from heatc.files import atomic_write, make_folder
from heatc.heat.options import PassOptions, Value
from heatc.kinds import IR
from heatc.names import phase_file
from heatc.rules import Rule, spelling
from heatc.universe import HEATC_UNIVERSE

RAISE = ("canonicalize", "raise-attention", "raise-einsum", "cse", "dce", "pack-tokens", "dce")
PATHS = ("order-contractions", "lower-contractions")

_NAME = re.compile(r"(?!(true|false)$)[A-Za-z_][A-Za-z0-9_-]*")
"""A text that needs no quotes in a pipeline."""


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
    heat: PassOptions | None = None
    padding: str = "skip"


def pipeline(options: Options) -> tuple[ArgSpec, ...]:
    """The passes with what each is told: values as they are, whatever they hold."""
    specs = [ArgSpec(name, {}) for name in RAISE]
    if options.padding != "skip":
        told: PassOptions = {"padding": (options.padding,)}
        specs = [ArgSpec(s.name, told) if s.name == "pack-tokens" else s for s in specs]
    if options.heat is not None:
        specs.append(ArgSpec("heat-decompose", options.heat))
    specs += [_order_contractions(options), ArgSpec(PATHS[1], {})]
    if options.hw is None:
        if options.level > 0:
            specs += [ArgSpec("fuse-projections", {}), ArgSpec("dce", {})]
        return (*specs, _fuse_einsums(options))
    hw: PassOptions = {"hw": (options.hw,)}
    return (
        *specs,
        _fuse_einsums(options),
        ArgSpec("shape-products", {}),
        ArgSpec("fold-weights", {}),
        _insert_hdp(options),
        ArgSpec("partition-host", {}),
        ArgSpec("assign-fixed-point", {}),
        ArgSpec("tile-for-hdp", hw),
        ArgSpec("lower-to-hdp", {}),
        ArgSpec("allocate-buffers", hw),
    )


def _insert_hdp(options: Options) -> ArgSpec:
    """The pass that chooses how attention is computed, with its options."""
    if options.plan is not None:
        return ArgSpec("insert-hdp", {"plan": (options.plan,)})
    told: PassOptions = {"rule": (options.rule.name,)}
    for name, value in options.rule.options.items():
        told[spelling(name)] = value if isinstance(value, tuple) else (value,)
    return ArgSpec("insert-hdp", told)


def _order_contractions(options: Options) -> ArgSpec:
    """The pass that chooses contraction paths: those of least energy x latency on a machine."""
    if options.hw is None:
        return ArgSpec(PATHS[0], {})
    told: PassOptions = {"objective": ("edp",), "hw": (options.hw,)}
    return ArgSpec(PATHS[0], {**told, "search": ("long",)} if options.level > 2 else told)


def _fuse_einsums(options: Options) -> ArgSpec:
    """The pass that keeps results between the steps of a layer on the chip, with its options."""
    told: PassOptions = {} if options.hw is None else {"hw": (options.hw,)}
    return ArgSpec(
        "fuse-einsums", told if options.plan is None else {**told, "plan": (options.plan,)}
    )


def pipeline_text(options: Options) -> str:
    """The pipeline as `heatc-opt -p` takes it."""
    return ",".join(map(_spelled, pipeline(options)))


def _spelled(spec: ArgSpec) -> str:
    words = [f"{k}={','.join(map(_spelled_value, v))}" for k, v in spec.parameters.items()]
    return f"{spec.name}{{{' '.join(words)}}}" if words else spec.name


def _spelled_value(value: Value) -> str:
    """A value of a pass option as text; numbers of pass options have no exponents."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value if _NAME.fullmatch(value) else _quoted(value)
    if isinstance(value, int):
        return str(value)
    text = format(Decimal(repr(value)), "f")
    return text if "." in text else f"{text}.0"


def _quoted(text: str) -> str:
    for letter, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n")):
        text = text.replace(letter, escaped)
    return f'"{text}"'


def pass_names(options: Options) -> list[str]:
    """The names of the pipeline's passes, in order."""
    return [spec.name for spec in pipeline(options)]


def build(specs: str | Iterable[ArgSpec]) -> tuple[ModulePass, ...]:
    """
    The passes of a pipeline, or of its text.

    Raises `ValueError` for an unknown pass or option, `ArgSpecParseError` for a malformed text.
    """
    known = {**get_all_passes(), **HEATC_UNIVERSE.all_passes}
    specs = tuple(parse_pipeline(specs) if isinstance(specs, str) else specs)
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
class CountAttentions(Instrument):
    """How many attentions a module has where their rules are chosen."""

    count: int = 0

    def before(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Count before they are written in parts."""
        if pass_.name == "insert-hdp":
            self.count = sum(isinstance(op, attn.SdpaOp) for op in module.walk())


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
