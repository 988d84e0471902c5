"""Model files and folders: what is recognised, what is refused, and how."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from capture_support import (
    SPECS,
    Payload,
    damage,
    flip_data,
    refuse,
    save,
)

from heatc.capture import InputSpec, capture_path, parse_inputs
from heatc.errors import HeatcError, UsageError

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch

Edit = Callable[[str, bytes], bytes | None]


def rewrite(source: Path, target: Path, edit: Edit, compression: int = 0) -> Path:
    """Copy an archive; `edit` gives each member's new bytes, or None to leave it out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for info in old.infolist():
            data = edit(info.filename, old.read(info))
            if data is not None:
                new.writestr(info.filename, data)
    return target


def edit_json(source: Path, target: Path, suffix: str, change: Callable[[Any], object]) -> Path:
    """Copy an archive with a change of the JSON member whose name ends with `suffix`."""

    def edit(name: str, data: bytes) -> bytes:
        if not name.endswith(suffix):
            return data
        content = json.loads(data)
        change(content)
        return json.dumps(content).encode()

    return rewrite(source, target, edit)


# --inputs.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input_ids=8x999999999:i64", "has 7999999992 elements, at most 134217728 make sense"),
        ("x=" + "x".join(["1"] * 9) + ":f32", "has 9 axes, at most 8 make sense"),
        ("x=1:f32," * 20_000, "a text of 160000 characters"),
    ],
)
def test_absurd_inputs(text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        parse_inputs(text)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (
            {"input_ids": torch.zeros(1, 8)},
            "expected an InputSpec for input 'input_ids', got Tensor",
        ),
        ([1], "expected a dict of InputSpec for inputs, got list"),
        ({"input_ids": InputSpec((1 << 40, 1), "i64")}, "has 1099511627776 elements"),
        ({"input_ids": InputSpec((1, 0), "i64")}, "has an extent of 0"),
        ({"input_ids": InputSpec((1, 8), "i7")}, "expected integers and a dtype"),
    ],
)
def test_specs_that_are_none(inputs: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(HeatcError, match=expected):
        capture_path(tmp_path, inputs)


def test_parse_inputs() -> None:
    specs = parse_inputs("input_ids=1x128:i64, mask=2x4x8:bool,scale=:f32")
    assert specs == {
        "input_ids": InputSpec((1, 128), "i64"),
        "mask": InputSpec((2, 4, 8), "i1"),
        "scale": InputSpec((), "f32"),
    }
    assert str(specs["mask"]) == "2x4x8:i1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "x=",
        "x=1x2",
        "x=1x:i64",
        "x=0x2:i64",
        "x=1:f16",
        "=1:i64",
        "x=1:i64,x=1:i64",
        "x=-1:i64",
    ],
)
def test_malformed_inputs(text: str) -> None:
    with pytest.raises(UsageError) as info:
        parse_inputs(text)
    assert info.value.exit_code == 2
    assert info.value.place == "--inputs"


def test_inputs_must_agree_with_an_archive(archive: Path) -> None:
    capture_path(archive, SPECS)
    capture_path(archive, {"input_ids": SPECS["input_ids"]})
    refuse(archive, match="no input 'ids'", inputs={"ids": SPECS["input_ids"]})
    error = refuse(archive, match="input_ids=1x9:i64", inputs=parse_inputs("input_ids=1x9:i64"))
    assert "input_ids=1x8:i64" in error.message


# Archives.


def test_the_source_is_named(archive: Path, tmp_path: Path) -> None:
    source = capture_path(archive).module.attributes["heatc.source"]
    assert f'model = "{archive.name}"' in str(source)
    other = tmp_path / archive.name
    shutil.copy(archive, other)
    assert capture_path(other).module.attributes["heatc.source"] == source


