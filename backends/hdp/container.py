"""
The `.hdp` container: a program, its weights, and what tools need to know about both.

| section | what |
|---|---|
| program.bin | 16-byte header (magic, version, count), then 128-bit instruction words |
| debug.json | pc -> module path and source line; where named tensors lie |
| weights.safetensors | its data section is DRAM [0, W) of the machine |
| ir/*.mlir | optional: the IR of some phases |
| manifest.json | schema, producer, options, source, hardware, inputs, outputs, binary points |

The sections stand in this order in a canonical zip (`heatc.backends.hdp.archive`). Reading
verifies every byte before anything is used, executes nothing, and maps the weights.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from heatc.backends.hdp.archive import ALIGNMENT, ArchiveReader, ArchiveWriter
from heatc.backends.hdp.debug import check_debug
from heatc.backends.hdp.mask_values import MaskValues
from heatc.errors import HeatcError
from heatc.hardware import Hardware
from heatc.hardware import from_json as hardware_from_json
from heatc.intervals import Interval
from heatc.isa.table import ISA_VERSION, WORD_BYTES
from heatc.isa.words import Inst, decode_program, encode_program
from heatc.readers.json_text import parse_json
from heatc.readers.safetensors_file import read_header
from heatc.readers.source import read_bytes
from heatc.version import VERSION

SCHEMA = 2
"""The version of manifest.json and of the container as a whole."""

MAGIC = b"HDPPROG\0"

PROGRAM, DEBUG, WEIGHTS, MANIFEST = (
    "program.bin",
    "debug.json",
    "weights.safetensors",
    "manifest.json",
)
IR_FOLDER = "ir/"

_HEADER = struct.Struct("<8sII")
_LARGEST_PROGRAM = 8 << 20
_LARGEST_JSON = 32 << 20
_LARGEST_IR = 64 << 20
_LARGEST_DRAM = 1 << 38
_MOST_AXES = 8
_AGAIN = "compile the model again with this heatc"

Bytes = NDArray[np.uint8]
Chunk = bytes | memoryview | NDArray[np.generic]

DTYPES: Mapping[str, str] = {
    "BOOL": "bool",
    "I8": "int8",
    "U8": "uint8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F32": "float32",
    "F64": "float64",
}
"""safetensors dtype -> numpy dtype: what a program's weights may be."""

_SAFETENSORS = {name.lower(): safe for safe, numpy in DTYPES.items() for name in (safe, numpy)}

PORT_DTYPES = ("int64", "int32", "int16", "int8", "uint8", "bool", "float32")


# --- What a program consists of ---------------------------------------------------------------


class Weight(NamedTuple):
    """
    One tensor of DRAM, in the order of addresses.

    `chunks` are the bytes in row-major order, little-endian; they are consumed when the tensor
    is written, so a generator keeps one tensor in memory at a time.
    """

    key: str
    dtype: str
    shape: Sequence[int]
    chunks: Iterable[Chunk]


class Tensor(NamedTuple):
    """Where a weight lies: numpy dtype, shape, address in DRAM."""

    dtype: str
    shape: tuple[int, ...]
    address: int


@dataclass(frozen=True)
class Port:
    """
    An input or output of the model: name, numpy dtype, shape, address in DRAM.

    `limit` is the number of rows of the table that an input indexes (valid are 0 .. limit - 1),
    0 where it indexes none. `role` is `mask` for the key-padding mask, else empty; `mask` says what
    its values mean. `padding` is what an output has at masked positions of a token axis: `zero`, or
    `computed` values; it is empty for inputs, and for outputs of older programs. `within` are the least and
    the greatest value that the program takes of an input, None where it takes all. An input that is added to
    scores may also hold `hides` or less.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    address: int
    limit: int = 0
    role: str = ""
    mask: MaskValues | None = None
    padding: str = ""
    within: Interval | None = None
    hides: float | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says; `sections` is filled in when a program is written or read."""

    hardware: Hardware
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    dram_bytes: int
    points: Mapping[str, int] = field(default_factory=dict[str, int])
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    source: Mapping[str, Any] = field(default_factory=dict[str, Any])
    producer: str = f"heatc {VERSION}"
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])

    def to_json(self) -> dict[str, Any]:
        """The object that manifest.json holds."""

        def port(p: Port) -> dict[str, Any]:
            value: dict[str, Any] = {
                "name": p.name,
                "dtype": p.dtype,
                "shape": list(p.shape),
                "address": p.address,
            }
            if p.limit:
                value["limit"] = p.limit
            if p.role:
                value["role"] = p.role
            if p.mask is not None:
                value["mask"] = p.mask.to_json()
            if p.padding:
                value["padding"] = p.padding
            if p.within is not None:
                value["within"] = list(p.within)
            if p.hides is not None:
                value["hides"] = p.hides
            return value

        return {
            "schema": SCHEMA,
            "producer": self.producer,
            "options": dict(self.options),
            "source": dict(self.source),
            "hardware": self.hardware.to_json(),
            "inputs": [port(p) for p in self.inputs],
            "outputs": [port(p) for p in self.outputs],
            "dram_bytes": self.dram_bytes,
            "points": dict(self.points),
            "sections": {name: dict(value) for name, value in self.sections.items()},
        }


