"""Whatever transformers loads from a folder: the weights that heatc finds are those it finds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from capture_support import MakeBert

from heatc.capture.checkpoint import read_checkpoint
from heatc.capture.config import read_config
from heatc.capture.hf_model import Built, build_model, quiet_transformers
from heatc.errors import HeatcError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXT = {"vocab_size": 60, "max_position_embeddings": 24, **SMALL}
IMAGE = {"image_size": 16, "patch_size": 8, **SMALL}
SOUND = {
    "vocab_size": 30,
    "conv_dim": (8, 8),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    **SMALL,
}
T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}

Tensors = dict[str, Any]


def make(kind: str, config: str, settings: Mapping[str, Any]) -> Any:
    """A model with random weights, biases and norms too."""
    torch.manual_seed(0)
    make_config: Any = getattr(transformers, config)
    model = getattr(transformers, kind)(make_config(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def write(folder: Path, model: Any, tensors: Tensors, **config: Any) -> Path:
    """A folder of a model's configuration and of these tensors."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / "model.safetensors", {"format": "pt"})
    return folder


def built(folder: Path, **options: Any) -> Built:
    with quiet_transformers():
        return build_model(folder, read_config(folder), read_checkpoint(folder), **options)


def values(found: Built) -> dict[str, np.ndarray[Any, Any]]:
    """Every parameter by name, with the elements that are made when they are read."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, parameter in found.model.named_parameters(remove_duplicate=False):
        source = found.placeholders.source(parameter)
        arrays[name] = parameter.detach().numpy() if source is None else source.read()
    return arrays


def check_equal(found: Built, reference: Any) -> None:
    """The parameters are those of a model that transformers loaded."""
    assert type(found.model) is type(reference)
    arrays = values(found)
    expected = dict(reference.named_parameters(remove_duplicate=False))
    assert arrays.keys() == expected.keys()
    for name, parameter in expected.items():
        np.testing.assert_array_equal(arrays[name], parameter.detach().float().numpy(), name)


def load(kind: str, folder: Path) -> Any:
    with quiet_transformers():
        return getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()


FAMILIES = [
    ("BertForMaskedLM", "BertConfig", TEXT),
    ("RobertaForTokenClassification", "RobertaConfig", TEXT),
    (
        "DistilBertModel",
        "DistilBertConfig",
        {"vocab_size": 60, "dim": 32, "n_layers": 1, "n_heads": 4},
    ),
    ("ViTForImageClassification", "ViTConfig", IMAGE),
    ("ViTModel", "ViTConfig", IMAGE),
    ("DeiTForImageClassificationWithTeacher", "DeiTConfig", IMAGE),
    ("BeitForImageClassification", "BeitConfig", {"use_relative_position_bias": True, **IMAGE}),
    ("Dinov2Model", "Dinov2Config", {"use_swiglu_ffn": True, **IMAGE}),
    ("GPTNeoXForCausalLM", "GPTNeoXConfig", TEXT),
    ("Wav2Vec2ForCTC", "Wav2Vec2Config", SOUND),
    ("CLIPModel", "CLIPConfig", {"text_config": TEXT, "vision_config": IMAGE}),
    ("T5ForConditionalGeneration", "T5Config", T5),
    ("MixtralForCausalLM", "MixtralConfig", {**TEXT, "num_local_experts": 2}),
]


@pytest.mark.parametrize(("kind", "config", "settings"), FAMILIES, ids=[f[0] for f in FAMILIES])
@pytest.mark.parametrize("names", ["of the hub", "of this version"])
def test_names_of_a_family(
    kind: str, config: str, settings: Mapping[str, Any], names: str, tmp_path: Path
) -> None:
    """`save_pretrained` writes the names that the hub's checkpoints have."""
    model = make(kind, config, settings)
    if names == "of the hub":
        model.save_pretrained(tmp_path)
    else:
        write(tmp_path, model, model.state_dict())
    check_equal(built(tmp_path), load(kind, tmp_path))


