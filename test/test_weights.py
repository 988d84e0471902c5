"""The weight store: mapped, checked, given back."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from xdsl.dialects.builtin import TensorType, f32

from heatc.dialects.einsum import WeightOp
from heatc.errors import HeatcError
from heatc.interpreter.einsum import weight_array
from heatc.weights import WeightStore

A = np.arange(6000, dtype=np.float32).reshape(60, 100)
B = np.ones((3, 100), np.float32)


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    save_file({"a": A, "b": B, "i": np.arange(4)}, tmp_path / "w.safetensors")
    return WeightStore.open(tmp_path / "w.safetensors")


def test_arrays_are_read_only_views(store: WeightStore):
    assert sorted(store) == ["a", "b", "i"]
    np.testing.assert_array_equal(store["a"], A)
    with pytest.raises(ValueError, match="read-only"):
        store["a"][0, 0] = 1


def test_a_released_weight_is_read_again(store: WeightStore):
    for _ in range(3):
        store.release("a")
        np.testing.assert_array_equal(store["a"], A)


def test_release_loses_no_data_of_arrays_in_memory():
    array = np.random.default_rng(0).normal(size=(512, 512))
    store = WeightStore({"x": array.copy()})
    store.release("x")
    np.testing.assert_array_equal(store["x"], array)


def test_checksum_covers_all_names_in_order(store: WeightStore):
    expected = zlib.crc32(A.tobytes() + B.tobytes())
    assert store.checksum(("a", "b")) == f"crc32:{expected:08x}"
    assert store.checksum(("b", "a")) != store.checksum(("a", "b"))


def test_a_wrong_checksum_is_refused(store: WeightStore):
    right = store.checksum(("b",))
    type_ = TensorType(f32, B.shape)
    np.testing.assert_array_equal(weight_array(WeightOp("b", type_, checksum=right), store), B)
    with pytest.raises(HeatcError, match="checksum"):
        weight_array(WeightOp("b", type_, checksum="crc32:00000000"), store)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 64,
        b"\x02\0\0\0\0\0\0\0{}"[:-1],
        b"\x1d\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32"}}        ',
        b"\x3f\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,99]}}        ',
    ],
)
def test_damaged_files_are_one_message(data: bytes, tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(HeatcError) as caught:
        WeightStore.open(path)
    assert str(path) in caught.value.render()


def test_an_unknown_name_is_named(store: WeightStore):
    with pytest.raises(HeatcError, match="no weight named 'c'"):
        store["c"]
