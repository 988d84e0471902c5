"""
Running a program on inputs: check them, place them in DRAM, run the machine, read the outputs.

A data set of more samples than the program was compiled for runs in passes of that many; the
last pass is filled up with fully masked samples, which cost nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from heatc.backends.hdp.container import Manifest, Port, Program
from heatc.backends.hdp.debug import Locations
from heatc.backends.hdp.layers import PACKS, LayerRecorder, Layers, concatenate
from heatc.backends.hdp.masks import LENGTHS, REAL, split_masks
from heatc.errors import HeatcError, InfeasibleError
from heatc.hardware import Hardware
from heatc.intervals import Interval, number_text
from heatc.machine.budget import MAX_SECONDS
from heatc.machine.memory import Memory
from heatc.progress import ProgressCallback, no_progress
from heatc.readers.npz import LABELS, Form, forms_of

if TYPE_CHECKING:
    from heatc.backends.hdp.recorders import PassRecorder
    from heatc.machine.machine import Machine, OnRetire, RunResult
    from heatc.machine.values import Values

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]

_ISA_DTYPES = {
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint8": "i8",
    "bool": "i8",
    "float32": "f32",
}

_PC = re.compile(r"pc (\d+):")

PASSES = "passes of the program"
"""What progress is called: a pass runs the program once, on one batch."""

_MASK_NAME = "attention_mask"

_MOST_TOKENS = 1 << 24
"""Of a program whose layers or masks are kept."""


@dataclass(frozen=True)
class Simulation:
    """
    What running a program gave.

    `outputs`: by the model's output names, float32 or the model's integers; empty if only the cost
    was simulated.
    `results`: one a pass. `layers` and `masks`: see `LayerRecorder.layers` and `.decisions`, empty
    unless asked for. `computed`: whether there are values, and with them saturations.
    """

    outputs: dict[str, Array]
    results: Sequence[RunResult]
    layers: Layers
    masks: Layers = field(default_factory=dict[str, Array])
    computed: bool = True

    @property
    def result(self) -> RunResult:
        """The first pass, which is all there is unless the inputs are a data set."""
        return self.results[0]


def simulate(
    program: Program,
    inputs: Arrays,
    hardware: Hardware | None = None,
    layers: bool = False,
    *,
    masks: bool = False,
    trace: PassRecorder | None = None,
    max_seconds: float = MAX_SECONDS,
    progress: ProgressCallback = no_progress,
) -> Simulation:
    """
    Runs a program on inputs by name.

    `hardware` replaces the one that the program was compiled for, see `check_hardware`. `layers`
    and `masks` ask for these parts of the result. A pass of more than `max_seconds` is stopped.
    """
    # Whoever only checks inputs needs no machine.
    from heatc.machine.machine import Machine

    if hardware is not None:
        check_hardware(program, hardware)
    passes, samples = split_inputs(program.manifest, inputs)
    machine_hardware = hardware or program.manifest.hardware
    outputs: list[dict[str, Array]] = []
    results: list[RunResult] = []
    recorded: list[LayerRecorder] = []
    for number, arrays in enumerate(passes):
        progress(PASSES, number, len(passes))
        memory = _memory(program)
        for port in program.manifest.inputs:
            dtype = _ISA_DTYPES[port.dtype]
            memory.write(port.address, arrays[port.name], dtype)
        recorder = _recorder(program, memory, layers) if layers or masks else None
        machine = Machine(machine_hardware, memory)
        on_retire = recorder.on_retire if recorder else None
        results.append(_run(program, machine, on_retire, trace=trace, max_seconds=max_seconds))
        outputs.append({port.name: _read(memory, port) for port in program.manifest.outputs})
        if recorder:
            recorded.append(recorder)
    whole = {
        port.name: _joined([o[port.name] for o in outputs], samples)
        for port in program.manifest.outputs
    }
    return Simulation(
        whole,
        results,
        concatenate([r.layers for r in recorded]) if layers else {},
        concatenate([r.decisions for r in recorded]) if masks else {},
    )


def simulate_timing(
    program: Program,
    stored: Arrays,
    hardware: Hardware | None = None,
    *,
    trace: PassRecorder | None = None,
    max_seconds: float = MAX_SECONDS,
    progress: ProgressCallback = no_progress,
) -> Simulation:
    """
    What a program costs on the masks of an earlier run; no values are computed.

    `stored` is `Simulation.masks`. Cycles, bytes and counts are those of that run.
    """
    from heatc.backends.hdp.masks import StoredDecisions
    from heatc.machine.machine import Machine
    from heatc.machine.values import Shapes

    if hardware is not None:
        check_hardware(program, hardware)
    results: list[RunResult] = []
    passes = split_stored(program, stored)
    for number, masks in enumerate(passes):
        progress(PASSES, number, len(passes))
        memory = _memory(program)
        _write_lengths(program.manifest, memory, masks)
        decisions = StoredDecisions(program.debug, masks)
        machine = Machine(hardware or program.manifest.hardware, memory)
        run = partial(_run, values=Shapes(decisions), trace=trace, max_seconds=max_seconds)
        results.append(run(program, machine, decisions.on_retire))
    return Simulation({}, results, {}, computed=False)


def split_stored(program: Program, stored: Arrays) -> list[dict[str, Array]]:
    """The checked masks of each pass, see `heatc.backends.hdp.masks`."""
    batch, length = _packed_shape(program)
    return split_masks(stored, program.debug, batch, length, reads=_reads(program.manifest))


def _reads(manifest: Manifest) -> bool:
    """Whether the program reads padding."""
    return any(port.mask is not None and port.mask.reads for port in manifest.inputs)


def _write_lengths(manifest: Manifest, memory: Memory, stored: Arrays) -> None:
    """Places an attention mask with as many tokens in each sequence, or with these tokens."""
    port = mask_port(manifest)
    if port is None:
        return
    positions = np.arange(int(np.prod(port.shape[1:])))
    real = positions < cast(NDArray[np.int64], stored[LENGTHS])[:, None]
    if REAL in stored:
        real = _with_a_token(cast(NDArray[np.bool_], stored[REAL]))
    mask = real if port.mask is None else port.mask.of_lengths(real)
    memory.write(port.address, mask.astype(port.dtype), _ISA_DTYPES[port.dtype])


def _with_a_token(real: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Sequences that fill up a pass have one token, see `_filler`."""
    found = real.copy()
    found[~real.any(axis=1), 0] = True
    return found


