"""
Pruned attention under every kind of mask and bias, beside the independent oracle, bit for bit.

A BERT of transformers is given a mask or a bias of each kind. What its queries, keys and values are
comes from the program itself (`hdp-run --layers`); the oracle computes the mask of blocks, the gate of
heads and the output of each attention from them, and must find the program's own.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from bench.support.differential.judge import limited
from bench.support.families import judge
from bench.support.families.entry import (
    BATCH,
    HEADS,
    LAYERS,
    LENGTH,
    VOCABULARY,
    WIDTH,
    Array,
    Arrays,
    Entry,
    Keep,
    padded_tokens,
    token_inputs,
)
from heatc.api import Compilation
from heatc.backends.hdp import simulate
from heatc.backends.hdp.container import open_program
from heatc.rules import make_rule
from heatc.targets import Hdp, Options
from heatc.verify.settings import Settings
from oracle import rules as oracle
from oracle.bert import AttentionPoints

LOWEST = torch.finfo(torch.float32).min
RULES: Mapping[str, tuple[Mapping[str, float | str], oracle.Rule]] = {
    "paper": ({"rho_b": 0.1, "tau_h": 0.5}, oracle.paper(0.1, 0.5)),
    # Under a mask of the model's own a pruned head is 0: others are refused.
    "ours": (
        {"rho_b": 0.1, "tau_h": 0.1, "gated": "zero"},
        oracle.Rule("ours", 2, "positive", "mean", "zero", 0.1, 0.1),
    ),
}


@dataclass(frozen=True)
class Mask:
    """
    What is added to scores, (heads or 1, LENGTH, LENGTH), and which scores are visible.

    `padded` says whether an input masks keys too; `given` makes the input of a mask that the user
    gives instead, (BATCH, 1, LENGTH, LENGTH), from which tokens are real.
    """

    bias: Callable[[Any], Tensor] | None = None
    visible: Tensor | None = None
    padded: bool = False
    given: Callable[[Keep], Array] | None = None


def _apart() -> Tensor:
    place = torch.arange(LENGTH)
    return place[None] - place[:, None]


def _alibi(model: Any) -> Tensor:
    slopes = 2.0 ** -torch.arange(1, HEADS + 1).float()
    return -slopes[:, None, None] * _apart().abs()


def _learned(model: Any) -> Tensor:
    return model.near(_apart() + LENGTH - 1).permute(2, 0, 1)


def _buckets(model: Any) -> Tensor:
    far = (2 + (torch.log(_apart().abs().float() / 2 + 1e-9) * 1.5).long()).clamp(max=5)
    near = torch.where(_apart().abs() < 2, _apart().abs(), far)
    return model.near((_apart() > 0).long() * 6 + near).permute(2, 0, 1)


def _given(keep: Keep) -> Array:
    near = np.abs(np.arange(LENGTH)[:, None] - np.arange(LENGTH)) < 5
    return ((keep[:, None, None, :] & near) | np.eye(LENGTH, dtype=np.bool_)).astype(np.bool_)


def _given_numbers(keep: Keep) -> Array:
    random = np.random.RandomState(3).standard_normal((BATCH, 1, LENGTH, LENGTH))
    return np.where(_given(keep), random, LOWEST).astype(np.float32)


CAUSAL, WINDOW = _apart() <= 0, _apart().abs() <= 3
MASKS: Mapping[str, Mask] = {
    "key padding": Mask(padded=True),
    "causal": Mask(visible=CAUSAL),
    "causal and key padding": Mask(visible=CAUSAL, padded=True),
    "window": Mask(visible=WINDOW),
    "window and key padding": Mask(visible=WINDOW, padded=True),
    "ALiBi": Mask(_alibi),
    "ALiBi and key padding": Mask(_alibi, padded=True),
    "learned relative bias": Mask(_learned, padded=True),
    "bias by buckets": Mask(_buckets, padded=True),
    "ALiBi and causal": Mask(_alibi, CAUSAL, padded=True),
    "boolean 4-d mask": Mask(given=_given),
    "additive 4-d mask of numbers": Mask(given=_given_numbers),
}


class Model(nn.Module):
    """A BERT whose attentions have one mask."""

    def __init__(self, mask: Mask, implementation: str):
        super().__init__()
        t: Any = transformers
        config = t.BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=2 * WIDTH,
            max_position_embeddings=40,
        )
        config._attn_implementation = implementation
        self.bert = t.BertModel(config, add_pooling_layer=False)
        self.near = nn.Embedding(2 * LENGTH - 1, HEADS)
        self.mask = mask

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = self.mask
        if mask.given is not None:
            bias: Any = attention_mask
        else:
            bias = torch.zeros(BATCH, 1, LENGTH, LENGTH)
            if mask.bias is not None:
                bias = bias + mask.bias(self)[None]
            if mask.visible is not None:
                bias = bias.masked_fill(~mask.visible, LOWEST)
            if mask.padded:
                bias = bias.masked_fill(attention_mask[:, None, None, :] == 0, LOWEST)
        return self.bert(input_ids=input_ids, attention_mask=bias)[0]


def entry(name: str) -> Entry:
    """The model of a mask as an entry of the zoo."""
    mask = MASKS[name]

    def pads(inputs: Arrays, keep: Keep) -> Arrays:
        found = padded_tokens(inputs, keep)
        return found if mask.given is None else {**found, "attention_mask": mask.given(keep)}

    whole = np.ones((BATCH, LENGTH), np.bool_)
    inputs = pads(token_inputs(), whole)
    # A boolean mask is for SDPA, numbers are for both.
    return Entry("pruned", name, lambda implementation: Model(mask, implementation), inputs, pads)


# ---- Comparing -----------------------------------------------------------------------------------


def compared(name: str, rule: str) -> dict[str, Any]:
    """One kind of mask with one rule: how many attentions are the oracle's, the first that is not."""
    line: dict[str, Any] = {"mask": name, "rule": rule, "kind": "refused"}
    line |= {"attentions": 0, "identical": 0, "blocks pruned, %": 0.0}
    with tempfile.TemporaryDirectory(prefix="heatc-families-") as folder:
        try:
            with limited(judge.SECONDS):
                return line | _compared(name, rule, Path(folder))
        except Exception as error:
            kind, message = judge.fault(error)
            return line | {"kind": kind, "message": message}


