"""Attention in the spellings that people use, around one function for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.support.differential import positions
from bench.support.differential.masks import LOWEST, Seen
from bench.support.differential.program import Choices, Extents, Port, Value, Writer


@dataclass(frozen=True)
class Site:
    """Where an attention stands: what it reads, what a query sees, and how to write."""

    writer: Writer
    choices: Choices
    extents: Extents
    x: Value
    """(batch, length, width)"""
    seen: Seen
    weights: list[Value] = field(default_factory=list[Value])
    """Gets the probabilities, where the spelling has them"""

    @property
    def scale(self) -> str:
        """One over the root of a head's width."""
        return f"{self.extents.head**-0.5!r}"


def attend(site: Site) -> Value:
    """An attention with its output projection; (batch, length, width)."""
    names = tuple(SPELLINGS)
    weights = [WEIGHTS[name] for name in names]
    spelling = site.choices.pick("spelling", names, weights, plain=4)
    return SPELLINGS[spelling](site)


# --- Projections and heads ------------------------------------------------------------------------


def _projected(site: Site) -> tuple[str, str, str]:
    """Queries, keys and values, each (batch, length, width)."""
    w, c, e, x = site.writer, site.choices, site.extents, site.x
    bias = not c.chance("no bias", 0.15, plain=True)
    how = c.pick("projections", ("apart", "packed", "shared keys", "low rank"), (75, 15, 5, 5))
    if how == "packed":
        qkv = w.let(
            f"{w.linear('qkv', e.width, 3 * e.width, bias)}({x})",
            (*x.shape[:2], 3 * e.width),
            x.axes,
        )
        return _parts(site, qkv)
    stems = ("query", "key", "key" if how == "shared keys" else "value")
    layers = {stem: w.linear(stem, e.width, e.width, bias) for stem in dict.fromkeys(stems)}
    texts = [f"{layers[stem]}({x})" for stem in stems]
    if how == "low rank":
        down, up = w.linear("down", e.width, 2, False), w.linear("up", 2, e.width, False)
        factor = c.pick("low rank factor", ("", "2 * ", "0.5 * "), plain=1)
        texts[0] = f"{texts[0]} + {factor}{up}({down}({x}))"
    q, k, v = (w.let(text, x.shape, x.axes, stem=stem) for stem, text in zip("qkv", texts))
    return q.text, k.text, v.text


def _parts(site: Site, qkv: Value) -> tuple[str, str, str]:
    width = site.extents.width
    how = site.choices.pick("parts", ("chunk", "split", "slices", "view"))
    if how == "slices":
        slices = [f"{qkv}[..., {i * width}:{(i + 1) * width}]" for i in range(3)]
        return slices[0], slices[1], slices[2]
    texts = {
        "chunk": f"{qkv}.chunk(3, dim=-1)",
        "split": f"{qkv}.split({width}, dim=-1)",
        "view": f"{qkv}.view({qkv.shape[0]}, {qkv.shape[1]}, 3, {width}).unbind(2)",
    }
    names = [site.writer.name(stem) for stem in "qkv"]
    site.writer.lines.append(f"{', '.join(names)} = {texts[how]}")
    return names[0], names[1], names[2]


def _split(site: Site, text: str, name: str) -> str:
    """(batch, length, width) as (batch, heads, length, head)."""
    e = site.extents
    spelling = site.choices.pick(
        f"heads of {name}",
        (
            "({x}).view({b}, {s}, {h}, {d}).transpose(1, 2)",
            "({x}).reshape({b}, {s}, {h}, {d}).permute(0, 2, 1, 3)",
            "({x}).unflatten(-1, ({h}, {d})).transpose(1, 2)",
            "({x}).reshape({b}, -1, {h}, {d}).swapaxes(1, 2)",
            "({x}).reshape({b}, {s}, {h}, {d}).movedim(2, 1)",
        ),
    )
    return spelling.format(x=text, b=e.batch, s=e.length, h=e.heads, d=e.head)


