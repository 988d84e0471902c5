"""What a reckoning is made of: tensors, tiles, and when each byte of a buffer is used."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

BYTES = {"i4": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "f32": 4, "acc": 6}
BITS = {"i4": 4, "i8": 8, "i16": 16}
PAGE = 4096

HOST_OPERATIONS = {
    **{"hpack": 2, "hrows": 3, "hidx": 1, "hget": 1, "hgeti": 1, "hadd": 1, "hln": 8},
    **{"hgelu": 20, "htanh": 20, "hrelu": 1, "hput": 4, "htest": 1},
    **{"hsel": 1, "hrms": 5, "hsoft": 27, "hrope": 3, "hred": 1, "hredr": 1, "hscan": 1},
    **{"hnum": 1, "hiota": 1, "hcopy": 1, "hcut": 1, "hcat": 1, "hcols": 1, "hshape": 1},
    **{"hputc": 4},
}
VECTOR_PASSES = {
    **{"hget": 1, "hgeti": 1, "hadd": 1, "hln": 2, "hgelu": 1, "hput": 1, "hrelu": 1, "htanh": 1},
    **{"hsel": 1, "hrms": 2, "hsoft": 3, "hrope": 2, "hred": 1, "hredr": 1, "hfun": 1, "hop": 1},
    **{"hnum": 1, "hiota": 1, "hcopy": 1, "hcut": 1, "hcat": 1, "hshape": 1, "hputc": 1},
}
EACH = {
    **dict.fromkeys(("abs", "neg", "sign", "floor", "ceil", "round", "trunc"), (1, 1)),
    **dict.fromkeys(("exp", "log", "sigmoid", "erf", "cos", "sin"), (20, 1)),
    **{"sqrt": (4, 1), "reciprocal": (4, 1), "rsqrt": (8, 1), "silu": (21, 1)},
    **{"gelu_tanh": (28, 1), "gelu_quick": (22, 1)},
    **dict.fromkeys(("add", "sub", "rsub", "mul", "max", "min"), (1, 1)),
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), (1, 1)),
    **{"div": (4, 1), "rdiv": (4, 1), "pow": (41, 3), "rpow": (41, 3)},
    **{"floor_div": (5, 2), "rfloor_div": (5, 2), "remainder": (7, 3), "rremainder": (7, 3)},
}
"""Operations of the host an element, and passes of the vector units."""

TOKENS, BATCH, START, LENGTH, EXTRA_START, EXTRA = 63, 62, 61, 60, 59, 58


@dataclass
class Tensor:
    """Bytes of DRAM or of the shared buffer, as rows."""

    space: str
    dtype: str
    base: int
    rows: int
    columns: int
    writable: bool

    @property
    def pitch(self) -> int:
        return self.columns * BYTES[self.dtype]


@dataclass
class Tile:
    """
    Bytes of a buffer, and the rows and columns that each core has in them.

    `mask` are the kept blocks of each core, `taken` the scores of each row that are not excluded.
    """

    space: str
    dtype: str
    low: int
    high: int
    rows: list[int] = field(default_factory=list[int])
    columns: list[int] = field(default_factory=list[int])
    mask: list[Mask] = field(default_factory=list[Mask])
    taken: list[list[int]] = field(default_factory=list[list[int]])


class Buffer:
    """When each byte was last written, and last read."""

    def __init__(self, size: int):
        self.written = np.zeros(size, np.int64)
        self.read = np.zeros(size, np.int64)

    def free(self, tile: Tile) -> int:
        """When nobody writes or reads the bytes any more."""
        part = slice(tile.low, tile.high)
        return int(max(self.written[part].max(initial=0), self.read[part].max(initial=0)))

    def there(self, tile: Tile) -> int:
        """When the bytes are written."""
        return int(self.written[tile.low : tile.high].max(initial=0))

    def write(self, tile: Tile, time: int) -> None:
        part = self.written[tile.low : tile.high]
        np.maximum(part, time, out=part)

    def use(self, tile: Tile, time: int) -> None:
        part = self.read[tile.low : tile.high]
        np.maximum(part, time, out=part)


Place = tuple[int, int]


def up(x: int, y: int) -> int:
    return (x + y - 1) // y


def sorting(count: int) -> int:
    """Compare-exchanges of a bitonic network for so many numbers, filled up to a power of two."""
    steps = 0
    while 1 << steps < count:
        steps += 1
    return (1 << steps) // 2 * (steps * (steps + 1) // 2)
