"""What calibration found, as data, as a table, and as remarks that say why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.tuning.calibrate.assign import TOLERANCE, LayerTable, RuleAssignment
from heatc.tuning.calibrate.assign_by_cost import LayerCosts
from heatc.tuning.calibrate.calibrator import PROBE, Trial
from heatc.tuning.calibrate.candidates import DEFAULT_SETTINGS, RHO_B, Candidates, LayerSettings
from heatc.tuning.calibrate.cost_model import ProgramCost
from heatc.tuning.calibrate.goal_search import SearchResult
from heatc.tuning.common.evaluation import Evaluator
from heatc.tuning.common.goal import Goal
from heatc.tuning.common.samples import Samples

_MEANING = {
    "labels": "accuracy lost against the labels",
    "changed predictions": "predictions that differ from the dense model's, an upper bound of the "
    "accuracy lost",
    "cosine": "100 x (1 - cosine of the first output with the dense one)",
}


@dataclass(frozen=True)
class Comparison:
    """
    One value for all heads against values by head, at one sparsity.

    `gain` (held samples) is how much more one value diverges; None where one value cannot prune
    so much.
    """

    one: RuleAssignment | None
    trial: Trial | None
    gain: NDArray[np.float64] | None

    @property
    def by_head_wins(self) -> bool:
        """Whether values by head diverge less on the samples held back."""
        return self.gain is None or float(self.gain.mean()) > 0.0


@dataclass(frozen=True)
class PlanCost:
    """
    What a pass of `batch` samples costs on a machine (modelled), with the plan and without pruning.

    `layer_costs` are what layers were left dense or pruned by, None where blocks were what counts.
    """

    hw: str
    batch: int
    plan: ProgramCost
    unpruned: ProgramCost
    layer_costs: LayerCosts | None = None

    @property
    def times_less(self) -> float:
        """How many times less energy x latency the plan takes."""
        return self.unpruned.edp / self.plan.edp

    def data(self) -> dict[str, Any]:
        """As JSON: cycles, joules and joule seconds, and each layer's cost as shares of it."""
        costs = {"plan": self.plan._asdict(), "unpruned": self.unpruned._asdict()}
        layer_costs = (
            None if self.layer_costs is None else {k: vars(p) for k, p in self.layer_costs.items()}
        )
        return {"hw": self.hw, "batch": self.batch, **costs, "prices": layer_costs}