def test_old_names_of_vit(tmp_path: Path) -> None:
    """As google/vit-base-patch16-224 has them."""
    make("ViTForImageClassification", "ViTConfig", IMAGE).save_pretrained(tmp_path)
    names = read_checkpoint(tmp_path)
    assert "vit.encoder.layer.0.attention.attention.query.weight" in names


def test_weight_norm_of_older_torch(tmp_path: Path) -> None:
    model = make("Wav2Vec2Model", "Wav2Vec2Config", SOUND)
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in model.state_dict().items()
    }
    assert old.keys() != model.state_dict().keys()
    check_equal(built(write(tmp_path, model, old)), model)


def test_experts_are_merged(tmp_path: Path) -> None:
    """A conversion of the table: one tensor of many, made when it is read."""
    model = make("MixtralForCausalLM", "MixtralConfig", {**TEXT, "num_local_experts": 2})
    model.save_pretrained(tmp_path)
    names = read_checkpoint(tmp_path)
    assert any(".experts.1." in name for name in names)
    check_equal(built(tmp_path), model)


def test_a_conversion_that_fails(tmp_path: Path) -> None:
    model = make("MixtralForCausalLM", "MixtralConfig", {**TEXT, "num_local_experts": 2})
    model.save_pretrained(tmp_path)
    from safetensors.torch import load_file, save_file

    tensors = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if ".experts.1." in name)
    tensors[name] = torch.zeros(3, 3)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(HeatcError, match="cannot be converted") as info:
        built(tmp_path)
    assert "MergeModulelist" in info.value.notes[0]


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "net.", "a.b.module."]
)
@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM"])
def test_prefixes(make_bert: MakeBert, tmp_path: Path, prefix: str, kind: str) -> None:
    model = make_bert(kind)
    tensors = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    check_equal(built(write(tmp_path, model, tensors)), model)


def test_a_prefix_in_the_middle(make_bert: MakeBert, tmp_path: Path) -> None:
    model = make_bert("BertForMaskedLM")
    tensors = {
        name.replace("bert.", "bert._orig_mod."): tensor
        for name, tensor in model.state_dict().items()
    }
    check_equal(built(write(tmp_path, model, tensors)), model)


def test_a_prefix_of_some(make_bert: MakeBert, tmp_path: Path) -> None:
    """Lightning: the model under `model.`, the loss beside it."""
    model = make_bert("BertForMaskedLM")
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    found = built(write(tmp_path, model, {**tensors, "loss.weight": torch.ones(3)}))
    check_equal(found, model)
    assert found.remarks == ["BertForMaskedLM has no use for 1 weight: loss.weight"]


def test_the_base_model_with_its_prefix(make_bert: MakeBert, tmp_path: Path) -> None:
    model = make_bert("BertForMaskedLM")
    folder = write(tmp_path, model, model.state_dict(), architectures=["BertModel"])
    with pytest.raises(HeatcError, match="do not fit BertModel") as info:
        built(folder)
    assert info.value.notes[0] == "2 missing: pooler.dense.bias, pooler.dense.weight"


def test_another_head(make_bert: MakeBert, tmp_path: Path) -> None:
    """bert-base-uncased: weights of BertForPreTraining, the configuration says BertForMaskedLM."""
    model = make_bert("BertForPreTraining")
    tensors = model.state_dict()
    folder = write(tmp_path, model, tensors, architectures=["BertForMaskedLM"])
    found = built(folder)
    check_equal(found, load("BertForMaskedLM", folder))
    assert found.remarks == [
        "BertForMaskedLM has no use for 4 weights: bert.pooler.dense.bias, "
        "bert.pooler.dense.weight, cls.seq_relationship.bias, cls.seq_relationship.weight"
    ]


def test_a_head_that_is_missing(make_bert: MakeBert, tmp_path: Path) -> None:
    model = make_bert()
    kinds = ["BertForSequenceClassification"]
    with pytest.raises(HeatcError, match="do not fit BertForSequenceClassification") as info:
        built(write(tmp_path, model, model.state_dict(), architectures=kinds))
    assert info.value.notes[0] == "2 missing: classifier.bias, classifier.weight"