def test_missing(tmp_path: Path) -> None:
    refuse(tmp_path / "none.pt2", match="no such file")
    refuse(tmp_path, match=r"no config\.json")
    refuse(Path("/dev/null"), match="not a regular file")


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"hello, this is text", bytes(range(256)) * 40, b"PK\x03\x04", b"PK\x03\x04" * 99],
)
def test_no_model(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pt2").write_bytes(data)
    refuse(tmp_path / "x.pt2", match="empty|no model|damaged")


def test_zip_without_a_model(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/readme", "nothing")
    refuse(path, match="the zip file holds no model")


def forget_checksum(data: bytearray, info: Any) -> None:
    """As `torch.serialization.set_crc32_options(False)` leaves it: behind the data, in the directory."""
    crc = struct.pack("<I", info.CRC)
    while (at := data.find(crc)) >= 0:
        data[at : at + 4] = bytes(4)


def forget_and_flip(data: bytearray, info: Any) -> None:
    forget_checksum(data, info)
    flip_data(data, info)


@pytest.mark.parametrize("suffix", ["weights/weight_0", "weights/weight_5", "models/model.json"])
@pytest.mark.parametrize("change", [flip_data, forget_checksum, forget_and_flip])
def test_a_flipped_bit(archive: Path, tmp_path: Path, suffix: str, change: Any) -> None:
    path = damage(archive, tmp_path / "x.pt2", suffix, change)
    error = refuse(path, match="it is damaged: its checksum is wrong")
    assert error.place.endswith(suffix)


def test_an_expanded_weight_is_no_larger_than_its_file(archive: Path, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        meta = next(iter(content["config"].values()))["tensor_meta"]
        meta["sizes"] = [{"as_int": 1 << 40}, {"as_int": 1 << 20}]
        meta["strides"] = [{"as_int": 0}, {"as_int": 0}]

    path = edit_json(archive, tmp_path / "x", "weights_config.json", change)
    refuse(path, match="in the graph but|too large for its file")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated(archive: Path, tmp_path: Path, part: float) -> None:
    data = archive.read_bytes()
    (tmp_path / "x").write_bytes(data[: int(len(data) * part)])
    refuse(tmp_path / "x", match="not a model archive, or a damaged one")


@pytest.mark.parametrize(
    "suffix", ["models/model.json", "model_weights_config.json", "model_constants_config.json"]
)
def test_missing_or_malformed_json(archive: Path, tmp_path: Path, suffix: str) -> None:
    for i, garbage in enumerate([None, b"", b"{", b"[1]", b'"text"', b"[" * 100_000, b"{}"]):
        path = tmp_path / f"{i}.pt2"
        rewrite(archive, path, lambda name, data: garbage if name.endswith(suffix) else data)  # noqa: B023
        refuse(path, match=r"no member|not JSON|nested|expected|missing|holds 0 models")


def test_missing_weight(archive: Path, tmp_path: Path) -> None:
    path = rewrite(archive, tmp_path / "x", lambda n, d: None if n.endswith("weight_0") else d)
    refuse(path, match="no member 'data/weights/weight_0'")


def test_short_weight(archive: Path, tmp_path: Path) -> None:
    path = rewrite(archive, tmp_path / "x", lambda n, d: d[:-4] if n.endswith("weight_0") else d)
    refuse(path, match=r"needs 12800 bytes, the file has 12796")


def test_a_record_of_half_an_element(archive: Path, tmp_path: Path) -> None:
    path = rewrite(archive, tmp_path / "x", lambda n, d: d + b"ab" * n.endswith("weight_0"))
    refuse(path, match="has 12802 bytes, which are no whole elements of f32")


@pytest.mark.parametrize(
    ("suffix", "content", "expected"),
    [
        ("archive_format", b"pt3", "of another format than pt2"),
        ("archive_version", b"1", "of another version than 0"),
        ("byteorder", b"big", "big-endian"),
    ],
)
def test_marks_of_an_archive(
    archive: Path, tmp_path: Path, suffix: str, content: bytes, expected: str
) -> None:
    path = rewrite(archive, tmp_path / "x", lambda n, d: content if n.endswith(suffix) else d)
    refuse(path, match=expected)


def test_a_mark_in_front_of_json(archive: Path, tmp_path: Path) -> None:
    def edit(name: str, data: bytes) -> bytes:
        return (b"\xef\xbb\xbf" if name.endswith(".json") else b"") + data

    refuse(rewrite(archive, tmp_path / "x", edit), match="not JSON: Unexpected UTF-8 BOM")


def test_compressed(archive: Path, tmp_path: Path) -> None:
    path = rewrite(archive, tmp_path / "x", lambda _, d: d, zipfile.ZIP_DEFLATED)
    refuse(path, match="is compressed")


@pytest.mark.parametrize("name", ["a/../../etc/x", "/etc/passwd", "a\\..\\x", "a/x/../y"])
def test_unsafe_names(archive: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(archive, tmp_path / "x")
    with zipfile.ZipFile(tmp_path / "x", "a") as file:
        file.writestr(name, b"")
    refuse(tmp_path / "x", match="unsafe name|one top-level folder")


def test_repeated_names(archive: Path, tmp_path: Path) -> None:
    shutil.copy(archive, tmp_path / "x")
    with zipfile.ZipFile(tmp_path / "x", "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr(next(n for n in file.namelist() if n.endswith("weight_0")), b"")
    refuse(tmp_path / "x", match="twice")


def test_other_schema_version(archive: Path, tmp_path: Path) -> None:
    def change(content: Any) -> None:
        content["schema_version"]["major"] = 9

    path = edit_json(archive, tmp_path / "x", "models/model.json", change)
    refuse(path, match="schema version 9, supported is 8")


def first_row(config: Any) -> Any:
    return next(iter(config["config"].values()))


@pytest.mark.parametrize("size", [2**62, 10**30, -1, 1.5, None, "8"])
def test_claimed_sizes(archive: Path, tmp_path: Path, size: Any) -> None:
    def change(config: Any) -> None:
        first_row(config)["tensor_meta"]["sizes"][0] = {"as_int": size}

    path = edit_json(archive, tmp_path / "x", "weights_config.json", change)
    refuse(path, match=r"in the graph but|negative extent|expected an integer")


@pytest.mark.parametrize("size", [2**62, 10**30])
def test_claimed_sizes_everywhere(archive: Path, tmp_path: Path, size: int) -> None:
    """The graph and the weight table agree on an extent that the data does not have."""

    def edit(name: str, data: bytes) -> bytes:
        old, new = b'{"as_int":100}', f'{{"as_int":{size}}}'.encode()
        data = data.replace(b'": ', b'":') if name.endswith(".json") else data
        return data.replace(old, new)

    refuse(rewrite(archive, tmp_path / "x", edit), match=r"needs \d+ bytes|malformed|has the size")


def test_dynamic_archive(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def forward(self, ids: Any) -> Any:
            return ids * 2

    shapes = {"ids": {0: torch.export.Dim("batch")}}
    program = torch.export.export(Model(), (torch.ones(2, 3),), dynamic_shapes=shapes)
    error = refuse(save(program, tmp_path / "x"), match="dimension 0 of 'ids' is dynamic")
    assert "static shapes" in error.notes[0]


def test_unsupported_ops_of_an_archive(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.sort(x)[0] + torch.bernoulli(x)

    error = refuse(
        save(torch.export.export(Model(), (torch.ones(2, 3),)), tmp_path / "x"),
        match="2 unsupported calls of 2 ops",
    )
    assert "test_files.py" in error.notes[0]
    assert "rewrite these lines" in error.notes[-1]


def test_what_to_do_about_the_lines_of_a_library(archive: Path, tmp_path: Path) -> None:
    def edit(name: str, data: bytes) -> bytes:
        return data.replace(b"aten.tanh.default", b"aten.erfinv.default")

    error = refuse(rewrite(archive, tmp_path / "x.pt2", edit), match="1 unsupported call of 1 op")
    assert "aten.erfinv.default: 1 call, first in pooler.activation" in str(error)
    assert "these lines are transformers'" in error.notes[-1]
    assert "attn_implementation" in error.notes[-1]


@pytest.mark.parametrize("is_there", [True, False])
def test_calls_in_place_of_an_archive_need_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return (x + 1).mul_(2)

    path = save(torch.export.export(Model(), (torch.ones(2, 3),)), tmp_path / "x")
    if is_there:
        assert "nn.mul" in str(capture_path(path).module)
        return
    monkeypatch.setattr("heatc.capture.paths.has_torch", lambda: False)
    error = refuse(path, match="1 unsupported call of 1 op")
    assert "in place" in error.notes[0]
    assert "pip install" in error.notes[0]


@pytest.mark.parametrize("table", ["weights", "constants"])
def test_pickled_entries_are_refused_unread(archive: Path, tmp_path: Path, table: str) -> None:
    proof = tmp_path / "proof"
    payload = pickle.dumps(Payload(proof))
    pickle.loads(payload)
    assert proof.exists()
    proof.unlink()

    def edit(name: str, data: bytes) -> bytes:
        if name.endswith(f"{table}_config.json"):
            config = json.loads(data)
            first_row(config)["use_pickle"] = True
            return json.dumps(config).encode()
        return payload if name.endswith(("/weight_0", "/tensor_0")) else data

    error = refuse(rewrite(archive, tmp_path / "x.pt2", edit), match="is pickled in the archive")
    assert "could run code" in error.notes[0]
    assert not proof.exists()


def test_script_objects_are_refused(archive: Path, tmp_path: Path) -> None:
    def change(config: Any) -> None:
        first_row(config)["path_name"] = "custom_obj_0"

    path = edit_json(archive, tmp_path / "x", "constants_config.json", change)
    refuse(path, match="is pickled in the archive")


def mutations(data: bytes, count: int) -> Iterator[bytes]:
    """Copies with a few bytes changed, the JSON's more often, or cut off."""
    rng = random.Random(0)
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        texts = [i for i in file.infolist() if i.filename.endswith(".json")]
    spans = [(0, len(data)), (len(data) - 6000, len(data))]
    spans += [(i.header_offset, i.header_offset + i.file_size + 128) for i in texts]
    for _ in range(count):
        changed = bytearray(data)
        begin, end = rng.choice(spans)
        for _ in range(rng.choice((1, 3, 20))):
            changed[min(rng.randrange(begin, end), len(data) - 1)] = rng.choice(
                b'\0\xff09-{}[]",:n'
            )
        cut = rng.randrange(len(changed)) if rng.random() < 0.1 else len(changed)
        yield bytes(changed[:cut])


def mutated_json(archive: Path, target: Path, count: int) -> Iterator[Path]:
    """Archives whose JSON is valid, with a few values swapped for others."""
    rng = random.Random(1)
    values = [None, True, -1, 0, 2**63, 1e300, "", "x", [], {}, [None], {"as_none": True}]

    def spoil(node: Any) -> None:
        """Walk down at random and change what is found there."""
        for _ in range(rng.randrange(2, 12)):
            keys = list(node) if isinstance(node, dict) else range(len(node))
            if not keys:
                return
            key = rng.choice(list(keys))
            if not isinstance(node[key], dict | list) or rng.random() < 0.1:
                node[key] = copy.deepcopy(rng.choice(values))
                return
            node = node[key]

    for i in range(count):
        suffix = rng.choice(["models/model.json", "models/model.json", "weights_config.json"])
        yield edit_json(
            archive,
            target / f"{i}.pt2",
            suffix,
            lambda c: [spoil(c) for _ in range(rng.choice((1, 9)))],
        )


def survive(path: Path) -> bool:
    """Capture; True for a module, False for a `HeatcError`. Anything else fails the test."""
    try:
        captured = capture_path(path)
    except HeatcError as error:
        if not error.place:
            pytest.fail(f"no place in {error.message!r}")
        return False
    captured.module.verify()
    for name in captured.weights:
        assert captured.weights[name].size < 10**7
    return True


def test_fuzzed_bytes(archive: Path, tmp_path: Path) -> None:
    outcomes: list[bool] = []
    for mutation in mutations(archive.read_bytes(), 150):
        (tmp_path / "x.pt2").write_bytes(mutation)
        outcomes.append(survive(tmp_path / "x.pt2"))
    assert len(outcomes) == 150
    assert 0 < sum(outcomes) < 150


def test_fuzzed_json(archive: Path, tmp_path: Path) -> None:
    outcomes = [survive(path) for path in mutated_json(archive, tmp_path, 150)]
    assert len(outcomes) == 150
    assert sum(outcomes) < 150
