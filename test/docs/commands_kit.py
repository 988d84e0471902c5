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
from typing import NamedTuple

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

SHORTER: Mapping[str, str] = {"--minutes 10": "--minutes 0.1"}
"""What a test says in place of a page's words, so that it ends sooner."""

WORDS = ("film", "story", "actor", "scene", "music", "plot", "was", "the", "very", "quite")
GOOD, BAD = ("good", "lovely", "bright", "warm"), ("bad", "dull", "grey", "cold")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
INPUTS = ("input_ids", "attention_mask")
LENGTH = 64


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
            yield Command(text, words if words[0] in TOOLS else None)


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
    _write_model(folder / "model")
    for name, count, seed in (("train", 64, 0), ("dev", 24, 1), ("test", 24, 2)):
        _write_text(folder / f"{name}.csv", count, seed)
        _write_data(folder / name, folder / "model")
    (folder / "machine.yaml").write_text("name: slow\nschema: 1\nbase: hdp-edge\nclock: 250 MHz\n")


def _write_model(place: Path) -> None:
    import torch
    import transformers

    vocabulary = [*SPECIAL, *WORDS, *GOOD, *BAD]
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(place)
    (place / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    ids = torch.ones(1, LENGTH, dtype=torch.long)
    inputs = {name: ids.clone() for name in INPUTS}
    exported = torch.export.export(model, (), kwargs=inputs, strict=False)
    torch.export.save(exported, place.parent / "model.pt2")


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
