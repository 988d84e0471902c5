"""What a compilation makes of a model: parameters, factors, pruning rules, widths; noted on its way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from heatc.dialects import nn
from heatc.dialects.attn_pruned import PrunedOp
from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.dialects.fixed import QType
from heatc.heat.formats import parse_shape
from heatc.passed import name_of, passed
from heatc.passes.analysis.counts import Counts, count
from heatc.passes.factorising.emit import factors_path
from heatc.passes.rewriting import module_path
from heatc.pipeline import Instrument
from heatc.tools.summary.keys import COUNTED, TOLD, Key, Section

DECIDING = ("apply-plan", "heat-decompose", "order-contractions")
"""The passes before which a module is still the dense model, with every product written as one."""


@dataclass(frozen=True)
class FactorisedLayer:
    """
    A layer whose weight became factors.

    `error` is relative, of the layer's output on the calibration inputs (of the weight where there
    were none); parameters are those of the weight, without a bias.
    """

    path: str
    format: str
    shape: str
    ranks: tuple[int, ...]
    error: float
    dense_parameters: int
    parameters: int


@dataclass(frozen=True)
class PrunedAttention:
    """An attention with a rule that leaves something out, and what the rule is told."""

    path: str
    rule: str
    options: Mapping[str, Any]


@dataclass
class Changes(Instrument):
    """
    Watches the passes of a compilation.

    Attributes:
        captured: the module as it was captured, None where a text begins behind a decision.
        dense: counts of the model before anything is decided, None as above.
        compiled: counts of what is left of it.
        layers, attentions: what was factorised and pruned.
        widths: how many weights have so many bits, on targets with fixed point.
    """

    captured: ModuleOp | None = None
    dense: Counts | None = None
    compiled: Counts | None = None
    layers: list[FactorisedLayer] = field(default_factory=list[FactorisedLayer])
    attentions: list[PrunedAttention] = field(default_factory=list[PrunedAttention])
    widths: Mapping[int, int] = field(default_factory=dict[int, int])
    _begun: bool = False

    def before(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Keep what was captured; count the dense model where the first decision follows."""
        if not self._begun:
            self._begun = True
            is_behind = {name_of(text) for text in passed(module)} & set(DECIDING)
            self.captured = None if is_behind else module.clone()
        if pass_.name in DECIDING and self.dense is None and self.captured is not None:
            self.dense = count(module)

    def after(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Note what a pass decided."""
        match pass_.name:
            case "heat-decompose":
                self.layers += _factorised(module)
            case "lower-contractions":
                self.compiled = count(module)
            case "insert-hdp":
                self.attentions += _pruned(module)
            case "assign-fixed-point":
                self.widths = _widths(module)
            case _:
                return

    @property
    def is_dense(self) -> bool:
        """Whether the program is the dense model."""
        return not self.layers and not self.attentions


def _factorised(module: ModuleOp) -> list[FactorisedLayer]:
    found: list[FactorisedLayer] = []
    for op in module.walk():
        if not isinstance(op, ContractOp) or op.decomposition is None:
            continue
        format_, shape, ranks, error = op.decomposition.data
        inputs, outputs = parse_shape(shape)
        weights = [v.owner for v in op.inputs if isinstance(v.owner, WeightOp)]
        factors = sum(math.prod(nn.shape_of(weight.result)) for weight in weights)
        dense = math.prod(inputs) * math.prod(outputs)
        made = (format_, shape, tuple(ranks), error, dense, factors)
        found.append(FactorisedLayer(factors_path(op), *made))
    return found


def _pruned(module: ModuleOp) -> list[PrunedAttention]:
    ops = [op for op in module.walk() if isinstance(op, PrunedOp)]
    rules = [(module_path(op), op.rule.rule) for op in ops]
    return [PrunedAttention(p, r.name, dict(r.options)) for p, r in rules if r.name != "none"]


def _widths(module: ModuleOp) -> Mapping[int, int]:
    """Weights by the bits of their elements."""
    weights = (op for op in module.walk() if isinstance(op, WeightOp))
    types = (weight.result.type.get_element_type() for weight in weights)
    return Counter(type_.width.data for type_ in types if isinstance(type_, QType))


# --- Keys -------------------------------------------------------------------------------------

FACTORISED: Section[FactorisedLayer] = Section(
    "factorised",
    "the layers whose weights became factors",
    (
        Key("path", "text", TOLD, "module path of the layer", lambda x: x.path),
        Key("format", "text", TOLD, "see heatc --list-formats", lambda x: x.format),
        Key("shape", "text", TOLD, "modes of the input and the output", lambda x: x.shape),
        Key("ranks_count", "count", COUNTED, "the ranks, in order", lambda x: list(x.ranks)),
        Key(
            "relative_error",
            "0 to 1",
            "compared",
            "of the layer's output on the calibration inputs, of the weight where there are none",
            lambda x: x.error,
        ),
        Key(
            "dense_parameters_count",
            "count",
            COUNTED,
            "elements of the weight",
            lambda x: x.dense_parameters,
        ),
        Key(
            "parameters_count", "count", COUNTED, "elements of the factors", lambda x: x.parameters
        ),
    ),
    is_list=True,
)

PRUNED: Section[PrunedAttention] = Section(
    "pruned",
    "the attentions that are pruned when the program runs; what is kept depends on its inputs",
    (
        Key("path", "text", TOLD, "module path of the attention", lambda x: x.path),
        Key("rule", "text", TOLD, "see heatc --list-rules", lambda x: x.rule),
        Key("options", "object", TOLD, "what the rule is told", lambda x: x.options),
    ),
    is_list=True,
)

NARROWED: Section[Changes] = Section(
    "narrowed",
    "the fixed point of the program; null for a target that computes in floating point",
    (
        Key(
            "weights_by_width_count",
            "count",
            COUNTED,
            "weights by the bits of their elements",
            lambda x: {str(bits): number for bits, number in sorted(x.widths.items())},
        ),
    ),
)


def change_rows(changes: Changes) -> list[tuple[str, ...]]:
    """The rows of the table: a line for each kind of change."""
    return [*_factor_rows(changes.layers), *_rule_rows(changes.attentions), *_width_rows(changes)]


def _factor_rows(layers: Sequence[FactorisedLayer]) -> list[tuple[str, ...]]:
    if not layers:
        return [("factorised", "no layer")]
    formats = Counter(layer.format for layer in layers)
    words = ", ".join(f"{name} {_ranks(layers, name)}" for name in formats)
    share = sum(x.parameters for x in layers) / sum(x.dense_parameters for x in layers)
    text = (
        f"{_many(len(layers), 'layer')}: {words}; {100 * share:.1f} % of their parameters are left"
    )
    return [("factorised", text)]


def _ranks(layers: Sequence[FactorisedLayer], name: str) -> str:
    own = [layer for layer in layers if layer.format == name]
    inner = [rank for layer in own for rank in layer.ranks]
    ranks = f"{min(inner)} to {max(inner)}" if min(inner) < max(inner) else str(min(inner))
    return f"({len(own)}, ranks {ranks})"


def _rule_rows(attentions: Sequence[PrunedAttention]) -> list[tuple[str, ...]]:
    if not attentions:
        return [("pruned", "no attention")]
    rules = Counter(attention.rule for attention in attentions)
    words = [f"rule {name}{_told(attentions, name)}" for name in rules]
    text = f"{_many(len(attentions), 'attention')}: {', '.join(words)}"
    return [("pruned", f"{text}; how much depends on the inputs")]


def _told(attentions: Sequence[PrunedAttention], name: str) -> str:
    """The options of a rule, a range where attentions or heads differ."""
    own = [attention.options for attention in attentions if attention.rule == name]
    words = [f"{key} {_range([options[key] for options in own])}" for key in own[0]]
    return f" ({', '.join(words)})" if words else ""


def _range(values: Sequence[Any]) -> str:
    """What values of an option have in common; several of one attention are one a head, or an extent."""
    several: list[tuple[Any, ...]] = [v if isinstance(v, tuple) else (v,) for v in values]
    if all(one == several[0] for one in several) and len(several[0]) <= 2:
        return ",".join(map(str, several[0]))
    flat = [part for one in several for part in one]
    if all(isinstance(part, int | float) for part in flat):
        return f"{min(flat):g} to {max(flat):g}"
    return " or ".join(sorted(set(map(str, flat))))


def _width_rows(changes: Changes) -> list[tuple[str, ...]]:
    if not changes.widths:
        return [("narrowed", "nothing")]
    words = [
        f"{_many(number, 'weight')} of {bits} bits"
        for bits, number in sorted(changes.widths.items())
    ]
    return [("narrowed", f"to fixed point: {', '.join(words)}")]


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"
