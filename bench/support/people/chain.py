"""The README's commands, line by line, on two classifiers that differ in everything."""

from __future__ import annotations

import csv
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor

from bench.support.data import texts as data
from bench.support.data.teacher import buckets, padded
from bench.support.demo.classifier import head

ROOT = Path(__file__).resolve().parents[3]
SECTION = "## Your model"
LENGTH, TRAIN, TEST, EPOCHS = 64, 2000, 200, 4


class Ran(NamedTuple):
    """A command of the chain: its words, exit code, seconds, and what it said."""

    line: str
    code: int
    seconds: float
    said: str


def lines() -> list[str]:
    """The commands of the README's chain, without comments; the installation is done already."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition(SECTION)[2]
    block = text.partition("```sh\n")[2].partition("```")[0]
    commands = [line.partition(" #")[0].strip() for line in block.splitlines()]
    return [command for command in commands if command and not command.startswith("pip ")]


def run(folder: Path) -> Iterator[Ran]:
    """Run the chain in a folder that has `model`, train.csv and test.csv; it ends with a failure."""
    tools = Path(sys.executable).parent
    for line in lines():
        words = shlex.split(line, comments=True)
        start = time.perf_counter()
        done = subprocess.run(
            [str(tools / words[0]), *words[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        said = "\n".join([done.stdout, done.stderr]).strip()
        yield Ran(line, done.returncode, time.perf_counter() - start, said)
        if done.returncode != 0:
            return


def minilm(folder: Path) -> None:
    """MiniLM with a logistic head on its first token; film reviews, labels 0 and 1."""
    made: Any = transformers.BertForSequenceClassification.from_pretrained(
        data.model_folder(verify=True), num_labels=2
    )
    snippets = data.labelled("train")[:TRAIN]
    labels = torch.tensor([snippet.label for snippet in snippets])
    made.eval()
    weight, bias = head(_first(made, [snippet.text for snippet in snippets]), labels)
    made.classifier.load_state_dict({"weight": weight, "bias": bias})
    made.save_pretrained(folder / "model")
    _tokenizer(folder)
    _write(folder / "train.csv", {s.text: str(s.label) for s in snippets})
    _write(folder / "test.csv", {s.text: str(s.label) for s in data.labelled("test")[:TEST]})


SENTIMENTS = ("bad", "mixed", "good")


def small(folder: Path) -> None:
    """A BERT of 3 layers of 192, trained for a moment; three labels that are words."""
    torch.manual_seed(0)
    config: Any = transformers.BertConfig(
        hidden_size=192, num_hidden_layers=3, num_attention_heads=6, intermediate_size=768
    )
    config.id2label = dict(enumerate(SENTIMENTS))
    config.label2id = {name: number for number, name in enumerate(SENTIMENTS)}
    made: Any = transformers.BertForSequenceClassification(config)
    rated = list(_sentiments().items())
    train, test = rated[:TRAIN], rated[TRAIN : TRAIN + TEST]
    _train(made, [text for text, _ in train], [SENTIMENTS.index(label) for _, label in train])
    made.save_pretrained(folder / "model")
    _tokenizer(folder)
    _write(folder / "train.csv", dict(train))
    _write(folder / "test.csv", dict(test))


MODELS: Mapping[str, Any] = {
    "MiniLM, labels 0 and 1": minilm,
    "BERT of 3 layers of 192, labels in words": small,
}
"""What makes the folder of each run."""


def _sentiments() -> dict[str, str]:
    """Film reviews by their rating, a third of them each."""
    rated = data.rated_snippets()
    order = sorted(rated, key=lambda text: (rated[text], text))
    place = {text: 3 * number // len(order) for number, text in enumerate(order)}
    return {text: SENTIMENTS[place[text]] for text in rated}


def _first(model: Any, texts: list[str]) -> Tensor:
    """The pooled first token of each text, (N, 384)."""
    rows = data.token_ids(texts, LENGTH)
    found = torch.empty(len(rows), model.config.hidden_size)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            ids, mask = padded([rows[index] for index in batch])
            found[batch] = model.bert(ids, mask).pooler_output
    return found


def _train(model: Any, texts: list[str], labels: list[int]) -> None:
    import random

    rows, targets = data.token_ids(texts, LENGTH), torch.tensor(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    model.train()
    lengths, shuffle = [len(row) for row in rows], random.Random(0)
    for batch in (b for _ in range(EPOCHS) for b in buckets(lengths, 32, shuffle)):
        ids, mask = padded([rows[index] for index in batch])
        model(input_ids=ids, attention_mask=mask, labels=targets[batch]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def _tokenizer(folder: Path) -> None:
    source = data.sentence_folder()
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (source / name).is_file():
            shutil.copy(source / name, folder / "model" / name)


def _write(path: Path, rows: Mapping[str, str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows(rows.items())
