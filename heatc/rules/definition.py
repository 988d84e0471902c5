"""
What a pruning rule is: its options, the ops that it writes, and what they mean.

A rule cannot add ops or instructions. It decides with those that there are, and any steps
that `heatc.passes.tiling.attention_parts` can read run on the machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeAlias

from heatc.extensions import Registry
from heatc.rules.options import OPTIONS, Option, RuleError, option_text, spelling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from xdsl.ir import Operation, SSAValue

Reals: TypeAlias = "NDArray[np.float64]"
Mask: TypeAlias = "NDArray[np.bool_]"


@dataclass(frozen=True)
class Rule:
    """
    A rule with all its options; those that the rule does not take hold their neutral values.

    Attributes:
        name: the rule.
        finer: bits by which the binary point of the integer part moves down.
        importance: what a score adds to its block.
        pruned_score: what a pruned score becomes.
        gated: what a pruned head puts out.
        rho_b: threshold ratio of blocks, one for all heads or one a head.
        tau_h: threshold of heads, one for all heads or one a head; none at 0 or below.
        density: share of each row's blocks that `topk` keeps.
        alpha: threshold ratios of the two rounds of `energon`.
        threshold: predicted probability that `sanger` keeps from, exclusive.
        ratio: share of heads that `spatten` prunes, in the mean over layers.
        block: rows and columns of a block of scores.
        own: the options that no other rule has, by name, in order.
    """

    name: str = "none"
    finer: int = 0
    importance: str = "abs"
    pruned_score: str = "neginf"
    gated: str = "zero"
    rho_b: tuple[float, ...] = (0.0,)
    tau_h: tuple[float, ...] = (0.0,)
    density: float = 1.0
    alpha: tuple[float, ...] = (0.0, 0.0)
    threshold: float = 0.0
    ratio: float = 0.0
    block: tuple[int, ...] = (2, 2)
    own: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, option: str) -> Any:
        """The value of an option, one of the rule's own too."""
        own = dict(self.own)
        return own[option] if option in own else getattr(self, option)

    @property
    def options(self) -> dict[str, Any]:
        """The options that the rule takes, by name, in their order."""
        return {name: self[name] for name in find_rule(self.name).defaults}

    def check_heads(self, heads: int) -> None:
        """Raise `RuleError` where a value per head is not one for each of `heads` heads."""
        for option in ("rho_b", "tau_h"):
            count = len(getattr(self, option))
            if count not in (1, heads):
                raise RuleError(option, f"{spelling(option)} has {count} values for {heads} heads")

    def __str__(self) -> str:
        """`paper (rho-b 0.25, tau-h 0, pruned-score zero, block 2x2)`."""
        texts = [f"{spelling(k)} {option_text(k, v)}" for k, v in self.options.items()]
        return f"{self.name} ({', '.join(texts)})" if texts else self.name


class Head(NamedTuple):
    """
    What a rule is told of one head of one sequence.

    Of the rows and keys at hand, (M, L): `bias` is added to scaled scores, and `visible` says which
    scores have a part in anything; None without masks of the model's own. `keyless` is what a row
    gives that sees no key (`attn.hide_scores`). Where different numbers hide, `level` is added behind that,
    and `least` hides once more.
    """

    rule: Rule
    rho_b: float
    tau_h: float
    bias: Reals | None = None
    visible: Mask | None = None
    keyless: str = "zero"
    least: Mask | None = None
    level: Reals | None = None
    least_keyless: str = "zero"

    @classmethod
    def of(cls, rule: Rule, head: int) -> Head:
        """The values of one head, which may be those of all."""
        return cls(rule, _of_head(rule.rho_b, head), _of_head(rule.tau_h, head))

    def shown(self, rows: int, keys: int) -> Mask:
        """What is visible, (M, L)."""
        # Imported here: rules are listed without NumPy.
        import numpy as np

        return np.ones((rows, keys), np.bool_) if self.visible is None else self.visible