def _merge(site: Site, text: str) -> Value:
    """(batch, heads, length, head) as (batch, length, width)."""
    e = site.extents
    spelling = site.choices.pick(
        "merge",
        (
            "{y}.transpose(1, 2).reshape({b}, {s}, {w})",
            "{y}.permute(0, 2, 1, 3).contiguous().view({b}, {s}, {w})",
            "{y}.transpose(1, 2).flatten(2)",
        ),
    )
    merged = spelling.format(y=text, b=e.batch, s=e.length, w=e.width)
    return site.writer.let(merged, site.x.shape, site.x.axes, stem="context")


def _project_out(site: Site, context: Value) -> Value:
    if site.choices.chance("no output projection", 0.05, plain=True):
        return context
    out = site.writer.linear("out", site.extents.width, site.extents.width)
    return site.writer.let(f"{out}({context})", context.shape, context.axes, stem="attended")


# --- Scores by hand -------------------------------------------------------------------------------


def _masked(site: Site, scores: str, shape: tuple[int, ...], axes: str) -> str:
    """Scores under the mask; `shape` is theirs, (batch, heads, ...) or (batch x heads, ...)."""
    seen, c = site.seen, site.choices
    if not seen.boolean:
        return scores
    hows = ("sum", "fill", "where", "outside sum", "in place", "fill in place")
    how = c.pick("mask by", hows, (8, 8, 4, 2, 1, 1))
    if how == "in place":
        named = site.writer.let(scores, shape, axes, stem="scores")
        site.writer.lines.append(f"{named} += {_as_scores(site, f'({seen.additive})', shape)}")
        return named.text
    if how in ("sum", "outside sum"):
        bias = _as_scores(site, f"({seen.additive})", shape)
        return f"{scores} + {bias}" if how == "sum" else f"{bias} + {scores}"
    low = c.pick("fill", ("float('-inf')", "-1e9", LOWEST, "-10000.0"))
    keep = _as_scores(site, f"({seen.boolean})", shape)
    if how in ("fill", "fill in place"):
        named = site.writer.let(scores, shape, axes, stem="scores")
        return f"{named}.masked_fill{'_' * (how == 'fill in place')}(~{keep}, {low})"
    return f"torch.where({keep}, {scores}, {low})"


def _as_scores(site: Site, text: str, shape: tuple[int, ...]) -> str:
    """A mask of (batch, heads, length, length) for scores of some shape."""
    e = site.extents
    if len(shape) == 4:
        return text
    mask = f"{text}.expand({e.batch}, {e.heads}, {e.length}, {e.length})"
    return f"{mask}.reshape{shape}"


def _probabilities(site: Site, scores: str) -> str:
    spelling = site.choices.pick(
        "softmax", ("torch.softmax({s}, dim=-1)", "F.softmax({s}, -1)", "({s}).softmax(-1)")
    )
    return spelling.format(s=scores)


def _eager(site: Site) -> Value:
    """`softmax(q k^T / sqrt(d) + mask) v`, four axes."""
    w, e = site.writer, site.extents
    q, k, v = (_split(site, text, n) for text, n in zip(_projected(site), "qkv"))
    q, k = positions.rotated(w, site.choices, e, q, k)
    transposed = site.choices.pick("k transposed", (".transpose(-1, -2)", ".mT"), (4, 1))
    where = site.choices.pick("scale", ("after", "queries", "divide"), (3, 2, 3))
    product = f"torch.matmul({q}, {k}{transposed})"
    if where == "queries":
        product = f"({q} * {site.scale}) @ {k}{transposed}"
    elif where == "divide":
        product = f"{product} / math.sqrt({e.head})"
    else:
        product = f"{product} * {site.scale}"
    shape = (e.batch, e.heads, e.length, e.length)
    near = positions.bias(w, site.choices, e)
    scores = f"({product} + {near})" if near else f"({product})"
    p = w.let(_probabilities(site, _masked(site, scores, shape, "bhss")), shape, "bhss", stem="p")
    site.weights.append(p)
    return _project_out(site, _merge(site, f"({p} @ {v})"))


