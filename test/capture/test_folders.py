"""Hugging Face folders and state dicts: what is recognised, what is refused, and how."""

from __future__ import annotations

import json
import pickle
import random
import resource
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_support import (
    SPECS,
    MakeBert,
    Payload,
    check_round_trip,
    damage,
    flip_data,
    names_of,
    refuse,
    text_of,
)

from heatc.capture import InputSpec, capture_path, parse_inputs
from heatc.capture.checkpoint import read_safetensors
from heatc.capture.config import bounded_modules
from heatc.errors import HeatcError

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch

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


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "nonsense"},
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
        _check_buffers(broken, model, 4)


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


def test_examples_take_no_memory(folder: Path) -> None:
    """A gigabyte of ids: only their shape is looked at."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    specs = {name: InputSpec((1 << 21, 16), "i64") for name in ("input_ids", "attention_mask")}
    assert "2097152" in text_of(capture_path(folder, specs).module)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 << 10


def test_a_flipped_bit_of_a_state_dict(make_bert: MakeBert, broken: Path) -> None:
    """torch itself looks at no checksum."""
    path = broken / "model.pt"
    torch.save(make_bert().state_dict(), path)
    damage(path, path, "data/3", flip_data)
    refuse(path, match="it is damaged: its checksum is wrong")


@pytest.mark.parametrize("rest", [bytes(20), None])
def test_a_record_of_another_size(
    make_bert: MakeBert, broken: Path, tmp_path: Path, rest: bytes | None
) -> None:
    """torch maps the file, and looks at no record's size."""
    torch.save(make_bert().state_dict(), tmp_path / "good.pt")
    path = broken / "model.pt"
    with zipfile.ZipFile(tmp_path / "good.pt") as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename.endswith("data/3"):
                data = data[:-20] if rest is None else data + rest
            new.writestr(info.filename, data)
    refuse(path, match="has no record of that size|cannot load")
