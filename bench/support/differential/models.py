"""Random encoders as text: embeddings, layers with attention, heads, outputs of several forms."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from bench.support.differential import attention as attention
from bench.support.differential import functions
from bench.support.differential import heads as heads
from bench.support.differential.arithmetic import arithmetic
from bench.support.differential.masks import KIND_WEIGHTS, KINDS, Masks, Seen
from bench.support.differential.program import (
    Choices,
    Extents,
    Output,
    Port,
    Program,
    Value,
    Writer,
    finished,
)

_EQUAL = (
    "none",
    "batch = length",
    "width = length",
    "heads = batch",
    "heads = length",
    "head = length",
    "vocabulary = length",
)


def generate(seed: int, forced: Mapping[str, int] | None = None, simple: bool = False) -> Program:
    """
    The program of a seed, the same on every machine.

    `forced` and `simple` make choices simpler, see `Choices`. Seven in ten programs are plain:
    encoders of usual parts. The others have anything.
    """
    choices = Choices(seed, forced or {}, simple)
    choices.pick("profile", ("plain", "free"), (49, 9))
    family = choices.pick("family", ("encoder", "arithmetic"), (49, 9), plain=1)
    return encoder(choices) if family == "encoder" else arithmetic(choices)


def encoder(choices: Choices) -> Program:
    """Embeddings, one to three layers, heads."""
    extents = _extents(choices.under("extents"))
    writer = Writer()
    x = _embeddings(writer, choices.under("embeddings"), extents)
    masks = Masks(writer, choices, extents)
    seen = _masks(masks, choices)
    weights: list[Value] = []
    x, states = _layers(writer, choices, extents, x, seen, weights)
    real = next((s.padding for s in seen if s.padding is not None), None)
    site = heads.Site(writer, choices, extents, x, real)
    found = [*_outputs(site, states), *_extra(writer, choices, weights)]
    result, outputs = _returned(choices, found)
    return finished(choices, writer, result, outputs, extents, masks.padding)


def _extents(choices: Choices) -> Extents:
    head = choices.pick("head", (8, 4, 6, 12))
    heads_ = choices.pick("heads", (2, 1, 3, 4), (4, 1, 1, 2))
    batch = choices.pick("batch", (2, 1, 3, 4, 5))
    length = choices.pick("length", (6, 2, 3, 4, 5, 7, 8, 9, 12, 16))
    vocabulary = choices.pick("vocabulary", (20, 11, 64))
    equal = choices.pick("equal", _EQUAL, (60, 12, 8, 5, 5, 5, 5))
    if equal == "batch = length":
        batch = length = min(length, 8)
    elif equal == "width = length":
        length = head * heads_
    elif equal == "heads = batch":
        batch = heads_
    elif equal == "heads = length":
        length = heads_
    elif equal == "head = length":
        length = head
    elif equal == "vocabulary = length":
        vocabulary = max(length, 4)
    return Extents(batch, length, head * heads_, heads_, vocabulary)


# --- Embeddings -----------------------------------------------------------------------------------


def _embeddings(writer: Writer, choices: Choices, e: Extents) -> Value:
    shape, rows = (e.batch, e.length, e.width), (e.batch, e.length)
    kinds = ("ids", "narrow table", "int32 ids", "embedded", "patches", "windows")
    how = choices.pick("input", kinds, (80, 6, 6, 8, 5, 4))
    if how in ("patches", "windows"):
        terms = [_convolved(writer, e, how)]
    elif how == "embedded":
        port = Port("inputs_embeds", "float32", shape, "float")
        terms = [writer.port(port, "bs.").text]
    else:
        dtype = "int32" if how == "int32 ids" else "int64"
        ids = writer.port(Port("input_ids", dtype, rows, "ids", e.vocabulary), "bs")
        width = 5 if how == "narrow table" else e.width
        word = writer.module("word", f"nn.Embedding({e.vocabulary}, {width})")
        text = f"{word}({ids})"
        if how == "narrow table":
            text = f"{writer.linear('widen', width, e.width)}({text})"
        terms = [text]
    terms += _positions(writer, choices, e) + _segments(writer, choices, e)
    x = writer.let(" + ".join(terms), shape, "bs.")
    if choices.chance("scaled", 0.15):
        x = writer.let(f"{x} * math.sqrt({e.width})", shape, "bs.")
    norm = choices.pick("norm", ("norm", "none", "plain norm"), (70, 20, 10), plain=2)
    if norm == "none":
        return x
    text = functions.normed(writer, choices, x, norm == "plain norm")
    return writer.let(text, shape, "bs.")


def _convolved(writer: Writer, e: Extents, how: str) -> str:
    """A token a patch of a picture, or a window of a signal that overlaps the next one."""
    if how == "windows":
        signal = writer.port(Port("signal", "float32", (e.batch, 4, 2 * e.length), "float"), "b..")
        layer = writer.module("windows", f"nn.Conv1d(4, {e.width}, 3, stride=2, padding=1)")
        return f"{layer}({signal}).transpose(1, 2)"
    rows = 2 if e.length % 2 == 0 else 1
    shape = (e.batch, 3, 2 * rows, 2 * e.length // rows)
    pixels = writer.port(Port("pixel_values", "float32", shape, "float"), "b...")
    layer = writer.module("patches", f"nn.Conv2d(3, {e.width}, 2, stride=2)")
    return f"{layer}({pixels}).flatten(2).transpose(1, 2)"


def _positions(writer: Writer, choices: Choices, e: Extents) -> list[str]:
    kinds = (
        "table",
        "input",
        "buffer of ids",
        "none",
        "rows of a table",
        "parameter",
        "sinusoids",
        "computed sinusoids",
        "running sum",
    )
    how = choices.pick("positions", kinds, (34, 10, 8, 14, 12, 12, 10, 8, 8))
    rows = e.length + 3
    if how == "none":
        return []
    if how == "parameter":
        return [f"{writer.parameter('positions', 1, e.length, e.width)}"]
    if how == "sinusoids":
        text = f"torch.sin(torch.arange({rows * e.width}.0) * 0.7).reshape(1, {rows}, {e.width})"
        return [f"{writer.buffer('waves', text)}[:, :{e.length}]"]
    if how == "computed sinusoids":
        place = f"torch.arange({e.length}).float()[:, None]"
        return [f"torch.sin({place} * torch.exp(torch.arange({e.width}.0) * -0.3))"]
    table = writer.module("position", f"nn.Embedding({rows}, {e.width})")
    if how == "running sum":
        ids = Port("input_ids", "int64", (e.batch, e.length), "ids", e.vocabulary)
        real = writer.let(
            f"({writer.port(ids, 'bs')} != 0).int()", ids.shape, "bs", "int32", "some"
        )
        return [f"{table}((torch.cumsum({real}, 1).type_as({real}) * {real}).long() + 1)"]
    if how == "rows of a table":
        return [f"{table}.weight[:{e.length}]"]
    if how == "input":
        ids = Port("position_ids", "int64", (e.batch, e.length), "ids", rows)
        return [f"{table}({writer.port(ids, 'bs')})"]
    if how == "buffer of ids":
        return [f"{table}({writer.buffer('ids', f'torch.arange({rows})[None]')}[:, :{e.length}])"]
    return [f"{table}(torch.arange({e.length}))"]


def _segments(writer: Writer, choices: Choices, e: Extents) -> list[str]:
    how = choices.pick("segments", ("none", "input", "zeros"), (70, 22, 8))
    if how == "none":
        return []
    table = writer.module("segment", f"nn.Embedding(2, {e.width})")
    if how == "zeros":
        return [f"{table}(torch.zeros({e.batch}, {e.length}, dtype=torch.long))"]
    port = Port("token_type_ids", "int64", (e.batch, e.length), "segments", 2)
    return [f"{table}({writer.port(port, 'bs')})"]


# --- Layers ---------------------------------------------------------------------------------------


def _masks(masks: Masks, choices: Choices) -> list[Seen]:
    """What each layer's queries see."""
    count = choices.pick("layers", (1, 2, 3), (60, 32, 8))
    kind = choices.pick("mask", KINDS, KIND_WEIGHTS)
    kinds = ("one", "again", "none later", "another")
    how = choices.pick("masks of layers", kinds, (76, 8, 8, 8), plain=2)
    first = masks.make(kind, choices.under("mask"))
    seen = [first] * count
    for layer in range(1, count):
        if how == "again":
            seen[layer] = masks.make(kind, choices.under("mask again"))
        elif how == "none later":
            seen[layer] = Seen("none")
        elif how == "another":
            seen[layer] = masks.make("padding", choices.under("other mask"), "other_mask")
    return seen


