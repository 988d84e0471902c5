"""One input on its way through the stages: what differs, by how much, and where it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError, VerificationError
from heatc.files import make_folder, together
from heatc.kinds import DIVERGENCE
from heatc.readers.npz import write_npz
from heatc.verify.compare import CLOSE, IDENTICAL, ROUNDED, Difference, differences
from heatc.verify.programs import CheckedProgram
from heatc.verify.rounding import COARSE, LEAST_RUNS, Rounding
from heatc.verify.rows import Rows, Tokens, output_rows, tokens_of
from heatc.verify.sensitivity import FACTOR, code_noise, float_noise, shaken
from heatc.verify.settings import Settings
from heatc.verify.stages import Stage, Stages, Step, name_of
from heatc.verify.trace import first_difference

Array = NDArray[Any]

_TRACED = {IDENTICAL: (0.0,), CLOSE: (1e-3, 1e-4, 2e-5), ROUNDED: (0.1, 0.05, 0.02)}
"""
Shares of the magnitude by which a layer's values differ where it is named: the first that some
layer's do, since where there is a great difference small ones may come from rounding.
"""


@dataclass
class Judge:
    """
    Holds stages against each other on one input.

    `kinds` says how its samples are padded, `place` is what errors are about; `outputs` is what
    each stage gave, that of the model from the beginning.
    """

    stages: Stages
    program: CheckedProgram
    settings: Settings
    place: str
    inputs: Mapping[str, Array]
    kinds: str
    outputs: dict[Stage, dict[str, Array]]
    unjudged: dict[str, float] = field(default_factory=dict[str, float])
    """Outputs that differ by no more than noise moves them, and by how much that is."""

    @cached_property
    def _tokens(self) -> Tokens | None:
        return tokens_of(self.stages.packed, self.inputs, self.stages.masks)

    @cached_property
    def _rows(self) -> dict[str, Rows]:
        return output_rows(self.stages.packed, self._tokens)

    @property
    def has_reference(self) -> bool:
        """Whether the model gives numbers that codes can stand for."""
        if self.stages.levels.fixed is None:
            return True
        return all(np.isfinite(array).all() for array in self._model_rows.values())

    @cached_property
    def _model_rows(self) -> dict[str, Array]:
        """What the model computes, without masked tokens."""
        return {n: self._rows.get(n, Rows()).of(a) for n, a in self.outputs["model"].items()}

    def output(self, stage: Stage) -> dict[str, Array]:
        """What a stage computes, once; `VerificationError` where it fails."""
        if stage in self.outputs:
            return self.outputs[stage]
        try:
            if stage == "program":
                # It brings its own.
                self.stages.weights.release_files()
                with np.errstate(all="ignore"):
                    found = self.program.run(self.inputs)
            else:
                found = self.stages.run(stage, self.inputs)
        except Exception as error:
            text = f"{name_of(stage)} fails on an input that the model takes: {error}"
            raise self._wrong(text, ()) from error
        self.outputs[stage] = found
        return found

    def hold(self, step: Step) -> None:
        """Raise `VerificationError` where two stages differ by more than they may."""
        wrong = [d for d in self._differences(step) if not d.holds(step.bound)]
        wrong = [d for d in wrong if not self._is_noise(d, step)]
        if not wrong:
            return
        worst = max(wrong, key=lambda d: d.share)
        raise self._wrong(_message(worst, step), self._layer(step))

    def hold_nan(self) -> None:
        """
        Raise `VerificationError` where the model gives NaN and a program of codes gives numbers.

        One that refuses the input is right.
        """
        nan = next((n for n, array in self._model_rows.items() if np.isnan(array).any()), None)
        if nan is None:
            return
        try:
            self.program.run(self.inputs)
        except HeatcError:
            return
        raise self._wrong(
            f"the model gives NaN in output {nan!r}, of which codes have none",
            ["a mask of -inf, or a division by 0, may be what it comes from"],
        )

    def hold_rounding(self, rounding: Rounding) -> None:
        """
        Add what codes do on this input; raise `VerificationError` where it is too much in all.

        A few inputs are no evidence; one that is in doubt is run on more.
        """
        step = next((s for s in self.stages.steps if s.bound == ROUNDED), None)
        if step is None:
            return
        rounding.add(self.output(step.expected), self.output(step.found), self._rows)
        output, share = rounding.worst
        if share <= COARSE or rounding.runs < LEAST_RUNS:
            return
        raise self._wrong(
            f"16 bits are too coarse: rounding moves output {output!r} by {share:.3g} of its size, "
            f"allowed is {COARSE:g}",
            [
                *self._coarse_layer(step),
                "use --target numpy, or norm what grows from layer to layer",
            ],
        )

    def distance(self) -> tuple[float, float]:
        """
        Of the program from the model: largest difference and least cosine of an output.

        Raises `VerificationError` where a cosine was asked for and is not reached.
        """
        found = self._differences(Step("model", "program", CLOSE))
        largest = max((d.largest for d in found), default=0.0)
        cosine = min((d.cosine for d in found), default=1.0)
        least = self.settings.min_cosine
        if least is not None and not cosine >= least:
            notes = [f"asked for: at least {least:g} (--min-cosine)", *self.stages.parts]
            raise self._wrong(f"the cosine of an output with the model's is {cosine:.6f}", notes)
        return largest, cosine

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be judged."""
        return tuple(
            f"output {name!r} is not judged, rounding alone moves "
            + (f"it by {share:.2g} of its size" if np.isfinite(share) else "its zeros")
            for name, share in self.unjudged.items()
        )

    def _differences(self, step: Step) -> list[Difference]:
        """Of every output, one stage from another."""
        expected, found = self.output(step.expected), self.output(step.found)
        whole = step.found == "level" and not self.stages.level_is_packed
        return differences(expected, found, {} if whole else self._rows, step.bound)

    def _is_noise(self, found: Difference, step: Step) -> bool:
        """Whether the output moves about as far when every op is a little off."""
        if step.bound == IDENTICAL or found.padding or not np.isfinite(found.largest):
            return False
        stages = self.stages
        rounds = step.bound == ROUNDED
        stage: Stage = "reals" if rounds else "model"
        noise = code_noise(stages.quanta) if rounds else float_noise
        with np.errstate(all="ignore"):
            moved = shaken(stages.modules[stage], stages.weights, self.inputs, noise)
        alone = differences(self.output(stage), moved, self._rows, step.bound)
        by_noise = next(d for d in alone if d.output == found.output)
        # An output of zeros has no size to take a share of.
        is_share = bool(np.isfinite(found.share))
        moved_by = by_noise.share if is_share else by_noise.largest
        if (found.share if is_share else found.largest) > FACTOR * moved_by:
            return False
        self.unjudged[found.output] = by_noise.share
        return True

    # --- What is wrong ------------------------------------------------------------------------

    def _layer(self, step: Step) -> list[str]:
        """A note that names the first layer that differs, as far as it can be seen."""
        try:
            step = self._narrowed(step)
            layer = self._first_layer(step)
        except Exception as error:
            # What is wrong with the program may break whatever looks into it.
            return [f"the layer is not known: {error}"]
        where = "in the program, its own level is right"
        if step.found != "program":
            where = "changed by a pass: --execute-each names it"
        if layer is None:
            return [f"no layer differs that can be compared; {where}"]
        return [f"the first layer that differs is {layer}, {where}"]

    def _coarse_layer(self, step: Step) -> list[str]:
        """A note that names the first layer that rounding moves far, if one is seen."""
        layer = self._first_layer(step)
        return [] if layer is None else [f"the first layer that is far off is {layer}"]

    def _narrowed(self, step: Step) -> Step:
        """Whether the passes or the emitter are at fault: what the program was emitted from says it."""
        if step != Step("model", "program", CLOSE):
            return step
        between = Step("model", "module", CLOSE)
        if all(d.holds(CLOSE) for d in self._differences(between)):
            return Step("module", "program", CLOSE)
        return between

    def _first_layer(self, step: Step) -> str | None:
        codes = step.bound == IDENTICAL
        expected = self.stages.trace(step.expected, self.inputs, codes=codes)
        if step.found == "program":
            with np.errstate(all="ignore"):
                found = self.program.trace(self.inputs)
        else:
            found = self.stages.trace(step.found, self.inputs)
        for tolerance in _TRACED[step.bound]:
            layer = first_difference(expected, found, self._tokens, tolerance)
            if layer is not None:
                return layer
        return None

    def _wrong(self, message: str, notes: Sequence[str]) -> VerificationError:
        """The error, with what helps to look into it."""
        if self.settings.dump is None:
            kept = "--dump-divergence DIR keeps the inputs"
        else:
            kept = f"inputs and outputs are in {self._dump(self.settings.dump)}"
        return VerificationError(
            f"{message} (input: {self.kinds})",
            place=self.place,
            notes=[*notes, kept, "nothing was written; --no-verify writes it as it is"],
        )

    def _dump(self, folder: Path) -> Path:
        """inputs.npz, and an .npz for each stage that was run."""
        make_folder(folder)
        with together() as files:
            for name, arrays in {"inputs": self.inputs, **self.outputs}.items():
                write_npz(files.open(folder / f"{name}.npz"), arrays, DIVERGENCE)
        return folder


def _message(worst: Difference, step: Step) -> str:
    output, found = f"output {worst.output!r}", name_of(step.found)
    expected = step.reference
    if worst.padding:
        return f"{output} of {found} has {worst.padding} values at masked positions that are not 0"
    if step.bound == IDENTICAL:
        return f"{found} differs from {expected} in {worst.share:.0f} values of {output}"
    if not worst.values:
        return f"{found} has no {output} of the shape that {expected} gives it"
    if np.isinf(worst.largest):
        return f"{found} has other infinities or NaN than {expected} in {output}"
    return (
        f"{found} differs from {expected} in {output} by {worst.share:.3g} of {step.bound.size}, "
        f"allowed is {step.bound.share:g}"
    )
