"""debug.json is read with suspicion, too: it comes from a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heatc.backends.hdp.debug import Location, Locations, attentions, named_tensors
from heatc.backends.hdp.layers import LayerRecorder
from heatc.errors import HeatcError
from heatc.isa.words import inst
from heatc.machine.memory import Memory
from heatc.machine.state import MachineState

TENSOR = {"address": 0, "dtype": "i16", "rows": 2, "cols": 2, "point": 3, "pc": 4}
ATTENTION = {"mask_pcs": [1], "gate_pcs": [], "heads": 2, "dim": 4}


def test_locations_hold_until_the_next():
    locations = Locations(
        {
            "locations": [
                {"pc": 9, "path": "b", "source": ""},
                {"pc": 2, "path": "a\n\x1b[31m", "source": "f.py:1"},
            ]
        }
    )
    assert locations.at(0) == locations.at(1) == Location()
    assert locations.at(2) == locations.at(8) == Location("a ?[31m", "f.py:1")
    assert str(locations.at(100)) == "b"
    assert str(locations.at(2)) == "a ?[31m (f.py:1)"
    assert Locations({}).at(0) == Location()


def parse(debug: dict[str, Any]) -> None:
    Locations(debug)
    named_tensors(debug)
    attentions(debug)


@pytest.mark.parametrize(
    ("debug", "expected"),
    [
        ({"locations": 3}, "locations: expected a list"),
        ({"locations": [3]}, "locations[0]: expected an object"),
        ({"locations": [{"pc": "x"}]}, "locations[0].pc: expected an integer"),
        ({"locations": [{"pc": 0, "path": 3}]}, "locations[0]: expected a text"),
        ({"tensors": []}, "tensors: expected an object"),
        ({"tensors": {"x": TENSOR | {"rows": -2}}}, "tensors.x.rows: expected an integer"),
        ({"tensors": {"x": TENSOR | {"dtype": 3}}}, "tensors.x.dtype: expected a text"),
        ({"tensors": {"x": TENSOR | {"dtype": "acc"}}}, "tensors.x.dtype: expected the element"),
        ({"tensors": {"x": TENSOR | {"dtype": "x"}}}, "tensors.x.dtype: expected the element"),
        ({"tensors": {"x": TENSOR | {"point": 99}}}, "tensors.x.point: expected an integer"),
        ({"tensors": {"x": TENSOR | {"pc": None}}}, "tensors.x: a pc: expected an integer"),
        ({"attentions": {"a": ATTENTION | {"heads": 1 << 50}}}, "attentions.a.heads"),
        ({"attentions": {"a": ATTENTION | {"mask_pcs": ["1"]}}}, "attentions.a: a pc"),
    ],
)
def test_wrong_form(debug: dict[str, Any], expected: str):
    with pytest.raises(HeatcError) as caught:
        parse(debug)
    assert expected in caught.value.render()
    assert caught.value.place == "debug.json"


def recorder(debug: dict[str, Any], length: int = 4) -> LayerRecorder:
    return LayerRecorder(debug, Memory(np.zeros(0, np.uint8), 64), 1, length)


def test_tensors_outside_of_memory():
    for change in ({"address": 60}, {"rows": 1 << 40}):
        layers = recorder({"tensors": {"x": TENSOR | change}})
        with pytest.raises(HeatcError, match="tensor 'x'"):
            layers.on_retire(4, inst("halt"), MachineState(1, Memory(np.zeros(0, np.uint8), 0)))


def test_absurd_masks():
    with pytest.raises(HeatcError, match="absurdly large"):
        recorder({"attentions": {"a": ATTENTION}}, 1 << 20)


def test_a_tensor_is_what_its_last_writer_left():
    memory = Memory(np.zeros(0, np.uint8), 64)
    layers = LayerRecorder({"tensors": {"x": TENSOR}}, memory, 1, 4)
    for value in (1, 2):
        memory.write(0, np.full(4, value, np.int16), "i16")
        layers.on_retire(4, inst("halt"), MachineState(1, Memory(np.zeros(0, np.uint8), 0)))
    memory.write(0, np.full(4, 9, np.int16), "i16")
    layers.on_retire(5, inst("halt"), MachineState(1, Memory(np.zeros(0, np.uint8), 0)))
    assert layers.layers["codes/x"].tolist() == [[2, 2], [2, 2]]
    assert layers.layers["point/x"] == 3