def _grouped(site: Site) -> Value:
    """Two heads of queries share one of keys and values."""
    w, e, x = site.writer, site.extents, site.x
    if e.heads % 2:
        return _eager(site)
    groups = e.heads // 2
    q = _split(site, f"{w.linear('query', e.width, e.width)}({x})", "q")
    narrow = (e.batch, e.length, groups, e.head)
    k, v = (
        f"{w.linear(stem, e.width, groups * e.head)}({x}).view{narrow}.transpose(1, 2)"
        for stem in ("key", "value")
    )
    whole = (e.batch, e.heads, e.length, e.head)
    spelling = site.choices.pick(
        "repeated",
        ("{x}.repeat_interleave(2, dim=1)", "{x}[:, :, None].expand(-1, -1, 2, -1, -1).reshape{s}"),
    )
    k, v = (spelling.format(x=text, s=whole) for text in (k, v))
    shape = (e.batch, e.heads, e.length, e.length)
    scores = f"({q} @ {k}.transpose(2, 3) * {site.scale})"
    p = w.let(_probabilities(site, _masked(site, scores, shape, "bhss")), shape, "bhss", stem="p")
    return _project_out(site, _merge(site, f"({p} @ {v})"))


def _crossed(site: Site) -> Value:
    """Queries look at the tokens of a second input, which has padding of its own."""
    w, e, c, x = site.writer, site.extents, site.choices, site.x
    length = c.pick("memory", (e.length, 3, 5))
    ids = Port("memory_ids", "int64", (e.batch, length), "ids", e.vocabulary)
    table = w.module("memory", f"nn.Embedding({e.vocabulary}, {e.width})")
    memory = w.let(
        f"{table}({w.port(ids, 'b.')})", (e.batch, length, e.width), "b..", stem="memory"
    )
    mask = ""
    if c.chance("memory masked", 0.6):
        port = Port("memory_mask", "int64", (e.batch, length), "keys")
        mask = f", attn_mask=({w.port(port, 'b.')} > 0)[:, None, None, :]"
    q, k, v = (
        f"{w.linear(stem, e.width, e.width)}({of})"
        f".view({e.batch}, -1, {e.heads}, {e.head}).transpose(1, 2)"
        for stem, of in (("query", x), ("key", memory), ("value", memory))
    )
    return _project_out(site, _merge(site, f"F.scaled_dot_product_attention({q}, {k}, {v}{mask})"))


def _fused(site: Site) -> Value:
    """PyTorch's scaled_dot_product_attention."""
    q, k, v = (_split(site, text, n) for text, n in zip(_projected(site), "qkv"))
    seen, c = site.seen, site.choices
    q, k = positions.rotated(site.writer, c, site.extents, q, k)
    options = ""
    if near := positions.bias(site.writer, c, site.extents):
        options = f", attn_mask={near}{f' + {seen.additive}' * bool(seen.additive)}"
    elif seen.kind == "causal" and c.chance("is_causal", 0.6, plain=True):
        options = ", is_causal=True"
    elif seen.boolean:
        form = c.pick("mask form", ("boolean", "additive"))
        options = f", attn_mask={seen.boolean if form == 'boolean' else seen.additive}"
    if c.chance("own scale", 0.1, plain=True):
        options += ", scale=0.3"
    text = f"F.scaled_dot_product_attention({q}, {k}, {v}{options})"
    return _project_out(site, _merge(site, text))


def _einsum(site: Site) -> Value:
    """Products by einsum, heads in the middle."""
    w, e = site.writer, site.extents
    split = (e.batch, e.length, e.heads, e.head)
    q, k, v = (f"({text}).reshape{split}" for text in _projected(site))
    equation = site.choices.pick("equation", ("bqhd,bkhd->bhqk", "blhn,bthn->bhlt"))
    shape = (e.batch, e.heads, e.length, e.length)
    scores = f"(torch.einsum('{equation}', {q}, {k}) * {site.scale})"
    p = w.let(_probabilities(site, _masked(site, scores, shape, "bhss")), shape, "bhss", stem="p")
    context = w.let(
        f"torch.einsum('bhqk,bkhd->bqhd', {p}, {v}).reshape({e.batch}, {e.length}, {e.width})",
        site.x.shape,
        site.x.axes,
    )
    return _project_out(site, context)