class Cascade(NamedTuple):
    """
    What the layers before did to the heads of one sequence.

    Attributes:
        layer: which of the layers with the rule this is, from 0.
        layers: how many there are.
        put_out: what each head put out so far, the sum of its magnitudes.
        gone: the heads that are pruned already.
    """

    layer: int
    layers: int
    put_out: Sequence[float]
    gone: Sequence[int]


def _of_head(values: tuple[float, ...], head: int) -> float:
    return values[head % len(values)]


class Layer(NamedTuple):
    """An attention that has a rule: the rule with its options, and how many heads there are."""

    rule: Rule
    heads: int


class Parts(NamedTuple):
    """Queries and keys, split into integer and fraction parts."""

    q_integer: SSAValue
    q_fraction: SSAValue
    k_integer: SSAValue
    k_fraction: SSAValue


class LowBits(NamedTuple):
    """Codes of few bits of queries and keys, and the binary points of each."""

    q: SSAValue
    q_points: SSAValue
    k: SSAValue
    k_points: SSAValue


class Attention(Protocol):
    """
    The attention that a rule is to write: each step adds one op and gives its result.

    The steps are the ops of `heatc.dialects.attn`; docs/design/rules.md says what each computes.
    `finish` is called once.
    """

    heads: int
    layer: int
    """Which of the attentions with this rule it is, from 0 in program order."""
    layers: int
    """How many attentions have this rule."""
    memory: dict[str, SSAValue]
    """What the rule leaves for the attentions after this one."""

    def emit(self, op: Operation) -> SSAValue:
        """Add a step of `heatc.dialects.attn` that no method makes; its first result."""
        ...

    def scores(self) -> SSAValue:
        """All bits of all scores."""
        ...

    def split(self, finer: int) -> Parts:
        """Integer parts, whose binary point is `finer` bits down, and fraction parts."""
        ...

    def integer_scores(self, parts: Parts) -> SSAValue:
        """Scores of the integer parts."""
        ...

    def block_importance(
        self, integer: SSAValue, block: Sequence[int], importance: str
    ) -> SSAValue:
        """How much each block of integer scores counts."""
        ...

    def mean_filter(
        self,
        values: SSAValue,
        ratios: Sequence[float],
        block: Sequence[int],
        among: SSAValue | None = None,
    ) -> SSAValue:
        """A mask: the values of each row that reach a threshold made of its mean and its extremes."""
        ...

    def greatest(self, importance: SSAValue, density: float, block: Sequence[int]) -> SSAValue:
        """A mask: a share of each row's blocks, those of the greatest importance."""
        ...

    def head_gate(
        self,
        importance: SSAValue,
        thresholds: Sequence[float],
        block: Sequence[int],
        kind: str,
    ) -> SSAValue:
        """A gate: the heads whose mean importance, of a `kind`, reaches a threshold."""
        ...

    def merged(
        self,
        integer: SSAValue,
        parts: Parts,
        mask: SSAValue,
        block: Sequence[int],
        pruned_score: str,
    ) -> SSAValue:
        """Scores with fraction parts where the mask keeps them, else what pruned scores are."""
        ...

    def mean_query(self, scores: SSAValue, integer: SSAValue, gate: SSAValue) -> SSAValue:
        """Scores whose pruned heads have those of their mean query in every row."""
        ...

    def low_bits(self, bits: int) -> LowBits:
        """Codes of few bits, scaled by the largest of a sequence and head."""
        ...

    def low_scores(self, low: LowBits) -> SSAValue:
        """Scores of codes of few bits."""
        ...

    def scaled(self, scores: SSAValue, low: LowBits) -> SSAValue:
        """Scores of codes of few bits, as large as those of all bits."""
        ...

    def probabilities(self, scores: SSAValue) -> SSAValue:
        """The softmax of scores."""
        ...

    def likely(self, probabilities: SSAValue, threshold: float) -> SSAValue:
        """A mask: the scores whose probability is above a threshold."""
        ...

    def excluded(self, scores: SSAValue, mask: SSAValue) -> SSAValue:
        """Scores with -inf where the mask keeps none."""
        ...

    def head_ranking(
        self, importance: SSAValue, keep: int, gate: SSAValue | None = None
    ) -> SSAValue:
        """A gate: so many heads of the greatest importance, among those that `gate` keeps."""
        ...

    def finish(
        self, scores: SSAValue, gate: SSAValue | None = None, gated: str = "zero"
    ) -> SSAValue:
        """Softmax and weighted values; what pruned heads put out. The attention is replaced."""
        ...

    def head_importance(self, output: SSAValue, before: SSAValue | None = None) -> SSAValue:
        """What each head put out, added to that of the layers before; after `finish`."""
        ...