def _memory(program: Program) -> Memory:
    size = program.manifest.dram_bytes
    try:
        return Memory(program.weights, size)
    except MemoryError:
        raise InfeasibleError(
            f"this computer has not enough memory for the {size} bytes of the program's DRAM",
            place=str(program.path),
        ) from None


def _run(
    program: Program,
    machine: Machine,
    on_retire: OnRetire | None,
    *,
    values: Values | None = None,
    trace: PassRecorder | None = None,
    max_seconds: float = MAX_SECONDS,
) -> RunResult:
    """Runs the machine; a trap says where in the model it happened."""
    run = partial(machine.run, values=values, recorder=trace, max_seconds=max_seconds)
    try:
        result = run(program.instructions, on_retire)
        if trace is not None:
            trace.end_pass(result.cycles)
        return result
    except HeatcError as error:
        notes = list(error.notes)
        pc = _PC.match(error.message)
        location = str(Locations(program.debug).at(int(pc[1]))) if pc else ""
        if location:
            notes.insert(0, f"in {location}")
        place = error.place or str(program.path)
        raise type(error)(error.message, place=place, notes=notes) from error


def _recorder(program: Program, memory: Memory, codes: bool) -> LayerRecorder:
    batch, length = _packed_shape(program)
    reads = _reads(program.manifest)
    return LayerRecorder(program.debug, memory, batch, length, codes=codes, reads=reads)


def _packed_shape(program: Program) -> tuple[int, int]:
    """Sequences and tokens of what the program packs; of its largest input where it packs nothing."""
    for inst in program.instructions:
        if inst.mnemonic in PACKS:
            batch, length = int(inst["batch"]), int(inst["length"])
            if batch * length > _MOST_TOKENS:
                raise HeatcError(
                    f"the program packs {batch} x {length} tokens, more than {_MOST_TOKENS}",
                    place=str(program.path),
                    notes=["run it without --layers, --save-masks and --masks"],
                )
            return batch, length
    shapes = (port.shape for port in program.manifest.inputs)
    batch, length = (*max(shapes, key=len, default=()), 1, 1)[:2]
    return batch, length


