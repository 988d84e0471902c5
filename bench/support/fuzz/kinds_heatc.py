"""Hostile inputs of heatc: models of every form, plans, factors, machines, calibration inputs."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from bench.support.fuzz import archives, arrays, ir, octets, options, plans, tensors, trees, yamls
from bench.support.fuzz.case import Case, kind
from bench.support.fuzz.corpus import INPUTS, Corpus

MODEL = ("../base/tiny.mlir", "--weights", "../base/tiny.safetensors")

_CHEAP = ("--target", "numpy", "-o", "x.mlir")
_OUTPUTS = (("-o", "x.py"), _CHEAP, ("-o", "x.hdp", "--hdp-rule", "none"))


def _output(rng: Random) -> tuple[str, ...]:
    """Cheap outputs often, dear ones seldom; the program itself is seldom run."""
    return (*rng.choices(_OUTPUTS, (3, 6, 1))[0], *_unchecked(rng))


def _unchecked(rng: Random) -> tuple[str, ...]:
    """Without the check of what was compiled, most often: it costs more than all else."""
    return ("--no-verify",) if rng.random() < 0.85 else ()


@kind("heatc", ".mlir at every level", 2_400)
def mlir(rng: Random, corpus: Corpus) -> Case:
    """A hostile module, of any level of the pipeline."""
    name = rng.choice(corpus.names("ir/[!t]*/*.mlir")) if rng.random() < 0.5 else "tiny.mlir"
    text = ir.text(rng, corpus, name)
    weights = ("--weights", "../base/tiny.safetensors")
    if "/plan/" in name:
        weights = (*weights, "--weights", "../base/trained.factors.safetensors")
    output = (*rng.choice(_OUTPUTS), *_unchecked(rng))
    return Case(("x.mlir", *weights, *output), {"x.mlir": text})


@kind("heatc", "weights .safetensors", 3_600)
def weights(rng: Random, corpus: Corpus) -> Case:
    """Hostile weights of a good .mlir, a small one most often."""
    name = rng.choice(("small", "small", "small", "tiny"))
    parts = corpus.keep("tensors", name, lambda: tensors.parse(corpus.bytes(f"{name}.safetensors")))
    data = tensors.change(rng, parts)
    argv = (f"../base/{name}.mlir", "--weights", "w.safetensors", *_output(rng))
    return Case(argv, {"w.safetensors": data}, references=(("w.safetensors", "safetensors"),))


@kind("heatc", "archive .pt2", 3_600)
def archive(rng: Random, corpus: Corpus) -> Case:
    """A torch.export archive of which a member or the frame is hostile."""
    members = corpus.keep("members", "", lambda: archives.parse(corpus.bytes("tiny.pt2")))
    data = _archive(rng, members, corpus)
    argv = ("x.pt2", *_output(rng))
    return Case(argv, {"x.pt2": data}, references=(("x.pt2", "pt2"),))


def _archive(rng: Random, members: dict[str, bytes], corpus: Corpus) -> bytes:
    way = rng.randrange(10)
    if way == 0:
        return octets.damage(rng, archives.join(members))
    if way == 1:
        return archives.frame(rng, members)
    if way == 2:
        # The checksum stays that of the weight that was there.
        return _flipped(rng, corpus.bytes("tiny.pt2"), members)
    by_kind = {
        "graph": [n for n in members if "/models/" in n],
        "table": [n for n in members if n.endswith("_config.json")],
        "weight": [n for n in members if "/weight_" in n or "/tensor_" in n],
        "other": [n for n in members if ".json" not in n and "/data/w" not in n],
    }
    name = rng.choice(by_kind[rng.choices(list(by_kind), (6, 2, 1, 1))[0]])
    if name.endswith(".json"):
        tree = corpus.keep("member", name, lambda: json.loads(members[name]))
        new = trees.write(rng, trees.change(rng, tree))
    else:
        new = octets.damage(rng, members[name])
    return archives.join({**members, name: new})


def _flipped(rng: Random, data: bytes, members: dict[str, bytes]) -> bytes:
    """One bit of one member."""
    name = rng.choice([n for n in members if members[n]])
    at = data.find(members[name])
    if at < 0:
        return data
    at += rng.randrange(len(members[name]))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


@kind("heatc", "plan.json", 3_000)
def plan(rng: Random, corpus: Corpus) -> Case:
    """A hostile plan."""
    files = {"plan.json": plans.change(rng, corpus)}
    files["trained.factors.safetensors"] = corpus.bytes("trained.factors.safetensors")
    output = "x.hdp" if plans.needs_machine(files["plan.json"]) else "x.py"
    argv = (*MODEL, "--plan", "plan.json", "-o", output, *_unchecked(rng))
    return Case(argv, files, references=(("plan.json", "json"),))


@kind("heatc", "old plans", 300)
def old_plan(rng: Random, _corpus: Corpus) -> Case:
    """Plans of other versions: read, or refused by version."""
    text = json.dumps(rng.choice(plans.OLD)).encode()
    output = "x.hdp" if plans.needs_machine(text) else "x.py"
    argv = (*MODEL, "--plan", "plan.json", "-o", output, *_unchecked(rng))
    return Case(argv, {"plan.json": text}, old=True)


@kind("heatc", "factors .safetensors", 1_500)
def factors(rng: Random, corpus: Corpus) -> Case:
    """Hostile factors beside a good plan."""
    files = plans.with_factors(rng, corpus)
    argv = ("../base/tiny.pt2", "--plan", "plan.json", "-o", "x.py", *_unchecked(rng))
    return Case(argv, files, references=(("plan.safetensors", "safetensors"),))


@kind("heatc", "calibration .npz", 1_200)
def calibration(rng: Random, corpus: Corpus) -> Case:
    """Hostile inputs to calibrate factors on."""
    data = arrays.hostile(rng, corpus, "in.npz")
    argv = (*MODEL, "--heat", "low-rank,ratio=0.5", "--calibrate", "in.npz", "-o", "x.py")
    argv = (*argv, *_unchecked(rng))
    return Case(argv, {"in.npz": data}, references=(("in.npz", "npz"),))


@kind("heatc", "hardware .yaml", 18_000)
def hardware(rng: Random, corpus: Corpus) -> Case:
    """A hostile machine."""
    data = yamls.hardware(rng, corpus)
    argv = rng.choices(
        (
            ("--print-hw", "./hw.yaml"),
            (*MODEL, "--hw", "hw.yaml", "-o", "x.hdp", "--hdp-rule", "none", *_unchecked(rng)),
        ),
        (6, 1),
    )[0]
    return Case(argv, {"hw.yaml": data}, references=(("hw.yaml", "yaml"),))


@kind("heatc", "options", 4_800)
def command(rng: Random, corpus: Corpus) -> Case:
    """A command line."""
    return options.case(rng, corpus, "heatc")


# ---- models that torch builds -------------------------------------------------------------------

FOLDER = ("config.json", "model.safetensors")

CONFIGURED: tuple[Any, ...] = (
    *(0, -1, 1, 3, 7, 1.5, "8", None, [], True, 10_000_000, 1 << 30, 1 << 40, 1 << 63),
    *(float("inf"), float("nan"), "gelu", "x" * 1000, {}, [1, 2]),
)
KEYS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("intermediate_size", "max_position_embeddings", "type_vocab_size", "layer_norm_eps"),
    *("num_labels", "id2label", "label2id", "architectures", "model_type", "dtype", "torch_dtype"),
    *("is_decoder", "position_embedding_type", "pad_token_id", "chunk_size_feed_forward"),
    *("attn_implementation", "auto_map", "quantization_config", "tie_word_embeddings", "n_layers"),
    *("add_cross_attention", "hidden_dropout_prob", "initializer_range", "use_cache"),
)
MODELS = (
    "BertModel",
    "BertForSequenceClassification",
    "BertForMaskedLM",
    "GPT2Model",
    "X",
    "Trainer",
)


@kind("heatc", "config.json", 1_200, torch=True)
def config(rng: Random, corpus: Corpus) -> Case:
    """A Hugging Face folder whose configuration is hostile."""
    tree = dict(corpus.json("bert/config.json"))
    if rng.random() < 0.6:
        for _ in range(1 + min(2, int(rng.expovariate(1.5)))):
            key = rng.choice(KEYS)
            tree[key] = _configured(rng, key)
        data = trees.write(rng, tree) if rng.random() < 0.1 else json.dumps(tree).encode()
    elif rng.random() < 0.2:
        data = octets.damage(rng, corpus.bytes("bert/config.json"))
    else:
        data = trees.write(rng, trees.change(rng, tree))
    files = {"m/config.json": data, "m/model.safetensors": corpus.bytes("bert/model.safetensors")}
    argv = ("m", "--inputs", INPUTS, *_CHEAP, *_unchecked(rng))
    return Case(argv, files, references=(("m/config.json", "json"),))


def _configured(rng: Random, key: str) -> Any:
    if key in ("architectures", "model_type") and rng.random() < 0.8:
        name = rng.choice(MODELS)
        return (
            [name] if key == "architectures" else rng.choice(("bert", "gpt2", "t5", "x", "llama"))
        )
    if key in ("id2label", "label2id") and rng.random() < 0.8:
        return {str(i): f"LABEL_{i}" for i in range(rng.choice((0, 2, 1000)))}
    return rng.choice(CONFIGURED)


@kind("heatc", "folder weights", 2_000, torch=True)
def folder(rng: Random, corpus: Corpus) -> Case:
    """A Hugging Face folder whose weights are hostile."""
    name = "bert/model.safetensors"
    parts = corpus.keep("tensors", name, lambda: tensors.parse(corpus.bytes(name)))
    files = {"m/config.json": corpus.bytes("bert/config.json")}
    files["m/model.safetensors"] = tensors.change(rng, parts)
    argv = ("m", "--inputs", INPUTS, *_CHEAP, *_unchecked(rng))
    return Case(argv, files, references=(("m/model.safetensors", "safetensors"),))


@kind("heatc", "shards", 900, torch=True)
def shards(rng: Random, corpus: Corpus) -> Case:
    """Weights in shards, one of which, or the index, is hostile."""
    names = corpus.names("shards/*")
    files = {name.replace("shards", "m"): corpus.bytes(name) for name in names}
    index = "m/model.safetensors.index.json"
    references: tuple[tuple[str, str], ...] = ((index, "json"),)
    if rng.random() < 0.6:
        tree = trees.change(rng, corpus.json(index.replace("m/", "shards/", 1)))
        files[index] = trees.write(rng, tree)
    else:
        shard = rng.choice([n for n in files if n.endswith(".safetensors")])
        files[shard] = tensors.change(rng, tensors.parse(files[shard]))
        references = ((shard, "safetensors"),)
    if rng.random() < 0.1:
        files.pop(rng.choice(list(files)))
    argv = ("m", "--inputs", INPUTS, *_CHEAP, *_unchecked(rng))
    kept = tuple((name, reader) for name, reader in references if name in files)
    return Case(argv, files, references=kept)


@kind("heatc", "state dict .pt", 1_800, torch=True)
def state_dict(rng: Random, corpus: Corpus) -> Case:
    """A state dict of torch.save, its pickle or its frame hostile."""
    good = corpus.bytes("bert/state.pt")
    members = corpus.keep("members", "state", lambda: archives.parse(good))
    way = rng.randrange(6)
    if way == 0:
        data = octets.damage(rng, good)
    elif way == 1:
        data = archives.frame(rng, members)
    else:
        pickles = [n for n in members if n.endswith(".pkl")]
        name = rng.choice(pickles) if way < 5 else rng.choice(list(members))
        data = archives.join({**members, name: octets.damage(rng, members[name])})
    files = {"m/state.pt": data, "m/config.json": corpus.bytes("bert/config.json")}
    argv = ("m/state.pt", "--inputs", INPUTS, *_CHEAP, *_unchecked(rng))
    return Case(argv, files, references=(("m/state.pt", "pt"),))


@kind("heatc", "--inputs", 1_500, torch=True)
def inputs(rng: Random, corpus: Corpus) -> Case:
    """Shapes that a model is to be exported for."""
    spec = _spec(rng)
    model = rng.choice(
        ("../base/bert", "../base/bert", "../base/tiny.pt2", "../base/bert/state.pt")
    )
    return Case((model, "--inputs", spec, *_CHEAP, *_unchecked(rng)))


_EXTENTS = (
    "0",
    "1",
    "2",
    "8",
    "12",
    "13",
    "128",
    "1024",
    "999999999",
    "9999999999",
    "-1",
    "",
    "8.0",
)


def _spec(rng: Random) -> str:
    from bench.support.fuzz import lines

    def shape() -> str:
        return "x".join(rng.choice(_EXTENTS) for _ in range(rng.choice((0, 1, 2, 2, 2, 3, 9))))

    names = rng.sample(
        ("input_ids", "attention_mask", "token_type_ids", "inputs_embeds", "past_key_values", "x"),
        rng.randint(1, 3),
    )
    parts = [f"{n}={shape()}:{rng.choice(('i64', 'f32', 'i1', 'bool', 'i32'))}" for n in names]
    text = ",".join(parts) if rng.random() < 0.7 else INPUTS
    if rng.random() < 0.4:
        text = lines.change(rng, text, most=2)
    return text.replace("\0", "0").replace("\ud800", "?")