@pytest.mark.parametrize("architectures", [None, [], ["MyBert"], ["TFBertForMaskedLM", "X"]])
def test_no_class_of_transformers(
    make_bert: MakeBert, tmp_path: Path, architectures: list[str] | None
) -> None:
    model = make_bert()
    found = built(write(tmp_path, model, model.state_dict(), architectures=architectures))
    check_equal(found, model)
    if architectures:
        name = repr(architectures[0])
        assert found.remarks == [
            f"transformers has no class {name}: the model without a head is compiled"
        ]
    else:
        assert not found.remarks


def test_no_class_and_no_pooler(make_bert: MakeBert, tmp_path: Path) -> None:
    model = make_bert("BertForMaskedLM")
    found = built(write(tmp_path, model, model.state_dict(), architectures=None))
    assert found.model.pooler is None
    assert found.remarks[0] == "no weights of a pooler: the model is compiled without one"
    assert "cls.predictions.bias" in found.remarks[1]


def test_no_class_and_no_weights_of_it(make_bert: MakeBert, tmp_path: Path) -> None:
    folder = write(tmp_path, make_bert(), {"w": torch.ones(2)}, architectures=["MyBert"])
    with pytest.raises(HeatcError, match="the weights do not fit BertModel"):
        built(folder)


def test_quantised(make_bert: MakeBert, tmp_path: Path) -> None:
    model = make_bert()
    settings = {"quantization_config": {"quant_method": "bitsandbytes"}}
    with pytest.raises(HeatcError, match="the weights are quantised"):
        built(write(tmp_path, model, model.state_dict(), **settings))


# ---- element types ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_element_types(make_bert: MakeBert, tmp_path: Path, dtype: str) -> None:
    model = make_bert()
    wanted = getattr(torch, dtype)
    tensors = {name: tensor.to(wanted) for name, tensor in model.state_dict().items()}
    found = built(write(tmp_path, model, tensors, dtype=dtype))
    check_equal(found, load("BertModel", tmp_path))
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}
    short = {"bfloat16": "bf16", "float16": "f16", "float64": "f64"}[dtype]
    assert found.remarks == [f"cast to f32 when read: 39 weights of {short}"]


def test_codes_of_bfloat16() -> None:
    from heatc.capture.checkpoint import from_tensor

    tensor = torch.tensor([0.0, -0.0, 1.0, -2.5, 3e38, float("inf"), 1e-40]).to(torch.bfloat16)
    found = from_tensor(tensor).cast(np.dtype("<f4"))
    np.testing.assert_array_equal(found.view("<u4"), tensor.float().numpy().view("<u4"))


def test_integers_that_nobody_reads(make_bert: MakeBert, tmp_path: Path) -> None:
    model = make_bert()
    extra = {
        "embeddings.position_ids": torch.arange(40, dtype=torch.int32)[None],
        "counter": torch.ones(1, dtype=torch.int16),
        "codes": torch.ones(4).to(torch.float8_e4m3fn),
    }
    found = built(write(tmp_path, model, {**model.state_dict(), **extra}))
    check_equal(found, model)
    assert found.remarks == ["BertModel has no use for 2 weights: codes, counter"]


def test_integers_that_are_weights(make_bert: MakeBert, tmp_path: Path) -> None:
    model = make_bert()
    tensors = model.state_dict()
    tensors["pooler.dense.bias"] = torch.ones(32, dtype=torch.int32)
    with pytest.raises(HeatcError, match=r"dense\.bias' has element type i32"):
        built(write(tmp_path, model, tensors))


# ---- files ------------------------------------------------------------------------------------


