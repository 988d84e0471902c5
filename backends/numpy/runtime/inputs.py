# pyright: basic, reportArgumentType=false
"""Inputs as arrays of their declared types, and masks as truth values."""

import numpy as np


def _fits(array, dtype):
    """Whether all of some integers are numbers of a dtype of integers."""
    if array.dtype.kind not in "iu" or np.dtype(dtype).kind not in "iu" or not array.size:
        return False
    limits = np.iinfo(dtype)
    return limits.min <= array.min() and array.max() <= limits.max


# fmt: off
def _array(name, value, dtype, shape):
    """The input `name` as an array of its declared type; ValueError if it is not one."""
    array = np.asarray(value)
    if len(array.shape) != len(shape) or any(n not in (None, m) for m, n in zip(array.shape, shape)):
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    if not np.can_cast(array.dtype, dtype, "safe") and not _fits(array, dtype):
        raise ValueError(f"{name} has dtype {array.dtype}, expected {np.dtype(dtype)}")
    return array.astype(dtype, copy=False)
# fmt: on


def real_tokens(name, mask, real, masked):
    """Where a mask says that a token is real; ValueError for a value that is no mask's."""
    kept, hidden = (
        np.any([(mask >= low) & (mask <= high) for low, high in some], axis=0)
        for some in (real, masked)
    )
    for at in np.argwhere(~(kept | hidden)):
        raise ValueError(
            f"{name}{at.tolist()} is {mask[tuple(at)]}, which is no value of this mask: "
            f"real is one of {real}, masked one of {masked} (both ends in it)"
        )
    return kept
