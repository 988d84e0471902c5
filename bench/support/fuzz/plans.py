"""Hostile plan.json files, of every version and with what old versions said."""

from __future__ import annotations

import hashlib
import json
from random import Random
from typing import Any

from bench.support.fuzz import octets, tensors, trees
from bench.support.fuzz.corpus import Corpus
from heatc.plan import SCHEMA

PLANS = ("rules.json", "heat.json", "both.json", "trained.json")

_HEATS: tuple[Any, ...] = (
    {"format": "low-rank", "ranks": [1 << 40]},
    {"format": "low-rank", "ranks": [0]},
    {"format": "low-rank", "ranks": [8], "path": [[0, 1], [0, 1]]},
    {"format": "tt", "shape": "2x4|4x4", "ranks": [2, 4, 4], "path": [[0, 9]]},
    {"format": "tt", "shape": "1x1x1x1x1x1x8|16", "ranks": [1] * 7},
    {"format": "tt", "shape": "99999999x99999999|1", "ranks": [1, 1]},
    {"format": "ttm", "shape": "2x4|4x4", "ranks": [1 << 62]},
    {"format": "tucker", "shape": "2x4|4x4", "ranks": [2, 4, 4, 4]},
    {"format": "cp", "shape": "2x4|4x4", "ranks": [100_000]},
    {"format": "cp", "shape": "8|16", "ranks": [4], "fuse": 1 << 40},
    {"format": "low-rank", "ranks": [4], "fuse": -1},
    {"format": "dense"},
)
_RULE = {"rule": "ours", "point": 2, "rho_b": [0.1, 0.2], "tau_h": [0.0, 0.5]}
_HEAT = {"format": "low-rank", "ranks": [4]}
OLD: tuple[Any, ...] = (
    {"schema": 1, "layers": {"attention": {"hdp": _RULE}}},
    {"schema": 1, "model_sha256": None, "hw_sha256": None, "seed": 0, "layers": {}},
    {"schema": 1, "layers": {"wide": {"heat": _HEAT}}, "factors": None},
    {"schema": 1, "layers": {"wide": {"heat": {**_HEAT, "path": [[0, 1], [3, 2]], "fuse": 4}}}},
    {"schema": 0, "layers": {}},
    {"schema": 99, "layers": {}, "more": {}},
    {"schema": 99, "layers": {"wide": {"heat": {**_HEAT, "widths": [8, 8]}}}},
)
"""Plans of the first versions, and of versions that are none yet."""

_WRONG: tuple[Any, ...] = (
    {"schema": "1", "layers": {}},
    {"version": 1, "layers": {}},
    {"schema": SCHEMA, "model_sha256": "0" * 64, "layers": {}},
    {"schema": SCHEMA, "hw_sha256": "0" * 64, "layers": {}},
    {"schema": SCHEMA, "layers": {"wide": {"heat": _HEAT, "widths": {"weights": 8}}}},
    {"schema": SCHEMA, "layers": {"wide": {"widths": {"weights": 16, "bias": [16]}}}},
    {"schema": 1, "layers": {"wide": {"widths": {"weights": 16}}}},
)


def change(rng: Random, corpus: Corpus, names: tuple[str, ...] = PLANS) -> bytes:
    """A plan with something wrong in it."""
    name = rng.choice(names)
    way = rng.randrange(10)
    if way == 0:
        return octets.damage(rng, corpus.bytes(name))
    if way == 1:
        return json.dumps(rng.choice(_WRONG)).encode()
    # Of no model, so that it goes with whatever model it is given.
    tree: dict[str, Any] = {**corpus.json(name), "model_sha256": None}
    if way in (2, 3):
        layers = dict(tree["layers"])
        layer = rng.choice([*layers, "wide", "attention", "missing", ""])
        layers[layer] = {**layers.get(layer, {}), "heat": _heat(rng)}
        return trees.write(rng, {**tree, "layers": layers})
    if way in (4, 5, 6):
        layers = trees.numbers(rng, tree["layers"], 0.3)
        return json.dumps({**tree, "layers": layers}).encode()
    return trees.write(rng, trees.change(rng, tree))


def needs_machine(plan: bytes) -> bool:
    """Whether a plan may say how attention is pruned, which is for HDP targets alone."""
    return b'"rule"' in plan


def _heat(rng: Random) -> Any:
    heat = rng.choice(_HEATS)
    return trees.change(rng, heat) if rng.random() < 0.5 else heat


def with_factors(rng: Random, corpus: Corpus) -> dict[str, bytes]:
    """A plan and hostile factors; most often the plan names the digest that they have."""
    parts = tensors.parse(corpus.bytes("trained.factors.safetensors"))
    factors = tensors.change(rng, parts)
    plan = dict(corpus.json("trained.json"))
    if rng.random() < 0.95:
        digest = hashlib.sha256(factors).hexdigest()
        plan["factors"] = {**plan["factors"], "sha256": digest, "file": "plan.safetensors"}
    return {"plan.json": json.dumps(plan).encode(), "plan.safetensors": factors}