def _read(memory: Memory, port: Port) -> Array:
    dtype = _ISA_DTYPES[port.dtype]
    flat = memory.view(port.address, dtype, 1, int(np.prod(port.shape, dtype=np.int64)))
    return flat.reshape(port.shape).astype(port.dtype)


def _joined(parts: Sequence[Array], samples: int) -> Array:
    """The outputs of all passes without the samples that filled up the last one."""
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return whole[:samples] if len(parts) > 1 else whole


# --- Inputs -----------------------------------------------------------------------------------


def mask_port(manifest: Manifest) -> Port | None:
    """The input that tells real tokens from padding, if the program has one."""
    ports = manifest.inputs
    roles = (p for p in ports if p.role == "mask")
    return next(roles, None) or next((p for p in ports if p.name == _MASK_NAME), None)


def split_inputs(manifest: Manifest, inputs: Arrays) -> tuple[list[dict[str, Array]], int]:
    """
    The checked inputs of each pass, and the number of samples in all.

    Names must be the program's, shapes too except for the first axis of a data set; integers are
    converted where no value changes. What is wrong is a `HeatcError` that names the input.
    """
    check_forms(manifest, forms_of(inputs))
    converted = {p.name: _converted(p, inputs[p.name]) for p in manifest.inputs}
    batch, samples = _samples(manifest, converted)
    for port in manifest.inputs:
        if port.mask is not None:
            port.mask.check(port.name, converted[port.name])
    if samples == batch:
        return [converted], samples
    passes: list[dict[str, Array]] = []
    for start in range(0, samples, batch):
        part = {name: array[start : start + batch] for name, array in converted.items()}
        passes.append({p.name: _filled(p, part[p.name], manifest) for p in manifest.inputs})
    return passes, samples


def check_forms(manifest: Manifest, inputs: Mapping[str, Form]) -> None:
    """
    Raise `HeatcError` where names, shapes or dtypes are not the program's.

    The labels of a data set are none of its business.
    """
    known = [port.name for port in manifest.inputs]
    listing = f"the program's inputs: {', '.join(map(_describe, manifest.inputs))}"
    for name in known:
        if name not in inputs:
            notes = [listing]
            mask = mask_port(manifest)
            if mask is not None and name == mask.name:
                notes.append("give ones of the shape of the tokens if none of them is padding")
            _fail(name, "the input is missing", *notes)
    for name in inputs:
        if name not in known and name != LABELS:
            _fail(name, "the program has no such input", listing)
    for port in manifest.inputs:
        _check_form(port, inputs[port.name])


def _describe(port: Port) -> str:
    return f"{port.name} ({'x'.join(map(str, port.shape))} {port.dtype})"


def _check_form(port: Port, array: Form) -> None:
    target = np.dtype(port.dtype)
    if not isinstance(getattr(array, "dtype", None), np.dtype):
        _fail(port.name, f"expected {_describe(port)}, found {type(array).__name__}")
    found = f"{'x'.join(map(str, array.shape)) or 'scalar'} {array.dtype}"
    if len(array.shape) != len(port.shape) or array.shape[1:] != port.shape[1:]:
        _fail(port.name, f"expected {_describe(port)}, found {found}")
    integers = "biu"
    if target.kind in integers and array.dtype.kind not in integers:
        _fail(port.name, f"expected integers ({target}), found {found}")
    if target.kind == "f" and array.dtype.kind not in integers + "f":
        _fail(port.name, f"expected numbers ({target}), found {found}")


def _converted(port: Port, array: Array) -> Array:
    """The array in the port's dtype, its values checked."""
    target = np.dtype(port.dtype)
    if target.kind == "f" and not np.isfinite(array.astype(np.float32)).all():
        _fail(port.name, "a value is not finite in float32")
    if array.size and target.kind in "iu":
        _check_range(port, array, target)
    if array.size and port.within is not None:
        _check_within(port, array, port.within)
    return np.ascontiguousarray(array.astype(target))


def _check_range(port: Port, array: Array, target: np.dtype[np.generic]) -> None:
    low, high = 0, port.limit - 1
    if not port.limit:
        limits = np.iinfo(target.name)
        low, high = int(limits.min), int(limits.max)
    values = cast(NDArray[np.int64], array)
    if low <= int(values.min()) and int(values.max()) <= high:
        return
    wrong = (values < low) | (values > high)
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    value = int(array[where])
    reason = f"the table it indexes has {port.limit} rows" if port.limit else f"it is {target}"
    _fail(port.name, f"{value} at {list(where)} is outside {low} to {high}: {reason}")


