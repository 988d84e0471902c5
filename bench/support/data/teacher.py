"""
The dense teachers of the accuracy benchmarks: fine-tuned once, kept in the user's cache folder.

A teacher is a Hugging Face folder (config.json, model.safetensors, tokenizer.json), so that
`heatc FOLDER` compiles what was measured here. Its folder's name is a hash of the recipe, the
starting weights, the training text and the version of torch: nothing stale is ever found. Two
trainings on one kind of computer with one number of threads give the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
import transformers
from torch import Tensor

from bench.support.data import texts as data
from bench.support.data.texts import Snippet

Start = Literal["minilm", "bert-tiny"]
Task = Literal["snippets", "bigram shift"]

BERT_TINY: dict[str, Any] = {
    "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 512, "vocab_size": 30522,
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How a teacher is trained: AdamW, linear warm-up and decay, batches of like lengths."""

    task: Task = "snippets"
    start: Start = "minilm"
    epochs: int = 2
    rate: float = 5e-5
    batch: int = 32
    warm_up: float = 0.1
    decay: float = 0.01
    length: int = 64
    seed: int = 0


SENTIMENT = Recipe()
SENTIMENT_TINY = Recipe(start="bert-tiny", epochs=4, rate=5e-4)
BIGRAM_SHIFT = Recipe(task="bigram shift", epochs=2)


def teacher(recipe: Recipe) -> Path:
    """
    The folder of the trained model; trains it if the cache has none (minutes, see the recipe).

    Raises:
        MissingError: the model package or the text is not there.
    """
    folder = cached(recipe)
    if not (folder / "model.safetensors").is_file():
        _train(recipe, folder)
    return folder


def cached(recipe: Recipe) -> Path:
    """Where `teacher` keeps this recipe's model, whether or not it is there."""
    text = hashlib.sha256()
    for snippet in train_set(recipe.task):
        text.update(f"{snippet.label}{snippet.text}\n".encode())
    parts = [json.dumps(asdict(recipe), sort_keys=True), data.MODEL_SHA256]
    parts += [text.hexdigest(), torch.__version__, transformers.__version__]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    name = f"{recipe.start}-{recipe.task.replace(' ', '-')}-{key}"
    return data.cache_folder().parent / "teachers" / name


def train_set(task: Task) -> Sequence[Snippet]:
    """The labelled sentences that a teacher is trained on."""
    return data.labelled("train") if task == "snippets" else data.bigram_shift("train")


def load(folder: Path) -> transformers.BertForSequenceClassification:
    """The trained model, float32, in evaluation mode."""
    loaded = transformers.BertForSequenceClassification.from_pretrained(folder)
    return loaded.eval()


def buckets(lengths: Sequence[int], size: int, shuffle: random.Random) -> list[list[int]]:
    """
    Indices in batches of like lengths, batches in random order.

    Sentences are shuffled, cut into runs of 50 batches and sorted by length within each run.
    """
    order = list(range(len(lengths)))
    shuffle.shuffle(order)
    run = 50 * size
    batches: list[list[int]] = []
    for start in range(0, len(order), run):
        part = sorted(order[start : start + run], key=lambda index: lengths[index])
        batches += [part[i : i + size] for i in range(0, len(part), size)]
    shuffle.shuffle(batches)
    return batches


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids (B, S) and attention mask (B, S), int64, padded right to the longest row."""
    width = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return ids, mask


def _untrained(recipe: Recipe) -> transformers.BertForSequenceClassification:
    """The model before training; what is new in it is drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    if recipe.start == "minilm":
        folder = data.model_folder(verify=True)
        return transformers.BertForSequenceClassification.from_pretrained(folder, num_labels=2)
    config: Any = transformers.BertConfig(**BERT_TINY)
    config.num_labels = 2
    return transformers.BertForSequenceClassification(config)


def _train(recipe: Recipe, folder: Path) -> None:
    """Trains and writes the folder; it appears whole or not at all."""
    model: Any = _untrained(recipe)
    snippets = train_set(recipe.task)
    rows = data.token_ids([snippet.text for snippet in snippets], recipe.length)
    labels = torch.tensor([snippet.label for snippet in snippets])
    shuffle = random.Random(recipe.seed)
    torch.manual_seed(recipe.seed)
    lengths = [len(row) for row in rows]
    batches = [b for _ in range(recipe.epochs) for b in buckets(lengths, recipe.batch, shuffle)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    warm = max(1, round(recipe.warm_up * len(batches)))

    def factor(step: int) -> float:
        rest = (len(batches) - step) / max(1, len(batches) - warm)
        return min((step + 1) / warm, max(0.0, rest))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    model.train()
    began, total = time.monotonic(), 0.0
    for step, batch in enumerate(batches, 1):
        ids, mask = padded([rows[index] for index in batch])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels[batch]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % 50 == 0 or step == len(batches):
            seconds = time.monotonic() - began
            mean = total / step
            print(f"{folder.name}: {step}/{len(batches)}, loss {mean:.3f}, {seconds:.0f} s",
                  file=sys.stderr)  # fmt: skip
    if not math.isfinite(total):
        raise FloatingPointError(f"{folder.name}: the loss is {total}")
    _save(model.eval(), folder)


def _save(model: Any, folder: Path) -> None:
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    part.mkdir(parents=True)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(tensors, part / "model.safetensors")
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(part)
    shutil.copy(data.model_folder() / "tokenizer.json", part / "tokenizer.json")
    try:
        part.rename(folder)
    except OSError:
        shutil.rmtree(part)  # another process was first: its training gave the same