@dataclass(frozen=True)
class Program:
    """
    A program that was read and verified.

    `weights` is DRAM [0, W) as mapped read-only bytes, `tensors` names what lies there. `debug` is the
    content of debug.json, which was checked against the instructions.
    """

    path: Path
    manifest: Manifest
    instructions: Sequence[Inst]
    weights: Bytes
    tensors: Mapping[str, Tensor]
    ir: Mapping[str, str]
    debug: Mapping[str, Any] = field(repr=False)

    def tensor(self, name: str) -> NDArray[np.generic]:
        """A view of a named weight."""
        dtype, shape, address = self.tensors[name]
        end = address + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return self.weights[address:end].view(dtype).reshape(shape)


class _Place(NamedTuple):
    """A section of a file, for messages."""

    path: Path
    section: str

    def __str__(self) -> str:
        return f"{self.path}: {self.section}"

    def fail(self, message: str, *notes: str) -> NoReturn:
        raise HeatcError(
            message,
            place=str(self),
            notes=notes or [_AGAIN],
        )


# --- Writing ----------------------------------------------------------------------------------


def write_program(
    stream: IO[bytes],
    program: Sequence[Inst],
    manifest: Manifest,
    weights: Iterable[Weight] = (),
    debug: Mapping[str, Any] | None = None,
    ir: Mapping[str, str] | None = None,
) -> None:
    """
    Writes a program to a seekable stream; the same content gives the same bytes.

    Weights are asked for one after the other, so that they are never in memory together. `ir`
    maps file names such as `"03-tiled.mlir"` to their text.
    """
    archive = ArchiveWriter(stream)
    archive.add(PROGRAM, program_bytes(program))
    archive.add(DEBUG, _json_bytes(debug or {}))
    tensors = list(weights)
    header = _weights_header(tensors)
    size = len(header) + sum(_nbytes(w) for w in tensors)
    archive.add_stream(WEIGHTS, size, _weight_chunks(header, tensors))
    for name, text in sorted((ir or {}).items()):
        archive.add(f"{IR_FOLDER}{name}", text.encode())
    sections = {m.name: {"bytes": m.size, "crc32": f"{m.crc:08x}"} for m in archive.members}
    archive.add(MANIFEST, _json_bytes(replace(manifest, sections=sections).to_json()))
    archive.close()


def program_bytes(program: Sequence[Inst]) -> bytes:
    """The section program.bin: header and words."""
    return _HEADER.pack(MAGIC, ISA_VERSION, len(program)) + encode_program(program)


def weight_addresses(weights: Iterable[Weight]) -> dict[str, int]:
    """
    The address that each weight gets, in bytes: one after the other without gaps.

    safetensors allows no gaps, so that padding is a tensor of its own.
    """
    addresses: dict[str, int] = {}
    address = 0
    for weight in weights:
        addresses[weight.key] = address
        address += _nbytes(weight)
    return addresses


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def _itemsize(weight: Weight) -> int:
    return np.dtype(DTYPES[_SAFETENSORS[weight.dtype.lower()]]).itemsize


def _nbytes(weight: Weight) -> int:
    return int(np.prod(tuple(weight.shape), dtype=np.int64)) * _itemsize(weight)


