"""The commands that pages show, and a folder in which they can run."""

from __future__ import annotations

import glob
import os
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]

_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)

_COMMAND = re.compile(r".*<<'(?:.|\n)*?\n[A-Z]+\n|(?:.*\\\n)*.*\n")

TOOLS: Mapping[str, str] = {
    "heatc": "heatc.tools.main",
    "heatc-export": "heatc.tools.export",
    "heatc-opt": "heatc.tools.opt",
    "heatc-report": "heatc.tools.report",
    "heatc-tune": "heatc.tools.tune",
    "hdp-as": "heatc.tools.assemble",
    "hdp-objdump": "heatc.tools.objdump",
    "hdp-run": "heatc.tools.run",
}
"""The module of each installed command, whose `main(words)` runs it in this process."""

SHORTER: Mapping[str, str] = {
    "--minutes 10": "--minutes 0.1 --points 2",
    "--minutes 0.2": "--minutes 0.1 --points 2",
}
"""What a test says in place of a page's words, so that it ends sooner."""

WORDS = ("film", "story", "actor", "scene", "music", "plot", "was", "the", "very", "quite")
GOOD, BAD = ("good", "lovely", "bright", "warm"), ("bad", "dull", "grey", "cold")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
INPUTS = ("input_ids", "attention_mask")
LENGTH = 64
SHORT = 12
"""Tokens of the longest sentence, with its two special ones, and some."""

STEPS = 60


class Command(NamedTuple):
    """One command of a page; `words` are None where a shell has to run it."""

    text: str
    words: list[str] | None


def blocks_of(page: Path) -> list[str]:
    """The blocks of shell commands of a page, in order."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def commands_of(block: str) -> Iterator[Command]:
    """The commands of a block. A here-document belongs to the command before it."""
    for text in _COMMAND.findall(block):
        words = shlex.split(text.replace("\\\n", " "), comments=True)
        if words:
            alone = words[0] in TOOLS and "|" not in words
            yield Command(text, words if alone else None)


def run(command: Command, folder: Path) -> int:
    """Run a command in `folder`, the current directory, and give its exit code."""
    if command.words is not None:
        tool, *words = command.words
        return import_module(TOOLS[tool]).main(list(_expanded(words)))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    shell = ["bash", "-eu", "-o", "pipefail", "-c", command.text]
    return subprocess.run(shell, cwd=folder, env=env, check=False).returncode


def _expanded(words: list[str]) -> Iterator[str]:
    """Words, with files in place of patterns that match some, as a shell does."""
    for word in words:
        yield from sorted(glob.glob(word)) or [word]


def shorter(block: str) -> str:
    """The block with the words of `SHORTER` replaced."""
    for long, short in SHORTER.items():
        block = block.replace(long, short)
    return block


def make_folder(folder: Path) -> None:
    """Write what the pages name: a tiny classifier in several forms, text, data and a machine."""
    model = _model(folder / "model")
    for name, count, seed in (("train", 48, 0), ("dev", 16, 1), ("test", 16, 2)):
        _write_text(folder / f"{name}.csv", count, seed)
        _write_data(folder / name, folder / "model")
    _train(model, folder / "train.npz")
    model.save_pretrained(folder / "model")
    _write_archive(model, folder / "model.pt2")
    (folder / "machine.yaml").write_text("name: slow\nschema: 1\nbase: hdp-edge\nclock: 250 MHz\n")


def _model(place: Path) -> Any:
    """A BERT that knows nothing yet, written to `place` with its vocabulary."""
    import torch
    import transformers

    vocabulary = [*SPECIAL, *WORDS, *GOOD, *BAD]
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=128,
    )
    model = transformers.BertForSequenceClassification(config)
    model.save_pretrained(place)
    (place / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return model


def _train(model: Any, data: Path) -> None:
    """Enough to be right about most sentences, so that plans have an accuracy to lose."""
    import torch

    arrays = {
        name: torch.from_numpy(array[:, :SHORT] if array.ndim > 1 else array)
        for name, array in np.load(data).items()
    }
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model.train()
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(**arrays).loss.backward()
        optimizer.step()
    model.eval()


def _write_archive(model: Any, path: Path) -> None:
    import torch

    ids = torch.ones(1, LENGTH, dtype=torch.long)
    inputs = {name: ids.clone() for name in INPUTS}
    torch.export.save(torch.export.export(model, (), kwargs=inputs, strict=False), path)


def _write_text(path: Path, count: int, seed: int) -> None:
    draw = random.Random(seed)
    lines = ["text,label"]
    for n in range(count):
        words = [*draw.choices(WORDS, k=draw.randint(3, 7)), draw.choice((BAD, GOOD)[n % 2])]
        draw.shuffle(words)
        lines.append(f"{' '.join(words)},{n % 2}")
    path.write_text("\n".join(lines) + "\n")


def _write_data(path: Path, model: Path) -> None:
    words = ["--text", f"{path}.csv", "--tokenizer", str(model), "--length", str(LENGTH)]
    assert import_module(TOOLS["heatc-tune"]).main(["data", *words, "-o", f"{path}.npz", "-q"]) == 0
