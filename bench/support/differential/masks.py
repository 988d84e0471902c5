"""Masks of random models: what tells real tokens from padding, and which keys a query sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bench.support.differential.program import Array, Choices, Extents, Padding, Port, Value, Writer

Keep: TypeAlias = npt.NDArray[np.bool_]
Encode: TypeAlias = Callable[[Keep, np.random.RandomState], Array]

EVERY_PATTERN = ("right", "left", "holes", "one")
LOWEST = "torch.finfo(torch.float32).min"


@dataclass(frozen=True)
class Source:
    """
    An input that tells real tokens from padding.

    `reals` are spellings of "is real" over `{m}`, a (batch, length) tensor of bool; `floats` of 1.0
    for real tokens and 0.0 for others, which say the same as the first of `reals`. See `Padding` for
    the rest.
    """

    name: str
    port: str
    dtype: str
    reals: tuple[str, ...]
    floats: tuple[str, ...]
    encode: Encode
    odd: Encode | None = None
    patterns: tuple[str, ...] = EVERY_PATTERN


def _as(dtype: str) -> Encode:
    return lambda keep, random: keep.astype(dtype)


def _some(values: tuple[float, ...], dtype: str) -> Encode:
    """Real tokens and others alike hold one of the values, so that both kinds occur."""

    def encode(keep: Keep, random: np.random.RandomState) -> Array:
        return random.choice(np.array(values), keep.shape).astype(dtype)

    return encode


def _either(real: tuple[int, ...], padding: tuple[int, ...]) -> Encode:
    """One of some values at real tokens, one of others elsewhere."""

    def encode(keep: Keep, random: np.random.RandomState) -> Array:
        yes, no = (random.choice(np.array(v), keep.shape) for v in (real, padding))
        return np.where(keep, yes, no).astype(np.int64)

    return encode


def _lengths(keep: Keep, random: np.random.RandomState) -> Array:
    return keep.sum(axis=1).astype(np.int64)


_NUMBERS = (
    "{m} > 0",
    "{m} != 0",
    "{m} == 1",
    "{m}.bool()",
    "~({m} == 0)",
    "{m} >= 1",
    "({m}.byte() - 1) == 0",
    "(~{m}.byte()) == 254",
    "(1 - {m}) <= 0",
)
_CASTS = ("{m}.float()", "{m}.to(torch.float32)")
SOURCES = (
    Source(
        "int64",
        "attention_mask",
        "int64",
        _NUMBERS,
        _CASTS,
        _as("int64"),
        _some((-1, 0, 1, 2), "int64"),
    ),
    Source("bool", "mask", "bool", ("{m}", "{m} == True"), ("{m}.float()",), _as("bool")),
    Source(
        "ids",
        "input_ids",
        "int64",
        ("{m} != 0", "{m} > 0", "{m}.bool()"),
        (),
        _as("int64"),
    ),
    Source(
        "segments != 0",
        "segments",
        "int64",
        ("{m} != 0", "{m} > 0", "{m}.bool()"),
        (),
        _either((1, 2, 3), (0,)),
    ),
    Source(
        "inverted bool",
        "padding",
        "bool",
        ("~{m}", "torch.logical_not({m})", "{m} == False"),
        ("(~{m}).float()", "1.0 - {m}.float()"),
        lambda keep, random: ~keep,
    ),
    Source(
        "labels",
        "labels",
        "int64",
        ("{m} != -100", "{m} >= 0", "{m} > -100"),
        (),
        _either((0, 1, 5), (-100,)),
    ),
    Source(
        "segments == 1",
        "segments",
        "int64",
        ("{m} == 1",),
        (),
        _either((1,), (0, 2)),
    ),
    Source(
        "float",
        "mask",
        "float32",
        ("{m} > 0", "{m} != 0", "{m} > 0.5", "{m} == 1", "{m}.bool()"),
        ("{m}",),
        _as("float32"),
        _some((0, 0.3, 0.7, 1), "float32"),
    ),
    Source(
        "int32",
        "attention_mask",
        "int32",
        _NUMBERS,
        _CASTS,
        _as("int32"),
        _some((-1, 0, 1, 2), "int32"),
    ),
    Source(
        "lengths",
        "lengths",
        "int64",
        ("torch.arange({length}) < {m}[:, None]", "{m}.unsqueeze(1) > torch.arange({length})"),
        (),
        _lengths,
        patterns=("right", "one first"),
    ),
    Source(
        "uint8",
        "mask",
        "uint8",
        ("{m} > 0", "{m} == 1", "{m}.bool()"),
        ("{m}.float()",),
        _as("uint8"),
        _some((0, 1, 2, 255), "uint8"),
    ),
)
SOURCE_WEIGHTS = (40, 9, 6, 6, 5, 5, 4, 7, 8, 4, 3)

KINDS = (
    "padding",
    "none",
    "causal",
    "causal and padding",
    "two-sided",
    "segment blocks",
    "band",
    "band and padding",
)
KIND_WEIGHTS = (60, 16, 4, 6, 4, 4, 4, 6)


@dataclass(frozen=True)
class Seen:
    """
    Which keys a query sees, as texts that broadcast to (batch, heads, length, length).

    `boolean` is True where it sees, `additive` 0 there and very low elsewhere; both are empty
    where it sees all. `padding` is a (batch, length) tensor of bool where there is one.
    """

    kind: str
    boolean: str = ""
    additive: str = ""
    padding: Value | None = None


class Masks:
    """The masks of one model; `padding` collects the inputs that tell what is real."""

    def __init__(self, writer: Writer, choices: Choices, extents: Extents):
        self.writer, self.choices, self.extents = writer, choices, extents
        self.padding: list[Padding] = []
        self.floats: dict[str, Value] = {}

    def make(self, kind: str, choices: Choices, port: str = "") -> Seen:
        """A mask of a kind; `port` names its input instead of the usual name."""
        if kind == "none":
            return Seen(kind)
        if kind == "causal":
            return self._of(kind, choices, [self._causal(choices)], [])
        if kind == "band":
            return self._of(kind, choices, [self._band(choices)], [])
        if kind == "segment blocks":
            return self._of(kind, choices, [self._blocks()], [])
        keep = self.real(choices, port)
        if kind == "two-sided":
            two = f"({keep}[:, None, None, :] & {keep}[:, None, :, None])"
            return self._of(kind, choices, [two], [], keep)
        rows = [self._causal(choices)] if kind == "causal and padding" else []
        rows += [self._band(choices)] if kind == "band and padding" else []
        return self._of(kind, choices, rows, [keep], keep)

    def real(self, choices: Choices, port: str = "") -> Value:
        """A (batch, length) tensor of bool: which tokens are real."""
        # One input is read as one kind of mask, however often.
        kind = choices if port else self.choices
        source = kind.pick("source of mask", SOURCES, SOURCE_WEIGHTS, plain=9)
        floats = choices.pick("float", (*source.floats, "{keep}.float()"))
        spelling = source.reals[0]
        if "{keep}" in floats:
            spelling = choices.pick("real", source.reals)
        e = self.extents
        value = self._input(source, port)
        text = spelling.format(m=value, length=e.length)
        real = spelling.format(m="m", length=e.length)
        known = Padding(value.text, real, source.encode, source.odd, source.patterns)
        self.padding.append(known)
        keep = self.writer.let(text, (e.batch, e.length), "bs", "bool", "keep")
        self.floats[keep.text] = Value(floats.format(m=value, keep=keep), keep.shape, "bs")
        return keep

    def _input(self, source: Source, port: str) -> Value:
        e = self.extents
        name = port or source.port
        if source.name == "ids":
            ids = Port("input_ids", "int64", (e.batch, e.length), "ids", e.vocabulary)
            return self.writer.port(ids, "bs")
        shape = (e.batch,) if source.name == "lengths" else (e.batch, e.length)
        return self.writer.port(Port(name, source.dtype, shape, "mask"), "bs"[: len(shape)])

    # --- Both forms -------------------------------------------------------------------------------

    def _of(
        self,
        kind: str,
        choices: Choices,
        by_query: list[str],
        by_key: list[Value],
        padding: Value | None = None,
    ) -> Seen:
        """A mask of conditions on pairs of tokens, and of which keys are real."""
        booleans = [*by_query, *(self._of_keys(keep, choices) for keep in by_key)]
        additive = [_where(text, self._low(choices, True)) for text in by_query]
        additive += [self._additive(keep, choices) for keep in by_key]
        padding = padding or (by_key[0] if by_key else None)
        return Seen(kind, " & ".join(booleans), " + ".join(additive), padding)

    def _of_keys(self, keep: Value, choices: Choices) -> str:
        """(batch, length) as a mask of keys."""
        e = self.extents
        spelling = choices.pick(
            "axes",
            (
                "{k}[:, None, None, :]",
                "{k}.unsqueeze(1).unsqueeze(2)",
                "{k}.view({b}, 1, 1, {s})",
                "{k}[:, None, None, :].expand({b}, 1, {s}, {s})",
                "{k}[:, None, None, :].expand({b}, {h}, {s}, {s})",
            ),
            (4, 2, 2, 2, 1),
        )
        return spelling.format(k=keep, b=e.batch, s=e.length, h=e.heads)

    def _additive(self, keep: Value, choices: Choices) -> str:
        """0 at real keys, very low at others."""
        axes = self._of_keys
        floats = self.floats[keep.text]
        style = choices.pick("additive", ("times", "minus", "where", "fill", "bias first"))
        if style == "where":
            return _where(axes(keep, choices), self._low(choices, True))
        if style == "fill":
            low = self._low(choices, True)
            zeros = f"torch.zeros({keep.shape})"
            filled = self.writer.let(
                f"{zeros}.masked_fill(~{keep}, {low})", keep.shape, "bs", stem="bias"
            )
            return axes(filled, choices)
        low = self._low(choices, False)
        named = self.writer.let(floats.text, keep.shape, "bs", stem="real")
        if style == "times":
            return f"(1.0 - {axes(named, choices)}) * {low}"
        if style == "minus":
            return f"({axes(named, choices)} - 1.0) * -{low}"
        bias = self.writer.let(f"(1.0 - {named}) * {low}", keep.shape, "bs", stem="bias")
        return axes(bias, choices)

    def _low(self, choices: Choices, infinite: bool) -> str:
        names = ("-10000.0", "-1e9", LOWEST, "float('-inf')")
        return choices.pick("low", names if infinite else names[:3])

    # --- Conditions on pairs of tokens ------------------------------------------------------------

    def _causal(self, choices: Choices) -> str:
        s = self.extents.length
        spellings = (
            f"torch.ones({s}, {s}, dtype=torch.bool).tril()",
            f"(torch.arange({s})[:, None] >= torch.arange({s}))",
            f"(torch.triu(torch.ones({s}, {s}), 1) == 0)",
        )
        return choices.pick("causal", spellings)

    def _band(self, choices: Choices) -> str:
        s = self.extents.length
        width = choices.pick("band", (1, 2, 3))
        i, j = f"torch.arange({s})[:, None]", f"torch.arange({s})"
        return f"(({i} - {j} < {width + 1}) & ({j} - {i} < {width + 1}))"

    def _blocks(self) -> str:
        e = self.extents
        port = Port("token_type_ids", "int64", (e.batch, e.length), "segments", 2)
        types = self.writer.port(port, "bs")
        return f"({types}[:, None, :, None] == {types}[:, None, None, :])"


def _where(condition: str, low: str) -> str:
    return f"torch.where({condition}, 0.0, {low})"