def _layers(
    writer: Writer,
    choices: Choices,
    e: Extents,
    x: Value,
    seen: Sequence[Seen],
    weights: list[Value],
) -> tuple[Value, list[Value]]:
    """The hidden states at the end, and after each layer; `weights` gets probabilities."""
    style = choices.pick("norms", ("after", "before", "parallel", "none"), (62, 24, 11, 3))
    mixed = choices.chance("mixes tokens", 0.15)
    states: list[Value] = []
    # Layers are alike in most models; a few differ, or are one layer again.
    differ = choices.chance("layers differ", 0.15, plain=True)
    shared = not differ and choices.chance("layers are one", 0.12, plain=True)
    listed = choices.chance("layers in a list", 0.7, plain=True)
    if listed:
        writer.modules.append(
            f"self.layers = nn.ModuleList(nn.Module() for _ in range({len(seen)}))"
        )
    for index, mask in enumerate(seen):
        own = choices.under(f"layer {index}" if differ else "layer")
        owner = f"self.layers[{0 if shared else index}]" if listed else "self"
        with writer.within(owner) if listed else contextlib.nullcontext():
            x = _layer(writer, own, e, x, mask, style, weights)
        if mixed and index == 0:
            real = mask.padding
            x = heads.mix(heads.Site(writer, own, e, x, real))
        states.append(x)
    if style == "before" and choices.chance("last norm", 0.8, plain=True):
        x = writer.let(functions.normed(writer, choices, x, False), x.shape, x.axes)
    return x, states


