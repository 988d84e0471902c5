"""Reading `.npz` files: whatever the file is, arrays or one message."""

from __future__ import annotations

import contextlib
import random
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from heatc.errors import HeatcError
from heatc.readers.npz import read_npz, write_npz

ARRAYS = {
    "ids": np.arange(6).reshape(2, 3),
    "scalar": np.array(1.5, np.float32),
    "none": np.zeros((0, 4), np.int8),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
}


def message(path: Path) -> str:
    with pytest.raises(HeatcError) as caught:
        read_npz(path)
    assert caught.value.exit_code == 1
    return caught.value.render()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(tmp_path: Path, save: object):
    path = tmp_path / "a.npz"
    save(path, **ARRAYS)  # pyright: ignore[reportCallIssue]
    found = read_npz(path)
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_numpy_reads_what_it_writes(tmp_path: Path):
    for name in ("a.npz", "b.npz"):
        with open(tmp_path / name, "wb") as stream:
            write_npz(stream, ARRAYS)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert np.array_equal(found["ids"], ARRAYS["ids"])


def test_pickles_are_refused(tmp_path: Path):
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "a.npz"
    np.savez(path, ids=np.array([Payload()], object))
    assert "holds Python objects" in message(path)
    assert not (tmp_path / "ran").exists()


def test_no_npz(tmp_path: Path):
    path = tmp_path / "a.npz"
    assert "no such file" in message(path)
    path.write_bytes(b"")
    assert "the file is empty" in message(path)
    for data in (b"PK\3\4", b"hello", bytes(range(256)) * 9):
        path.write_bytes(data)
        assert "not a .npz file" in message(path)
    np.save(tmp_path / "a.npy", ARRAYS["ids"])
    assert "not a .npz file" in message(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(1 << 62,), (1 << 40, 1 << 40), (-1,), (7,)])
def test_headers_that_lie(tmp_path: Path, shape: tuple[int, ...]):
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<i8", "fortran_order": False, "shape": shape}
    )
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ids.npy", buffer.getvalue() + bytes(8))
    assert "its header says" in message(path) or "has the shape (-1,)" in message(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_gives_arrays_or_one_message(tmp_path: Path, save: object):
    path = tmp_path / "a.npz"
    save(path, **ARRAYS)  # pyright: ignore[reportCallIssue]
    data = path.read_bytes()
    seeded = random.Random(0)
    for _ in range(300):
        damaged = bytearray(data[: seeded.choice((len(data), seeded.randrange(len(data))))])
        if damaged:
            damaged[seeded.randrange(len(damaged))] ^= 1 << seeded.randrange(8)
        path.write_bytes(damaged)
        with contextlib.suppress(HeatcError):
            read_npz(path)
