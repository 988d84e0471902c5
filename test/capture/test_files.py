"""Model files and folders: what is recognised, what is refused, and how."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import resource
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_support import MakeBert, bert_inputs, check_round_trip, names_of, save, text_of

from heatc.capture import InputSpec, capture_path, parse_inputs
from heatc.capture.config import bounded_modules
from heatc.capture.mapped import read_safetensors
from heatc.errors import HeatcError, UsageError

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch

SPECS = {name: InputSpec((1, 8), "i64") for name in bert_inputs()}


def refuse(path: Path, *, match: str, inputs: Any = None) -> HeatcError:
    with pytest.raises(HeatcError, match=match) as info:
        capture_path(path, inputs)
    assert info.value.exit_code == 1
    assert info.value.place
    assert "\n" not in info.value.message
    return info.value


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


def test_examples_take_no_memory(folder: Path) -> None:
    """A gigabyte of ids: only their shape is looked at."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    specs = {name: InputSpec((1 << 21, 16), "i64") for name in ("input_ids", "attention_mask")}
    assert "2097152" in text_of(capture_path(folder, specs).module)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 << 10


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


def damage(
    source: Path, target: Path, suffix: str, change: Callable[[bytearray, Any], None]
) -> Path:
    """Copy an archive with damage at the member whose name ends with `suffix`."""
    data = bytearray(source.read_bytes())
    with zipfile.ZipFile(source) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith(suffix))
    change(data, info)
    target.write_bytes(data)
    return target