@dataclass(frozen=True)
class Report:
    """Everything that is told of a calibration; `factorised` counts layers that have factors."""

    goal: Goal
    samples: Samples
    evaluator: Evaluator
    tables: Sequence[LayerTable]
    found: SearchResult
    comparison: Comparison | None
    plan_cost: PlanCost | None
    reused: int
    factorised: int = 0

    @property
    def _values(self) -> str:
        if self.comparison is None:
            return "no pruning"
        return "by head" if self.comparison.by_head_wins else "one for all heads"

    @property
    def _candidates(self) -> Candidates:
        return self.tables[0].candidates

    @property
    def _usual(self) -> str:
        if self._candidates.default == DEFAULT_SETTINGS:
            return "the rule's defaults"
        return "what is allowed next to the rule's defaults"

    @property
    def _parts(self) -> dict[str, NDArray[np.bool_]]:
        held = self.samples.held
        return {"fitted": ~held, "held back": held, "all": np.ones(len(held), np.bool_)}

    def data(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "goal": str(self.goal),
            "figure": self.found.value,
            "basis": {"name": self.evaluator.basis, "meaning": _MEANING[self.evaluator.basis]},
            "output": self.evaluator.output,
            "samples": {name: int(part.sum()) for name, part in self._parts.items()},
            "values": self._values,
            "result": {name: self._measured(part) for name, part in self._parts.items()},
            "one_value": self._one_value(),
            "layers": [self._layer(i, t) for i, t in enumerate(self.tables)],
            "cost": None if self.plan_cost is None else self.plan_cost.data(),
            "factorised": self.factorised,
            "reused": self.reused,
            "remarks": list(self.remarks()),
        }

    def _measured(self, part: NDArray[np.bool_]) -> dict[str, Any]:
        trial = self.found.trial
        changed = self.evaluator.changed(trial.reduced)
        return {
            "net_sparsity": trial.sparsity(part),
            "heads_pruned": trial.heads_pruned(part),
            "loss": vars(self.evaluator.counted_loss(trial.reduced, part)),
            "goal_loss": self.evaluator.loss(trial.reduced, part),
            "changed_predictions": None if changed is None else float(changed[part].mean()),
            "divergence": float(self.evaluator.divergence(trial.reduced)[part].mean()),
        }

    def _one_value(self) -> dict[str, Any] | None:
        if self.comparison is None:
            return None
        one, trial, gain = self.comparison.one, self.comparison.trial, self.comparison.gain
        if one is None or trial is None or gain is None:
            return None
        held = self.samples.held
        rule = next(iter(one.rules.values()))
        return {
            "rho_b": rule.rho_b[0],
            "net_sparsity": trial.sparsity(np.ones(len(held), np.bool_)),
            "divergence_held_back": float(self.evaluator.divergence(trial.reduced)[held].mean()),
            "gain_of_values_by_head": float(gain.mean()),
        }

    def _layer(self, index: int, table: LayerTable) -> dict[str, Any]:
        rule = self.found.assignment.rules[table.path]
        heads = self._columns(index)
        trial, settings = self.found.trial, self.found.assignment.settings[table.path]
        blocks = float(trial.blocks.sum()) * len(heads)
        damage = self.found.assignment.damage
        return {
            "path": table.path,
            "sensitivity": float(table.error(self._candidates.default)[PROBE])
            / len(table.measured.size),
            "sensitivity_at_rho_b": RHO_B[PROBE],
            "damage_share": damage[table.path] / max(sum(damage.values()), 1e-30),
            "net_sparsity": 1.0 - float(trial.kept[:, heads].sum()) / blocks,
            "heads_pruned": 1.0 - float(trial.heads[:, heads].mean()),
            "default_choices": settings == self._candidates.default,
            "finer": rule.finer,
            "importance": rule.importance,
            "pruned_score": rule.pruned_score,
            "gated": rule.gated,
            "rho_b": list(rule.rho_b),
            "tau_h": list(rule.tau_h),
        }

    def _columns(self, index: int) -> NDArray[np.intp]:
        """The columns of a trial that belong to a layer."""
        owners = np.repeat(
            np.arange(len(self.tables)), [len(t.measured.score[0, 0, 0]) for t in self.tables]
        )
        return np.flatnonzero(owners == index)

    # --- The table ----------------------------------------------------------------------------

    def table(self) -> str:
        """Layers with their sensitivity and choices, then the figures reached."""
        head = ("layer", "sensitivity", "blocks pruned", "heads pruned", "rho_B", "tau_H > 0")
        rows = [head, *(self._row(i, t) for i, t in enumerate(self.tables))]
        lines = _aligned(rows)
        lines += [
            "",
            *_aligned(
                [
                    (
                        "samples",
                        "net sparsity",
                        "loss in points",
                        "counted (95 %)",
                        "changed",
                        "divergence",
                    ),
                    *self._figures(),
                ]
            ),
        ]
        meaning = _MEANING[self.evaluator.basis]
        lines += [
            "",
            f"sensitivity: divergence of the outputs with this layer alone at rho_B {RHO_B[PROBE]:g}",
            f"loss: {meaning}",
        ]
        return "\n".join([*lines, *self._cost()])

    def _cost(self) -> list[str]:
        if self.plan_cost is None:
            return []
        t = self.plan_cost
        return [
            f"a pass of {t.batch} on {t.hw} (modelled): {_of(t.plan.cycles, t.unpruned.cycles)} cycles, "
            f"{_of(1e6 * t.plan.joules, 1e6 * t.unpruned.joules)} uJ, "
            f"{t.times_less:.3f} times less energy x latency than without pruning"
        ]

    def _row(self, index: int, table: LayerTable) -> tuple[str, ...]:
        layer = self._layer(index, table)
        rho = np.asarray(layer["rho_b"])
        spread = (
            f"{rho.min():.2f} .. {np.median(rho):.2f} .. {rho.max():.2f}"
            if len(rho) > 1
            else f"{rho[0]:.3f}"
        )
        gates = sum(t > 0 for t in layer["tau_h"])
        return (
            table.path,
            f"{layer['sensitivity']:.3g}",
            f"{100 * layer['net_sparsity']:.1f} %",
            f"{100 * layer['heads_pruned']:.1f} %",
            spread,
            f"{gates} of {len(self._columns(index))}",
        )

    def _figures(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for name, part in self._parts.items():
            m = self._measured(part)
            loss, changed = m["loss"], m["changed_predictions"]
            rows.append(
                (
                    f"{name} ({int(part.sum())})",
                    f"{100 * m['net_sparsity']:.1f} %",
                    f"{m['goal_loss']:.2f}",
                    f"{loss['points']:.2f} ({loss['low']:.2f} .. {loss['high']:.2f})",
                    "-" if changed is None else f"{100 * changed:.1f} %",
                    f"{m['divergence']:.3g}",
                )
            )
        return rows

    # --- Remarks ------------------------------------------------------------------------------

    def remarks(self) -> tuple[str, ...]:
        """Why the plan says what it says, a sentence for each choice."""
        if self.comparison is None:
            texts = [self._why_nothing()]
        else:
            texts = [self._why_settings(), self._why_values(self.comparison), self._why_layers()]
        texts += [self._why_dense(), *self._layers_without_heads(), *self._cautions()]
        return tuple(text for text in texts if text)

    def _why_nothing(self) -> str:
        if self.goal.is_cost:
            return f"the goal {self.goal} holds without pruning, so the plan prunes nothing"
        assert self.plan_cost is not None
        return (
            f"no layer's pruning makes the program cheaper on {self.plan_cost.hw} within the goal, so "
            "the plan prunes nothing"
        )

    def _layers_without_heads(self) -> list[str]:
        """Layers all of whose heads the gate prunes, on all samples or on some."""
        trial, texts = self.found.trial, list[str]()
        for index, table in enumerate(self.tables):
            empty = int((trial.heads[:, self._columns(index)] == 0).all(axis=1).sum())
            if empty:
                texts.append(
                    f"nothing is left of {table.path} on {empty} of {len(trial.heads)} samples: the gate "
                    "prunes every head there; --no-head-gate prunes blocks alone"
                )
        return texts

    def _why_dense(self) -> str:
        """Layers that are not pruned for what the machine would take for it."""
        if self.plan_cost is None or self.plan_cost.layer_costs is None or self.comparison is None:
            return ""
        dense = [p for p, rule in self.found.assignment.rules.items() if rule.name == "none"]
        each = (
            f"{path} (deciding adds {100 * p.deciding:.2f} %, leaving all of its blocks out spares "
            f"{100 * p.blocks:.2f} %)"
            for path, p in self.plan_cost.layer_costs.items()
            if path in dense
        )
        found = ", ".join(each)
        return (
            f"left dense, as pruning is not worth its cost and its damage: {found}" if found else ""
        )

    def _why_settings(self) -> str:
        usual, settings_by_layer = self._candidates.default, self.found.assignment.settings
        other = {
            path: settings for path, settings in settings_by_layer.items() if settings != usual
        }
        if not other:
            return (
                f"importance, binary point and pruned scores are {self._usual} in every "
                f"layer: none of {len(self._candidates.layer_settings) - 1} alternatives costs over "
                f"{TOLERANCE:.0%} less"
            )
        each = ", ".join(
            f"{path} ({_differences(settings, usual)})" for path, settings in other.items()
        )
        return f"departing from {self._usual} costs over {TOLERANCE:.0%} less in {each}"

    def _why_values(self, comparison: Comparison) -> str:
        one, trial, gain = comparison.one, comparison.trial, comparison.gain
        if one is None or trial is None or gain is None:
            return "values differ between heads: one rho_B for all cannot prune so much"
        held = self.samples.held
        alone = float(self.evaluator.divergence(trial.reduced)[held].mean())
        own = alone - float(gain.mean())
        rho = next(iter(one.rules.values())).rho_b[0]
        figures = (
            f"{own:.3g} against {alone:.3g} of one rho_B ({rho:g}) for all, divergence on "
            f"{int(held.sum())} samples held back, at the same sparsity"
        )
        if comparison.by_head_wins:
            return f"values differ between heads: {figures}"
        return f"one value for all heads: values by head are no better, {figures}"

    def _why_layers(self) -> str:
        if self._values != "by head" or len(self.tables) < 2:
            return ""
        layers = [self._layer(i, t) for i, t in enumerate(self.tables)]
        most = max(layers, key=lambda layer: layer["net_sparsity"])
        least = min(layers, key=lambda layer: layer["net_sparsity"])
        if most is least:
            return ""
        return (
            f"every head pays the same price, so {most['path']} (sensitivity "
            f"{most['sensitivity']:.3g}) prunes {100 * most['net_sparsity']:.1f} % and "
            f"{least['path']} ({least['sensitivity']:.3g}) {100 * least['net_sparsity']:.1f} %"
        )

    def _what_a_share_is(self) -> str:
        pooled = self.found.trial.sparsity(self._parts["all"])
        return (
            f"{100 * self.found.value:.1f} % is assured: the lesser of the share pooled over blocks "
            f"({100 * pooled:.1f} %) and of the mean over samples, at the lower end of its 95 % "
            "interval: on text of other lengths the pooled share is another"
        )

    def _what_a_point_is(self) -> str:
        text = f"a point of the goal is a point of: {_MEANING[self.evaluator.basis]}"
        if self.evaluator.basis != "labels":
            return text
        return (
            f"{text}, expected from the dense model's probabilities, which the labels calibrate: "
            "counting labels is too coarse, their 95 % interval is in the table"
        )

    def _confirmed(self) -> str:
        """What the samples held back say about an accuracy goal."""
        reduced, held = self.found.trial.reduced, self.samples.held
        value, counted = (
            self.evaluator.loss(reduced, held),
            self.evaluator.counted_loss(reduced, held),
        )
        verdict = "confirm" if value <= self.goal.bound else "do not confirm"
        return (
            f"{counted.samples} samples held back {verdict} the goal: {value:.2f} points "
            f"(counted {counted.points:.2f}, {counted.low:.2f} .. {counted.high:.2f} at 95 %)"
        )

    def _cautions(self) -> list[str]:
        texts: list[str] = []
        if self.factorised:
            texts.append(
                f"{self.factorised} layers are factorised: losses are those of pruning alone, "
                "against the factorised model without pruning"
            )
        if self.goal.metric == "sparsity":
            texts.append(self._what_a_share_is())
        if self.goal.metric == "accuracy-drop":
            texts += [self._what_a_point_is(), self._confirmed()]
        if (
            self.plan_cost is not None
            and self.plan_cost.times_less <= 1.0
            and self.comparison is not None
        ):
            texts.append(
                f"on {self.plan_cost.hw} the plan takes no less energy x latency than no pruning: "
                "deciding costs what it saves on inputs of these lengths"
            )
        if self.reused:
            texts.append(f"{self.reused} stored results of an earlier run were used")
        return texts


def _differences(settings: LayerSettings, usual: LayerSettings) -> str:
    """The settings that are not the usual ones."""
    default = usual.options()
    return ", ".join(f"{k} {v}" for k, v in settings.options().items() if v != default[k])


def _of(value: float, unpruned: float) -> str:
    return f"{value:,.5g} ({100 * value / unpruned:.1f} %)"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(f"{cell:{w}}" for cell, w in zip(row, widths)).rstrip() for row in rows]
