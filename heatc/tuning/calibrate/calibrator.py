"""
Calibration: the parameters of rule `ours` per layer and head, chosen on data for a goal.

1. A dense run measures what every setting of every head alone does (`measure`).
2. Layers are weighed: each alone is pruned in the same way, and what reaches the outputs is
   divided by what was done (`_sensitivities`).
3. For a share of blocks to prune, the settings of layers and the thresholds of heads follow from
   one price of a block (`assign`). Where a machine's cost counts, which layers are pruned at all
   and how far follows from one weight of cost (`assign_by_cost`).
4. That share is searched with runs of the whole pruned model against the goal, on samples that
   were measured; those held back confirm the result, and decide whether values per head are worth
   more than one value for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.rules import Rule
from heatc.tuning.calibrate.assign import LayerTable
from heatc.tuning.calibrate.attention import attend, block_total
from heatc.tuning.calibrate.candidates import ALL_CANDIDATES, RHO_B, Candidates
from heatc.tuning.calibrate.measure import MOST_ROWS, Measured, measure
from heatc.tuning.calibrate.store import Arrays, Store
from heatc.tuning.common.content_key import content_key
from heatc.tuning.common.evaluation import ComparedOutput, Evaluator, compared_output, reduce_output
from heatc.tuning.common.packed_model import PackedModel, Paused
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.common.samples import Batch, Samples

Array = NDArray[Any]
Rules = Mapping[str, Rule]

PROBED = 64
"""Samples on which layers are weighed."""

PROBE = RHO_B.index(0.6)
"""The setting at which layers are weighed, as a place in `RHO_B`."""

BUDGET = 1 << 26
"""Scores that are measured; longer inputs are measured on fewer samples."""

_Z95_ONE_SIDED = 1.644854


@dataclass(frozen=True)
class Trial:
    """
    A run of the whole model under rules, on all samples.

    Attributes:
        reduced: outputs as `reduce_output` leaves them.
        kept: (N, heads of all layers) kept blocks; blocks of pruned heads are not kept.
        heads: (N, heads of all layers) kept heads.
        blocks: (N,) blocks of one head.
    """

    reduced: NDArray[np.float64]
    kept: NDArray[np.int64]
    heads: NDArray[np.int64]
    blocks: NDArray[np.int64]

    def sparsity(self, chosen: NDArray[np.bool_]) -> float:
        """Net share of blocks pruned, pooled over the chosen samples (N,)."""
        kept = self.kept[chosen]
        return 1.0 - float(kept.sum()) / float(self.blocks[chosen].sum() * kept.shape[1])

    def assured_sparsity(self) -> float:
        """
        The net share of blocks that other samples like these are expected to reach.

        Pooled blocks are mostly those of long samples: text of other lengths has another pooled
        share. So it is the lesser of the pooled share and of the mean over samples,
        each at the lower end of its one-sided 95 % interval (the pooled share is a ratio of sums:
        W. Cochran, Sampling Techniques, 1977, 6.4).
        """
        real = self.blocks > 0
        blocks = self.blocks[real].astype(np.float64) * self.kept.shape[1]
        kept = self.kept[real].sum(axis=1)
        pooled = kept.sum() / blocks.sum()
        residuals = (kept - pooled * blocks) / blocks.mean()
        return min(_lower_end(1.0 - pooled - residuals), _lower_end(1.0 - kept / blocks))

    def heads_pruned(self, chosen: NDArray[np.bool_]) -> float:
        """Share of heads pruned over the chosen samples (N,)."""
        return 1.0 - float(self.heads[chosen].mean())


@dataclass
class Calibrator:
    """
    Calibrates one model on one data set; every stage is kept in the store.

    `candidates` is what may be chosen.
    """

    model: PackedModel
    samples: Samples
    store: Store
    progress: ProgressCallback
    candidates: Candidates = ALL_CANDIDATES
    trials: dict[str, Trial] = field(default_factory=dict[str, Trial])

    def __post_init__(self) -> None:
        batches = list(self.samples.batches(self.model.batch))
        self.batches = batches
        self.measured_samples = self._affordable()
        self.compared = ComparedOutput("", False)
        self.measured: list[Measured] = []
        self.paths = list(dict.fromkeys(a.path for a in self.model.attentions))

    @property
    def fitted(self) -> NDArray[np.bool_]:
        """(N,): samples that the choice may look at."""
        return ~self.samples.held

    def _affordable(self) -> NDArray[np.bool_]:
        """(N,): the samples that are measured, as many of all lengths as the budget allows."""
        heads = sum(a.heads for a in self.model.attentions)
        lengths = self.samples.lengths
        fitted = np.flatnonzero(self.fitted & (lengths > 0))
        cost = float((heads * lengths[fitted] * np.minimum(lengths[fitted], MOST_ROWS)).sum())
        keep = max(1, round(len(fitted) * min(1.0, BUDGET / max(cost, 1.0))))
        order = fitted[lengths[fitted].argsort(kind="stable")]
        chosen = np.zeros(len(lengths), np.bool_)
        chosen[order[np.linspace(0, len(order) - 1, keep).round().astype(int)]] = True
        return chosen

    # --- 1: the dense run ---------------------------------------------------------------------

    def measure(self) -> Evaluator:
        """The dense run with its measurements; returns what compares later runs with it."""
        parts: list[list[Measured]] = [[] for _ in self.model.attentions]
        dense: list[Array] = []
        for number, batch in enumerate(self.batches):
            self.progress("measuring heads", number, len(self.batches))

            def compute(inputs: dict[str, Array] = batch.inputs, samples: Array = batch.samples):
                return self._measure_batch(inputs, samples)

            stored = self.store.get(f"measured-{number}", compute)
            self.compared = ComparedOutput(str(stored["output"]), bool(stored["classes"]))
            dense.append(stored["dense"])
            for layer, found in enumerate(parts):
                prefix = f"{layer}."
                fields = {
                    k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)
                }
                found.append(Measured(**fields))
        self.progress("measuring heads", len(self.batches), len(self.batches))
        self.measured = [Measured.joined(found) for found in parts]
        return Evaluator.of(self.compared.name, self._in_order(dense), self.samples.labels)

    def _measure_batch(self, inputs: dict[str, Array], samples: Array) -> Arrays:
        wanted = np.zeros(self.model.batch, np.bool_)
        wanted[: len(samples)] = self.measured_samples[samples]
        found: Arrays = {}
        state: Paused | dict[str, Array] = self.model.run_to_first(inputs)
        while isinstance(state, Paused):
            layer, (measured, out) = (
                state.attention.index,
                measure(state, wanted, self.candidates.block),
            )
            kept = measured.part(wanted)
            found |= {f"{layer}.{name}": array for name, array in kept.arrays().items()}
            state = self.model.resume(state, out)
        name, classes = self._compared(state)
        dense = reduce_output(state[name], state[name], len(samples), classes)
        about = {"output": np.asarray(name), "classes": np.asarray(classes)}
        return {**found, **about, "dense": dense, "exact": state[name]}

    def _compared(self, outputs: dict[str, Array]) -> ComparedOutput:
        labelled = self.samples.labels is not None
        return compared_output(outputs, self.model.batch, labelled)

    def _reduced(self, outputs: dict[str, Array], exact: Array, count: int) -> Array:
        return reduce_output(outputs[self.compared.name], exact, count, self.compared.classes)

    def _in_order(self, parts: Sequence[Array]) -> Array:
        """Values by batch as values by sample."""
        whole = np.concatenate(parts)
        out = np.empty_like(whole)
        out[np.concatenate([b.samples for b in self.batches])] = whole
        return out

    # --- 4: runs of the pruned model ----------------------------------------------------------

    def trial(self, rules: Rules, what: str) -> Trial:
        """Run all samples under rules by module path."""
        key = _rules_key(rules)
        if key not in self.trials:
            self.trials[key] = self._trial(rules, key, what)
        return self.trials[key]

    def _trial(self, rules: Rules, key: str, what: str) -> Trial:
        parts: list[Arrays] = []
        for number in range(len(self.batches)):
            self.progress(what, number, len(self.batches))

            def compute(number: int = number) -> Arrays:
                return self._trial_batch(rules, number)

            parts.append(self.store.get(f"trial-{key}-{number}", compute))
        self.progress(what, len(self.batches), len(self.batches))
        reduced, kept, heads = (
            self._in_order([p[name] for p in parts]) for name in ("reduced", "kept", "heads")
        )
        return Trial(reduced, kept, heads, block_total(self.samples.lengths, self.candidates.block))

    def _trial_batch(self, rules: Rules, number: int) -> Arrays:
        batch = self.batches[number]
        count = len(batch.samples)
        kept: list[Array] = []
        heads: list[Array] = []
        state: Paused | dict[str, Array] = self.model.run_to_first(batch.inputs)
        while isinstance(state, Paused):
            out, decisions = attend(state, rules.get(state.attention.path), self.candidates.block)
            kept.append(decisions.kept_blocks[:count])
            heads.append(decisions.kept_heads[:count])
            state = self.model.resume(state, out)
        exact = self.store.member(f"measured-{number}", "exact")
        reduced = self._reduced(state, exact, count)
        return {
            "reduced": reduced,
            "kept": np.concatenate(kept, 1),
            "heads": np.concatenate(heads, 1),
        }

    # --- 2: the weight of a layer -------------------------------------------------------------

    def tables(self, evaluator: Evaluator) -> list[LayerTable]:
        """What can be chosen, layer by layer, with errors weighed by what reaches the outputs."""
        weights = self._weights(evaluator)
        tables: list[LayerTable] = []
        blocks = block_total(self.samples.lengths[self._measured_order()], self.candidates.block)
        for path in self.paths:
            same = [a for a in self.model.attentions if a.path == path]
            joined = Measured.joined([self.measured[a.index] for a in same])
            count = float(blocks.sum()) * sum(a.heads for a in same)
            tables.append(LayerTable(path, joined, weights[path], count, self.candidates))
        return tables

    def _measured_order(self) -> NDArray[np.int64]:
        """The samples of `measured`, in its order."""
        order = np.concatenate([b.samples for b in self.batches])
        return order[self.measured_samples[order]]

    def _weights(self, evaluator: Evaluator) -> dict[str, float]:
        """
        Divergence at the outputs by error at a layer, from pruning that layer alone.

        A layer that this leaves as it is (samples of one token have one key) counts as the others
        do in the mean.
        """
        probed = self._probed()
        reached = self._probe(evaluator, probed)
        place = np.isin(self._measured_order(), np.flatnonzero(probed))
        f, i, p, _ = self.candidates.default
        weights: dict[str, float] = {}
        for path in self.paths:
            index = [a.index for a in self.model.attentions if a.path == path]
            errors = [self.measured[k].error[f, i, p, PROBE, place].sum() for k in index]
            error = float(np.sum(errors, dtype=np.float64))
            if error > 0:
                weights[path] = reached[path] / error
        usual = float(np.mean(list(weights.values()))) if weights else 1.0
        return {path: weights.get(path, usual) for path in self.paths}

    def _probed(self) -> NDArray[np.bool_]:
        """(N,): some of the measured samples, of all lengths."""
        order = self._measured_order()
        places = np.linspace(0, len(order) - 1, min(PROBED, len(order))).round().astype(int)
        probed = np.zeros(len(self.samples), np.bool_)
        probed[order[places]] = True
        return probed

    def _probe(self, evaluator: Evaluator, probed: NDArray[np.bool_]) -> dict[str, float]:
        """The sum of divergences over the probed samples with one layer pruned, by its path."""
        batches = list(self.samples.batches(self.model.batch, probed))
        sums = dict.fromkeys(self.paths, 0.0)
        for number, batch in enumerate(batches):
            self.progress("weighing layers", number, len(batches))

            def compute(batch: Batch = batch) -> Arrays:
                return self._probe_batch(evaluator, batch)

            found = self.store.get(f"probe-{number}", compute)
            for path, value in zip(self.paths, found["divergence"]):
                sums[path] += float(value)
        self.progress("weighing layers", len(batches), len(batches))
        return sums

    def _probe_batch(self, evaluator: Evaluator, batch: Batch) -> Arrays:
        rule = self.candidates.rule(self.candidates.default, rho_b=RHO_B[PROBE])
        count = len(batch.samples)
        states: list[tuple[Paused, Array]] = []
        state: Paused | dict[str, Array] = self.model.run_to_first(batch.inputs)
        while isinstance(state, Paused):
            out = attend(state, None)[0]
            states.append((state, out))
            state = self.model.resume(state, out)
        exact = state[self.compared.name]
        found: list[float] = []
        for path in self.paths:
            own = [s for s in states if s[0].attention.path == path]
            outputs = self._pruned_from(own[0][0], path, rule)
            reduced = self._reduced(outputs, exact, count)
            found.append(float(evaluator.of_samples(batch.samples).divergence(reduced).sum()))
        return {"divergence": np.asarray(found)}

    def _pruned_from(self, state: Paused, path: str, rule: Rule) -> dict[str, Array]:
        """The outputs with the attentions of one path pruned, from the first of them on."""
        following: Paused | dict[str, Array] = state
        while isinstance(following, Paused):
            own = rule if following.attention.path == path else None
            following = self.model.resume(following, attend(following, own)[0])
        return following


def _lower_end(values: NDArray[np.float64]) -> float:
    """The lower end of the one-sided 95 % interval of a mean, normal."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return float(values.mean()) - _Z95_ONE_SIDED * spread / math.sqrt(len(values))


def _rules_key(rules: Rules) -> str:
    """Names what rules do: equal rules give equal names."""
    return content_key({path: repr(rule) for path, rule in rules.items()}, {})