def _weights_header(weights: Sequence[Weight]) -> bytes:
    """The safetensors header, padded so that the data starts at a multiple of 64 bytes."""
    table: dict[str, Any] = {}
    for weight, address in zip(weights, weight_addresses(weights).values(), strict=True):
        if address % _itemsize(weight):
            raise ValueError(f"{weight.key}: address {address} is not aligned to its elements")
        table[weight.key] = {
            "dtype": _SAFETENSORS[weight.dtype.lower()],
            "shape": list(weight.shape),
            "data_offsets": [address, address + _nbytes(weight)],
        }
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _weight_chunks(header: bytes, weights: Sequence[Weight]) -> Iterable[memoryview]:
    yield memoryview(header)
    for weight in weights:
        written = 0
        for chunk in weight.chunks:
            data = _flat(chunk)
            written += data.nbytes
            yield data
        if written != _nbytes(weight):
            raise ValueError(
                f"{weight.key}: {written} bytes were given, {_nbytes(weight)} expected"
            )


def _flat(chunk: Chunk) -> memoryview:
    if isinstance(chunk, np.ndarray):
        little = chunk.astype(chunk.dtype.newbyteorder("<"), copy=False)
        return np.ascontiguousarray(little).reshape(-1).view(np.uint8).data
    return memoryview(chunk).cast("B")


# --- Reading ----------------------------------------------------------------------------------


def open_program(path: str | os.PathLike[str]) -> Program:
    """
    Reads a program and verifies it: the frame, every checksum, every section's form.

    Anything that is not right is a `HeatcError` that names the file, the section and a remedy.
    """
    archive = ArchiveReader(path)
    manifest = _read_manifest(archive)
    archive.check_frame()
    _check_sections(archive, manifest)
    place = _Place(archive.path, PROGRAM)
    instructions = parse_program(archive.read(PROGRAM, _LARGEST_PROGRAM), place)
    debug = _read_debug(archive, manifest, instructions)
    weights, tensors = _map_weights(archive)
    ir = {
        name.removeprefix(IR_FOLDER): archive.read(name, _LARGEST_IR).decode(errors="replace")
        for name in archive.members
        if name.startswith(IR_FOLDER)
    }
    _check_dram(archive.path, manifest, weights.nbytes)
    return Program(archive.path, manifest, instructions, weights, tensors, ir, debug)


def _read_manifest(archive: ArchiveReader) -> Manifest:
    if MANIFEST not in archive.members:
        names = ", ".join(list(archive.members)[:5]) or "nothing"
        archive.fail(f"not an HDP program: it has no {MANIFEST}", "", f"it holds {names}")
    place = _Place(archive.path, MANIFEST)
    data = _object(archive.read(MANIFEST, _LARGEST_JSON), place)
    schema = data.get("schema")
    if schema != SCHEMA:
        producer = data.get("producer")
        by = f" by {producer}" if isinstance(producer, str) else ""
        place.fail(
            f"made for schema {schema!r}{by}; this heatc {VERSION} reads {SCHEMA}",
            "compile the model again with this heatc, or install the heatc that made the program",
        )
    return _Parser(place).manifest(data)


def _check_sections(archive: ArchiveReader, manifest: Manifest) -> None:
    """The sections of the manifest are those of the archive, with the same sizes and checksums."""
    for name in archive.members:
        parts = name.split("/")
        if ".." in parts or name.startswith("/") or "\\" in name:
            archive.fail("a section must not point outside of the program", name)
        known = name in (PROGRAM, DEBUG, WEIGHTS, MANIFEST)
        if not known and not (name.startswith(IR_FOLDER) and len(parts) == 2):
            archive.fail("an HDP program has no such section", name)
    for name in (PROGRAM, DEBUG, WEIGHTS):
        if name not in archive.members:
            archive.fail(f"the section {name} is missing")
    found = {
        m.name: {"bytes": m.size, "crc32": f"{m.crc:08x}"}
        for m in archive.members.values()
        if m.name != MANIFEST
    }
    for name in sorted(found.keys() | manifest.sections.keys()):
        if found.get(name) != manifest.sections.get(name):
            archive.fail("the section is not the one that the manifest describes", name)


