"""What passes are given: files are read by the driver, and the context carries what they say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from xdsl.context import Context

from heatc.context import (
    HeatcContext,
    calibration_of,
    hardware_of,
    machine_of,
    plan_of,
    weights_of,
)
from heatc.errors import HeatcError
from heatc.hardware import load_hardware
from heatc.plan import Plan
from heatc.universe import PASSES
from heatc.weights import WeightStore

FILES = {"plan", "weights", "hw", "hardware", "calibrate", "factors", "file", "path"}


@pytest.mark.parametrize("context", [Context(), HeatcContext()])
def test_what_is_not_given(context: Context):
    assert hardware_of(context) == load_hardware("hdp-edge")
    assert machine_of(context) is plan_of(context) is calibration_of(context) is None
    with pytest.raises(HeatcError, match="this pass reads weights and has none"):
        weights_of(context)


def test_a_copy_carries_the_same():
    context = HeatcContext(
        weights=WeightStore({}),
        hardware=load_hardware("hdp-server"),
        plan=Plan("plan.json"),
        calibration={"x": np.zeros(1)},
        remarks=[].append,
    )
    copy = context.clone()
    for field in dataclasses.fields(context):
        if not field.name.startswith("_"):
            assert getattr(copy, field.name) is getattr(context, field.name), field.name
    assert hardware_of(copy) is machine_of(copy) is context.hardware


@pytest.mark.parametrize("name", PASSES)
def test_no_pass_takes_the_name_of_a_file(name: str):
    options = {field.name for field in dataclasses.fields(PASSES[name]())}
    assert not options & FILES
