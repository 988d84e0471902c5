"""The `.hdp` container: canonical, streamed, and suspicious of every byte."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file  # pyright: ignore[reportUnknownVariableType]

from heatc.backends.hdp import archive as archive_module
from heatc.backends.hdp.archive import ArchiveReader, ArchiveWriter
from heatc.backends.hdp.container import (
    SCHEMA,
    Manifest,
    Port,
    Weight,
    open_program,
    weight_addresses,
    write_program,
)
from heatc.backends.hdp.mask_values import MaskValues
from heatc.backends.hdp.simulation import split_inputs
from heatc.errors import HeatcError
from heatc.hardware import load_hardware
from heatc.isa.table import ISA_VERSION
from heatc.isa.words import Inst, inst

PROGRAM = [inst("li", rd=1, imm=7), inst("halt")]
W = np.arange(12, dtype=np.int16).reshape(3, 4)
B = np.array([1.5, -2.0], np.float32)
DEBUG = {"pcs": [{"first": 0, "path": "encoder.layer.0", "source": "bert.py:12"}]}


def manifest(**changes: Any) -> Manifest:
    base = Manifest(
        hardware=load_hardware("hdp-edge"),
        inputs=(Port("ids", "int64", (1, 4), 64, limit=10),),
        outputs=(Port("out", "float32", (1, 4), 96),),
        dram_bytes=4096,
        points={"encoder.x": 11},
        options={"hdp_rule": "none"},
        source={"model": "tiny"},
    )
    return replace(base, **changes)


def weights() -> list[Weight]:
    return [Weight("bias", "F32", B.shape, [B]), Weight("w", "int16", W.shape, [W[:1], W[1:]])]


def build(path: Path, program: list[Inst] = PROGRAM, **changes: Any) -> Path:
    with open(path, "wb") as stream:
        write_program(stream, program, manifest(**changes), weights(), DEBUG, {"a.mlir": "// é"})
    return path


def message(path: Path) -> str:
    with pytest.raises(HeatcError) as caught:
        open_program(path)
    assert caught.value.exit_code == 1
    assert path.name in caught.value.place
    assert caught.value.notes
    return caught.value.render()


def test_round_trip(tmp_path: Path):
    program = open_program(build(tmp_path / "p.hdp"))
    assert list(program.instructions) == PROGRAM
    assert replace(program.manifest, sections={}) == manifest()
    assert program.debug == DEBUG
    assert program.ir == {"a.mlir": "// é"}
    assert np.array_equal(program.tensor("w"), W)
    assert np.array_equal(program.tensor("bias"), B)
    assert program.tensors["w"].address == weight_addresses(weights())["w"] == 8
    assert program.weights.nbytes == B.nbytes + W.nbytes
    assert not program.weights.flags.writeable


def test_same_content_same_bytes(tmp_path: Path):
    first, second = build(tmp_path / "a.hdp"), build(tmp_path / "b.hdp")
    assert first.read_bytes() == second.read_bytes()


def test_other_tools_read_it(tmp_path: Path):
    path = build(tmp_path / "p.hdp")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[-1] == "manifest.json"
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
        data = json.loads(archive.read("manifest.json"))
        (tmp_path / "w.safetensors").write_bytes(archive.read("weights.safetensors"))
    assert data["schema"] == SCHEMA
    assert data["sections"]["program.bin"]["bytes"] == 16 + 2 * 16
    assert np.array_equal(load_file(tmp_path / "w.safetensors")["w"], W)


def test_data_is_aligned(tmp_path: Path):
    path = build(tmp_path / "p.hdp")
    assert {m.start % 64 for m in ArchiveReader(path).members.values()} == {0}
    assert open_program(path).weights.ctypes.data % 64 == 0


def test_no_weights(tmp_path: Path):
    with open(tmp_path / "p.hdp", "wb") as stream:
        write_program(stream, PROGRAM, manifest())
    program = open_program(tmp_path / "p.hdp")
    assert program.weights.size == 0
    assert program.debug == {}


def test_weights_are_consumed_one_at_a_time(tmp_path: Path):
    alive: list[str] = []

    def chunks(name: str) -> Iterator[NDArray[np.int16]]:
        alive.append(name)
        assert alive == [name]
        yield np.zeros(8, np.int16)
        alive.remove(name)

    lazy = [Weight(name, "I16", (8,), chunks(name)) for name in "abc"]
    with open(tmp_path / "p.hdp", "wb") as stream:
        write_program(stream, PROGRAM, manifest(), lazy)
    assert set(open_program(tmp_path / "p.hdp").tensors) == set("abc")


def test_wrong_weights_are_the_callers_bug(tmp_path: Path):
    short = Weight("w", "I16", (9,), [np.zeros(8, np.int16)])
    with open(tmp_path / "p.hdp", "wb") as stream, pytest.raises(ValueError, match="expected"):
        write_program(stream, PROGRAM, manifest(), [short])
    odd = [Weight("a", "I8", (1,), [b"0"]), Weight("w", "I16", (1,), [b"00"])]
    with open(tmp_path / "p.hdp", "wb") as stream, pytest.raises(ValueError, match="not aligned"):
        write_program(stream, PROGRAM, manifest(), odd)


def test_every_flipped_byte_is_found(tmp_path: Path):
    data = build(tmp_path / "p.hdp").read_bytes()
    path = tmp_path / "damaged.hdp"
    members = ArchiveReader(tmp_path / "p.hdp").members.values()
    inside = {i for m in members for i in range(m.start, m.start + m.size)}
    # Every byte of the frame, and some of the sections.
    frame = set(range(len(data))) - inside
    assert len(frame) > 500
    for position in sorted(frame | set(random.Random(0).sample(sorted(inside), 300))):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        message(path)


def test_every_truncation_is_found(tmp_path: Path):
    data = build(tmp_path / "p.hdp").read_bytes()
    path = tmp_path / "damaged.hdp"
    for length in [*range(0, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:length])
        message(path)
    path.write_bytes(data + b"\0")
    message(path)


def test_not_a_program(tmp_path: Path):
    path = tmp_path / "x.hdp"
    for data, expected in [
        (b"", "the file is empty"),
        (b"PK", "not an HDP program"),
        (bytes(range(256)) * 10, "not an HDP program"),
        (b"PK\3\4", "it is too short"),
    ]:
        path.write_bytes(data)
        assert expected in message(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"x")
    assert "it has no manifest.json" in message(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b"{}" + b" " * 1000)
    assert "compressed" in message(path)
    with pytest.raises(HeatcError, match="cannot open: no such file"):
        open_program(tmp_path / "none.hdp")
    with pytest.raises(HeatcError, match="cannot open: is a directory"):
        open_program(tmp_path)


def repack(path: Path, changes: dict[str, bytes | None]) -> Path:
    """Replaces, adds or removes sections, with right checksums everywhere."""
    with zipfile.ZipFile(path) as archive:
        content: dict[str, bytes] = {name: archive.read(name) for name in archive.namelist()}
    manifest_data = content.pop("manifest.json")
    new_manifest = changes.pop("manifest.json", manifest_data)
    for name, data in changes.items():
        content.pop(name, None)
        if data is not None:
            content[name] = data
    buffer = io.BytesIO()
    writer = ArchiveWriter(buffer)
    for name, data in content.items():
        writer.add(name, data)
    if new_manifest is not None:
        value = json.loads(new_manifest) if new_manifest is manifest_data else None
        if value is not None:
            value["sections"] = {
                m.name: {"bytes": m.size, "crc32": f"{m.crc:08x}"} for m in writer.members
            }
            new_manifest = json.dumps(value).encode()
        writer.add("manifest.json", new_manifest)
    writer.close()
    path.write_bytes(buffer.getvalue())
    return path


def header(text: str, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text.encode() + data


@pytest.mark.parametrize(
    ("section", "data", "expected"),
    [
        ("program.bin", None, "the section program.bin is missing"),
        ("debug.json", None, "the section debug.json is missing"),
        ("manifest.json", None, "it has no manifest.json"),
        ("../evil", b"x", "unsafe name"),
        ("ir/../../evil", b"x", "unsafe name"),
        ("/evil", b"x", "unsafe name"),
        ("evil.pkl", b"x", "has no such section"),
        ("program.bin", b"ELF" * 20, "magic 'HDPPROG'"),
        ("program.bin", b"HDPPROG\0", "truncated"),
        ("program.bin", struct.pack("<8sII", b"HDPPROG\0", 7, 0), "instruction set 7"),
        (
            "program.bin",
            struct.pack("<8sII", b"HDPPROG\0", ISA_VERSION, 3),
            "announces 3 instructions",
        ),
        ("program.bin", struct.pack("<8sII", b"HDPPROG\0", 1, 0), "made for instruction set 1"),
        (
            "program.bin",
            struct.pack("<8sII", b"HDPPROG\0", ISA_VERSION, 1) + b"\xff" * 16,
            "pc 0: illegal",
        ),
        ("manifest.json", b"[]", "expected a JSON object"),
        ("manifest.json", b"{", "not JSON"),
        ("manifest.json", b'{"schema": NaN}', "not JSON"),
        ("manifest.json", b'{"a": ' + b"[" * 100_000, "nested more than 64 deep"),
        ("manifest.json", b'{"schema": 9, "producer": "heatc 9.9"}', "made for schema 9 by heatc"),
        ("manifest.json", b'{"schema": 1, "hardware": 3, "sections": 3}', "made for schema 1"),
        ("manifest.json", b"{}", "made for schema None"),
        ("manifest.json", b'{"schema": 2}', "producer: expected a text"),
        ("weights.safetensors", b"", "too short"),
        (
            "weights.safetensors",
            struct.pack("<Q", 1 << 60),
            "a header of 1152921504606846976 bytes",
        ),
        ("weights.safetensors", header("[]"), "does not start with '{'"),
        ("weights.safetensors", header('{"w": 3}'), "'w': expected dtype, shape and data_offsets"),
        (
            "weights.safetensors",
            header('{"w": {"dtype": "F8", "shape": [], "data_offsets": [0, 1]}}', b"0"),
            "unknown dtype 'F8'",
        ),
        (
            "weights.safetensors",
            header('{"w": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]}}', b"0"),
            "malformed shape [-1]",
        ),
        (
            "weights.safetensors",
            header('{"w": {"dtype": "U8", "shape": [1], "data_offsets": [5, 6]}}', b"0"),
            "its data begins at 5",
        ),
        (
            "weights.safetensors",
            header('{"w": {"dtype": "F16", "shape": [], "data_offsets": [0, 2]}}', b"00"),
            "w: dtype 'F16' is not one of",
        ),
        (
            "weights.safetensors",
            header(
                '{"w": {"dtype": "U8", "shape": [1], "data_offsets": [2, 3]}, '
                '"v": {"dtype": "I16", "shape": [], "data_offsets": [0, 2]}}',
                b"000",
            ),
            "w: expected its data at 0",
        ),
        (
            "weights.safetensors",
            header(
                '{"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, '
                '"v": {"dtype": "I16", "shape": [], "data_offsets": [1, 3]}}',
                b"000",
            ),
            "v: address 1 is not aligned",
        ),
        ("weights.safetensors", header("{}", b"0"), "the tensors have 0 bytes, the file has 1"),
    ],
)
def test_wrong_section(tmp_path: Path, section: str, data: bytes | None, expected: str):
    assert expected in message(repack(build(tmp_path / "p.hdp"), {section: data}))


def test_debug_of_wrong_form(tmp_path: Path):
    assert "not JSON" in message(repack(build(tmp_path / "p.hdp"), {"debug.json": b"nope"}))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("inputs", 3, "inputs: expected a list"),
        ("inputs", [3], "inputs[0]: expected an object"),
        ("inputs", [{"name": ""}], "inputs[0].name: expected a text"),
        ("inputs", [{"name": "a", "dtype": "O"}], "inputs[0].dtype: expected one of"),
        ("inputs", [{"name": "a", "dtype": "int8", "shape": 3}], "inputs[0].shape"),
        (
            "inputs",
            [{"name": "a", "dtype": "int8", "shape": [1 << 40] * 8, "address": 0}],
            "absurdly large",
        ),
        ("outputs", [{"name": "a", "dtype": "int8", "shape": [9], "address": 4090}], "outside of"),
        ("outputs", [{"name": "a", "dtype": "int8", "shape": [9], "address": 0}], "outside of"),
        ("dram_bytes", -1, "dram_bytes: expected an integer"),
        ("dram_bytes", 8, "the weights alone have"),
        ("dram_bytes", 1 << 37, "the hardware has"),
        ("points", {"x": 99}, "points.x: expected an integer from -64 to 64"),
        ("points", {"x": True}, "points.x: expected an integer"),
        ("hardware", {}, "manifest.json: hardware: clock_hz"),
        ("sections", {}, "not the one that the manifest describes"),
        ("sections", [], "sections: expected an object"),
        ("options", 1, "options: expected an object"),
    ],
)
def test_manifest_of_wrong_form(tmp_path: Path, key: str, value: object, expected: str):
    path = build(tmp_path / "p.hdp")
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("manifest.json"))
    data[key] = value
    assert expected in message(repack(path, {"manifest.json": json.dumps(data).encode()}))


class SparseFile(io.FileIO):
    """A file with holes where zeros are written."""

    def write(self, data: Any) -> int:
        if len(data) < 1 << 20:
            return super().write(data)
        assert not any(data[:64])
        self.seek(len(data), io.SEEK_CUR)
        return len(data)


def test_large_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sizes and offsets beyond 32 bits, in a file whose content is not looked at."""
    monkeypatch.setattr(archive_module, "zlib", SimpleNamespace(crc32=lambda *_: 0))
    chunk = bytes(1 << 24)
    with SparseFile(tmp_path / "large", "wb") as stream:
        writer = ArchiveWriter(stream)
        writer.add("a", b"1234567890")
        writer.add_stream("b", 4 << 30, (chunk for _ in range(1 << 8)))
        writer.add("c", b"x")
        writer.close()
    archive = ArchiveReader(tmp_path / "large")
    assert [m.size for m in archive.members.values()] == [10, 4 << 30, 1]
    archive.check_frame()


@pytest.mark.parametrize("shape", [(2, 4), (0, 4), (2, 0)])
def test_a_mask_of_no_samples_or_no_tokens(shape: tuple[int, int]):
    """Its shape is compared before its values are asked for."""
    values = MaskValues(((1.0, 1.0),), ((0.0, 0.0),), True)
    port = Port("mask", "int64", shape, 0, role="mask", mask=values)
    manifest = Manifest(load_hardware("hdp-edge"), (port,), (), 64)
    mask = np.ones((0, shape[1]), np.int64)
    if shape[0] == 0:
        assert split_inputs(manifest, {"mask": mask})[1] == 0
        return
    with pytest.raises(HeatcError, match="0 samples, the program takes 2 at once"):
        split_inputs(manifest, {"mask": mask})
    if shape[1] == 0:
        with pytest.raises(HeatcError, match="row 0 has no real token"):
            split_inputs(manifest, {"mask": np.ones(shape, np.int64)})