def _check_within(port: Port, array: Array, within: Interval) -> None:
    """The program's numbers are of a size that was declared when it was compiled."""
    low, high = within
    values = array.astype(np.float64)
    limit = -math.inf if port.hides is None else port.hides
    seen = values > limit
    wrong = seen & ((values < low) | (values > high))
    if not wrong.any():
        return
    where = tuple(int(i) for i in np.argwhere(wrong)[0])
    ends = f"{number_text(low)} to {number_text(high)}"
    hides = "" if port.hides is None else f" ({number_text(limit)} and less hide a score)"
    least, most = (number_text(float(f(values[seen]))) for f in (np.min, np.max))
    _fail(
        port.name,
        f"{number_text(float(values[where]))} at {list(where)} is outside {ends}, which the program "
        f"was compiled for{hides}",
        f"compile with --input-range {port.name}={least}:{most}, or as far as its values go",
    )


def _samples(manifest: Manifest, arrays: Arrays) -> tuple[int, int]:
    """The batch of the program and the number of samples that the inputs have."""
    ports = [port for port in manifest.inputs if port.shape]
    if not ports:
        return 1, 1
    batches, counts = ({p.shape[0] for p in ports}, {arrays[p.name].shape[0] for p in ports})
    if all(arrays[p.name].shape[0] == p.shape[0] for p in ports):
        return ports[0].shape[0], ports[0].shape[0]
    if len(counts) > 1 or len(batches) > 1:
        sizes = ", ".join(f"{p.name} {arrays[p.name].shape[0]}" for p in ports)
        _fail(ports[0].name, f"the inputs have different numbers of samples: {sizes}")
    batch, count = batches.pop(), counts.pop()
    if count < batch or batch == 0:
        note = f"give at least {batch}; a row whose mask is 0 everywhere is skipped"
        _fail(ports[0].name, f"{count} samples, the program takes {batch} at once", note)
    return batch, count


def _filled(port: Port, array: Array, manifest: Manifest) -> Array:
    """A pass of full size: what is missing has as little to compute as may be."""
    missing = port.shape[0] - array.shape[0]
    if not missing:
        return array
    rest = _filler(port, array[-1:], mask_port(manifest))
    return np.concatenate([array, np.repeat(rest, missing, axis=0)])


def _filler(port: Port, last: Array, mask: Port | None) -> Array:
    """A sample of padding, or of one token where padding is read; without a mask the last sample."""
    if mask is None:
        return last
    if port is not mask or port.mask is None:
        return np.zeros_like(last)
    real = np.zeros(last.shape, np.bool_)
    real.reshape(-1)[0] = port.mask.reads
    return port.mask.of_lengths(real).astype(last.dtype)


def _fail(name: str, message: str, *notes: str) -> NoReturn:
    raise HeatcError(message, place=f"input {name!r}", notes=notes)


# --- Hardware ---------------------------------------------------------------------------------


def check_hardware(program: Program, hardware: Hardware) -> None:
    """
    Refuses hardware that the program does not fit on.

    The program spreads heads over the cores it was compiled for and places tiles in their
    buffers: cores must be as many, buffers and DRAM as large or larger. The rest is free.
    """
    made_for = program.manifest.hardware
    if hardware.cores != made_for.cores:
        raise InfeasibleError(
            f"the program spreads its work over {made_for.cores} cores, "
            f"{hardware.name} has {hardware.cores}",
            place=str(program.path),
            notes=["compile the model again for this hardware (heatc --hw)"],
        )
    demands = (
        ("local buffer", made_for.local_buffer_bytes, hardware.local_buffer_bytes),
        ("shared buffer", made_for.shared_buffer_bytes, hardware.shared_buffer_bytes),
        ("DRAM", program.manifest.dram_bytes, hardware.dram_capacity_bytes),
    )
    for what, demand, bound in demands:
        if bound < demand:
            raise InfeasibleError(
                f"the program was made for {demand} bytes of {what}, {hardware.name} has {bound}",
                place=str(program.path),
                notes=["compile the model again for this hardware (heatc --hw), or enlarge it"],
            )
