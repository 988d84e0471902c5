"""The check finds faults of the compiler, names the layer, and leaves no program behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heatc.errors import VerificationError
from heatc.verify import Settings

pytestmark = pytest.mark.torch

# conftest.py puts the root on the path.
from bench.support.miscompilations import MISCOMPILATIONS, Miscompilation  # noqa: E402

CASES = [(fault, target) for fault in MISCOMPILATIONS for target in fault.targets]


@pytest.mark.parametrize(
    ("fault", "target"), CASES, ids=[f"{fault.name}-{target}" for fault, target in CASES]
)
def test_a_fault_is_found(fault: Miscompilation, target: str, tiny: Any):
    """On the one input that is always taken."""
    with (
        fault.inject(),
        np.errstate(all="ignore"),
        pytest.raises(VerificationError) as caught,
    ):
        tiny.compile(target, Settings(seconds=0.0))
    error = caught.value
    assert error.exit_code == 3
    assert error.place == str(tiny.folder / ("x.py" if target == "numpy" else "x.hdp"))
    assert "(input: left padding with holes)" in error.message
    if fault.layer:
        layer = error.notes[0].removeprefix("the first layer that differs is ").split(",")[0]
        assert layer.split(" (")[0].endswith(fault.layer)
    assert list(tiny.folder.iterdir()) == []


def test_there_are_enough():
    assert len(MISCOMPILATIONS) >= 10
    assert {target for _, target in CASES} == {"numpy", "hdp"}


@pytest.mark.parametrize("target", ["numpy", "hdp"])
def test_without_a_fault_nothing_is_found(target: str, tiny: Any):
    found = tiny.compile(target)
    assert not found.reason
    assert len(found.inputs) == 4
    assert found.left_out == 0
