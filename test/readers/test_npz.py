"""Reading `.npz` files: whatever the file is, arrays or one message."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heatc.errors import HeatcError
from heatc.readers import npz
from heatc.readers.npz import LABELS, forms_of, open_npz, read_npz, write_npz

ARRAYS: dict[str, Any] = {
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


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path):
    """A small file of a large array, of which only names and shapes are looked at."""
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("other.npy", "w") as stream:
            header = {"descr": "<i8", "fortran_order": False, "shape": (1 << 25,)}
            np.lib.format.write_array_header_1_0(stream, header)
            for _ in range(256):
                stream.write(bytes(1 << 20))
        with archive.open("ids.npy", "w") as stream:
            np.save(stream, ARRAYS["ids"])
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        file = open_npz(path)
        assert forms_of(file)["other"].shape == (1 << 25,)
        assert read_npz(path, ["ids", "not there"]).keys() == {"ids"}
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_compressed_arrays_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(npz, "LARGEST", 1000)
    arrays: dict[str, Any] = {name: np.arange(100) for name in "ab"}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    file = open_npz(tmp_path / "a.npz")
    assert file["a"].size == 100
    assert file["a"].size == 100
    with pytest.raises(HeatcError, match=r"more than 1000 bytes of compressed arrays\nnote: store"):
        file["b"]
    np.savez(tmp_path / "b.npz", **arrays)
    assert {name: a.tolist() for name, a in open_npz(tmp_path / "b.npz").items()} == {
        name: a.tolist() for name, a in arrays.items()
    }


def test_stored_arrays_stay_in_their_file(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=np.arange(1 << 22))
    tracemalloc.start()
    try:
        assert int(open_npz(tmp_path / "a.npz")["x"][-1]) == (1 << 22) - 1
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_subset_has_no_other_names(tmp_path: Path):
    np.savez(tmp_path / "a.npz", ids=ARRAYS["ids"], labels=np.arange(2))
    assert list(open_npz(tmp_path / "a.npz").without(LABELS)) == ["ids"]


@pytest.mark.parametrize(
    "array", [np.array(["a"]), np.array([(1, 2)], "i4,i4"), np.zeros(2, "M8[s]")]
)
def test_arrays_of_other_than_numbers(tmp_path: Path, array: np.ndarray[Any, Any]):
    np.savez(tmp_path / "a.npz", other=array, ids=ARRAYS["ids"])
    file = open_npz(tmp_path / "a.npz")
    assert file["ids"].shape == (2, 3)
    with pytest.raises(HeatcError, match="expected numbers, found"):
        file["other"]


def test_booleans_are_0_or_1(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=np.array([0, 2], np.uint8))
    with (
        zipfile.ZipFile(tmp_path / "a.npz") as old,
        zipfile.ZipFile(tmp_path / "b.npz", "w") as new,
    ):
        new.writestr("x.npy", old.read("x.npy").replace(b"'|u1'", b"'|b1'"))
    assert "a boolean is neither 0 nor 1" in message(tmp_path / "b.npz")


def test_of_many_arrays_each_is_looked_at_once(tmp_path: Path):
    """Listing is no directory a member."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        buffer = BytesIO()
        np.save(buffer, np.arange(3))
        for k in range(5000):
            archive.writestr(f"a{k}.npy", buffer.getvalue())
    assert len(open_npz(tmp_path / "a.npz")) == 5000


def test_damage_gives_the_arrays_that_numpy_reads(tmp_path: Path):
    path = tmp_path / "a.npz"
    seeded = random.Random(1)
    accepted = 0
    for k in range(1500):
        (np.savez if k % 2 else np.savez_compressed)(path, **ARRAYS)
        damaged = bytearray(path.read_bytes())
        damaged[seeded.randrange(len(damaged))] ^= 1 << seeded.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read_npz(path)
        except HeatcError:
            continue
        accepted += 1
        with np.load(path, allow_pickle=False) as reference:
            assert sorted(found) == sorted(reference.files)
            for name, array in found.items():
                assert array.dtype == reference[name].dtype
                assert np.array_equal(array, reference[name])
    assert accepted > 10