class PruningRule(ABC):
    """
    A pruning rule: one object of a class of its own.

    Attributes:
        name: as `--hdp-rule` and plan.json spell it.
        summary: one line for `--list-rules`.
        defaults: the options that it takes, with their defaults: of `heatc.rules.OPTIONS`, and all
            of its own.
        own: the options that no other rule has. A command gives them by `--rule-option`.
        ranks_heads: whether it compares heads over the layers that have it, which must then have
            the same heads and the same tokens.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}
    own: ClassVar[Mapping[str, Option]] = {}
    ranks_heads: ClassVar[bool] = False

    @abstractmethod
    def insert(self, attention: Attention, rule: Rule) -> None:
        """Write the ops of one attention, step by step, up to `attention.finish`."""

    @abstractmethod
    def attend(self, q: Reals, k: Reals, v: Reals, scale: float, head: Head) -> Reals:
        """
        What one head of one sequence computes, from the definition of the rule, on real numbers.

        q is (M, dim), k and v are (L, dim). The first L rows of q are those of the keys, on which
        alone heads are decided; the rest are masked positions that are read. `--execute-each`
        holds the ops of `insert` against it.
        """

    def prunes(self, layers: Sequence[Layer]) -> bool:
        """Whether it leaves out anything in some attentions, which are in program order."""
        return True

    def left_out(self, rule: Rule, cascade: Cascade) -> Sequence[int]:
        """The heads that are pruned before anything of a layer is computed."""
        return ()

    def with_options(self, given: Mapping[str, Any]) -> Rule:
        """The rule with some options, which were checked, and the defaults of the others."""
        values = {**self.defaults, **given}
        own = tuple((name, values.pop(name)) for name in self.own)
        return Rule(self.name, **values, own=own)

    def problem(self) -> str:
        """What is wrong with the definition itself, or nothing."""
        known = {**OPTIONS, **self.own}
        wrong = [name for name in self.defaults if name not in known]
        wrong += [name for name in self.own if name not in self.defaults]
        return f"has the option {wrong[0]!r} without a default or a meaning" if wrong else ""


RULE_NAMES = ("none", "paper", "ours", "topk", "energon", "sanger", "spatten")
"""heatc's own rules: `some-name` is the constant `RULE` of the module `heatc.rules.some_name`."""


def _own(name: str) -> Callable[[], PruningRule]:
    def load() -> PruningRule:
        return import_module(f"heatc.rules.{name.replace('-', '_')}").RULE

    return load


RULES = Registry(
    "heatc.rules",
    "the pruning rule",
    PruningRule,
    {name: _own(name) for name in RULE_NAMES},
    lambda rule: rule.summary,
    problem=lambda rule: rule.problem(),
)


def find_rule(name: str) -> PruningRule:
    """
    The rule of a name.

    Raises `RuleError` where there is none, `HeatcError` where its package is broken.
    """
    found = RULES.find(name)
    if found is None:
        raise RuleError("rule", f"unknown rule {name!r}, expected one of {', '.join(RULES.names)}")
    return found
