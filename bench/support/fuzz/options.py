"""Hostile command lines: good ones with words added, left out, said twice, and wrong values."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from bench.support.fuzz import lines
from bench.support.fuzz.case import Case
from bench.support.fuzz.corpus import Corpus
from bench.support.fuzz.tools import COPIES, FILES, NOWHERE, ODD, OUTPUTS, TOOLS, Tool, Value


def case(rng: Random, corpus: Corpus, entry: str) -> Case:
    """A command line of a tool."""
    tool = TOOLS[entry]
    words = list(rng.choice(tool.starts))
    for _ in range(1 + min(4, int(rng.expovariate(0.8)))):
        _edit(rng, tool, words)
    words = _harmless(tool, words)
    files = {name: corpus.bytes(source) for name, source in COPIES.items()}
    if not _can_be_told(words):
        words = [_printable(word) for word in words]
    return Case(tuple(words), files, stdin=corpus.bytes("hdp/hdp-edge-none.s"))


def _harmless(tool: Tool, words: Sequence[str]) -> list[str]:
    """The words, but that nothing is written outside of the folder of the case."""
    outputs = [name for name, value in tool.options.items() if value in OUTPUTS]
    found = list(words)
    for at, word in enumerate(found):
        name, equals, value = word.partition("=")
        before = found[at - 1] if at else ""
        if equals and name in outputs and _leaves(value):
            found[at] = f"{name}=out"
        elif before in outputs and _leaves(word):
            found[at] = "out"
    return found


def _leaves(path: str) -> bool:
    return path.startswith(("..", "/")) and path not in ("/", "/dev/null", "/dev/full")


def _edit(rng: Random, tool: Tool, words: list[str]) -> None:
    edit = rng.randrange(12)
    at = rng.randrange(max(len(words), 1))
    if edit == 0 and words:
        del words[at]
    elif edit == 1 and words:
        words.insert(at, words[at])
    elif edit == 2:
        words.insert(at, rng.choice(ODD))
    elif edit == 3 and words:
        words[at] = lines.change(rng, words[at])
    elif edit == 4:
        words[min(at, len(words)) : at + 1] = [rng.choice((*FILES, *NOWHERE))]
    else:
        name = rng.choice(list(tool.options))
        value = tool.options[name]
        words += _option(rng, name.removesuffix("-"), value)


def _option(rng: Random, name: str, value: Value | None) -> list[str]:
    if value is None:
        return [name] if rng.random() < 0.95 else [f"{name}=1"]
    text = value(rng)
    if name.startswith("--") and rng.random() < 0.3:
        return [f"{name}={text}"]
    return [name, text]


def _can_be_told(words: Sequence[str]) -> bool:
    """Whether a shell could give these words: no null characters, no lone surrogates."""
    return not any("\0" in word or "\ud800" in word for word in words)


def _printable(word: str) -> str:
    return word.replace("\0", "").replace("\ud800", "\udc80")
