"""From a module to a `.hdp` program, to assembly text, or straight through the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp

from heatc.backends.hdp.container import Manifest, open_program, write_program
from heatc.backends.hdp.encode import Encoded, encode_module
from heatc.context import HeatcContext
from heatc.dialects import hdp
from heatc.hardware import Hardware
from heatc.isa.words import to_text
from heatc.passes.allocate_buffers import AllocateBuffersPass
from heatc.passes.lower_to_hdp import LowerToHdpPass
from heatc.temporary import scratch_folder
from heatc.weights import WeightStore


def write_module(
    stream: IO[bytes],
    module: ModuleOp,
    weights: WeightStore,
    hw: Hardware,
    *,
    options: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
) -> None:
    """
    Write a module at the machine level as a `.hdp` program.

    `options` and `source` are echoed in the manifest. Weights are
    quantised while they are written. Raises `HeatcError` for a module that is not finished.
    """
    encoded = encode_module(module)
    _write(stream, encoded, weights, hw, options or {}, source or {})


def _write(
    stream: IO[bytes],
    encoded: Encoded,
    weights: WeightStore,
    hardware: Hardware,
    options: Mapping[str, Any],
    source: Mapping[str, Any],
) -> None:
    manifest = Manifest(
        hardware,
        encoded.inputs,
        encoded.outputs,
        encoded.dram_bytes,
        encoded.points,
        options,
        source,
    )
    items = (item.weight(weights) for item in encoded.weights)
    write_program(stream, encoded.program, manifest, items, encoded.debug)


def assembly(module: ModuleOp) -> str:
    """The program as text that `hdp-as` reads."""
    return "".join(f"{to_text(word)}\n" for word in encode_module(module).program)


def run_module(
    module: ModuleOp, inputs: Mapping[str, NDArray[Any]], weights: WeightStore, hw: Hardware
) -> dict[str, NDArray[Any]]:
    """
    What a module at the tiled or machine level computes, on the functional machine.

    A module that is not finished yet is finished on a copy. Returns outputs by name.
    """
    from heatc.backends.hdp import simulate

    module = module.clone()
    context = HeatcContext(hardware=hw)
    allocated = all(op.base is not None for op in module.walk() if isinstance(op, hdp.TensorOp))
    if any(op.name == "scf.for" for op in module.walk()) or not allocated:
        if any(op.name.startswith(("scf.", "arith.")) for op in module.walk()):
            LowerToHdpPass().apply(context, module)
        AllocateBuffersPass().apply(context, module)
    with scratch_folder() as folder:
        path = folder / "module.hdp"
        with path.open("wb") as stream:
            write_module(stream, module, weights, hw)
        return dict(simulate(open_program(path), inputs).outputs)
