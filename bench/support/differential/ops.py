"""Every case of torch's op_db for the ops of the supported table, as tiny modules."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import OpInfo
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from bench.support.differential.build import NotExported
from bench.support.differential.inputs import Case
from bench.support.differential.judge import TARGETS, Verdict, judge_module, normalised
from bench.support.differential.program import Arrays, Extents, Output, Program
from bench.support.differential.tally import Tally
from heatc.capture.families import all_converters

DTYPES = (
    torch.float32,
    torch.int64,
    torch.int32,
    torch.bool,
    torch.uint8,
    torch.int8,
)
_CASTS = ("float", "double", "long", "int", "short", "char", "byte", "bool")
_EXTENTS = Extents(1, 1, 1, 1, 1)


def names() -> list[str]:
    """The ops of op_db that the table of converters has, each once."""
    supported = {target.split(".")[1] for target in all_converters()}
    return sorted({_name(op) for op in op_db if _spellings(op) & supported})


def _name(op: OpInfo) -> str:
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name


def _spellings(op: OpInfo) -> set[str]:
    """What an op may be called in an exported program."""
    aliases = [alias.name for alias in op.aliases]
    last = [name.split(".")[-1] for name in (op.name, op.aten_name or "", *aliases)]
    # `__rsub__` becomes rsub or sub, `__getitem__` slices, selects and indices.
    bare = [name.strip("_") for name in last if name.startswith("__")]
    bare += [name[1:] for name in bare if name.startswith("r")]
    casts = ["_to_copy"] if op.name in _CASTS else []
    views = ["index"] if op.name == "__getitem__" else []
    return {*last, *bare, *casts, *views, *(f"_{name}" for name in last)}


@functools.cache
def _ops(name: str) -> tuple[OpInfo, ...]:
    return tuple(op for op in op_db if _name(op) == name)


class Sampled(nn.Module):
    """Calls an op on a sample, whose tensors are the inputs."""

    def __init__(self, op: Any, leaves: Sequence[Any], spec: Any):
        super().__init__()
        self.op, self.leaves, self.spec = op, leaves, spec

    def forward(self, **tensors: torch.Tensor) -> Any:
        """The op's result."""
        given = iter(tensors.values())
        leaves = [next(given) if isinstance(x, torch.Tensor) else x for x in self.leaves]
        args, kwargs = tree_unflatten(leaves, self.spec)
        return self.op(*args, **kwargs)


def samples(name: str, dtype: torch.dtype) -> Iterator[tuple[Sampled, Arrays]]:
    """The samples of an op: a module each, and its inputs."""
    for op in _ops(name):
        if not op.supports_dtype(dtype, "cpu"):
            continue
        torch.manual_seed(zlib.crc32(f"{name} {dtype}".encode()))
        for sample in op.sample_inputs("cpu", dtype, requires_grad=False):
            call = ((sample.input, *sample.args), sample.kwargs)
            # One tensor given twice would be one input.
            call = tree_map_only(torch.Tensor, lambda t: t.detach().clone(), call)
            leaves, spec = tree_flatten(call)
            tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
            if any(tensor.layout != torch.strided for tensor in tensors):
                # No file of inputs holds a sparse tensor.
                continue
            inputs = {f"x{i}": tensor.numpy() for i, tensor in enumerate(tensors)}
            yield Sampled(op.op, leaves, spec), inputs


def judge_op(name: str) -> Tally:
    """The verdicts of all samples of an op."""
    tally = Tally()
    for dtype in DTYPES:
        for index, (module, inputs) in enumerate(samples(name, dtype)):
            tally.add(f"{name} {dtype} {index}", judge_sample(module, inputs))
    return tally


def judge_sample(module: Sampled, inputs: Arrays) -> list[Verdict]:
    """The verdicts of one sample; "invalid" where PyTorch does not export it."""
    try:
        with torch.no_grad():
            tensors = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
            result = module(**tensors)
        program = _described(result)
        case = Case("sample", inputs, np.ones((1, 1), np.bool_))
        return judge_module(module, program, [case])
    except NotExported as error:
        reason = normalised(str(error))
    except Exception as error:
        reason = normalised(f"{type(error).__name__}: {error}")
    return [Verdict(target, "invalid", reason) for target in TARGETS]


def _described(result: Any) -> Program:
    """A program that only knows the names of the outputs."""
    leaves = tree_flatten(result)[0]
    if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        raise NotExported("an output is no tensor")
    alone = isinstance(result, torch.Tensor)
    outputs = [Output("output" if alone else f"output_{i}", "", ()) for i in range(len(leaves))]
    return Program(
        0, "", (), tuple(outputs), _EXTENTS, (), "", "hdp-edge", "skip", False, False, {}
    )