def flip_data(data: bytearray, info: Any) -> None:
    name, extra = struct.unpack_from("<2H", data, info.header_offset + 26)
    data[info.header_offset + 30 + name + extra + info.file_size // 2] ^= 1


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


def test_a_flipped_bit_of_a_state_dict(make_bert: MakeBert, broken: Path) -> None:
    """torch itself looks at no checksum."""
    path = broken / "model.pt"
    torch.save(make_bert().state_dict(), path)
    damage(path, path, "data/3", flip_data)
    refuse(path, match="it is damaged: its checksum is wrong")


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
            return torch.erf(x) + torch.cumsum(x, 0)

    error = refuse(
        save(torch.export.export(Model(), (torch.ones(2, 3),)), tmp_path / "x"),
        match="2 unsupported calls of 2 ops",
    )
    assert "test_files.py" in error.notes[0]


class Payload:
    """Would create a file if it were unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


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


# Hugging Face folders and state dicts.


@pytest.fixture(scope="module")
def folder(make_bert: MakeBert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folder")
    make_bert().save_pretrained(path)
    return path


@pytest.fixture
def broken(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be broken."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit_config(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    change(arrays)
    save_file(arrays, path)


def without_source(module: Any) -> str:
    module.attributes.pop("heatc.source")
    return text_of(module)


def test_folder_equals_archive(archive: Path, folder: Path) -> None:
    one, other = capture_path(archive), capture_path(folder, SPECS)
    assert without_source(one.module) == without_source(other.module)
    assert set(one.weights) == set(other.weights)
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array, other.weights[name])
        assert not other.weights[name].flags.owndata


def test_folder_defaults(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    captured = capture_path(folder)
    assert names_of(captured)[0] == ["input_ids", "attention_mask", "token_type_ids"]
    assert "tensor<1x40xi64>" in text_of(captured.module)
    check_round_trip(captured.module)
    assert capfd.readouterr() == ("", "")


def test_folder_with_other_inputs(folder: Path) -> None:
    specs = parse_inputs("input_ids=2x5:i64,position_ids=2x5:i64")
    assert names_of(capture_path(folder, specs))[0] == ["input_ids", "position_ids"]
    refuse(folder, match="no input 'ids'", inputs={"ids": SPECS["input_ids"]})
    refuse(folder, match="cannot export", inputs=parse_inputs("input_ids=1x64:i64"))


def test_eager_folder(broken: Path) -> None:
    edit_config(broken, attn_implementation="eager")
    assert "nn.softmax" in text_of(capture_path(broken).module)


def test_sharded_folder(make_bert: MakeBert, folder: Path, tmp_path: Path) -> None:
    make_bert().save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    sharded, whole = capture_path(tmp_path), capture_path(folder)
    assert without_source(sharded.module) == without_source(whole.module)
    for name, array in whole.weights.items():
        np.testing.assert_array_equal(array, sharded.weights[name])
    next(iter(tmp_path.glob("*.safetensors"))).unlink()
    refuse(tmp_path, match="shard .* is missing")


def test_head_and_tied_weights_of_a_folder(make_bert: MakeBert, tmp_path: Path) -> None:
    for kind in ("BertForSequenceClassification", "BertForMaskedLM"):
        make_bert(kind).save_pretrained(tmp_path / kind)
        assert names_of(capture_path(tmp_path / kind))[1] == ["logits"]


def test_base_model_prefix_and_old_names(broken: Path, folder: Path) -> None:
    def change(arrays: dict[str, Any]) -> None:
        for name in list(arrays):
            new = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            arrays["bert." + new.replace("LayerNorm.bias", "LayerNorm.beta")] = arrays.pop(name)

    edit_weights(broken, change)
    old, new = capture_path(broken), capture_path(folder)
    assert without_source(old.module) == without_source(new.module)


def test_missing_and_unexpected_weights(broken: Path) -> None:
    def change(arrays: dict[str, Any]) -> None:
        arrays["surprise"] = arrays.pop("pooler.dense.bias")

    edit_weights(broken, change)
    error = refuse(broken, match="the weights do not fit BertModel")
    assert error.notes[:2] == ("1 missing: pooler.dense.bias", "1 unexpected: surprise")


def test_other_shape(broken: Path) -> None:
    edit_config(broken, intermediate_size=63)
    refuse(broken, match=r"has shape \(64, 32\), the model needs \(63, 32\)")


def test_other_precision(broken: Path) -> None:
    def change(arrays: dict[str, Any]) -> None:
        arrays["pooler.dense.bias"] = arrays["pooler.dense.bias"].astype(np.float16)

    edit_weights(broken, change)
    error = refuse(broken, match="element type")
    assert "float()" in error.notes[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "nonsense"},
        {"architectures": ["Nonsense"]},
        {"architectures": 7},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "two"},
        {"hidden_size": -4},
        {"hidden_size": 33},
        {"vocab_size": 10**15},
        {"num_labels": 10**7},
        {"num_labels": 1 << 30},
        {"hidden_size": 1 << 20},
        {"max_position_embeddings": 1 << 23},
        {"nested": {"deep": [{"n_layers": 1 << 30}]}},
        {"auto_map": {"AutoModel": "evil.Model"}, "model_type": "evil"},
    ],
)
def test_unusable_configurations(broken: Path, settings: dict[str, Any]) -> None:
    edit_config(broken, **settings)
    refuse(
        broken,
        match=r"cannot build|num_hidden_layers|vocab_size|num_labels|n_layers|do not fit|has shape",
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"num_labels": 10**7}, "num_labels is 10000000, no weight has an extent above 100"),
        ({"encoder_layers": 65}, "encoder_layers is 65, the weights are 39 tensors"),
        (
            {"a": {"num_experts": 1 << 30}},
            "a.num_experts is 1073741824, the weights are 39 tensors",
        ),
        ({"rope_theta": 1 << 25}, "rope_theta is 33554432, no weight has an extent above 100"),
    ],
)
def test_numbers_that_the_weights_cannot_have(
    broken: Path, settings: dict[str, Any], expected: str
) -> None:
    edit_config(broken, **settings)
    error = refuse(broken, match=expected)
    assert error.place.endswith("config.json")


def test_a_model_is_not_built_before_it_fits(broken: Path) -> None:
    """Hidden layers of gigabytes each have no memory while they are compared with the weights."""
    edit_config(broken, hidden_size=1 << 16, intermediate_size=1 << 16, num_attention_heads=4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refuse(broken, match="has shape")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 << 10


def test_a_model_has_so_many_modules_at_most(broken: Path) -> None:
    with (
        pytest.raises(HeatcError, match="more than 1040 modules, the weights are 1 tensors"),
        bounded_modules(1, "config.json"),
    ):
        torch.nn.ModuleList(torch.nn.Identity() for _ in range(2000))
    torch.nn.ModuleList(torch.nn.Identity() for _ in range(2000))


def test_tables_are_bounded_by_the_weights(broken: Path) -> None:
    """GPT-2's older mask of all pairs of positions; here any buffer."""
    from heatc.capture.hf_model import _check_buffers

    model = torch.nn.Module()
    model.register_buffer("table", torch.empty(1 << 28, dtype=torch.float32, device="meta"))
    with pytest.raises(HeatcError, match="tables of 1073741824 bytes, the weights have 4"):
        _check_buffers(broken, model, {"w": torch.zeros(1)})


def test_a_configuration_of_python(broken: Path) -> None:
    """transformers writes infinities as Python does."""
    path = broken / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "limit": [0.0, float("inf")]}))
    capture_path(broken, SPECS)
    path.write_text(path.read_text().replace('"limit"', '"hidden_size": 32, "limit"', 1))
    refuse(broken, match="key 'hidden_size' stands twice")


