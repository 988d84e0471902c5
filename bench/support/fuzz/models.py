"""The small models that hostile inputs are made from; imported only to build the corpus."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY, HEADS, CLASSES, BATCH = 24, 2, 2, 2


class Attention(nn.Module):
    """Self-attention; a plan names it by the path of its module."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L, d) for (B, L, d) and a mask (B, L)."""
        q, k, v = (self._heads(layer(x)) for layer in (self.query, self.key, self.value))
        mask = attention_mask[:, None, None, :].bool()
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(x.shape))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], HEADS, x.shape[2] // HEADS).transpose(1, 2)


class Tiny(nn.Module):
    """One encoder layer and a classifier on the first token."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.length = length
        self.words, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(length, width)
        self.attention = Attention(width)
        self.norm, self.last = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Logits (B, 2) and the hidden states (B, L, d)."""
        x = self.words(input_ids) + self.places(torch.arange(self.length)[None])
        x = self.norm(x + self.attention(x, attention_mask))
        x = self.last(x + self.narrow(functional.gelu(self.wide(x))))
        return {"logits": self.classifier(x[:, 0]), "hidden": x}


def save_archive(path: Path, length: int, width: int, seed: int = 0) -> None:
    """The model as an archive of torch.export."""
    torch.manual_seed(seed)
    model = Tiny(length, width).eval()
    ids = torch.zeros(BATCH, length, dtype=torch.int64)
    program = torch.export.export(model, (ids, torch.ones_like(ids)))
    torch.export.save(program, path)


def save_bert(folder: Path) -> None:
    """A BERT of one layer: a folder, the same in shards, and its state dict beside its config."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=24,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
    )
    model = BertModel(config).eval()
    model.save_pretrained(folder / "bert")
    model.save_pretrained(folder / "shards", max_shard_size="3KB")
    torch.save(model.state_dict(), folder / "bert" / "state.pt")
