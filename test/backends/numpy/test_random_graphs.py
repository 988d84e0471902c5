"""The NumPy program of a random graph computes what the interpreter computes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_kit import BATCH, LENGTH, WIDTH, random_graph
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.backends.numpy.emit import emit_program
from heatc.interpreter import execute
from heatc.weights import WeightStore

SEEDS, A_TEST = 320, 32


def compare(seed: int, folder: Path) -> str:
    """Run one graph twice on other inputs, so that buffers are used again; returns the program."""
    text, arrays = random_graph(seed)
    module, store = Parser(make_context(), text).parse_module(), WeightStore(arrays)
    module.verify()
    path = folder / f"graph{seed}.py"
    emit_program(module, store, path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    program: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    rng = np.random.default_rng(seed)
    holes = rng.integers(0, 2, (BATCH, LENGTH))
    holes[np.arange(BATCH), rng.integers(0, LENGTH, BATCH)] = 1  # a sequence has a token
    for mask in (np.ones((BATCH, LENGTH), np.int64), holes):
        inputs = {"x": rng.standard_normal((BATCH, LENGTH, WIDTH)).astype(np.float32), "m": mask}
        want, got = execute(module, inputs, store), program.main(**inputs)
        for name, array in want.items():
            size = max(1.0, float(np.abs(array).max(initial=0.0)))
            message = f"seed {seed}, output {name}"
            np.testing.assert_allclose(got[name], array, 0, 2e-5 * size, err_msg=message)
    return path.read_text()


@pytest.mark.parametrize("first", range(0, SEEDS, A_TEST))
def test_random_graphs(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + A_TEST):
        compare(seed, tmp_path)


def test_random_graphs_have_what_they_are_for(tmp_path: Path) -> None:
    programs = "".join(compare(seed, tmp_path) for seed in range(40))
    parts = ("residual=", "activation=", "for i in range(", "for t in slices(", "attention(")
    assert all(part in programs.replace("def attention(", "") for part in parts)