def parse_program(data: bytes, place: _Place) -> list[Inst]:
    """The instructions of a program.bin."""
    if data[:8] != MAGIC:
        place.fail("not a program: it does not start with the magic 'HDPPROG'")
    if len(data) < _HEADER.size:
        place.fail("the program is truncated")
    _, version, count = _HEADER.unpack_from(data)
    if version != ISA_VERSION:
        place.fail(
            f"made for instruction set {version}; this heatc {VERSION} executes {ISA_VERSION}",
            "compile the model again with this heatc, or install the heatc that made the program",
        )
    if len(data) != _HEADER.size + count * WORD_BYTES:
        place.fail(f"the header announces {count} instructions, the section has another size")
    try:
        return decode_program(data[_HEADER.size :])
    except HeatcError as error:
        place.fail(error.message, *error.notes)


def read_program_file(path: str | os.PathLike[str]) -> list[Inst]:
    """The instructions of a bare program.bin, such as `hdp-as` writes."""
    data = read_bytes(path, "a program", _LARGEST_PROGRAM)
    return parse_program(data, _Place(Path(path), PROGRAM))


def _read_debug(
    archive: ArchiveReader, manifest: Manifest, instructions: Sequence[Inst]
) -> dict[str, Any]:
    """The content of debug.json, checked against the program."""
    place = _Place(archive.path, DEBUG)
    debug = _object(archive.read(DEBUG, _LARGEST_JSON), place)
    sizes = {"dram": manifest.dram_bytes, "shared": manifest.hardware.shared_buffer_bytes}
    check_debug(debug, instructions, sizes, str(place))
    return debug


def _map_weights(archive: ArchiveReader) -> tuple[Bytes, dict[str, Tensor]]:
    place = _Place(archive.path, WEIGHTS)
    whole = archive.view(WEIGHTS)
    entries, start = read_header(whole, str(place), [_AGAIN])
    tensors: dict[str, Tensor] = {}
    end = 0
    for name, (dtype, shape, begin, stop) in entries.items():
        if dtype not in DTYPES:
            place.fail(f"{name}: dtype {dtype!r} is not one of {', '.join(DTYPES)}")
        if len(shape) > _MOST_AXES:
            place.fail(f"{name}: {len(shape)} axes, at most {_MOST_AXES} make sense")
        if begin != end:
            place.fail(f"{name}: expected its data at {end}, where that of the tensor before ends")
        if begin % np.dtype(DTYPES[dtype]).itemsize:
            place.fail(f"{name}: address {begin} is not aligned to its elements")
        tensors[name] = Tensor(DTYPES[dtype], shape, begin)
        end = stop
    return whole[start:], tensors


def _check_dram(path: Path, manifest: Manifest, weight_bytes: int) -> None:
    """Weights and ports lie inside the DRAM that the program asks for."""
    place = _Place(path, MANIFEST)
    if weight_bytes > manifest.dram_bytes:
        place.fail(f"dram_bytes is {manifest.dram_bytes}, the weights alone have {weight_bytes}")
    if manifest.dram_bytes > manifest.hardware.dram_capacity_bytes:
        place.fail(
            f"dram_bytes is {manifest.dram_bytes}, the hardware has "
            f"{manifest.hardware.dram_capacity_bytes}"
        )
    for port in (*manifest.inputs, *manifest.outputs):
        if not weight_bytes <= port.address <= manifest.dram_bytes - port.nbytes:
            place.fail(
                f"{port.name}: {port.nbytes} bytes at address {port.address} are outside of "
                f"{weight_bytes} to {manifest.dram_bytes}"
            )


def _object(data: bytes, place: _Place) -> dict[str, Any]:
    """A JSON object."""
    return parse_json(data, str(place), [_AGAIN])


