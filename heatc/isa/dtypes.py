"""Element types of the machine, and their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

DTYPES: Mapping[str, int] = MappingProxyType(
    {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "f32": 4, "acc": 6, "i4": 1}
)
"""Bytes of an element in a buffer; `acc` is a 48-bit accumulator, `i4` has a byte of its own."""

TILE_DTYPES = ("acc", "i4")
"""What tiles hold, and tensors do not."""

BITS: Mapping[str, int] = MappingProxyType({name: 8 * n for name, n in DTYPES.items()} | {"i4": 4})
"""Bits of an element."""

ACC_BITS = BITS["acc"]
"""Bits of an accumulator: magnitudes stay below 2^(ACC_BITS - 1)."""
