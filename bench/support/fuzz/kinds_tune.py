"""Hostile inputs of heatc-tune: each command up to where its work begins."""

from __future__ import annotations

from random import Random

from bench.support.fuzz import arrays, ir, lines, options, plans, tensors, yamls
from bench.support.fuzz.case import Case, kind
from bench.support.fuzz.corpus import Corpus

MODEL = ("../base/tiny.mlir", "--weights", "../base/tiny.safetensors")

CALIBRATE = ("calibrate", *MODEL, "--goal", "sparsity>=0.5", "-o", "plan.json", "--quiet")
SEARCH = ("search", *MODEL, "-o", "front", "--jobs", "1", "--quiet")
DISTILL = ("distill", *MODEL, "-o", "small.json", "--quiet")
HEAT = ("--heat", "low-rank,ratio=0.5,init=plain")
DATA = ("--data", "../base/data.npz")


def _data(rng: Random, corpus: Corpus) -> bytes:
    return arrays.hostile(rng, corpus, "data.npz", valid=0.4)


@kind("heatc-tune calibrate", "data .npz", 900)
def calibrate_data(rng: Random, corpus: Corpus) -> Case:
    """Hostile calibration data."""
    files = {"data.npz": _data(rng, corpus)}
    argv = (*CALIBRATE, "--data", "data.npz")
    return Case(argv, files, references=(("data.npz", "npz"),))


@kind("heatc-tune calibrate", "plan.json", 1_200)
def calibrate_plan(rng: Random, corpus: Corpus) -> Case:
    """A hostile plan of factors."""
    names = ("heat.json", "both.json", "trained.json")
    files = {"p.json": plans.change(rng, corpus, names)}
    files["trained.factors.safetensors"] = corpus.bytes("trained.factors.safetensors")
    argv = (*CALIBRATE, *DATA, "--plan", "p.json")
    return Case(argv, files, references=(("p.json", "json"),))


@kind("heatc-tune calibrate", "options", 2_400)
def calibrate_options(rng: Random, corpus: Corpus) -> Case:
    """A command line."""
    return options.case(rng, corpus, "heatc-tune calibrate")


@kind("heatc-tune calibrate", "--goal", 110_000)
def calibrate_goal(rng: Random, _corpus: Corpus) -> Case:
    """A goal that is none."""
    goal = rng.choice(("accuracy-drop<=1", "sparsity>=0.85", "edp>=1.15x", "cycles<=2e6"))
    text = lines.change(rng, goal).replace("\0", "0").replace("\ud800", "?")
    argv = ["x.mlir" if word == "../base/tiny.mlir" else word for word in CALIBRATE]
    argv[argv.index("sparsity>=0.5")] = text
    return Case((*argv, *DATA))


@kind("heatc-tune calibrate", "model .mlir", 600)
def calibrate_model(rng: Random, corpus: Corpus) -> Case:
    """A hostile model."""
    files = {"x.mlir": ir.text(rng, corpus, "tiny.mlir")}
    argv = ["x.mlir" if word == "../base/tiny.mlir" else word for word in CALIBRATE]
    return Case((*argv, *DATA), files)


@kind("heatc-tune search", "data .npz", 600)
def search_data(rng: Random, corpus: Corpus) -> Case:
    """Hostile data."""
    files = {"data.npz": _data(rng, corpus)}
    name = rng.choice(("--data", "--dev"))
    argv = (*SEARCH, *(DATA if name == "--dev" else ()), name, "data.npz")
    return Case(argv, files, references=(("data.npz", "npz"),))


@kind("heatc-tune search", "space .yaml", 1_800)
def search_space(rng: Random, corpus: Corpus) -> Case:
    """A hostile space of machines."""
    files = {"space.yaml": yamls.hardware(rng, corpus, base="space.yaml")}
    argv = (*SEARCH, *DATA, "--hw-space", "space.yaml")
    return Case(argv, files, references=(("space.yaml", "yaml"),))


@kind("heatc-tune search", "options", 900)
def search_options(rng: Random, corpus: Corpus) -> Case:
    """A command line."""
    return options.case(rng, corpus, "heatc-tune search")


@kind("heatc-tune distill", "data .npz", 600, torch=True)
def distill_data(rng: Random, corpus: Corpus) -> Case:
    """Hostile text."""
    files = {"data.npz": _data(rng, corpus)}
    name = rng.choice(("--data", "--dev", "--extra"))
    argv = (*DISTILL, *HEAT, *(() if name == "--data" else DATA), name, "data.npz")
    return Case(argv, files, references=(("data.npz", "npz"),))


@kind("heatc-tune distill", "plan.json", 700, torch=True)
def distill_plan(rng: Random, corpus: Corpus) -> Case:
    """A hostile plan."""
    files = {"p.json": plans.change(rng, corpus)}
    files["trained.factors.safetensors"] = corpus.bytes("trained.factors.safetensors")
    argv = (*DISTILL, *DATA, "--plan", "p.json")
    return Case(argv, files, references=(("p.json", "json"),))


@kind("heatc-tune distill", "weights .safetensors", 600, torch=True)
def distill_weights(rng: Random, corpus: Corpus) -> Case:
    """Hostile weights."""
    parts = corpus.keep("tensors", "", lambda: tensors.parse(corpus.bytes("tiny.safetensors")))
    files = {"w.safetensors": tensors.change(rng, parts)}
    argv = ["w.safetensors" if w == "../base/tiny.safetensors" else w for w in (*DISTILL, *HEAT)]
    references = (("w.safetensors", "safetensors"),)
    return Case((*argv, *DATA), files, references=references)


@kind("heatc-tune distill", "options", 1_200, torch=True)
def distill_options(rng: Random, corpus: Corpus) -> Case:
    """A command line."""
    return options.case(rng, corpus, "heatc-tune distill")
