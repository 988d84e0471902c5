"""The small models that hostile inputs are made from; imported only to build the corpus."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY, LENGTH, WIDTH, HEADS, CLASSES, BATCH = 24, 6, 8, 2, 2, 2


class Attention(nn.Module):
    """Self-attention; a plan names it by the path of its module."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, L, 8) for (B, L, 8) and a mask (B, L)."""
        q, k, v = (self._heads(layer(x)) for layer in (self.query, self.key, self.value))
        mask = attention_mask[:, None, None, :].bool()
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(x.shape))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], HEADS, WIDTH // HEADS).transpose(1, 2)


class Tiny(nn.Module):
    """One encoder layer and a classifier on the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.attention = Attention()
        self.norm, self.last = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Logits (B, 2) and the hidden states (B, L, 8)."""
        x = self.words(input_ids) + self.places(torch.arange(LENGTH)[None])
        x = self.norm(x + self.attention(x, attention_mask))
        x = self.last(x + self.narrow(functional.gelu(self.wide(x))))
        return {"logits": self.classifier(x[:, 0]), "hidden": x}


def save_archive(path: Path) -> None:
    """The model as an archive of torch.export."""
    torch.manual_seed(0)
    model = Tiny().eval()
    ids = torch.zeros(BATCH, LENGTH, dtype=torch.int64)
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
