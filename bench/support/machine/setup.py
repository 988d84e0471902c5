"""What the parts of bench/machine.py share: sizes, and a folder for models and programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers

from bench import main_job
from bench.support import programs
from bench.support.machine import scalesim_gemm
from bench.support.programs import Array, Arrays
from bench.support.report import Json
from heatc.backends.hdp import open_program
from heatc.backends.hdp.container import Program

PRESETS = ("hdp-edge", "hdp-server")
SEED = 0

Table = list[dict[str, Json]]


HEADS = ("scores of a head", "probabilities times values of a head")
SMALL = ("query, key, value, attention output", *HEADS)


@dataclass(frozen=True)
class Sizes:
    """How much of each part is run."""

    lengths: tuple[int, ...] = (128, 384, 512)
    layers: int = 2
    """Layers of the BERT-Base whose attention is measured: with random weights all are alike"""
    depth: int = 12
    """Layers of BERT-Base where the whole model is run"""
    texts: int = 4
    sentences: int = 64
    repeats: int = 5
    gemms: Mapping[int, tuple[str, ...]] = field(
        default_factory=lambda: {32: tuple(scalesim_gemm.SHAPES), 16: SMALL}
    )
    """By the rows of a square array; SCALE-Sim needs minutes for the others on 16x16"""
    finite: bool = True


FULL = Sizes()
QUICK = Sizes((64,), 1, 1, 1, 4, 2, {32: HEADS}, False)


@dataclass(frozen=True)
class Bench:
    """What the parts share: sizes, and a folder for models and programs."""

    sizes: Sizes
    folder: Path

    def bert(self, name: str, **config: int) -> Path:
        """A BERT with random weights, saved as a Hugging Face folder."""
        path = self.folder / name
        if not path.exists():
            cast(Any, torch).manual_seed(SEED)
            model: Any = cast(Any, transformers.BertModel)(
                cast(Any, transformers.BertConfig)(**config)
            )
            with main_job.quiet():
                model.save_pretrained(path)
        return path

    def compiled(
        self, model: Path, inputs: Mapping[str, Array], target: str, *options: str
    ) -> Program:
        """`heatc MODEL --target TARGET ...`, opened."""
        length = inputs["input_ids"].shape[1]
        name = (
            "_".join((model.name, str(length), target, *options)).replace("-", "").replace("=", "")
        )
        path = self.folder / f"{name}.hdp"
        if not path.exists():
            with main_job.quiet():
                programs.compile_model(model, path, inputs, f"--target={target}", *options)
        return open_program(path)


def random_inputs(length: int) -> Arrays:
    """A full sequence of random token ids."""
    ids = np.random.default_rng(SEED).integers(1000, 30000, (1, length))
    return {"input_ids": ids, "attention_mask": np.ones((1, length), np.int64)}
