"""
What a target is: its forms of output, its passes, and how it writes a program.

All targets share the way from the captured to the contracted level (`shared_passes`); a target adds
what follows, and declares the files that it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.arg_spec import ArgSpec

from heatc.hardware import Hardware
from heatc.heat.options import PassOptions
from heatc.kinds import Kind
from heatc.pass_text import Insertion
from heatc.plan import Plan
from heatc.rules import Rule, spelling, written
from heatc.weights import WeightStore

if TYPE_CHECKING:
    from heatc.verify.programs import CheckedProgram

RAISE = (
    "canonicalize",
    "cse",
    "fold-constants",
    "raise-attention",
    "raise-einsum",
    "cse",
    "dce",
    "raise-activations",
    "pack-tokens",
    "dce",
)
PATHS = ("order-contractions", "lower-contractions")


@dataclass(frozen=True)
class Form:
    """
    A form of output: its name, the suffix of its file, and what the file is.

    `beside` are the files that appear with it. A text may go to standard output.
    """

    name: str
    suffix: str
    kind: Kind
    is_text: bool = False
    beside: Callable[[Path], Iterable[tuple[Path, Kind]]] = lambda path: ()
    has_factors: bool = False
    """Whether factors lie in a file beside it: it has no place for them."""
    has_weights: bool = False
    """Whether all weights lie there."""


@dataclass(frozen=True)
class Options:
    """
    What the user asked for, as far as it decides the passes.

    `rule` is the pruning rule of every attention; `plan` says it for each instead, and
    how weights are factorised. `heat` is what `heat-decompose` is told, None where weights stay as they are,
    `calibrate` the path of the inputs that factors are found on. `level` is
    -O0..-O3; no level changes what is computed, -O3 searches longer for contraction paths. `padding`
    is what becomes of masked positions, see `heatc.passes.pack_tokens`. `input_range` declares how large
    inputs are, see `heatc.passes.fixing.inputs`. `pipeline` are the passes
    themselves, instead of those that follow from all this; `inserted` are more of them.
    """

    target: Target
    rule: Rule = field(default_factory=Rule)
    plan: Plan | None = None
    level: int = 2
    heat: PassOptions | None = None
    calibrate: str | None = None
    padding: str = "skip"
    pipeline: Sequence[ArgSpec] | None = None
    inserted: Sequence[Insertion] = ()
    input_range: Sequence[str] = ()


Check = Callable[[Callable[[], "CheckedProgram"] | None], None]
"""
Runs a program that nobody else can see yet against the model.

It takes a function that opens the program, or None where what was written cannot be run; a wrong
program is a `VerificationError`.
"""


@dataclass(frozen=True)
class Result:
    """What the passes left: a module and its weights, and where both come from."""

    module: ModuleOp
    weights: WeightStore
    options: Options
    source: str
    """The name that the model came by."""
    hardware: Hardware | None = None
    """The machine of the target, None where it has none."""
    echo: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What a program may say of how it was made: the pass pipeline, the rule."""


@runtime_checkable
class Target(Protocol):
    """Something that programs are compiled for."""

    @property
    def name(self) -> str:
        """As `--target` takes it."""
        ...

    @property
    def summary(self) -> str:
        """One line for `--list-targets`."""
        ...

    @property
    def forms(self) -> Sequence[Form]:
        """The forms of a program, the usual one first; `ir` is everybody's and not among them."""
        ...

    @property
    def hw(self) -> str | None:
        """The preset or file of the machine whose costs decide, None where there is none."""
        ...

    @property
    def prunes(self) -> bool:
        """Whether attention can have a pruning rule."""
        ...

    def passes(self, options: Options) -> Sequence[ArgSpec]:
        """The passes that follow those of all targets."""
        ...

    def write(self, result: Result, form: str, output: Path | None, check: Check) -> None:
        """
        Write a program in a form, atomically; a text goes to standard output where there is no file.

        `check` is called once, before anybody sees the program.
        """
        ...


def shared_passes(options: Options) -> tuple[ArgSpec, ...]:
    """The passes that every target begins with."""
    specs = [ArgSpec(name, {}) for name in RAISE]
    if options.padding != "skip":
        told: PassOptions = {"padding": (options.padding,)}
        specs = [ArgSpec(s.name, told) if s.name == "pack-tokens" else s for s in specs]
    if options.plan is not None:
        specs.append(ArgSpec("apply-plan", {}))
    if options.heat is not None:
        specs.append(ArgSpec("heat-decompose", options.heat))
    return (*specs, _order_contractions(options), ArgSpec(PATHS[1], {}))


def _order_contractions(options: Options) -> ArgSpec:
    """The pass that chooses contraction paths: those of least energy x latency on a machine."""
    if options.target.hw is None:
        return ArgSpec(PATHS[0], {})
    told: PassOptions = {"objective": ("edp",)}
    return ArgSpec(PATHS[0], {**told, "search": ("long",)} if options.level > 2 else told)


def insert_hdp(options: Options) -> ArgSpec:
    """The pass that chooses how attention is computed, with its options."""
    if options.plan is not None:
        return ArgSpec("insert-hdp", {})  # the attentions have their rules
    told: PassOptions = {"rule": (options.rule.name,)}
    own = dict(options.rule.own)
    for name, value in options.rule.options.items():
        if name not in own:
            told[spelling(name)] = value if isinstance(value, tuple) else (value,)
    if own:
        told["own"] = tuple(f"{spelling(n)}={written(v)}" for n, v in own.items())
    return ArgSpec("insert-hdp", told)
