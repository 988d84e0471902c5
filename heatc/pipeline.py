"""How passes are spelled, built, run and watched; which ones are run is a target's to say."""

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
from xdsl.utils.arg_spec import ArgSpec, parse_pipeline

from heatc.dialects import attn
from heatc.files import make_folder, together
from heatc.heat.options import Value
from heatc.ir_errors import naming_pass
from heatc.ir_weights import weights_read, write_weights
from heatc.kinds import IR
from heatc.names import ir_weights_file, phase_file
from heatc.passed import name_of, passed, record
from heatc.universe import known_passes
from heatc.verifier import Verifier
from heatc.weights import WeightStore

_NAME = re.compile(r"(?!(true|false)$)[A-Za-z_][A-Za-z0-9_-]*")
"""A text that needs no quotes in a pipeline."""


def spelled(specs: Iterable[ArgSpec]) -> str:
    """A pipeline as `heatc-opt -p` takes it."""
    return ",".join(map(_spelled, specs))


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


def build(specs: str | Iterable[ArgSpec]) -> tuple[ModulePass, ...]:
    """
    The passes of a pipeline, or of its text.

    Raises `ValueError` for an unknown pass or option, `ArgSpecParseError` for a malformed text.
    """
    known = known_passes()
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


class RecordPasses(Instrument):
    """Notes on the module which passes it has been through, so that a text of it can go on."""

    def after(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Note the pass."""
        record(module, spelled([pass_.pipeline_pass_spec()]))


@dataclass
class DumpPhases(Instrument):
    """
    Writes the IR after every pass to `folder/NN-pass.mlir`, `00-captured.mlir` first.

    With `weights` what a phase reads lies beside it, see `heatc.ir_weights`. What was read from a
    text goes on with its number.
    """

    folder: Path
    weights: WeightStore | None = None
    _count: int = 0
    _begun: bool = False
    _added: int = 0

    def before(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Write what the first pass is given, once."""
        if self._begun:
            return
        self._begun = True
        make_folder(self.folder)
        behind = passed(module)
        self._count = len(behind)
        names = [] if self.weights is None else weights_read(module, self.weights)
        self._write(name_of(behind[-1]) if behind else "captured", module, names)

    def after(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Write the result of a pass."""
        added = () if self.weights is None else self.weights.added
        self._write(pass_.name, module, added[self._added :])
        self._added = len(added)

    def _write(self, name: str, module: ModuleOp, weights: Sequence[str]) -> None:
        path = self.folder / phase_file(self._count, name)
        with together() as files:
            if self.weights is not None and weights:
                write_weights(files.open(ir_weights_file(path)), self.weights, weights)
            files.open(path, "w").write(f"{IR.line()}{module!s}\n")
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
    verifier = Verifier(module)
    verifier.changed()
    for number, pass_ in enumerate(passes, 1):
        if progress is not None:
            progress(pass_.name)
        for watcher in watchers:
            watcher.before(pass_, module)
        with naming_pass(pass_.name):
            pass_.apply(ctx, module)
            if number < len(passes):
                verifier.changed()
            else:
                verifier.everything()
        for watcher in watchers:
            watcher.after(pass_, module)
