"""Models, sets of sentences and cached runs of bench/hdp_accuracy.py."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from bench.support import programs
from bench.support.data import teacher
from bench.support.data import texts as data
from bench.support.data.texts import Snippet
from oracle import bert as oracle
from oracle import encoder, rules
from oracle.encoder import Encoder, Outcome
from oracle.rules import Rule

SEED = 0
LENGTH = 64
CURVE = 500
"""Test sentences of a point of a curve"""
OUT_OF_DOMAIN = "out of domain"


class Set(NamedTuple):
    """Sentences with labels, and the token ids of each."""

    name: str
    labels: npt.NDArray[np.int64]
    rows: list[list[int]]


class Bench:
    """
    A teacher, the binary points of one of its programs, and what was already run.

    The scores of a pruned program have points of their own: they are sums of integer parts.
    """

    def __init__(self, recipe: teacher.Recipe, option: str = "--hdp-rule=none"):
        """`option` is what the program is compiled with: the dense one, a rule, or a plan."""
        self.model = teacher.teacher(recipe)
        self.points = self._points(option)
        self._encoder: Encoder | None = None
        self.layers = int(json.loads((self.model / "config.json").read_text())["num_hidden_layers"])

    def run(self, rule: Rule | Sequence[Rule], sentences: Set) -> Outcome:
        """The outcome of a rule, or of one rule a layer, on a set of sentences."""
        chosen = (rule,) * self.layers if isinstance(rule, Rule) else tuple(rule)
        path = self._cache(repr(chosen) + repr(sentences.rows))
        if path.is_file():
            stored = torch.load(path, weights_only=True)
            return Outcome(stored["logits"], stored["counts"], list(stored["heads"]))
        if self._encoder is None:
            self._encoder = Encoder(self.model, self.points, chosen)
        self._encoder.rules = chosen
        began = time.monotonic()
        found = self._encoder(sentences.rows)
        heads = torch.stack(found.heads) if found.heads else torch.empty(0)
        stored = {"logits": found.logits, "counts": found.counts, "heads": heads}
        part = path.with_suffix(f".{os.getpid()}.part")
        torch.save(stored, part)
        part.replace(path)
        say(f"{chosen[0].name} on {sentences.name}: {time.monotonic() - began:.0f} s")
        return found

    def _cache(self, what: str) -> Path:
        folder = data.cache_folder().parent / "accuracy"
        folder.mkdir(parents=True, exist_ok=True)
        text = "\n".join([self.model.name, json.dumps(self.points), what, _sources()])
        return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.pt"

    def _points(self, option: str) -> dict[str, int]:
        """The binary points that heatc gives this model."""
        inputs = data.encode(["a sentence"], LENGTH)
        with tempfile.TemporaryDirectory(prefix="heatc-bench-") as folder:
            program = Path(folder) / "dense.hdp"
            programs.compile_model(self.model, program, inputs, option)
            return programs.points(program)


def of_plan(path: Path) -> str:
    """The option that compiles a plan."""
    return f"--plan={path}"


OURS = "--hdp-rule=ours"
"""The rule with its defaults; plans of the same `finer` have the same binary points"""


def _sources() -> str:
    """The sources that decide what a run computes."""
    used = [encoder, rules, oracle.exponential, oracle.gelu, oracle.layer_norm, oracle.product]
    used += [oracle.quantize, oracle.reciprocal, oracle.requantize, oracle.saturate]
    used += [oracle.scale_constant, oracle.shift_right, oracle.softmax]
    return "".join(inspect.getsource(one) for one in used)


def tokenized(name: str, snippets: Sequence[Snippet]) -> Set:
    """A set of labelled sentences, cut to 64 tokens."""
    labels = np.array([snippet.label for snippet in snippets], np.int64)
    return Set(name, labels, data.token_ids([snippet.text for snippet in snippets], LENGTH))


def test_set() -> Set:
    """The 1,500 test sentences."""
    return tokenized("test", data.labelled("test"))


def curve_set() -> Set:
    """The first test sentences, for curves."""
    return tokenized(f"test, first {CURVE}", data.labelled("test")[:CURVE])


def review_set() -> Set | None:
    """The 3,000 out-of-domain sentences; None, with a message, where npm is missing."""
    try:
        found = data.out_of_domain()
    except data.MissingError as error:
        say(f"no out-of-domain rows: {error}")
        return None
    return tokenized(OUT_OF_DOMAIN, [snippet for part in found.values() for snippet in part])


def judged() -> list[Set]:
    """The sets on which figures are reported."""
    reviews = review_set()
    return [test_set()] + ([reviews] if reviews is not None else [])


def say(text: str) -> None:
    """To people, not to files."""
    print(text, file=sys.stderr, flush=True)
