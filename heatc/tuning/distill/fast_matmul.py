"""Products of float32 matrices on a CPU, by the faster of the two libraries that PyTorch brings."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import torch

_SIZE = 256


@contextlib.contextmanager
def fast_matmul(device: str) -> Generator[None]:
    """
    Within it PyTorch multiplies float32 matrices by oneDNN where a CPU has AVX-512.

    PyTorch takes MKL unless it may round operands, and MKL has half of oneDNN's speed on AMD's
    processors. Where oneDNN does round them, to bfloat16 for a CPU's matrix units, all stays as it was.
    """
    before = torch.get_float32_matmul_precision()
    if device == "cpu":
        torch.set_float32_matmul_precision("medium")
        if not _is_float32():
            torch.set_float32_matmul_precision(before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _is_float32() -> bool:
    """Whether a product keeps bits that bfloat16 has not."""
    x = torch.full((_SIZE, _SIZE), 1 + 2.0**-12)
    return torch.equal(x @ torch.eye(_SIZE), x)
