"""Truth values as a PNG: one pixel each, in one colour upon nothing."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR = (0x2F, 0x6F, 0x9F)
"""Of true pixels; readable on a light and on a dark page."""


def png(pixels: NDArray[np.bool_]) -> bytes:
    """
    The file of (rows, columns) pixels; false ones are transparent.

    The format is that of the PNG specification (W3C, third edition): a palette of two colours, one bit
    a pixel, no filter.
    """
    rows, columns = pixels.shape
    header = struct.pack(">IIBBBBB", columns, rows, 1, 3, 0, 0, 0)
    packed = np.packbits(pixels, axis=1)
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), packed], axis=1)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", bytes((255, 255, 255, *COLOUR))),
        (b"tRNS", b"\x00\xff"),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    sum_ = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", sum_)


def png_url(pixels: NDArray[np.bool_]) -> str:
    """The file as the address of a picture that is in the page itself."""
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"