def test_shards(folder: Path, broken: Path) -> None:
    """What the index says and what the shards hold is the same."""
    from safetensors.numpy import load_file, save_file

    arrays = load_file(broken / "model.safetensors")
    (broken / "model.safetensors").unlink()
    names = sorted(arrays)
    parts = {"a.safetensors": names[:10], "b.safetensors": names[10:]}
    for file, part in parts.items():
        save_file({name: arrays[name] for name in part}, broken / file)
    index: dict[str, Any] = {"weight_map": {n: f for f, part in parts.items() for n in part}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    one, other = capture_path(broken, SPECS), capture_path(folder, SPECS)
    assert without_source(one.module) == without_source(other.module)
    index["weight_map"][names[0]] = "b.safetensors"
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    refuse(broken, match=f"no weight '{names[0]}'")
    save_file(
        {name: arrays[name] for name in [names[0], *parts["b.safetensors"]]},
        broken / "b.safetensors",
    )
    refuse(broken, match=f"weight '{names[0]}' is in two shards")


def test_damaged_folders(broken: Path) -> None:
    weights = broken / "model.safetensors"
    data = weights.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    for garbage in (b"", b"\0" * 4, b"\xff" * 64, data[:-4], data[: size // 2]):
        weights.write_bytes(garbage)
        refuse(broken, match="empty|damaged|header|malformed|truncated")
    weights.unlink()
    refuse(broken, match=r"0 \*\.safetensors files")
    (broken / "config.json").write_text("{")
    refuse(broken, match="not JSON")


def test_fuzzed_safetensors(folder: Path, tmp_path: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 3))):
            changed[rng.randrange(8 + size)] = rng.choice(b'\0\xff09-{}[]",:')
        (tmp_path / "x").write_bytes(changed)
        try:
            read_safetensors(tmp_path / "x")
        except HeatcError:
            refused += 1
    assert refused > 100


def test_lone_safetensors(folder: Path) -> None:
    refuse(folder / "model.safetensors", match="holds weights but no model")


def test_state_dict(make_bert: MakeBert, folder: Path, broken: Path) -> None:
    path = broken / "model.pt"
    torch.save(make_bert().state_dict(), path)
    (broken / "model.safetensors").unlink()
    one, other = capture_path(path), capture_path(folder)
    assert without_source(one.module) == without_source(other.module)
    for name, array in other.weights.items():
        np.testing.assert_array_equal(array, one.weights[name])
    (broken / "config.json").unlink()
    error = refuse(path, match="holds no architecture")
    assert "config.json" in error.notes[0]


def test_pickled_modules(broken: Path, tmp_path: Path) -> None:
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(4, 2).eval(), path)
    error = refuse(path, match="pickled Python object")
    assert any("--trust-pickle" in note for note in error.notes)
    with pytest.raises(HeatcError, match="does not say what its inputs are"):
        capture_path(path, trust_pickle=True)
    captured = capture_path(path, parse_inputs("input=3x4:f32"), trust_pickle=True)
    assert "nn.linear" in text_of(captured.module)


def test_pickled_payload_does_not_run(folder: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    torch.save({"weight": Payload(proof)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Payload(proof)))
    shutil.copy(folder / "config.json", tmp_path)
    for name in ("a.pt", "b.pt"):
        refuse(tmp_path / name, match="pickled Python object|cannot load")
    assert not proof.exists()


@pytest.mark.parametrize("content", [{}, [1, 2], {"a": 1}, torch.ones(2)])
def test_no_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    refuse(tmp_path / "x.pt", match="no state dict")
