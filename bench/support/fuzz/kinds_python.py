"""Hostile arguments of `heatc.compile`: wrong types, wrong values, wrong files."""

from __future__ import annotations

from random import Random

from bench.support.fuzz import octets
from bench.support.fuzz.case import Case, kind
from bench.support.fuzz.corpus import Corpus

ODD = (
    *("None", "0", "-1", "1.5", "float('nan')", "1 << 70", "True", "''", "'x'", "b'x'", "[]", "{}"),
    *("()", "object()", "int", "print", "Path('.')", "Path('missing')", "'a\\0b'", "'\\ud800'"),
    *("{'x': 1}", "[1, 'a']", "np.zeros(3)", "np.float32(0.5)", "np.array('x')", "iter([])"),
    *("{1: 2}", "1j", "'../base/in.npz'", "'../base/bert'", "range(3)", "Ellipsis"),
)
SPEC = "InputSpec((2, 6), 'i64')"
GOOD = {
    "model": ("'../base/tiny.pt2'", "Path('../base/tiny.pt2')", "'x.pt2'"),
    "inputs": (
        "None",
        f"{{'input_ids': {SPEC}, 'attention_mask': {SPEC}}}",
        "{'input_ids': (2, 6)}",
        "{'input_ids': np.zeros((2, 6), np.int64)}",
        "{'input_ids': InputSpec((1 << 40,), 'i64')}",
        "{'input_ids': InputSpec('x', 3)}",
        "'input_ids=2x6:i64'",
    ),
    "target": ("'numpy'", "'hdp-edge'", "'hdp-server'", "'../base/some.yaml'"),
    "output": ("'x.py'", "'x.hdp'", "Path('x.hdp')", "'x'", "'no/x.hdp'", "'x.pt2'"),
    "hdp_rule": ("None", "'none'", "'ours'", "'paper'"),
    "plan": ("None", "'../base/rules.json'", "'../base/heat.json'", "Path('../base/both.json')"),
    "heat": ("None", "'low-rank,ratio=0.5,init=plain'", "'tt,rank=2'"),
    "calibrate": ("None", "'../base/data.npz'", "'../base/in.npz'"),
    "remarks": ("None", "'remarks.json'", "'-'"),
    "padding": ("'skip'", "'compute'"),
    "verify": ("True", "False"),
    "verify_seconds": ("None", "0", "0.5", "-1"),
    "min_cosine": ("None", "0.9", "2"),
    "dump_divergence": ("None", "'divergence'", "Path('divergence')"),
    "rho_b": ("0.1", "(0.1, 0.2)", "'0.1'"),
    "tau_h": ("0.5", "[0.0, 1.0]"),
    "block": ("(2, 2)", "[4, 4]", "2"),
    "finer": ("2",),
    "importance": ("'abs'",),
    "unknown": ("1",),
}
_TORCH = {
    "model": (
        "torch.nn.Linear(8, 8).eval()",
        "torch.nn.Linear",
        "torch.nn.ReLU()",
        "torch.zeros(2)",
    ),
    "inputs": (
        "{'input': torch.zeros(2, 8)}",
        "(torch.zeros(2, 8),)",
        "torch.zeros(2, 8)",
        "{'x': torch.zeros(2, 8)}",
        "(torch.zeros(2, 7),)",
        "{'input': 1}",
        "()",
        "(None,)",
        "[torch.zeros(2, 8)]",
        "{'input': torch.zeros(2, 8, dtype=torch.float16)}",
    ),
}


def _expression(rng: Random, values: dict[str, tuple[str, ...]]) -> str:
    """A call with some arguments right and some not."""
    chosen = {"model": rng.choice(values["model"]), "output": rng.choice(values["output"])}
    chosen["target"] = rng.choice(("'numpy'", "'numpy'", "'numpy'", rng.choice(GOOD["target"])))
    for name in rng.sample(list(values), rng.randint(1, 4)):
        chosen[name] = rng.choice(values[name])
    if rng.random() < 0.8:
        chosen[rng.choice(list(values))] = rng.choice(ODD)
    return f"heatc.compile({', '.join(f'{n}={v}' for n, v in chosen.items())})"


@kind("heatc.compile", "arguments", 1_800)
def arguments(rng: Random, corpus: Corpus) -> Case:
    """A file as the model."""
    data = corpus.bytes("tiny.pt2")
    if rng.random() < 0.3:
        data = octets.damage(rng, data)
    return Case((_expression(rng, GOOD),), {"x.pt2": data})


@kind("heatc.compile", "modules", 50_000, torch=True)
def modules(rng: Random, corpus: Corpus) -> Case:
    """A live module as the model."""
    return Case((_expression(rng, {**GOOD, **_TORCH}),))