def _batched(site: Site) -> Value:
    """Three axes: heads are merged with sequences."""
    w, e = site.writer, site.extents
    rows = (e.batch * e.heads, e.length, e.head)
    q, k, v = (f"{_split(site, text, n)}.reshape{rows}" for text, n in zip(_projected(site), "qkv"))
    shape = (rows[0], e.length, e.length)
    scores = f"(torch.bmm({q}, {k}.transpose(1, 2)) * {site.scale})"
    p = w.let(_probabilities(site, _masked(site, scores, shape, ".ss")), shape, ".ss", stem="p")
    heads = f"torch.bmm({p}, {v}).view({e.batch}, {e.heads}, {e.length}, {e.head})"
    return _project_out(site, _merge(site, heads))


def _sequence_first(site: Site) -> Value:
    """As PyTorch's own: (length, batch, width) inside, heads merged with sequences."""
    w, e, x = site.writer, site.extents, site.x
    first = w.let(f"{x}.transpose(0, 1)", (e.length, e.batch, e.width), "sb.")
    inner = Site(w, site.choices, e, first, site.seen)
    rows = (e.length, e.batch * e.heads, e.head)
    q, k, v = (f"({text}).reshape{rows}.transpose(0, 1)" for text in _projected(inner))
    shape = (rows[1], e.length, e.length)
    scores = f"(torch.bmm({q} * {site.scale}, {k}.transpose(1, 2)))"
    p = w.let(_probabilities(site, _masked(site, scores, shape, ".ss")), shape, ".ss", stem="p")
    context = w.let(
        f"torch.bmm({p}, {v}).transpose(0, 1).reshape({e.length}, {e.batch}, {e.width})",
        first.shape,
        first.axes,
    )
    out = _project_out(inner, context)
    return w.let(f"{out}.transpose(0, 1)", x.shape, x.axes)


def _one_head(site: Site) -> Value:
    """No axis of heads at all."""
    w, e = site.writer, site.extents
    if e.heads != 1:
        return _eager(site)
    q, k, v = _projected(site)
    shape = (e.batch, 1, e.length, e.length)
    scores = f"((({q}) @ ({k}).transpose(-1, -2)) * {site.scale})[:, None]"
    p = w.let(_probabilities(site, _masked(site, scores, shape, "b.ss")), shape, "b.ss", stem="p")
    context = w.let(f"{p}[:, 0] @ ({v})", site.x.shape, site.x.axes)
    return _project_out(site, context)


def _torch_module(site: Site) -> Value:
    """nn.MultiheadAttention; only for masks that it can be given."""
    w, e, c, x = site.writer, site.extents, site.choices, site.x
    seen = site.seen
    if seen.kind not in ("none", "padding"):
        return _fused(site)
    batch_first = c.pick("batch_first", (True, False))
    layer = w.module(
        "attention",
        f"nn.MultiheadAttention({e.width}, {e.heads}, batch_first={batch_first})",
    )
    if not batch_first:
        x = w.let(f"{x}.transpose(0, 1)", (e.length, e.batch, e.width), "sb.")
    mask = "" if seen.padding is None else f", key_padding_mask=~{seen.padding}"
    weights = c.pick("need_weights", (False, True), (3, 1))
    y = w.let(
        f"{layer}({x}, {x}, {x}{mask}, need_weights={weights})[0]", x.shape, x.axes, stem="attended"
    )
    return y if batch_first else w.let(f"{y}.transpose(0, 1)", site.x.shape, site.x.axes)


SPELLINGS: Mapping[str, Callable[[Site], Value]] = {
    "fused": _fused,
    "eager": _eager,
    "batched": _batched,
    "one head": _one_head,
    "einsum": _einsum,
    "sequence first": _sequence_first,
    "nn.MultiheadAttention": _torch_module,
    "grouped": _grouped,
    "crossed": _crossed,
}
WEIGHTS: Mapping[str, int] = {
    "fused": 34,
    "eager": 34,
    "batched": 8,
    "one head": 4,
    "einsum": 8,
    "sequence first": 7,
    "nn.MultiheadAttention": 5,
    "grouped": 5,
    "crossed": 4,
}
