"""What random models do between layers and at their end: mixers of tokens, poolers, heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.support.differential.program import Choices, Extents, Port, Value, Writer


@dataclass(frozen=True)
class Site:
    """What a head reads: hidden states (batch, length, width), and which tokens are real."""

    writer: Writer
    choices: Choices
    extents: Extents
    x: Value
    real: Value | None

    @property
    def token(self) -> str:
        """What the axis of tokens is, see `Value`."""
        return self.x.axes[1]

    @property
    def pooled(self) -> tuple[int, int]:
        """The shape of a vector a sequence."""
        return (self.extents.batch, self.extents.width)


# --- Between layers -------------------------------------------------------------------------------


def mix(site: Site) -> Value:
    """Hidden states after something that moves values between positions."""
    kind = site.choices.pick("mixer", ("linear", "shift", "mean", "next", "gate"), (3, 3, 3, 2, 1))
    w, e, x = site.writer, site.extents, site.x
    axes = "b?" + x.axes[2:]
    if kind == "linear":
        mixer = w.linear("mixer", e.length, e.length)
        mixed = f"{mixer}({x}.transpose(1, 2)).transpose(1, 2)"
    elif kind == "shift":
        mixed = f"torch.cat([{x}[:, :1], {x}[:, :-1]], dim=1)"
    elif kind == "next":
        mixed = f"torch.cat([{x}[:, 1:], {x}[:, :1]], dim=1)"
    elif kind == "gate" and site.real is not None:
        return w.let(f"{x} * {site.real}[:, :, None]", x.shape, x.axes)
    else:
        mixed = f"torch.einsum('bsw->bw', {x})[:, None] * {1 / e.length!r}"
    return w.let(f"{x} + {mixed}", x.shape, axes)


# --- Poolers: (batch, width) ----------------------------------------------------------------------


def _first(site: Site) -> Value:
    spelling = site.choices.pick(
        "first",
        ("{x}[:, 0]", "{x}.select(1, 0)", "{x}[:, :1].squeeze(1)", "{x}.narrow(1, 0, 1)[:, 0]"),
    )
    return site.writer.let(spelling.format(x=site.x), site.pooled, "b.")


def _last(site: Site) -> Value:
    spelling = site.choices.pick("last", ("{x}[:, -1]", "{x}[:, -1:].reshape({b}, {w})"))
    text = spelling.format(x=site.x, b=site.extents.batch, w=site.extents.width)
    return site.writer.let(text, site.pooled, "b.")


def _other(site: Site) -> Value:
    at = site.choices.pick("position", tuple(range(1, site.extents.length)) or (0,))
    return site.writer.let(f"{site.x}[:, {at}]", site.pooled, "b.")


def _first_and_last(site: Site) -> Value:
    x, e = site.x, site.extents
    project = site.writer.linear("both", 2 * e.width, e.width)
    text = f"{project}(torch.cat([{x}[:, 0], {x}[:, -1]], dim=-1))"
    return site.writer.let(text, site.pooled, "b.")


def _mean(site: Site) -> Value:
    e, x = site.extents, site.x
    spelling = site.choices.pick(
        "mean",
        (
            "torch.einsum('bsw->bw', {x}) / {s}",
            "torch.einsum('bsw,s->bw', {x}, torch.full(({s},), {r}))",
            "(torch.full((1, {s}), {r}) @ {x})[:, 0]",
            "{x}.mean(1)",
            "{x}.mean(dim=1, keepdim=True).squeeze(1)",
            "{x}.sum(1) * {r}",
        ),
    )
    text = spelling.format(x=x, s=e.length, r=repr(1 / e.length))
    return site.writer.let(text, site.pooled, "b.")


def _masked_mean(site: Site) -> Value:
    if site.real is None:
        return _mean(site)
    w, e = site.writer, site.extents
    real = w.let(f"{site.real}.float()", site.real.shape, "bs", stem="real")
    spelling = site.choices.pick(
        "masked mean",
        (
            "({r}[:, None] @ {x})[:, 0] / ({r} @ torch.ones({s}, 1) + 1e-9)",
            "torch.einsum('bsw,bs->bw', {x}, {r}) / (torch.einsum('bs->b', {r})[:, None] + 1e-9)",
            "({x} * {r}[:, :, None]).sum(1) / {r}.sum(1, keepdim=True).clamp(min=1e-9)",
            "({x} * {r}.unsqueeze(-1).expand({x}.shape)).sum(1) / ({r}.sum(1)[:, None] + 1e-9)",
        ),
    )
    return w.let(spelling.format(r=real, x=site.x, s=e.length), site.pooled, "b.")


def _softmax_pool(site: Site) -> Value:
    """Weights over all tokens, masked ones too."""
    w, e, x = site.writer, site.extents, site.x
    weigh = w.linear("weigh", e.width, 1)
    p = w.let(f"{weigh}({x}).softmax(1)", (e.batch, e.length, 1), "b?.", stem="weights")
    return w.let(f"({p}.transpose(1, 2) @ {x})[:, 0]", site.pooled, "b.")


def _largest(site: Site) -> Value:
    """The greatest value over tokens, in halves."""
    w, e, x = site.writer, site.extents, site.x
    length = e.length
    spellings = ("halves", "{x}.amax(1)", "{x}.max(1).values", "{x}.max(dim=1)[0]")
    if site.real is not None:
        hidden = f"~{site.real}[:, :, None]"
        fills = ("-1e9", "-float('inf')", "torch.finfo(torch.float32).min")
        spellings += tuple(f"{{x}}.masked_fill({hidden}, {fill}).amax(1)" for fill in fills)
    spelling = site.choices.pick("largest", spellings)
    if spelling != "halves":
        return w.let(spelling.format(x=x), site.pooled, "b.")
    while length > 1:
        half = length // 2
        a, b = f"{x}[:, :{half}]", f"{x}[:, {length - half}:{length}]"
        larger = w.let(f"torch.where({a} > {b}, {a}, {b})", (e.batch, half, e.width), "b..")
        if length % 2:
            rest = f"{x}[:, {half}:{half + 1}]"
            larger = w.let(f"torch.cat([{larger}, {rest}], 1)", (e.batch, half + 1, e.width), "b..")
        x, length = larger, half + length % 2
    return w.let(f"{x}[:, 0]", site.pooled, "b.")


def _queries(site: Site) -> Value:
    """Learned queries look at the tokens, once one, once as many as there are tokens."""
    w, e, x = site.writer, site.extents, site.x
    count = site.choices.pick("queries", (1, 3, e.length))
    q = w.parameter("labels", count, e.width)
    scores = f"({q} @ {x}.transpose(1, 2) * {e.width**-0.5!r})"
    if site.real is not None and site.choices.chance("queries masked", 0.7):
        scores = f"{scores}.masked_fill(~{site.real}[:, None], -1e9)"
    found = w.let(f"{scores}.softmax(-1) @ {x}", (e.batch, count, e.width), "b..", stem="found")
    return w.let(f"{found}[:, {count - 1}]", site.pooled, "b.")


def _indexed(site: Site) -> Value:
    """The token at a position that an input names for each sequence."""
    e, x = site.extents, site.x
    port = Port("position", "int64", (e.batch,), "ids", e.length)
    at = site.writer.port(port, "b")
    spelling = site.choices.pick(
        "indexed",
        (
            "{x}[torch.arange({b}), {i}]",
            "{x}.gather(1, {i}[:, None, None].expand({b}, 1, {w})).squeeze(1)",
        ),
    )
    return site.writer.let(spelling.format(x=x, i=at, b=e.batch, w=e.width), site.pooled, "b.")


def _weighed(site: Site) -> Value:
    """Weights of real tokens by a softmax over them."""
    if site.real is None:
        return _softmax_pool(site)
    w, e, x = site.writer, site.extents, site.x
    weigh = w.linear("weigh", e.width, 1)
    fill = site.choices.pick("weights hidden", ("-1e9", "-float('inf')"))
    text = f"{weigh}(torch.tanh({x})).masked_fill(~{site.real}[:, :, None], {fill}).softmax(1)"
    p = w.let(text, (e.batch, e.length, 1), "b?.", stem="weights")
    return w.let(f"({p} * {x}).sum(1)", site.pooled, "b.")


def _spread(site: Site) -> Value:
    """The mean of real tokens and how far they are from it, or their sum over the root of their count."""
    if site.real is None:
        return _mean(site)
    w, e, x = site.writer, site.extents, site.x
    real = w.let(f"{site.real}.float()[:, :, None]", (e.batch, e.length, 1), "bs.", stem="real")
    count = w.let(f"{real}.sum(1).clamp(min=1e-9)", (e.batch, 1), "b.", stem="count")
    if site.choices.chance("root of the count", 0.4, plain=True):
        return w.let(f"({x} * {real}).sum(1) / {count}.sqrt()", site.pooled, "b.")
    mean = w.let(f"({x} * {real}).sum(1) / {count}", site.pooled, "b.", stem="mean")
    square = f"(({x} - {mean}[:, None]).square() * {real}).sum(1) / {count}"
    both = w.linear("both", 2 * e.width, e.width)
    return w.let(f"{both}(torch.cat([{mean}, ({square} + 1e-6).sqrt()], -1))", site.pooled, "b.")


def _asked(site: Site) -> Value:
    """One learned query asks the tokens."""
    w, e, x = site.writer, site.extents, site.x
    pool = w.module("pool", f"nn.MultiheadAttention({e.width}, {e.heads}, batch_first=True)")
    query = f"{w.parameter('probe', 1, 1, e.width)}.expand({e.batch}, -1, -1)"
    mask = "" if site.real is None else f", key_padding_mask=~{site.real}"
    return w.let(f"{pool}({query}, {x}, {x}{mask}, need_weights=False)[0][:, 0]", site.pooled, "b.")


def _flatten(site: Site) -> Value:
    w, e, x = site.writer, site.extents, site.x
    whole = w.linear("whole", e.length * e.width, e.width)
    spelling = site.choices.pick("flatten", ("{x}.flatten(1)", "{x}.reshape({b}, -1)"))
    return w.let(f"{whole}({spelling.format(x=x, b=e.batch)})", site.pooled, "b.")


def _end(site: Site) -> Value:
    """The token of the greatest id, as CLIP takes its last one."""
    e, x = site.extents, site.x
    port = Port("input_ids", "int64", (e.batch, e.length), "ids", e.vocabulary)
    at = f"{site.writer.port(port, 'bs')}.argmax(dim=-1)"
    return site.writer.let(f"{x}[torch.arange({e.batch}), {at}]", site.pooled, "b.")


POOLERS: tuple[Callable[[Site], Value], ...] = (
    _first,
    _last,
    _other,
    _mean,
    _masked_mean,
    _first_and_last,
    _softmax_pool,
    _largest,
    _queries,
    _flatten,
    _indexed,
    _end,
    _weighed,
    _spread,
    _asked,
)
POOLER_WEIGHTS = (40, 8, 6, 10, 8, 3, 5, 5, 4, 5, 4, 4, 4, 4, 4)


def pooled(site: Site) -> Value:
    """A vector a sequence, perhaps through a dense layer and tanh, perhaps classes of it."""
    w, e, c = site.writer, site.extents, site.choices
    vector = c.pick("pooler", POOLERS, POOLER_WEIGHTS, plain=5)(site)
    if c.chance("dense", 0.5, plain=True):
        layer = w.linear("pooler", e.width, e.width)
        vector = w.let(f"torch.tanh({layer}({vector}))", vector.shape, "b.")
    if c.chance("normalised", 0.1, plain=True):
        vector = w.let(f"F.normalize({vector}, dim=-1)", vector.shape, "b.")
    classes = c.pick("classes", (0, 2, 3, 5))
    if not classes:
        return vector
    return w.let(f"{w.linear('classify', e.width, classes)}({vector})", (e.batch, classes), "b.")


# --- Outputs with tokens --------------------------------------------------------------------------


def _hidden(site: Site) -> Value:
    return site.x


def _logits(site: Site) -> Value:
    e = site.extents
    classes = site.choices.pick("labels", (3, 2, 5, e.length))
    layer = site.writer.linear("label", e.width, classes)
    return site.writer.let(f"{layer}({site.x})", (e.batch, e.length, classes), f"b{site.token}.")


def _sized(site: Site) -> Value:
    """Each token over its own size, or the logarithms of its probabilities."""
    x = site.x
    how = site.choices.pick(
        "sized",
        (
            "F.normalize({x}, dim=-1)",
            "{x} / ({x}.norm(dim=-1, keepdim=True) + 1e-6)",
            "F.log_softmax({x}, dim=-1)",
            "({x} - {x}.mean(-1, keepdim=True)) / ({x}.std(-1, keepdim=True) + 1e-3)",
            "{x} * torch.rsqrt({x}.square().sum(-1, keepdim=True) + 1e-6)",
            "{x} - {x}.amax(-1, keepdim=True)",
        ),
    )
    return site.writer.let(how.format(x=x), x.shape, f"b{site.token}.")


def _span(site: Site) -> Value:
    """Start logits of a span: (batch, length)."""
    w, e = site.writer, site.extents
    both = w.let(
        f"{w.linear('span', e.width, 2)}({site.x})", (e.batch, e.length, 2), f"b{site.token}."
    )
    how = site.choices.pick(
        "span", ("{y}[..., 0]", "{y}.split(1, -1)[0].squeeze(-1)", "{y}.unbind(-1)[0]")
    )
    return w.let(how.format(y=both), (e.batch, e.length), f"b{site.token}")


def _transposed(site: Site) -> Value:
    x, e = site.x, site.extents
    order = site.choices.pick("order", ("1, 2", "0, 1"))
    if order == "1, 2":
        return site.writer.let(
            f"{x}.transpose(1, 2)", (e.batch, e.width, e.length), f"b.{site.token}"
        )
    return site.writer.let(f"{x}.transpose(0, 1)", (e.length, e.batch, e.width), f"{site.token}b.")


def _rows(site: Site) -> Value:
    """Tokens of all sequences in one axis."""
    x, e = site.x, site.extents
    layer = site.writer.linear("row", e.width, 4)
    flat = f"{x}.reshape({e.batch * e.length}, {e.width})"
    if site.choices.chance("rows merged", 0.3):
        return site.writer.let(f"{layer}({flat})", (e.batch * e.length, 4), "m.")
    text = f"{layer}({flat}).view({e.batch}, {e.length}, 4)"
    return site.writer.let(text, (e.batch, e.length, 4), f"b{site.token}.")


def _part(site: Site) -> Value:
    x, e = site.x, site.extents
    if e.length < 2:
        return x
    return site.writer.let(f"{x}[:, 1:]", (e.batch, e.length - 1, e.width), "b..")


def _pairs(site: Site) -> Value:
    x, e = site.x, site.extents
    if e.length % 2:
        return x
    layer = site.writer.linear("pair", 2 * e.width, 3)
    text = f"{layer}({x}.reshape({e.batch}, {e.length // 2}, {2 * e.width}))"
    return site.writer.let(text, (e.batch, e.length // 2, 3), "b..")


def _similarities(site: Site) -> Value:
    x, e = site.x, site.extents
    how = site.choices.pick(
        "similar", ("{x} @ {x}.transpose(1, 2)", "torch.einsum('bsw,btw->bst', {x}, {x})")
    )
    return site.writer.let(how.format(x=x), (e.batch, e.length, e.length), f"b{2 * site.token}")


TOKEN_HEADS: tuple[Callable[[Site], Value], ...] = (
    _hidden,
    _logits,
    _span,
    _transposed,
    _rows,
    _part,
    _pairs,
    _similarities,
    mix,
    _sized,
)
TOKEN_HEAD_WEIGHTS = (44, 22, 8, 4, 6, 3, 3, 2, 4, 8)


def tokens(site: Site) -> Value:
    """An output that has something for each token."""
    return site.choices.pick("token head", TOKEN_HEADS, TOKEN_HEAD_WEIGHTS, plain=3)(site)