class _Parser:
    """Checks the shape of a manifest; every complaint names the key."""

    def __init__(self, place: _Place):
        self._place = place

    def manifest(self, data: Mapping[str, Any]) -> Manifest:
        place = f"{self._place.path}: {self._place.section}: hardware"
        producer = data.get("producer")
        if not isinstance(producer, str):
            self._place.fail("producer: expected a text")
        sections = self.object(data.get("sections"), "sections")
        inputs = self._ports(data.get("inputs"), "inputs")
        outputs = self._ports(data.get("outputs"), "outputs")
        return Manifest(
            hardware=hardware_from_json(data.get("hardware"), place),
            inputs=inputs,
            outputs=outputs,
            dram_bytes=self._integer(data.get("dram_bytes"), "dram_bytes", 0, _LARGEST_DRAM),
            points={
                name: self._integer(point, f"points.{name}", -64, 64)
                for name, point in self.object(data.get("points"), "points").items()
            },
            options=self.object(data.get("options"), "options"),
            source=self.object(data.get("source"), "source"),
            producer=producer,
            sections={k: self.object(v, f"sections.{k}") for k, v in sections.items()},
        )

    def object(self, value: object, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._place.fail(f"{key}: expected an object, found {_brief(value)}")
        return cast(dict[str, Any], value)

    def shape(self, value: object, key: str) -> tuple[int, ...]:
        if not isinstance(value, list) or len(cast(list[Any], value)) > _MOST_AXES:
            self._place.fail(f"{key}: expected a shape, found {_brief(cast(object, value))}")
        axes = cast(list[Any], value)
        return tuple(self._integer(a, f"{key}: an axis of the shape", 0, 1 << 40) for a in axes)

    def _integer(self, value: object, key: str, low: int, high: int) -> int:
        if type(value) is not int or not low <= value <= high:
            self._place.fail(
                f"{key}: expected an integer from {low} to {high}, found {_brief(value)}"
            )
        return value

    def _ports(self, value: object, key: str) -> tuple[Port, ...]:
        if not isinstance(value, list):
            self._place.fail(f"{key}: expected a list, found {_brief(value)}")
        items = enumerate(cast(list[Any], value))
        ports = tuple(self._port(item, f"{key}[{i}]") for i, item in items)
        if len({p.name for p in ports}) != len(ports):
            self._place.fail(f"{key}: a name is used twice")
        return ports

    def _port(self, value: object, key: str) -> Port:
        data = self.object(value, key)
        name, dtype, role = data.get("name"), data.get("dtype"), data.get("role", "")
        if not isinstance(name, str) or not name:
            self._place.fail(f"{key}.name: expected a text, found {_brief(name)}")
        if dtype not in PORT_DTYPES:
            known = ", ".join(PORT_DTYPES)
            self._place.fail(f"{key}.dtype: expected one of {known}, found {_brief(dtype)}")
        if not isinstance(role, str):
            self._place.fail(f"{key}.role: expected a text, found {_brief(role)}")
        padding = data.get("padding", "")
        if padding not in ("", "zero", "computed"):
            self._place.fail(f"{key}.padding: expected zero or computed, found {_brief(padding)}")
        port = Port(
            name,
            cast(str, dtype),
            self.shape(data.get("shape"), f"{key}.shape"),
            self._integer(data.get("address"), f"{key}.address", 0, _LARGEST_DRAM),
            self._integer(data.get("limit", 0), f"{key}.limit", 0, 1 << 40),
            role,
            self._mask(data.get("mask"), f"{key}.mask"),
            padding,
            self._within(data.get("within"), f"{key}.within"),
            self._hides(data.get("hides"), f"{key}.hides"),
        )
        if int(np.prod(port.shape, dtype=object)) > _LARGEST_DRAM:
            self._place.fail(f"{key}.shape: {port.shape} is absurdly large")
        return port

    def _within(self, value: object, key: str) -> Interval | None:
        if value is None:
            return None
        ends: list[object] = list(cast("list[object]", value)) if isinstance(value, list) else []
        numbers = [float(n) for n in ends if isinstance(n, int | float) and math.isfinite(n)]
        if len(ends) != 2 or len(numbers) != 2 or numbers[0] > numbers[1]:
            self._place.fail(f"{key}: expected two ascending numbers, found {_brief(ends)}")
        return numbers[0], numbers[1]

    def _hides(self, value: object, key: str) -> float | None:
        if value is None:
            return None
        if not isinstance(value, int | float) or not math.isfinite(value):
            self._place.fail(f"{key}: expected a number, found {_brief(value)}")
        return float(value)

    def _mask(self, value: object, key: str) -> MaskValues | None:
        if value is None:
            return None

        def fail(message: str) -> NoReturn:
            self._place.fail(f"{key}.{message}")

        return MaskValues.of_json(self.object(value, key), fail)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
