"""Names made of content, for what is kept: equal content is found again, other content never."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def content_key(texts: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> str:
    """24 hexadecimal digits of what is given, names included."""
    digest = hashlib.sha256()
    for name, text in sorted(texts.items()):
        digest.update(f"{name}={text}\n".encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}:{array.dtype}:{array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:24]
