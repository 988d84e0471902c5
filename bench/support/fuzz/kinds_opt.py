"""Hostile inputs of heatc-opt."""

from __future__ import annotations

import re
from random import Random

from bench.support.fuzz import ir, lines, options
from bench.support.fuzz.case import Case, kind
from bench.support.fuzz.corpus import Corpus

FILES = ("--weights", "../base/tiny.safetensors", "--hw", "hdp-edge")
"""What passes work with."""

PASSES = (
    "canonicalize",
    "raise-attention",
    "raise-einsum",
    "cse",
    "dce",
    "pack-tokens",
    "heat-decompose{format=low-rank rank=2 init=plain}",
    "heat-decompose{format=tt rank=2 init=plain}",
    "order-contractions{objective=edp}",
    "order-contractions",
    "lower-contractions",
    "fuse-einsums",
    "shape-products",
    "fold-weights",
    "fuse-projections",
    "insert-hdp{rule=ours}",
    "insert-hdp{rule=paper rho-b=0.5}",
    "insert-hdp{rule=topk density=0.5}",
    "partition-host",
    "assign-fixed-point",
    "plan-tiles,tile-for-hdp",
    "lower-to-hdp",
    "allocate-buffers",
)
"""In the order of the pipeline."""

_NUMBER = re.compile(r"(\d+)-([a-z-]+)\.mlir")


def _module(rng: Random, corpus: Corpus) -> str:
    """A module: of a level of the pipeline, or a piece of a test."""
    if rng.random() < 0.25:
        return rng.choice(corpus.names("ir/tests/*.mlir"))
    return rng.choice(corpus.names("ir/[!t]*/*.mlir"))


def _pipeline(rng: Random, name: str) -> str:
    """Some passes: the next ones of the module's level, or any."""
    names = [text.partition("{")[0] for text in PASSES]
    level = _NUMBER.search(name)
    if level and rng.random() < 0.7:
        done = level[2] if level[2] in names else "canonicalize"
        at = len(names) - names[::-1].index(done)
        chosen = [p for p in PASSES[at : at + 8] if rng.random() < 0.6]
    else:
        chosen = rng.sample(PASSES, rng.randint(0, 3))
    return ",".join(chosen)


@kind("heatc-opt", ".mlir at every level", 4_800)
def passes(rng: Random, corpus: Corpus) -> Case:
    """A hostile module and some passes."""
    name = _module(rng, corpus)
    words = ("-p", _pipeline(rng, name), *FILES) if rng.random() < 0.8 else ()
    return Case(("x.mlir", *words), {"x.mlir": ir.text(rng, corpus, name)})


@kind("heatc-opt", "parsing alone", 12_000)
def parsing(rng: Random, corpus: Corpus) -> Case:
    """A hostile piece of a module, parsed, verified and printed."""
    name = rng.choice(corpus.names("ir/tests/*.mlir"))
    words = rng.choice(((), ("--print-op-generic",), ("--split-input-file",)))
    data = ir.text(rng, corpus, name)
    if rng.random() < 0.1:
        return Case(("-", *words), stdin=data)
    return Case(("x.mlir", *words), {"x.mlir": data})


@kind("heatc-opt", "pass options", 6_000)
def pass_options(rng: Random, corpus: Corpus) -> Case:
    """A good module and a pipeline with wrong options."""
    name = _module(rng, corpus)
    text = rng.choice(PASSES) if rng.random() < 0.7 else _pipeline(rng, name) or "cse"
    text = lines.change(rng, text).replace("\0", "0").replace("\ud800", "?")
    return Case((f"../base/{name}", "-p", text, *FILES))


@kind("heatc-opt", "options", 3_000)
def command(rng: Random, corpus: Corpus) -> Case:
    """A command line."""
    return options.case(rng, corpus, "heatc-opt")