def _layer(
    writer: Writer,
    choices: Choices,
    e: Extents,
    x: Value,
    seen: Seen,
    style: str,
    weights: list[Value],
) -> Value:
    plain = choices.chance("plain norms", 0.15)
    if choices.chance("nn.TransformerEncoderLayer", 0.06) and seen.kind in ("none", "padding"):
        return _torch_layer(writer, choices, e, x, seen)
    if style in ("before", "parallel"):
        inner = writer.let(functions.normed(writer, choices, x, plain), x.shape, x.axes)
    else:
        inner = x
    attended = attention.attend(attention.Site(writer, choices, e, inner, seen, weights))
    if style == "parallel":
        order = choices.pick("sum", ("{x} + {a} + {f}", "{x} + ({a} + {f})", "{f} + {a} + {x}"))
        text = order.format(x=x, a=attended, f=_feed_forward(writer, choices, e, inner))
        return writer.let(text, x.shape, x.axes)
    order = choices.pick("residual", ("{x} + {a}", "{a} + {x}", "({a} + 0).add_({x})"), (6, 3, 1))
    x = writer.let(order.format(x=x, a=attended), x.shape, x.axes)
    if style == "after":
        x = writer.let(functions.normed(writer, choices, x, plain), x.shape, x.axes)
    if choices.chance("no feed forward", 0.3, plain=True):
        return x
    inner = x
    if style == "before":
        inner = writer.let(functions.normed(writer, choices, x, plain), x.shape, x.axes)
    x = writer.let(f"{x} + {_feed_forward(writer, choices, e, inner)}", x.shape, x.axes)
    if style == "after":
        x = writer.let(functions.normed(writer, choices, x, plain), x.shape, x.axes)
    return x


def _feed_forward(writer: Writer, choices: Choices, e: Extents, x: Value) -> str:
    kinds = (
        "two layers",
        "sum of products",
        "of tanh",
        "low rank",
        "shared",
        "gated",
        "scaled",
        "pruned",
        "merged",
    )
    kind = choices.pick("feed forward", kinds, (66, 6, 4, 6, 6, 8, 6, 4, 4))
    w, width = writer, e.width

    def act(text: str, size: int) -> str:
        named = w.let(text, (*x.shape[:2], size), x.axes, stem="inner")
        return functions.activated(w, choices, named)

    if kind == "sum of products":
        f, g = w.linear("f", width, width), w.linear("g", width, width)
        return f"({f}({x}) + {g}({x}))"
    if kind == "of tanh":
        f, g = w.linear("f", width, width), w.linear("g", width, width)
        return f"({f}({x}) + {g}(torch.tanh({x})))"
    if kind == "low rank":
        f = w.linear("f", width, width)
        a, b = w.linear("a", width, 3, False), w.linear("b", 3, width, False)
        factor = choices.pick("low rank factor", ("", "2 * "), plain=1)
        return f"({f}({x}) + {factor}{b}({a}({x})))"
    if kind == "shared":
        f = w.linear("f", width, width)
        return f"{f}({act(f'{f}({x})', width)})"
    if kind in ("pruned", "merged"):
        return _of_constants(w, kind, width, x)
    wide = 2 * width
    up, down = w.linear("up", width, wide), w.linear("down", wide, width)
    inner = act(f"{up}({x})", wide)
    if kind == "gated":
        inner = f"{inner} * {w.linear('gate', width, wide)}({x})"
    text = f"{down}({inner})"
    return f"{text} * {w.parameter('scale', width)}" if kind == "scaled" else text


