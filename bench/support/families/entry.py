"""
One model of the zoo: how it is built, what it is given, which of its positions are padding.

Models are tiny and their weights random, of the magnitudes that trained ones have: with those that
transformers starts from every attention is uniform and every output near 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = dict[str, Array]
Keep: TypeAlias = npt.NDArray[np.bool_]

BATCH, LENGTH, WIDTH, HEADS, LAYERS, VOCABULARY, LABELS = 3, 13, 32, 4, 2, 100, 5
"""All different, so that the axes of an output are known by their extents."""
PAD, FIRST_ID = 1, 5
"""The id of padding, as RoBERTa has it, and the first one that is no special token"""

ROUTES = ("archive", "folder")
IMPLEMENTATIONS = ("eager", "sdpa")
MASKS = ("none", "right", "left", "holes")


@dataclass(frozen=True)
class Entry:
    """
    One family with one head.

    `make` builds the module in evaluation mode for "eager" or "sdpa". `inputs` are those without
    padding; `pads` gives the inputs in which only the positions `keep`, (BATCH, LENGTH), are real.
    `masks` are the paddings that make sense. `positions` are the output's positions that are
    padding where those are not the input's tokens; `axis` is the extent of an output's axis of
    tokens. `zero` is whether an output may be 0 at padding: where no input is a padding mask it is
    computed everywhere.
    """

    family: str
    head: str
    make: Callable[[str], nn.Module]
    inputs: Arrays
    pads: Callable[[Arrays, Keep], Arrays] = lambda inputs, keep: inputs
    masks: tuple[str, ...] = ("none",)
    implementations: tuple[str, ...] = IMPLEMENTATIONS
    routes: tuple[str, ...] = ROUTES
    axis: int = LENGTH
    positions: Callable[[Keep], Keep] = lambda keep: keep
    zero: bool = True

    @property
    def name(self) -> str:
        """Family and head."""
        return f"{self.family}: {self.head}"

    def module(self, implementation: str) -> nn.Module:
        """The module with its weights, the same on every machine and for each implementation."""
        torch.manual_seed(0)
        module = self.make(implementation).eval().requires_grad_(False)
        fill(module)
        return module

    def given(self, mask: str) -> tuple[Arrays, Keep]:
        """The inputs under a padding, and which positions are real, (BATCH, LENGTH)."""
        keep = kept(mask)
        return self.pads({name: a.copy() for name, a in self.inputs.items()}, keep), keep


def kept(mask: str) -> Keep:
    """Which positions are real: few, many and some of three sequences."""
    position = np.arange(LENGTH)
    counts = np.array([9, 1, LENGTH])[:, None]
    if mask == "right":
        return position < counts
    if mask == "left":
        return position >= LENGTH - counts
    keep = np.ones((BATCH, LENGTH), np.bool_)
    if mask == "holes":
        keep = np.random.RandomState(7).rand(BATCH, LENGTH) < 0.6
        keep[0, 0], keep[1, 0], keep[2, 5] = True, False, True
    return keep


def fill(module: nn.Module) -> None:
    """Weights of usual magnitudes, by what they are for."""
    random = np.random.RandomState(0)
    norms = {id(p) for m in module.modules() if "Norm" in type(m).__name__ for p in own(m)}
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    for parameter in module.parameters():
        values = random.standard_normal(tuple(parameter.shape))
        if id(parameter) in norms and parameter.ndim < 2:
            values = 0.2 * values + (1 if is_weight(module, parameter) else 0)
        elif parameter.ndim < 2:
            values = 0.3 * values
        elif id(parameter) in tables:
            values = 0.7 * values
        else:
            values = 1.2 * values / math.sqrt(math.prod(parameter.shape[1:]))
        parameter.data.copy_(torch.from_numpy(np.asarray(values, np.float32)))


def own(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module without those of its children."""
    return list(module.parameters(recurse=False))


def is_weight(module: nn.Module, parameter: nn.Parameter) -> bool:
    """Whether a parameter of a normalisation is what it multiplies by."""
    return any(getattr(m, "weight", None) is parameter for m in module.modules())


# ---- Inputs --------------------------------------------------------------------------------------


def token_inputs(*, mask: bool = True, types: bool = False, end: int | None = None) -> Arrays:
    """Ids of tokens, a mask of ones, and types; `end` is the id that a sequence ends with."""
    random = np.random.RandomState(1)
    ids = random.randint(FIRST_ID, VOCABULARY - 1, (BATCH, LENGTH)).astype(np.int64)
    if end is not None:
        ids[:, -1] = end
    found: Arrays = {"input_ids": ids}
    if mask:
        found["attention_mask"] = np.ones((BATCH, LENGTH), np.int64)
    if types:
        found["token_type_ids"] = (np.arange(LENGTH) > 6).astype(np.int64) * np.ones_like(ids)
    return found


def padded_tokens(inputs: Arrays, keep: Keep) -> Arrays:
    """As a tokenizer pads: the padding's id, and 0 in the mask."""
    found = {**inputs, "input_ids": np.where(keep, inputs["input_ids"], PAD)}
    if "attention_mask" in inputs:
        found["attention_mask"] = keep.astype(inputs["attention_mask"].dtype)
    return found


def hidden_inputs() -> Arrays:
    """Hidden states, as layers of PyTorch take them."""
    random = np.random.RandomState(1)
    return {"x": random.standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32)}
