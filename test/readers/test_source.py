"""Bytes of files: so many at most, of regular files and of pipes alone."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from heatc.errors import HeatcError
from heatc.readers.mapped_file import map_file
from heatc.readers.source import as_path, decode, read_bytes, read_stdin, size_text


def message(path: object, most: int = 100) -> str:
    with pytest.raises(HeatcError) as caught:
        read_bytes(path, "a plan", most)  # pyright: ignore[reportArgumentType]
    assert caught.value.exit_code == 1
    return caught.value.render()


def test_no_more_than_the_bound(tmp_path: Path):
    path = tmp_path / "x"
    path.write_bytes(b"x" * 100)
    assert read_bytes(path, "a plan", 100) == b"x" * 100
    path.write_bytes(b"x" * 101)
    assert "x: a plan has at most 100 bytes, this has more" in message(path)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/urandom"])
def test_a_device_is_answered_at_once(path: str):
    assert (
        message(path)
        == f"error: {path}: cannot open: it is not a regular file\nnote: expected a plan"
    )
    with pytest.raises(HeatcError, match="not a regular file"):
        map_file(path, "weights")


def test_what_is_no_file(tmp_path: Path):
    assert "cannot open: is a directory" in message(tmp_path)
    assert "cannot open: no such file" in message(tmp_path / "none")
    assert "cannot open: embedded null" in message("a\0b")
    assert "cannot open: file name too long" in message("n" * 5000)
    (tmp_path / "empty").touch()
    with pytest.raises(HeatcError, match="the file is empty"):
        map_file(tmp_path / "empty", "weights")


def test_a_pipe_without_a_writer_is_empty(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    assert read_bytes(tmp_path / "pipe", "a plan", 100) == b""
    with pytest.raises(HeatcError, match="not a regular file"):
        map_file(tmp_path / "pipe", "weights")


@pytest.mark.parametrize("size", [0, 1, 100, 3_000_000])
def test_a_slow_pipe_is_read_to_its_end(size: int):
    reader, writer = os.pipe()

    def write() -> None:
        with open(writer, "wb") as stream:
            for _ in range(3):
                stream.write(b"x" * size)
                stream.flush()

    thread = threading.Thread(target=write)
    thread.start()
    found = read_bytes(f"/dev/fd/{reader}", "a plan", 10_000_000)
    thread.join()
    os.close(reader)
    assert found == b"x" * 3 * size


def test_an_endless_pipe_is_cut():
    reader, writer = os.pipe()

    def write() -> None:
        with open(writer, "wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(b"x" * 65536)
            except BrokenPipeError:
                pass

    thread = threading.Thread(target=write)
    thread.start()
    text = message(f"/dev/fd/{reader}", 1 << 20)
    os.close(reader)
    thread.join()
    assert "a plan has at most 1 MiB" in text


def test_standard_input_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"x" * 11)))
    with pytest.raises(HeatcError, match="<stdin>: IR text has at most 10 bytes"):
        read_stdin("IR text", 10)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"x" * 10)))
    assert read_stdin("IR text", 10) == b"x" * 10


def test_text_names_the_line():
    assert decode("é\n".encode(), "a.s") == "é\n"
    with pytest.raises(HeatcError, match=r"a.s:2: not UTF-8 text: byte 0xff at offset 3"):
        decode(b"ab\n\xff", "a.s")


@pytest.mark.parametrize("value", [3, None, b"x", 1.5, [], object()])
def test_arguments_that_are_no_paths(value: object):
    with pytest.raises(HeatcError, match=f"expected a path for plan, got {type(value).__name__}"):
        as_path(value, "plan")


def test_what_is_forgotten_is_mapped_again(tmp_path: Path):
    data = np.arange(1 << 16, dtype=np.uint32)
    (tmp_path / "x").write_bytes(data.tobytes())
    mapped = map_file(tmp_path / "x", "weights")
    for _ in range(2):
        assert np.array_equal(mapped.array.view(np.uint32), data)
        mapped.forget(100, len(mapped.array))
    with pytest.raises(ValueError, match="read-only"):
        mapped.array[0] = 1


def test_sizes_in_words():
    assert [size_text(n) for n in (1 << 30, 64 << 20, 3 << 10, 1000, 1025)] == [
        *("1 GiB", "64 MiB", "3 KiB", "1000 bytes", "1025 bytes"),
    ]
