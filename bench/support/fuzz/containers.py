"""Hostile `.hdp` files: sections changed, with the checksums of frame and manifest mended."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from bench.support.fuzz import archives, octets, tensors, trees, words
from heatc.backends.hdp.archive import ArchiveWriter

PROGRAM, DEBUG, WEIGHTS, MANIFEST = (
    "program.bin",
    "debug.json",
    "weights.safetensors",
    "manifest.json",
)

Sections = dict[str, bytes]


def parse(file: bytes) -> Sections:
    """The sections of a good program."""
    return archives.parse(file)


def join(rng: Random, sections: Mapping[str, bytes], manifest: Any = None) -> bytes:
    """
    A program in the canonical frame, its manifest naming the sections that it has.

    `manifest` is the tree of the manifest, else that of `sections`; one that is no object, or has
    no object of sections, is written as it is.
    """
    stream = io.BytesIO()
    archive = ArchiveWriter(stream)
    for name, data in sections.items():
        if name != MANIFEST:
            archive.add(name, data)
    tree = json.loads(sections[MANIFEST]) if manifest is None else manifest
    if isinstance(tree, dict) and isinstance(tree.get("sections"), dict):
        found = {m.name: {"bytes": m.size, "crc32": f"{m.crc:08x}"} for m in archive.members}
        tree = {**tree, "sections": {**tree["sections"], **found}}
    text = json.dumps(tree).encode() if manifest is None else trees.write(rng, tree)
    archive.add(MANIFEST, text)
    archive.close()
    return stream.getvalue()


def change(rng: Random, sections: Sections) -> bytes:
    """A program in which one section, or the frame, is hostile."""
    way = rng.randrange(12)
    if way == 0:
        return octets.damage(rng, join(rng, sections))
    if way == 1:
        return archives.frame(rng, sections)
    if way in (2, 3, 4):
        return join(rng, sections, trees.change(rng, json.loads(sections[MANIFEST])))
    if way in (5, 6, 7):
        return join(rng, {**sections, DEBUG: debug(rng, sections)})
    if way == 8:
        weights = tensors.change(rng, tensors.parse(sections[WEIGHTS]))
        return join(rng, {**sections, WEIGHTS: weights})
    if way == 9:
        return join(rng, _sections(rng, sections))
    return join(rng, {**sections, PROGRAM: program(rng, sections)})


def debug(rng: Random, sections: Sections) -> bytes:
    """A debug.json that is about another program, or about none."""
    tree = json.loads(sections[DEBUG])
    way = rng.randrange(3)
    if way == 0:
        return json.dumps(trees.numbers(rng, tree, rng.choice((0.01, 0.1)))).encode()
    if way == 1:
        tree = _mixed(rng, tree)
    return trees.write(rng, trees.change(rng, tree))


def _mixed(rng: Random, tree: Any) -> Any:
    """A debug.json whose numbers are other numbers of it: right in form, wrong in what they name."""
    found = list(_numbers(tree))

    def mix(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: mix(child) for key, child in part.items()}
        if isinstance(part, list):
            return [mix(child) for child in part]
        return rng.choice(found) if type(part) is int and rng.random() < 0.05 else part

    return mix(tree)


def _numbers(tree: Any) -> Iterator[int]:
    if isinstance(tree, dict | list):
        for child in tree.values() if isinstance(tree, dict) else tree:
            yield from _numbers(child)
    elif type(tree) is int:
        yield tree


def program(rng: Random, sections: Sections) -> bytes:
    """A program.bin beside the same manifest and weights."""
    good = words.parse(sections[PROGRAM])
    how = words.invent if rng.random() < 0.2 else words.change
    return words.section(rng, how(rng, good))


def _sections(rng: Random, sections: Sections) -> Sections:
    """Sections missing, more, in another order, or one in another's place."""
    new = copy.copy(sections)
    names = [name for name in new if name != MANIFEST]
    name, other = rng.choice(names), rng.choice(names)
    way = rng.randrange(5)
    if way == 0:
        del new[name]
    elif way == 1:
        new[rng.choice(("ir/x.mlir", "ir/../x", "x", *archives.NAMES[:8])) or "y"] = b"text"
    elif way == 2:
        new[name], new[other] = new[other], new[name]
    elif way == 3:
        new[name] = b""
    else:
        new = {name: new.pop(name), **new}
    return new
