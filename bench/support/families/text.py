"""Text encoders of transformers, each with its usual heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import transformers
from torch import nn

from bench.support.families.entry import (
    FIRST_ID,
    HEADS,
    LABELS,
    LAYERS,
    LENGTH,
    MASKS,
    PAD,
    VOCABULARY,
    WIDTH,
    Entry,
    padded_tokens,
    token_inputs,
)

_T: Any = transformers

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 2 * WIDTH,
    "max_position_embeddings": 40,
    "pad_token_id": PAD,
    "num_labels": LABELS,
}
_DISTILBERT = {
    "vocab_size": VOCABULARY,
    "dim": WIDTH,
    "n_layers": LAYERS,
    "n_heads": HEADS,
    "hidden_dim": 2 * WIDTH,
    "max_position_embeddings": 40,
    "pad_token_id": PAD,
    "num_labels": LABELS,
}
_DEBERTA = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_buckets": 6,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
    "type_vocab_size": 0,
}
_MODERNBERT = {
    "global_attn_every_n_layers": 2,
    "local_attention": 6,
    "cls_token_id": 2,
    "sep_token_id": 3,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "reference_compile": False,
}
_HEADS = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering")
# Span heads have two outputs a token.
_SPAN = {"num_labels": 2}

FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "BERT": ("Bert", _SIZES),
    "RoBERTa": ("Roberta", {**_SIZES, "type_vocab_size": 1}),
    "XLM-R": ("XLMRoberta", {**_SIZES, "type_vocab_size": 1}),
    "CamemBERT": ("Camembert", {**_SIZES, "type_vocab_size": 1}),
    "DistilBERT": ("DistilBert", _DISTILBERT),
    "ELECTRA": ("Electra", {**_SIZES, "embedding_size": 16}),
    "ALBERT": ("Albert", {**_SIZES, "embedding_size": 16, "hidden_act": "gelu_new"}),
    "MPNet": ("MPNet", {**_SIZES, "relative_attention_num_buckets": 32}),
    "DeBERTa-v2": ("DebertaV2", {**_SIZES, **_DEBERTA}),
    "ModernBERT": ("ModernBert", {**_SIZES, **_MODERNBERT}),
}
_EAGER_ONLY = ("MPNet", "DeBERTa-v2")
_WITH_TYPES = ("BERT", "ELECTRA", "ALBERT")


def entries() -> Iterator[Entry]:
    """Every text encoder with every head."""
    for family in FAMILIES:
        yield from _family(family)
    yield from _t5()
    yield from _clip_text()


def _family(family: str) -> Iterator[Entry]:
    stem, settings = FAMILIES[family]
    base = _entry(family, "base", f"{stem}Model", f"{stem}Config", settings)
    yield base
    # The model then makes a mask of its own, or none.
    yield dataclasses.replace(
        base, head="base, ids alone", inputs=token_inputs(mask=False), masks=("none",)
    )
    for head in _HEADS:
        own = {**settings, **_SPAN} if head == "QuestionAnswering" else settings
        yield _entry(family, head, f"{stem}For{head}", f"{stem}Config", own)


def _entry(family: str, head: str, model: str, config: str, settings: Mapping[str, Any]) -> Entry:
    return Entry(
        family,
        head,
        builder(getattr(_T, model), getattr(_T, config), settings),
        token_inputs(types=family in _WITH_TYPES),
        padded_tokens,
        MASKS,
        implementations=("eager",) if family in _EAGER_ONLY else ("eager", "sdpa"),
    )


def builder(model: Any, config: Any, settings: Mapping[str, Any]) -> Callable[[str], nn.Module]:
    """Builds a model of transformers for an implementation of attention."""

    def make(implementation: str) -> nn.Module:
        return model._from_config(config(**settings), attn_implementation=implementation)

    return make


def _t5() -> Iterator[Entry]:
    sizes = {
        "vocab_size": VOCABULARY,
        "d_model": WIDTH,
        "d_kv": WIDTH // HEADS,
        "d_ff": 2 * WIDTH,
        "num_layers": LAYERS,
        "num_heads": HEADS,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12,
        "pad_token_id": PAD,
    }
    for head, projection in (("base", "relu"), ("base, gated", "gated-gelu")):
        settings = {**sizes, "feed_forward_proj": projection}
        make = builder(_T.T5EncoderModel, _T.T5Config, settings)
        yield Entry("T5 encoder", head, make, token_inputs(), padded_tokens, MASKS)


def _clip_text() -> Iterator[Entry]:
    end = VOCABULARY - 1
    settings = {
        **_SIZES,
        "projection_dim": 24,
        "bos_token_id": FIRST_ID - 1,
        "eos_token_id": end,
        "max_position_embeddings": LENGTH + 3,
    }
    for head, name in (("base", "CLIPTextModel"), ("projection", "CLIPTextModelWithProjection")):
        make = builder(getattr(_T, name), _T.CLIPTextConfig, settings)
        inputs = token_inputs(end=end)
        yield Entry("CLIP text", head, make, inputs, padded_tokens, ("none", "right"))