def as_bin(folder: Path, model: Any, shards: int = 1, **options: Any) -> None:
    """pytorch_model.bin instead of model.safetensors, in so many files."""
    write(folder, model, {"w": torch.ones(1)})
    (folder / "model.safetensors").unlink()
    tensors = model.state_dict()
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin", **options)
        return
    names = sorted(tensors)
    table: dict[str, str] = {}
    for i in range(shards):
        part = names[i::shards]
        file = f"pytorch_model-{i + 1:05d}-of-{shards:05d}.bin"
        torch.save({name: tensors[name].clone() for name in part}, folder / file)
        table |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": table}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM"])
def test_bin_files(make_bert: MakeBert, tmp_path: Path, kind: str, shards: int) -> None:
    model = make_bert(kind)
    as_bin(tmp_path, model, shards)
    found = built(tmp_path)
    check_equal(found, model)
    assert not found.remarks


def test_bin_file_of_an_older_torch(make_bert: MakeBert, tmp_path: Path) -> None:
    model = make_bert()
    as_bin(tmp_path, model, _use_new_zipfile_serialization=False)
    check_equal(built(tmp_path), model)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_bin_file_of_a_trainer(make_bert: MakeBert, tmp_path: Path, key: str) -> None:
    model = make_bert()
    as_bin(tmp_path, model)
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({key: state, "epoch": 3}, tmp_path / "pytorch_model.bin")
    check_equal(built(tmp_path), model)


def test_a_tensor_that_lies_the_other_way(make_bert: MakeBert, tmp_path: Path) -> None:
    """torch.save keeps strides; what is read is the tensor, not its memory."""
    from heatc.capture import capture_path

    model = make_bert()
    as_bin(tmp_path, model)
    name = "pooler.dense.weight"
    state = model.state_dict()
    state[name] = state[name].t().contiguous().t()
    torch.save(state, tmp_path / "pytorch_model.bin")
    check_equal(built(tmp_path), model)
    array = capture_path(tmp_path).weights[name]
    np.testing.assert_array_equal(array, model.state_dict()[name].numpy())


def test_a_shard_that_is_missing(make_bert: MakeBert, tmp_path: Path) -> None:
    as_bin(tmp_path, make_bert(), 3)
    (tmp_path / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(HeatcError, match=r"shard .*00002-of-00003\.bin' is missing"):
        built(tmp_path)


def test_tied_weights_that_differ(make_bert: MakeBert, tmp_path: Path) -> None:
    """transformers takes both where the configuration ties what the checkpoint does not."""
    model = make_bert("BertForMaskedLM")
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors["cls.predictions.decoder.weight"] += 1
    found = built(write(tmp_path, model, tensors))
    check_equal(found, load("BertForMaskedLM", tmp_path))
    assert "config.json ties them" in found.remarks[0]


def test_weights_stay_in_their_file(tmp_path: Path, make_bert: MakeBert) -> None:
    """Nothing is copied: a parameter is a view of the file, or has no elements yet."""
    model = make_bert("BertForMaskedLM")
    found = built(write(tmp_path, model, model.state_dict()))
    for name, parameter in found.model.named_parameters():
        assert found.placeholders.source(parameter) is None, name
        assert not parameter.detach().numpy().flags.owndata


def peak(run: Callable[[], Any]) -> int:
    """Bytes by which the resident memory of this process grew at most."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10


def test_casting_holds_one_weight_at_a_time(tmp_path: Path) -> None:
    """400 MiB of float32 out of 200 MiB of bfloat16: never all of them are there."""
    settings = {**TEXT, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8}
    torch.manual_seed(0)
    make_config: Any = transformers.BertConfig
    model = transformers.BertModel(make_config(**settings)).eval().to(torch.bfloat16)
    write(tmp_path, model, model.state_dict())
    del model
    from heatc.weights import WeightStore

    def read() -> None:
        found = built(tmp_path)
        sources = {n: found.placeholders.source(p) for n, p in found.model.named_parameters()}
        store = WeightStore({name: s for name, s in sources.items() if s is not None})
        assert len(store) == len(sources)
        for name in store:
            store[name].sum()

    assert peak(read) < 300 << 20
