"""safetensors: nothing is read that the reference library refuses."""

from __future__ import annotations

import json
import random
import resource
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from heatc.errors import HeatcError
from heatc.readers import safetensors_file
from heatc.readers.safetensors_file import BITS, NUMPY_DTYPES, open_safetensors
from heatc.weights import WeightStore

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.weight": np.arange(5),
    "scalar": np.array(2.5, np.float64),
    "none": np.zeros((0, 4), np.int16),
    "flags": np.array([True, False, True]),
}
TWO = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def raw(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def message(path: Path) -> str:
    with pytest.raises(HeatcError) as caught:
        open_safetensors(path)
    assert caught.value.exit_code == 1
    assert caught.value.notes
    assert str(path) in caught.value.place
    return caught.value.message


def test_reads_what_the_library_writes(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    save_file(ARRAYS, path, {"format": "pt"})
    file = open_safetensors(path)
    assert file.entries.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        found = file.array(name)
        assert np.array_equal(found, array)
        assert (found.dtype, found.flags.writeable) == (array.dtype, False)


def test_data_need_not_be_aligned(tmp_path: Path):
    """Files of older writers: the library reads them too."""
    for spaces in range(1, 5):
        text = json.dumps({"a": TWO}).encode() + b" " * spaces
        (tmp_path / "x").write_bytes(raw(text, np.array([1.5, 2.5], np.float32).tobytes()))
        assert open_safetensors(tmp_path / "x").array("a").tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the file is empty"),
        (bytes(7), "not a safetensors file"),
        (struct.pack("<Q", 1 << 62) + b"{}", "not a safetensors file"),
        (raw({"a": TWO}, bytes(7)), "not a safetensors file"),
        (raw({"a": TWO}, bytes(9)), "not a safetensors file"),
        (raw({"a": TWO, "b": TWO}), "not a safetensors file"),
        (
            raw({"a": TWO, "b": TWO | {"data_offsets": [9, 17]}}, bytes(17)),
            "not a safetensors file",
        ),
        (raw({"a": TWO | {"shape": [float("inf")]}}), "not a safetensors file"),
        (raw({"a": TWO | {"shape": [True, 2]}}), "not a safetensors file"),
        (raw({"a": TWO | {"shape": [2.0]}}), "not a safetensors file"),
        (raw({"a": TWO | {"shape": [-2]}}), "not a safetensors file"),
        (raw({"a": TWO | {"dtype": "f32"}}), "not a safetensors file"),
        (raw({"a": TWO, "__metadata__": {"x": 1}}), "not a safetensors file"),
        (raw(b'{"a":1,"a":' + json.dumps(TWO).encode() + b"}"), "not a safetensors file"),
        # From here on the library is content.
        (raw(b" " + json.dumps({"a": TWO}).encode()), "does not start with '{'"),
        (
            raw(b'{"a":%s,"a":%s}' % ((json.dumps(TWO).encode(),) * 2)),
            "key 'a' stands twice",
        ),
        (raw({"a": TWO | {"more": 1}}), "'a': expected dtype, shape and data_offsets"),
        (raw({"a": TWO | {"shape": [1] * 40 + [2]}}), "'a': malformed shape"),
        (
            raw({"a": TWO, "z": {"dtype": "U8", "shape": [0, 2**62], "data_offsets": [8, 8]}}),
            "'z': shape (0, 4611686018427387904) is too large for an array",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, data: bytes, expected: str):
    (tmp_path / "x").write_bytes(data)
    assert expected in message(tmp_path / "x")


def test_booleans_are_0_or_1(tmp_path: Path):
    flags = {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]}
    (tmp_path / "x").write_bytes(raw({"a": flags}, b"\0\2"))
    with pytest.raises(HeatcError, match="a boolean is neither 0 nor 1"):
        WeightStore.open(tmp_path / "x")


def test_types_without_arrays_are_left_out_of_stores(tmp_path: Path):
    half = {"dtype": "BF16", "shape": [4], "data_offsets": [8, 16]}
    (tmp_path / "x").write_bytes(raw({"a": TWO, "h": half}, bytes(16)))
    assert list(WeightStore.open(tmp_path / "x")) == ["a"]


def test_every_type_of_the_library_is_known(tmp_path: Path):
    """The library names its types when it meets another."""
    (tmp_path / "x").write_bytes(raw({"a": TWO | {"dtype": "?"}}))
    with pytest.raises(SafetensorError) as caught, safe_open(tmp_path / "x", "numpy"):
        pass
    listed = str(caught.value).partition("expected one of ")[2]
    known = {word.strip(" `") for word in listed.partition(" at line")[0].split(",")}
    assert known == BITS.keys()
    assert NUMPY_DTYPES.keys() < known


def mutated(seeded: random.Random, data: bytes) -> bytes:
    """A damaged file, most often damaged where its header is."""
    changed = bytearray(data)
    size = struct.unpack("<Q", data[:8])[0]
    for _ in range(seeded.choice((1, 1, 2, 4))):
        where = seeded.randrange(8 + size)
        kind = seeded.randrange(5)
        if kind == 0:
            changed[where] = seeded.randrange(256)
        elif kind == 1:
            changed[where] = seeded.choice(b'0123456789-.eE{}[]",: \\')
        elif kind == 2:
            del changed[where : where + seeded.randrange(1, 4)]
        elif kind == 3:
            changed[where:where] = changed[where : where + seeded.randrange(1, 40)]
        else:
            changed = changed[: seeded.randrange(len(changed) + 1)]
        if seeded.random() < 0.7 and len(changed) > 8:
            # A header of its announced length, so that what is in it is looked at.
            grown = len(changed) - len(data)
            changed[:8] = struct.pack("<Q", max(0, size + grown))
            size = max(0, size + grown)
        if len(changed) < 9:
            break
        size = min(size, len(changed) - 8)
    return bytes(changed)


def test_what_is_accepted_the_library_accepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Our own checks alone, without the look that the library takes first."""
    monkeypatch.setattr(safetensors_file, "_ask_library", lambda place: None)  # pyright: ignore[reportUnknownLambdaType]
    path = tmp_path / "x"
    save_file(ARRAYS, path, {"format": "pt"})
    data, seeded = path.read_bytes(), random.Random(0)
    accepted = 0
    for _ in range(5000):
        path.write_bytes(mutated(seeded, data))
        try:
            file = open_safetensors(path)
        except HeatcError:
            continue
        accepted += 1
        with safe_open(path, "numpy") as reference:
            assert set(reference.keys()) == set(file.entries)
            for name, entry in file.entries.items():
                found = reference.get_slice(name)
                assert (found.get_dtype(), tuple(found.get_shape())) == entry[:2]
                if entry.dtype in NUMPY_DTYPES and entry.dtype != "BOOL":
                    assert file.array(name).tobytes() == reference.get_tensor(name).tobytes()
    assert accepted > 100


def test_large_weights_stay_in_their_file(tmp_path: Path):
    size = 256 << 20
    entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw({"w": entry}, b""))
    with open(path, "r+b") as stream:
        stream.truncate(path.stat().st_size + size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = WeightStore.open(path)
    assert store["w"].nbytes == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
