"""How attention knows places: biases of scores, rotations of queries and keys."""

from __future__ import annotations

from bench.support.differential.program import Choices, Extents, Writer

BIASES = ("none", "parameter", "table", "ALiBi", "buckets")
BIAS_WEIGHTS = (86, 3, 4, 4, 3)


def bias(writer: Writer, choices: Choices, e: Extents) -> str:
    """A bias that broadcasts to (batch, heads, length, length); empty without one."""
    kind = choices.pick("position bias", BIASES, BIAS_WEIGHTS)
    s, h = e.length, e.heads
    apart = f"(torch.arange({s})[None, :] - torch.arange({s})[:, None])"
    if kind == "none":
        return ""
    if kind == "parameter":
        return writer.parameter("near", h, s, s)
    if kind == "table":
        table = writer.module("near", f"nn.Embedding({2 * s - 1}, {h})")
        return f"{table}({apart} + {s - 1}).permute(2, 0, 1)[None]"
    if kind == "ALiBi":
        slopes = writer.buffer("slopes", f"2.0 ** -torch.arange(1.0, {h + 1})")
        return f"(-{slopes}[:, None, None] * {apart}.abs())"
    # As T5 does it: near ones exactly, far ones in buckets that grow.
    table = writer.module("near", f"nn.Embedding(8, {h})")
    far = f"(2 + (torch.log({apart}.abs().float() / 2 + 1e-9) / math.log(4.0) * 2).long()).clamp(max=3)"
    bucket = f"({apart} > 0).long() * 4 + torch.where({apart}.abs() < 2, {apart}.abs(), {far})"
    return f"{table}({bucket}).permute(2, 0, 1)[None]"


def rotated(writer: Writer, choices: Choices, e: Extents, q: str, k: str) -> tuple[str, str]:
    """Queries and keys, (batch, heads, length, head), perhaps turned by their places or normed."""
    kind = choices.pick("rotary", ("none", "computed", "buffers", "QK-norm"), (88, 5, 4, 3))
    if kind == "none" or e.head % 2:
        return q, k
    if kind == "QK-norm":
        return f"(F.normalize({q}, dim=-1) * 2)", f"(F.normalize({k}, dim=-1) * 2)"
    half, shape = e.head // 2, (e.length, e.head)
    frequencies = f"100.0 ** (-torch.arange(0, {e.head}, 2).float() / {e.head})"
    angles = f"(torch.arange({e.length}).float()[:, None] * ({frequencies})).repeat(1, 2)"
    if kind == "buffers":
        turns = [writer.buffer(n, f"({angles}).{n}()") for n in ("cos", "sin")]
    else:
        angle = writer.let(angles, shape, "..", stem="angle")
        turns = [f"{angle}.{n}()" for n in ("cos", "sin")]
    found: list[str] = []
    for stem, text in (("q", q), ("k", k)):
        x = writer.let(text, (e.batch, e.heads, e.length, e.head), "bhs.", stem=stem)
        other = f"torch.cat([-{x}[..., {half}:], {x}[..., :{half}]], -1)"
        found.append(f"({x} * {turns[0]} + {other} * {turns[1]})")
    return found[0], found[1]
