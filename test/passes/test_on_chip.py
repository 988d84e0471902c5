"""Machines with vector units: their presets, and activations that stay in the shared buffer."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from timing_kit import Sizes, encoder_layer, tiled
from xdsl.dialects.builtin import ModuleOp

from heatc.api import make_context
from heatc.dialects import hdp
from heatc.hardware import load_hardware
from heatc.hardware.costs import area_mm2
from heatc.passes.allocate_buffers import AllocateBuffersPass
from heatc.passes.lower_to_hdp import LowerToHdpPass


@pytest.mark.parametrize("name", ["hdp-edge", "hdp-server"])
def test_a_preset_differs_in_its_vector_unit_alone(name: str):
    base, vector = load_hardware(name), load_hardware(f"{name}-vector")
    assert (base.vector_lanes, vector.vector_lanes) == (0, base.pe_columns)
    changed = {"vector_lanes": 0, "name": base.name}
    assert replace(vector, **changed) == base
    areas = area_mm2(base), area_mm2(vector)
    lanes = base.cores * base.pe_columns
    assert areas[1]["vector"] == pytest.approx(lanes * vector.area_vector_lane_nm2 * 1e-12)
    assert sum(areas[1].values()) - sum(areas[0].values()) == pytest.approx(areas[1]["vector"])


@cache
def _allocated(hw: str, length: int) -> ModuleOp:
    module = tiled(encoder_layer(Sizes(384, 12, 1536), 1, length), hw)
    context = make_context(hardware=load_hardware(hw))
    LowerToHdpPass().apply(context, module)
    AllocateBuffersPass().apply(context, module)
    return module


def _tensors(module: ModuleOp) -> list[hdp.TensorOp]:
    return [op for op in module.walk() if isinstance(op, hdp.TensorOp)]


@pytest.mark.parametrize("length", [128, 384])
@pytest.mark.parametrize("hw", ["hdp-edge-vector", "hdp-server-vector"])
def test_activations_on_the_chip_share_no_byte_with_a_tile(hw: str, length: int):
    """Whatever is live when: between tiles and such tensors it is not even the same byte."""
    module = _allocated(hw, length)
    shared = load_hardware(hw).shared_buffer_bytes
    tiles = [op for op in module.walk() if isinstance(op, hdp.TileOp) and op.space.data == "shared"]
    ends = [op.address.value.data + op.bytes.value.data for op in tiles if op.address is not None]
    kept = [op for op in _tensors(module) if op.on_chip is not None]
    assert kept
    for op in kept:
        assert op.base is not None
        assert op.space.data == "shared"
        assert op.base.value.data >= max(ends, default=0)
        assert op.base.value.data + op.nbytes <= shared


def test_activations_leave_dram_where_there_is_room():
    """All of a layer of 128 tokens on the server; on a machine whose host reads them, none."""
    spaces = {
        hw: {op.space.data for op in _tensors(_allocated(hw, 128)) if _is_activation(op)}
        for hw in ("hdp-server", "hdp-server-vector")
    }
    assert spaces == {"hdp-server": {"dram"}, "hdp-server-vector": {"shared"}}


def _is_activation(op: hdp.TensorOp) -> bool:
    return op.role.data == "activation" and op.dtype.data == "i16"