def _compared(name: str, rule: str, folder: Path) -> dict[str, Any]:
    made = entry(name)
    module = cast(Model, made.module("sdpa"))
    captured = judge.capture(made, module, "sdpa", "archive", folder)
    options, wanted = RULES[rule]
    compilation = Compilation(
        Options(Hdp("hdp-edge"), make_rule(rule, options)), verify=Settings(), quiet=True
    )
    compilation.adopt(captured.module, captured.weights, "model")
    compilation.run()
    compilation.write(folder / "program.hdp", "hdp")
    program = open_program(folder / "program.hdp")
    found = Tally()
    for padding in ("none", "right", "left", "holes"):
        inputs, keep = made.given(padding)
        run = simulate(program, inputs, layers=True)
        found.add(module, inputs, keep, run.layers, program.manifest.points, wanted)
    kind = "wrong" if found.message or found.identical < found.number else "right"
    return {
        "kind": kind,
        "attentions": found.number,
        "identical": found.identical,
        "blocks pruned, %": round(100 * found.pruned / max(found.blocks, 1), 1),
        "message": found.message,
    }


@dataclass
class Tally:
    """Attentions of single sequences that were compared."""

    number: int = 0
    identical: int = 0
    blocks: int = 0
    pruned: int = 0
    message: str = ""

    def add(
        self,
        module: Model,
        inputs: Arrays,
        keep: Keep,
        layers: Mapping[str, Array],
        points: Mapping[str, int],
        rule: oracle.Rule,
    ) -> None:
        """Compare every attention of every sequence of one run."""
        names = [key.removeprefix("mask/") for key in layers if key.startswith("mask/bert")]
        packed = len(layers[f"codes/{names[0]}"]) < keep.size
        start = 0
        for row in range(BATCH):
            real = keep[row] if packed else np.ones(LENGTH, np.bool_)
            rows = slice(start, start + int(real.sum()))
            start = rows.stop
            bias, visible = masks(module, inputs, row, real)
            if not visible.any(dim=-1).all():
                continue  # the rules are of queries that see a key
            added, point = quantised(bias, names[0], points)
            for name in names:
                self.number += 1
                own = oracle.Masks(visible=visible, bias=added, point=point)
                difference = self._difference(layers, points, name, row, rows, rule, own)
                self.identical += not difference
                self.message = self.message or difference

    def _difference(
        self,
        layers: Mapping[str, Array],
        points: Mapping[str, int],
        name: str,
        row: int,
        rows: slice,
        rule: oracle.Rule,
        own: oracle.Masks,
    ) -> str:
        path = plain(name)
        q, k, v = (codes(layers, f"{path}.{part}", rows) for part in _PARTS)
        query, key, value = (points[f"{path}.{part}"] for part in _PARTS)
        known = AttentionPoints(query, key, value, points[f"{name}.scores"], points[name])
        found = oracle.attention(q, k, v, known, rule, masks=own)
        assert found.blocks is not None
        assert found.heads is not None
        blocks = found.blocks[0].numpy()
        mine = layers[f"mask/{name}"][row][:, : blocks.shape[1], : blocks.shape[2]]
        self.blocks += blocks.size
        self.pruned += int((~blocks).sum())
        if not np.array_equal(blocks, mine):
            return f"mask of {name}, sequence {row}"
        if not np.array_equal(found.heads[0].numpy(), layers[f"gate/{name}"][row]):
            return f"gate of {name}, sequence {row}"
        output = found.output[0].transpose(0, 1).flatten(1).numpy()
        same = np.array_equal(output, layers[f"codes/{name}"][rows])
        return "" if same else f"output of {name}, sequence {row}"


