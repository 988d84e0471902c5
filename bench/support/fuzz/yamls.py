"""Hostile hardware descriptions and spaces of them."""

from __future__ import annotations

from random import Random
from typing import Any

import yaml

from bench.support.fuzz import lines, octets, trees
from bench.support.fuzz.corpus import Corpus

UNITS = (
    *("KiB", "MiB", "GiB", "TiB", "B", "B/cycle", "MHz", "GHz", "kHz", "Hz", "GB/s", "MB/s", "ns"),
    *(
        "us",
        "s",
        "cycles",
        "fJ",
        "pJ",
        "J",
        "um2",
        "mm2",
        "mW",
        "bit",
        "nm",
        "ops/s",
        "xB",
        "",
        "%",
    ),
)
AMOUNTS = (
    *("0", "1", "-1", "64", "0.5", "1e3", "1e999", "nan", "inf", "-inf", "1/0", "1/3", "0x10"),
    *("1_000", "99999999999999999999", "64.0000001", "1e-30", "٣", "", " ", "9" * 5000, "1:30"),
)

_TEXTS = (
    "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
    "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\n"
    "e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e]\n"
    "g: &g [*f, *f, *f, *f, *f, *f, *f, *f, *f]\ncores: *g\n",
    "cores: !!python/object/apply:os.system ['true']\n",
    "cores: !!binary aGVsbG8=\n",
    "cores: &a {value: *a}\n",
    "<<: {cores: 4}\n",
    "cores: 4\ncores: 8\n",
    "cores: 2001-01-01\n",
    "? [1, 2]\n: 3\n",
    "? {a: b}\n: 3\n",
    "---\ncores: 4\n---\ncores: 8\n",
    "- cores\n- 4\n",
    "%YAML 9.9\n---\ncores: 4\n",
    "cores: {value: {value: {value: {value: 4}}}}\n",
    "cores: " + "{a: " * 200 + "1" + "}" * 200 + "\n",
    "cores: " + "[" * 500 + "\n",
    "\tcores: 4\n",
    "cores: |\n  4\n",
    "1: 2\n",
    "null: 4\n",
    "base: mine\n",
    "base: ../base/some.yaml\n",
    "base: hw.yaml\n",
    "base: /dev/zero\n",
    "",
    "4",
)


def hardware(rng: Random, corpus: Corpus, *, base: str = "some.yaml") -> bytes:
    """A hardware file that is wrong somewhere, or describes a strange machine."""
    name = rng.choice((base, base, "whole.yaml"))
    way = rng.randrange(10)
    if way == 0:
        return octets.damage(rng, corpus.bytes(name))
    if way == 1:
        text = corpus.text(base) + rng.choice(_TEXTS)
        return (rng.choice(_TEXTS) if rng.random() < 0.3 else text).encode()
    if way in (2, 3, 4):
        return lines.change(rng, corpus.text(name)).encode(errors="surrogatepass")
    tree = corpus.keep("yaml", name, lambda: yaml.safe_load(corpus.bytes(name)))
    if way in (5, 6):
        tree = trees.change(rng, tree)
    else:
        for _ in range(rng.randint(1, 3)):
            tree = _quantity(rng, tree)
    try:
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode(
            errors="surrogatepass"
        )
    except (yaml.YAMLError, ValueError):
        # What YAML has no form for.
        return trees.write(rng, tree)


def _quantity(rng: Random, tree: Any) -> Any:
    """A tree in which one quantity is another one."""
    if isinstance(tree, dict) and tree and set(tree) != {"value", "source"}:
        key = rng.choice(list(tree))
        return {**tree, key: _quantity(rng, tree[key])}
    value = rng.choice(AMOUNTS) + rng.choice(("", " ", " ", "  ")) + rng.choice(UNITS)
    if rng.random() < 0.3:
        value = rng.choice(trees.INTEGERS)
    return {**tree, "value": value} if isinstance(tree, dict) and rng.random() < 0.5 else value
