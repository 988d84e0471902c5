"""How each tool is told what to do: good command lines, and values for every option."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from bench.support.fuzz import lines

Value = Callable[[Random], str]

NOWHERE = (
    "missing",
    "no/such/x",
    "",
    ".",
    "..",
    "/",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/proc/self/mem",
    "a\0b",
    "x" * 300,
)
ODD = ("", "-", "--", "é", "\ud800", "0", "-1", "1e999", "nan", "x" * 5000, "=", ",", "%s", "a b")


OUTPUTS: list[Value] = []
"""What makes names of files to write."""


def _of(*values: str) -> Value:
    """One of some good values, now and then a damaged one."""

    def value(rng: Random) -> str:
        good = rng.choice(values)
        chance = rng.random()
        if chance < 0.5:
            return good
        if chance < 0.6:
            return rng.choice(ODD)
        return lines.change(rng, good)

    return value


def _in(*names: str) -> Value:
    """The name of a file to read: of the right kind, of another one, or of none."""

    def value(rng: Random) -> str:
        return rng.choice((*names, *names, rng.choice(FILES), rng.choice(NOWHERE)))

    return value


def _out(*names: str) -> Value:
    """The name of a file to write, which may be one that is read."""

    def value(rng: Random) -> str:
        return rng.choice((*names, *names, *names, rng.choice(COPIED), rng.choice(NOWHERE)))

    OUTPUTS.append(value)
    return value


FILES = (
    *(
        "../base/in.npz",
        "../base/data.npz",
        "../base/tiny.pt2",
        "../base/tiny.mlir",
        "../base/bert",
    ),
    *(
        "../base/hdp/hdp-edge-ours.hdp",
        "../base/hdp/hdp-edge-ours.s",
        "../base/hdp/hdp-edge-ours.bin",
    ),
    *("../base/rules.json", "../base/heat.json", "../base/trained.json", "../base/some.yaml"),
    *("../base/space.yaml", "../base/tiny.safetensors", "../base/hdp", "../base/bert/state.pt"),
    *(
        "../base/bert/config.json",
        "../base/shards",
        "../base/whole.yaml",
        "../base",
        "../base/bomb.npz",
    ),
)
COPIES = {
    "in.npz": "in.npz",
    "prog.hdp": "hdp/hdp-edge-ours.hdp",
    "prog.s": "hdp/hdp-edge-none.s",
    "tiny.mlir": "tiny.mlir",
    "tiny.safetensors": "tiny.safetensors",
    "rules.json": "rules.json",
    "some.yaml": "some.yaml",
}
"""What lies in the folder of a case, where a command may come to write over it."""
COPIED = tuple(COPIES)

_NUMBER = _of("0", "1", "2", "7", "-1", "0.5", "1e-3")
_WHOLE = _of("0", "1", "2", "3", "8", "-1")
_FLAG: Value | None = None
_SPEC = _of(
    "input_ids=2x6:i64,attention_mask=2x6:i64",
    "input_ids=1x8:i64,attention_mask=1x8:i64",
    "input_ids=8x999999999:i64",
    "inputs_embeds=100000x32x32:f32",
    "input_ids=1x128:i64",
    "x=:f32",
)
_HEAT = _of(
    "low-rank,ratio=0.5,init=plain",
    "low-rank,rank=4,joint,init=plain",
    "tt,rank=2,init=plain",
    "ttm,ratio=0.5,init=plain,modes=2",
    "tucker,ratio=0.5,init=plain,shape=2x4|4x4",
    "cp,rank=4,init=plain,layers=wide",
    "low-rank,ratio=0.5",
    "low-rank,ratio=0.9,spread,tables,init=plain",
)
_RULES = _of("none", "paper", "ours", "topk", "energon", "sanger", "spatten")
_TARGET = _of("hdp-edge", "hdp-edge-vector", "hdp-server", "numpy", "hdp-validation")

_RULE_OPTIONS: Mapping[str, Value | None] = {
    "--hdp-rule": _RULES,
    "--finer": _WHOLE,
    "--importance": _of("abs", "positive"),
    "--rho-b": _of("0.25", "0.1,0.2", "-0.5", "0"),
    "--density": _of("0.25", "1", "0.01"),
    "--alpha": _of("0,0", "0.1,0.2"),
    "--threshold": _of("0.002", "0"),
    "--pruned-score": _of("zero", "neginf", "int", "mean"),
    "--tau-h": _of("0", "1.3", "0.1,2"),
    "--gated": _of("zero", "mean", "col"),
    "--ratio": _of("0.2", "0", "0.5"),
    "--block": _of("2,2", "4,4", "8,8", "1,2"),
}
_COMMON: Mapping[str, Value | None] = {"--debug-": _FLAG, "--version": _FLAG, "--help": _FLAG}
_MODEL_OPTIONS: Mapping[str, Value | None] = {
    "--inputs": _SPEC,
    "--weights": _in("../base/tiny.safetensors", "tiny.safetensors"),
    "--trust-pickle-": _FLAG,
}


@dataclass(frozen=True)
class Tool:
    """
    How a tool is told what to do.

    Attributes:
        starts: good command lines.
        options: every option, with what makes values for it (None: it takes none).
        stdin: what is given to commands that read standard input.
    """

    starts: Sequence[Sequence[str]]
    options: Mapping[str, Value | None] = field(default_factory=dict[str, "Value | None"])


TOOLS: Mapping[str, Tool] = {
    "hdp-run": Tool(
        (
            ("../base/hdp/hdp-edge-ours.hdp", "--inputs", "../base/in.npz", "-o", "out.npz"),
            ("prog.hdp", "--inputs", "in.npz", "-o", "out.npz"),
            ("prog.hdp", "--model=timing", "--masks", "../base/hdp/hdp-edge-ours.masks.npz"),
            ("../base/hdp/hdp-edge-none.hdp", "--inputs", "../base/many.npz", "--stats", "stats"),
        ),
        {
            "--inputs": _in("../base/in.npz", "../base/many.npz", "in.npz"),
            "-o": _out("out.npz", "out", "in.npz", "prog.hdp"),
            "--reference": _in("../base/hdp/hdp-edge-ours.out.npz"),
            "--atol": _NUMBER,
            "--rtol": _NUMBER,
            "--min-cosine": _NUMBER,
            "--stats": _out("stats", "."),
            "--layers": _out("layers.npz"),
            "--save-masks": _out("masks.npz", "out.npz"),
            "--hw": _in("hdp-edge", "hdp-server", "../base/some.yaml", "some.yaml"),
            "--model": _of("both", "functional", "timing"),
            "--masks": _in("../base/hdp/hdp-edge-ours.masks.npz"),
            "--trace": _out("t.json", "t.pftrace", "t"),
            "--explain": _of("total_cycles", "time_seconds", "x"),
            "--quiet": _FLAG,
            "--max-seconds": _NUMBER,
            **_COMMON,
        },
    ),
    "hdp-objdump": Tool(
        (
            ("../base/hdp/hdp-edge-ours.hdp", "-d"),
            ("../base/hdp/trained.hdp", "-h", "-x", "-t", "-S"),
            ("../base/hdp/hdp-server-ours.bin", "-d", "--no-show-raw-insn"),
        ),
        {
            **dict.fromkeys(("-h", "-x", "-t", "-d", "-S"), _FLAG),
            "--show-raw-insn": _FLAG,
            "--start-address": _WHOLE,
            "--stop-address": _WHOLE,
            **_COMMON,
        },
    ),
    "hdp-as": Tool(
        (
            ("../base/hdp/hdp-edge-none.s", "-o", "program.bin"),
            ("prog.s", "-o", "program.bin"),
            ("-", "-o", "-"),
        ),
        {"-o": _out("program.bin", "prog.s", "-"), **_COMMON},
    ),
    "heatc": Tool(
        (
            ("../base/tiny.mlir", "--weights", "../base/tiny.safetensors", "-o", "x.py"),
            ("tiny.mlir", "--weights", "tiny.safetensors", "-o", "x.hdp"),
            ("../base/tiny.pt2", "-o", "x.mlir", "--target", "numpy"),
            ("../base/tiny.pt2", "-o", "x.hdp", "--plan", "../base/rules.json"),
            ("../base/tiny.pt2", "-o", "x.py", "--plan", "../base/heat.json"),
            ("--list-passes",),
            ("--print-hw", "hdp-edge"),
        ),
        {
            "-o": _out("x.hdp", "x.py", "x.mlir", "x.s", "x", "tiny.py", "tiny.mlir"),
            "--target": _TARGET,
            "--hw": _in("../base/some.yaml", "some.yaml", "hdp-edge"),
            "--emit": _of("ir", "asm", "hdp", "numpy"),
            "-O": _of("0", "1", "2", "3", "4"),
            "--plan": _in("../base/rules.json", "../base/heat.json", "rules.json"),
            "--heat": _HEAT,
            "--calibrate": _in("../base/data.npz", "../base/in.npz"),
            "--dump-phases-to": _out("phases", "."),
            "--print-ir-after": _of("cse", "dce", "raise-attention", "cse,dce"),
            "--print-ir-after-all": _FLAG,
            "--remarks": _out("remarks.json", "-"),
            "--execute-each": _FLAG,
            "--timing": _FLAG,
            "--dump-pass-pipeline": _FLAG,
            "--list-targets": _FLAG,
            "--print-hw": _in("hdp-server", "../base/some.yaml"),
            "--no-verify": _FLAG,
            "--min-cosine": _NUMBER,
            "--padding": _of("skip", "compute"),
            "--dump-divergence": _out("divergence"),
            **_MODEL_OPTIONS,
            **_RULE_OPTIONS,
            **_COMMON,
        },
    ),
    "heatc-opt": Tool(
        (
            ("../base/tiny.mlir", "-p", "raise-attention,raise-einsum,cse,dce"),
            ("tiny.mlir", "-p", "canonicalize"),
            ("../base/ir/ours/06-pack-tokens.mlir", "-p", "insert-hdp{rule=ours}"),
        ),
        {
            "-p": _of(
                "canonicalize,cse,dce",
                "raise-attention,raise-einsum,pack-tokens",
                'insert-hdp{rule="ours"}',
                "insert-hdp{rho-b=0.1,0.2 block=4,4}",
                "plan-tiles,tile-for-hdp,lower-to-hdp",
                'heat-decompose{format="low-rank" rank=2 init="plain"}',
                'builtin.module(func.func(cse))',
            ),
            "-o": _out("y.mlir", "tiny.mlir"),
            "-t": _of("mlir", "hdp-asm", "wasm", "riscv-asm", "csl"),
            "--print-ir-after": _of("cse", "dce"),
            "--print-ir-after-all": _FLAG,
            "--verify-diagnostics": _FLAG,
            "--parsing-diagnostics": _FLAG,
            "--split-input-file": _FLAG,
            "--print-op-generic": _FLAG,
            "--print-debuginfo": _FLAG,
            "--allow-unregistered-dialect": _FLAG,
            "--disable-verify": _FLAG,
            "--no-implicit-module": _FLAG,
            "--weights": _in("../base/tiny.safetensors"),
            "--hw": _in("hdp-edge", "../base/some.yaml"),
            "--calibrate": _in("../base/data.npz"),
            "--plan": _in("../base/rules.json", "../base/heat.json"),
            "--factors": _out("factors.safetensors"),
            "--timing": _FLAG,
            **_COMMON,
        },
    ),
    "heatc-tune calibrate": Tool(
        (
            ("calibrate", "../base/tiny.pt2", "--data", "../base/data.npz", "--goal",
             "sparsity>=0.5", "-o", "plan.json"),
            ("calibrate", "tiny.mlir", "--weights", "tiny.safetensors", "--data",
             "../base/data.npz", "--goal", "edp>=1.1x", "-o", "plan.json"),
        ),
        {
            "--data": _in("../base/data.npz", "in.npz"),
            "--goal": _of("accuracy-drop<=1", "sparsity>=0.85", "edp>=1.1x", "cycles<=2e6"),
            "-o": _out("plan.json", "rules.json", "x"),
            "--plan": _in("../base/heat.json", "../base/trained.json", "rules.json"),
            "--target": _TARGET,
            "--hw": _in("../base/some.yaml", "some.yaml"),
            "--block": _of("2,2", "8,8", "1,1"),
            "--pruned-score": _of("zero", "mean,int"),
            "--no-head-gate": _FLAG,
            "--seed": _WHOLE,
            "--work-dir": _out("work"),
            "--quiet": _FLAG,
            **_MODEL_OPTIONS,
            **_COMMON,
        },
    ),
    "heatc-tune search": Tool(
        (
            ("search", "../base/tiny.pt2", "--data", "../base/data.npz", "-o", "front",
             "--jobs", "1"),
            ("search", "tiny.mlir", "--weights", "tiny.safetensors", "--data",
             "../base/data.npz", "-o", "front", "--hw-space", "../base/space.yaml"),
        ),
        {
            "--data": _in("../base/data.npz", "in.npz"),
            "--dev": _in("../base/data.npz"),
            "-o": _out("front", "."),
            "--target": _TARGET,
            "--hw": _in("../base/some.yaml"),
            "--hw-space": _in("../base/space.yaml"),
            "--layers": _of("*", "*attention*", "wide|narrow", "["),
            "--formats": _of("low-rank,tt", "cp", "tucker,ttm"),
            "--points": _WHOLE,
            "--programs": _FLAG,
            "--goal": _of("edp>=5.7x", "proxy<=0.05"),
            "--validate": _WHOLE,
            "--samples": _WHOLE,
            "--seed": _WHOLE,
            "--jobs": _WHOLE,
            "--work-dir": _out("work"),
            "--quiet": _FLAG,
            **_MODEL_OPTIONS,
            **_COMMON,
        },
    ),
    "heatc-tune distill": Tool(
        (
            ("distill", "../base/tiny.pt2", "--data", "../base/data.npz", "--heat",
             "low-rank,ratio=0.5", "-o", "small.json"),
            ("distill", "tiny.mlir", "--weights", "tiny.safetensors", "--data",
             "../base/data.npz", "--plan", "../base/heat.json", "-o", "small.json"),
        ),
        {
            "--plan": _in("../base/heat.json", "../base/both.json", "../base/trained.json"),
            "--heat": _HEAT,
            "--data": _in("../base/data.npz", "in.npz"),
            "--extra": _in("../base/many.npz"),
            "--dev": _in("../base/data.npz"),
            "-o": _out("small.json", "tiny.json", "rules.json"),
            "--epochs": _of("2+2", "0+0", "1+0"),
            "--rates": _of("2e-3,1e-4"),
            "--patience": _WHOLE,
            "--device": _of("cpu", "cuda", "meta", "mps"),
            "--seed": _WHOLE,
            "--work-dir": _out("work"),
            "--keep-teacher": _out("kept"),
            "--quiet": _FLAG,
            **_MODEL_OPTIONS,
            **_RULE_OPTIONS,
            **_COMMON,
        },
    ),
}  # fmt: skip
