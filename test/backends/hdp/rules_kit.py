"""A random encoder on which rules prune some, and what its attentions compute."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
import transformers

from heatc.capture import Captured, capture_module
from heatc.dialects import attn

LENGTHS = (37, 0, 22, 1)
SIZE = 40


@cache
def model() -> Any:
    """A random encoder whose scores spread over some units, so that integer parts tell."""
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=80,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.25,
    )
    # Without a pooler: it would need a token in every row, and one row has none.
    return transformers.BertModel._from_config(
        config, attn_implementation="eager", add_pooling_layer=False
    ).eval()


@cache
def captured() -> Captured:
    example = {name: torch.ones(len(LENGTHS), SIZE, dtype=torch.int64) for name in inputs()}
    return capture_module(model(), example)


def inputs() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    mask = (np.arange(SIZE) < np.array(LENGTHS)[:, None]).astype(np.int64)
    ids = rng.integers(0, 80, mask.shape)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": mask & 0}


class Attentions:
    """Every value of a run, and the attentions by their last op."""

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}
        self.found: list[attn.WeightedValuesOp] = []

    def observe(self, op: Any, results: Any) -> None:
        self.values.update(zip(op.results, results))
        if isinstance(op, attn.WeightedValuesOp):
            self.found.append(op)

    def operands(self, op: attn.WeightedValuesOp) -> list[Any]:
        """q, k and v of an attention, with the scores."""
        softmax = op.probabilities.owner
        assert isinstance(softmax, attn.SoftmaxOp)
        scores: Any = softmax.scores.owner
        while isinstance(scores, attn.MeanQueryOp | attn.ExcludeScoresOp):
            scores = scores.scores.owner
        if isinstance(scores, attn.MergeScoresOp):
            q, k = scores.q_integer.owner, scores.k_integer.owner
            assert isinstance(q, attn.SplitOp)
            assert isinstance(k, attn.SplitOp)
            found = [q.x, k.x]
        else:
            found = [scores.q, scores.k]
        return [attn.outside(value) for value in (*found, op.v, softmax.scores)]
