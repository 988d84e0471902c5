"""Every family with `--heat low-rank,ratio=0.5`: HDP beside NumPy, and what became of weights."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.support.differential.build import Compiled, load_hdp, load_numpy
from bench.support.differential.judge import limited
from bench.support.families import judge
from bench.support.families.entry import Array, Arrays, Entry
from heatc.api import Compilation
from heatc.capture import Captured
from heatc.heat.options import heat_options
from heatc.rules import make_rule
from heatc.targets import Hdp, Numpy, Options
from heatc.verify.settings import Settings

HEAT = "low-rank,ratio=0.5"
RATIO = 0.51
"""Most of a layer's parameters that may be left: ranks are whole numbers"""
COSINE = 0.9999
"""Least cosine of an HDP program's output with the NumPy program's"""
_PASS = "heat-decompose"
_NOTHING = {"kind": "refused", "layers": 0, "parameters left": 0, "stored once": False, "cosine": 0}
_ORDERS = range(1, 17)
_FLOAT = 4
"""Bytes of a weight"""


def heated(entry: Entry) -> dict[str, Any]:
    """One family by archive: whether both programs agree and each weight is factorised once."""
    line: dict[str, Any] = {"family": entry.family, "head": entry.head, **_NOTHING}
    implementation = entry.implementations[-1]
    with tempfile.TemporaryDirectory(prefix="heatc-families-") as name:
        folder = Path(name)
        try:
            with limited(judge.SECONDS):
                module = entry.module(implementation)
                captured = judge.capture(entry, module, implementation, "archive", folder)
                return line | _compared(entry, captured, folder)
        except Exception as error:
            kind, message = judge.fault(error)
            return line | {"kind": kind, "message": message}


def _compared(entry: Entry, captured: Captured, folder: Path) -> dict[str, Any]:
    samples = folder / "samples.npz"
    np.savez(samples, **calibration(entry))  # pyright: ignore[reportArgumentType]
    remarks = folder / "remarks.jsonl"
    numpy = _compiled(captured, "numpy", folder / "small.py", samples, remarks)
    _compiled(captured, "numpy", folder / "dense.py", None, None)
    hdp = _compiled(captured, "hdp", folder / "small.hdp", samples, None)
    inputs, _ = entry.given(entry.masks[-1])
    cosine = least_cosine(numpy.run(inputs), hdp.run(inputs))
    layers = factors(remarks.read_text(encoding="utf-8").splitlines())
    before, after = (sum(x) for x in zip(*layers.values())) if layers else (0, 0)
    sizes = [(folder / f"{n}.safetensors").stat().st_size for n in ("dense", "small")]
    found = {
        "layers": len(layers),
        "parameters left": round(after / max(before, 1), 3),
        "stored once": spared(sizes[0] - sizes[1], before - after),
        "cosine": cosine,
    }
    kind, message = verdict(found)
    return {"kind": kind, **found, "message": message}


def verdict(found: Mapping[str, Any]) -> tuple[judge.Kind, str]:
    """Whether a family's figures are as they should be, and what is not."""
    if not found["layers"]:
        return "wrong", "no layer was factorised"
    if found["cosine"] < COSINE:
        return "wrong", f"HDP's cosine with NumPy is {found['cosine']:.6f}"
    if found["parameters left"] > RATIO:
        return "wrong", f"{found['parameters left']} of the parameters are left"
    if not found["stored once"]:
        return "wrong", "the weights' file holds more than each factor once"
    return "right", ""


def factors(remarks: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Parameters before and after of each layer that remarks say is factorised, by its path."""
    found: dict[str, tuple[int, int]] = {}
    for line in remarks:
        remark = json.loads(line)
        if remark["pass"] != _PASS or "chosen" not in remark or not remark["chosen"]:
            continue
        chosen = remark["chosen"]
        if chosen.get("format") == "low-rank":
            rows, columns = (int(extent) for extent in chosen["shape"].split("|"))
            found[remark["layer"]] = (rows * columns, chosen["parameters"])
    return found


def spared(difference: int, parameters: int) -> bool:
    """Whether a file is smaller by the bytes of so many weights, its header aside."""
    return difference >= _FLOAT * parameters * 0.9 - 4096


def least_cosine(want: Arrays, got: Arrays) -> float:
    """The least cosine of an output of floats."""
    return min(_cosine(want[name], got[name]) for name in want)


def _cosine(want: Array, got: Array) -> float:
    a, b = (x.astype(np.float64).ravel() for x in (want, got))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else 1.0


def calibration(entry: Entry) -> Arrays:
    """
    Samples of which layers see every padding, other orders of tokens, and other pictures and sounds.

    There are more of them than a layer has inputs: factors are not to be made of directions unseen.
    """
    batches = [entry.given(mask)[0] for mask in entry.masks]
    whole = entry.given("none")[0]
    batches += [
        {name: _reordered(array, number) for name, array in whole.items()} for number in _ORDERS
    ]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in whole}


def _reordered(array: Array, number: int) -> Array:
    """Tokens further on, or the samples of a picture or sound in another order."""
    if array.dtype.kind != "f":
        return np.roll(array, number, axis=-1)
    return np.random.default_rng(number).permuted(array.reshape(-1)).reshape(array.shape)


def _compiled(
    captured: Captured, target: str, path: Path, samples: Path | None, remarks: Path | None
) -> Compiled:
    chosen = Numpy() if target == "numpy" else Hdp("hdp-edge")
    rule = make_rule("none", {})
    options = Options(chosen, rule)
    if samples is not None:
        heat = heat_options(HEAT, samples)
        options = Options(chosen, rule, heat=heat, calibrate=str(samples))
    compilation = Compilation(options, remarks=remarks, verify=Settings(), quiet=True)
    compilation.adopt(captured.module.clone(), captured.weights, "model")
    compilation.run()
    compilation.write(path, target)
    return load_numpy(path) if target == "numpy" else load_hdp(path)