def _of_constants(w: Writer, kind: str, width: int, x: Value) -> str:
    """A layer whose weights are computed: pruned by a mask, or with a merged low rank."""
    f = w.linear("f", width, width)
    if kind == "pruned":
        mask = w.buffer("pruned", f"(torch.arange({width * width}) % 3 > 0).float()")
        return f"F.linear({x}, {f}.weight * {mask}.view({width}, {width}), {f}.bias)"
    a, b = w.parameter("a", 3, width), w.parameter("b", width, 3)
    return f"F.linear({x}, {f}.weight + {b} @ {a} * 0.5, {f}.bias)"


def _torch_layer(writer: Writer, choices: Choices, e: Extents, x: Value, seen: Seen) -> Value:
    first = choices.chance("norm_first", 0.3)
    layer = writer.module(
        "layer",
        f"nn.TransformerEncoderLayer({e.width}, {e.heads}, {2 * e.width}, batch_first=True, "
        f"activation='gelu', norm_first={first})",
    )
    mask = "" if seen.padding is None else f", src_key_padding_mask=~{seen.padding}"
    return writer.let(f"{layer}({x}{mask})", x.shape, x.axes)


# --- Outputs --------------------------------------------------------------------------------------


def _outputs(site: heads.Site, states: Sequence[Value]) -> list[Value]:
    choices = site.choices
    kinds = ("tokens", "pooled", "tokens, pooled", "two tokens", "two pooled", "states", "stack")
    kind = choices.pick("outputs", kinds, (34, 24, 26, 5, 5, 4, 2), plain=6)
    first, second = (
        heads.Site(site.writer, choices.under(part), site.extents, site.x, site.real)
        for part in ("output", "second output")
    )
    if kind == "states":
        return list(states)
    if kind == "stack":
        e = site.extents
        text = f"torch.stack([{', '.join(s.text for s in states)}], 1)"
        return [
            site.writer.let(text, (e.batch, len(states), e.length, e.width), f"b.{site.token}.")
        ]
    if kind in ("tokens", "two tokens"):
        found = [heads.tokens(first)]
        return [*found, heads.tokens(second)] if kind == "two tokens" else found
    if kind in ("pooled", "two pooled"):
        found = [heads.pooled(first)]
        return [*found, heads.pooled(second)] if kind == "two pooled" else found
    return [heads.tokens(first), heads.pooled(second)]


def _extra(writer: Writer, choices: Choices, weights: Sequence[Value]) -> list[Value]:
    """Now and then an output that is no hidden state: probabilities, an input, a constant."""
    kinds = ("none", "probabilities", "input", "input plus zero", "constant")
    kind = choices.pick("extra output", kinds, (70, 10, 5, 10, 5), plain=1)
    if kind == "probabilities":
        return list(weights[:1])
    if kind == "constant":
        return [Value("torch.arange(3).float() * 0.5", (3,), ".")]
    if kind == "none":
        return []
    port = choices.pick("which input", writer.ports)
    axes = "bs."[: len(port.shape)] if port.name != "memory_ids" else "b."
    text = port.name if kind == "input" else f"{port.name} + 0"
    return [Value(text, port.shape, axes, port.dtype)]


def _returned(choices: Choices, found: list[Value]) -> tuple[str, tuple[Output, ...]]:
    """The text of what forward returns, and the outputs under a compiled program's names."""
    values = list(found)
    if choices.chance("alias", 0.07, plain=True):
        values.append(found[0])
    form = choices.pick("form", ("alone", "tuple", "dict", "list", "nested"), (4, 3, 3, 1, 1))
    if len(values) == 1 and form == "alone":
        return values[0].text, (Output("output", values[0].axes, values[0].shape),)
    texts = [value.text for value in values]
    if form == "dict":
        names = [f"name_{i}" for i in range(len(values))]
        text = "{" + ", ".join(f"{n!r}: {t}" for n, t in zip(names, texts)) + "}"
    elif form == "nested":
        names = ["output_0", *(f"output_1_{i}" for i in range(len(values) - 1))]
        text = f"({texts[0]}, [{', '.join(texts[1:])}])"
        if len(values) == 1:
            text, names = f"({texts[0]},)", ["output_0"]
    else:
        names = [f"output_{i}" for i in range(len(values))]
        text = f"[{', '.join(texts)}]" if form == "list" else f"({', '.join(texts)},)"
    return text, tuple(Output(n, v.axes, v.shape) for n, v in zip(names, values))