_PARTS = ("query", "key", "value")


def plain(name: str) -> str:
    """The path of an attention whose name has a number, since its mask has the path, too."""
    head, _, last = name.rpartition(".")
    return head if last.isdigit() and not head.endswith("layer") else name


def codes(layers: Mapping[str, Array], name: str, rows: slice) -> Tensor:
    """Codes of a projection, (1, heads, rows, head); queries and keys come in two parts."""
    whole = layers.get(f"codes/{name}")
    if whole is None:
        integer, fraction = (layers[f"codes/{name}.{part}"] for part in ("integer", "fraction"))
        shift = int(layers[f"point/{name}.fraction"]) - int(layers[f"point/{name}.integer"])
        whole = (integer.astype(np.int64) << shift) + fraction
    split = torch.from_numpy(whole[rows].astype(np.int64)).unflatten(-1, (HEADS, -1))
    return split.transpose(0, 1)[None]


def quantised(
    bias: Tensor | None, first: str, points: Mapping[str, int]
) -> tuple[Tensor | None, int]:
    """
    Codes of a bias in units of scores, at the point that the program has for it.

    All attentions have one bias. Where an input gives it, it has the path of the first attention,
    and maybe another number behind it.
    """
    if bias is None:
        return None, 0
    constants = [point for key, point in points.items() if key.startswith("attention.bias")]
    path = plain(first)
    given = [point for key, point in points.items() if key != first and plain(key) == path]
    (point,) = constants[:1] or given
    scaled = (bias * math.sqrt(WIDTH // HEADS)).float().double()
    return torch.round(scaled * 2.0**point).long(), point


def masks(module: Model, inputs: Arrays, row: int, real: Keep) -> tuple[Tensor | None, Tensor]:
    """What the model adds to the scores of one sequence's rows, and which of them are visible."""
    mask = module.mask
    at = torch.from_numpy(np.flatnonzero(real))

    def of_rows(values: Tensor) -> Tensor:
        return values[..., at[:, None], at[None, :]][None]

    given = torch.from_numpy(inputs["attention_mask"][row])
    if mask.given is not None and given.dtype == torch.bool:
        return None, of_rows(given)
    if mask.given is not None:
        visible = given > LOWEST / 2
        return of_rows(torch.where(visible, given, 0)).double(), of_rows(visible)
    with torch.no_grad():
        bias = None if mask.bias is None else of_rows(mask.bias(module)).double()
    visible = torch.ones(1, LENGTH, LENGTH, dtype=torch.bool)
    visible = visible if mask.visible is None else visible & mask.visible
    return bias, of_rows(visible & (given > 0) if mask.padded else visible)
