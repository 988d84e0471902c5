"""
The weights of IR in text form, in a file beside it.

`x.mlir.safetensors` has what `x.mlir` reads. In a folder of phases the first file has what was
captured, and that of a later phase what its pass added: a phase reads those up to its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from heatc.dialects.einsum import WeightOp
from heatc.kinds import IR_FACTORS, IR_WEIGHTS
from heatc.names import ir_weights_file, phase_files
from heatc.weights import WeightStore

_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_ALIGNMENT = 64


def weights_read(module: ModuleOp, weights: WeightStore) -> list[str]:
    """
    The names of the weights that a module reads, in order; all where it is no longer `einsum.weight`
    that reads them.
    """
    keys = [key for op in module.walk() if isinstance(op, WeightOp) for key in op.keys]
    return list(dict.fromkeys(keys)) or list(weights)


def write_weights(stream: IO[bytes], weights: WeightStore, names: Sequence[str]) -> None:
    """Write weights as a safetensors file, one after the other: none but the one at hand is held."""
    # Large items first: every tensor is then aligned as its dtype asks for.
    ordered = sorted(names, key=lambda name: (-weights.dtype(name).itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"producer": IR_WEIGHTS.mark}}
    offset = 0
    for name in ordered:
        dtype, shape = weights.dtype(name), weights.shape(name)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        place = {"dtype": _NAMES[dtype.name], "shape": list(shape)}
        header[name] = {**place, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    stream.write(len(text).to_bytes(8, "little") + text)
    for name in ordered:
        stream.write(np.ascontiguousarray(weights[name]).reshape(-1).view(np.uint8).data)
        weights.release(name)


def weights_beside(text: Path, passes: Sequence[str]) -> list[Path]:
    """
    The files that heatc wrote beside a text, or beside the phases before it.

    `passes` are those that the module in the text has been through, by name.
    """
    files = [ir_weights_file(text)]
    phases = phase_files(list(passes))
    if phases[-1] == text.name:
        files = [ir_weights_file(text.with_name(name)) for name in phases]
    return [path for path in dict.fromkeys(files) if _is_ours(path)]


def _is_ours(path: Path) -> bool:
    try:
        return path.is_file() and any(kind.is_kind_of(path) for kind in (IR_WEIGHTS, IR_FACTORS))
    except OSError:
        return False
