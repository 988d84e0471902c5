"""Encoder layers at the fixed level, made of text, and what the machine counts for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.backends.hdp.encode import NUMPY_DTYPES, Encoded, encode_module
from heatc.hardware import Hardware, load_hardware
from heatc.machine.assumed import NoMasks
from heatc.machine.energy import EnergyReport, energy_report
from heatc.machine.machine import Machine, Memory, RunResult
from heatc.machine.values import Shapes
from heatc.passes.allocate_buffers import AllocateBuffersPass
from heatc.passes.lower_to_hdp import LowerToHdpPass
from heatc.passes.plan_tiles import PlanTilesPass
from heatc.passes.tile_for_hdp import TileForHdpPass


@dataclass(frozen=True)
class Sizes:
    """Width, heads and inner width of an encoder layer."""

    width: int
    heads: int
    inner: int


def linear(name: str, x: str, ins: int, outs: int) -> str:
    """A linear of packed tokens with bias; `%<name>` is its result."""
    return f"""
  %{name}_w = einsum.weight ["{name}.weight"] : tensor<{outs}x{ins}x!fixed.q<16, 18>>
  %{name}_c = einsum.contract "ti,oi->to" %{x}, %{name}_w
    : (tensor<?x{ins}x!fixed.q<16, 10>>, tensor<{outs}x{ins}x!fixed.q<16, 18>>)
    -> tensor<?x{outs}x!fixed.q<48, 28>>
  %{name}_b = einsum.weight ["{name}.bias"] : tensor<{outs}x!fixed.q<32, 28>>
  %{name}_a = nn.add %{name}_c, %{name}_b
    : (tensor<?x{outs}x!fixed.q<48, 28>>, tensor<{outs}x!fixed.q<32, 28>>)
    -> tensor<?x{outs}x!fixed.q<48, 28>>
  %{name} = fixed.requantize %{name}_a
    : tensor<?x{outs}x!fixed.q<48, 28>> to tensor<?x{outs}x!fixed.q<16, 10>>
"""


def residual(name: str, x: str, y: str, width: int) -> str:
    """Layer norm of a sum, on the host; `%<name>` is its result."""
    row, half = f"tensor<{width}xf32>", f"tensor<?x{width}x!fixed.q<16, 10>>"
    wide = f"tensor<?x{width}xf64>"
    return f"""
  %{name}_g = einsum.weight ["{name}.weight"] : {row}
  %{name}_b = einsum.weight ["{name}.bias"] : {row}
  %{name} = host.task (%{name}_0 = %{x} : {half}, %{name}_1 = %{y} : {half},
      %{name}_2 = %{name}_g : {row}, %{name}_3 = %{name}_b : {row}) -> ({half}) {{
    %{name}_4 = fixed.dequantize %{name}_0 : {half} to {wide}
    %{name}_5 = fixed.dequantize %{name}_1 : {half} to {wide}
    %{name}_6 = nn.add %{name}_4, %{name}_5 : ({wide}, {wide}) -> {wide}
    %{name}_7 = nn.layer_norm %{name}_6, %{name}_2, %{name}_3 {{eps = 1.0e-12 : f64}}
      : ({wide}, {row}, {row}) -> {wide}
    %{name}_8 = fixed.quantize %{name}_7 : {wide} to {half}
    host.yield %{name}_8 : {half}
  }}
"""


def encoder_layer(sizes: Sizes, batch: int, length: int) -> str:
    """An embedding and one encoder layer with dense attention."""
    width, heads, inner = sizes.width, sizes.heads, sizes.inner
    ids, packing = f"tensor<{batch}x{length}xi64>", f"!attn.packing<{batch}, {length}>"
    half, wide = f"tensor<?x{width}x!fixed.q<16, 10>>", f"tensor<?x{width}xf64>"
    up, table = f"tensor<?x{inner}x!fixed.q<16, 10>>", f"tensor<100x{width}xf32>"
    square = f"tensor<{batch}x{heads}x{length}x{length}x!fixed.q"
    out = f"tensor<{batch}x{length}x{width}xf32>"
    return f"""
func.func @main(%ids: {ids} {{heatc.name = "ids"}}, %mask: {ids} {{heatc.name = "mask"}})
    -> ({out} {{heatc.name = "y"}}) {{
  %p = attn.packing %mask : ({ids}) -> {packing}
  %tokens = attn.pack %ids, %p : ({ids}, {packing}) -> tensor<?xi64>
  %table = einsum.weight ["table"] : {table}
  %x = host.task (%table_1 = %table : {table}, %tokens_1 = %tokens : tensor<?xi64>)
      -> ({half}) {{
    %e = nn.embedding %table_1, %tokens_1 : ({table}, tensor<?xi64>) -> {wide}
    %e_1 = fixed.quantize %e : {wide} to {half}
    host.yield %e_1 : {half}
  }}
  {linear("query", "x", width, width)}
  {linear("key", "x", width, width)}
  {linear("value", "x", width, width)}
  %context = attn.pruned (%q = %query : {half}, %k = %key : {half}, %v = %value : {half},
      %r = %p : {packing}) -> ({half}) attributes {{rule = #attn.rule<"none", {{}}>}} {{
    %scores = attn.scores %q, %k, %r {{heads = {heads} : i64}}
      : ({half}, {half}, {packing}) -> {square}<32, 20>>
    %soft = attn.softmax %scores, %r {{scale = 0.125 : f64}}
      : ({square}<32, 20>>, {packing}) -> {square}<16, 14>>
    %values = attn.weighted_values %soft, %v, %r {{heads = {heads} : i64}}
      : ({square}<16, 14>>, {half}, {packing}) -> {half}
    attn.yield %values : {half}
  }}
  {linear("output", "context", width, width)}
  {residual("norm", "output", "x", width)}
  {linear("up", "norm", width, inner)}
  %gelu = host.task (%gelu_0 = %up : {up}) -> ({up}) {{
    %gelu_1 = fixed.dequantize %gelu_0 : {up} to tensor<?x{inner}xf64>
    %gelu_2 = nn.gelu %gelu_1 {{approximate = "none"}}
      : (tensor<?x{inner}xf64>) -> tensor<?x{inner}xf64>
    %gelu_3 = fixed.quantize %gelu_2 : tensor<?x{inner}xf64> to {up}
    host.yield %gelu_3 : {up}
  }}
  {linear("down", "gelu", inner, width)}
  {residual("last", "down", "norm", width)}
  %y = host.task (%y_0 = %last : {half}, %y_1 = %p : {packing}) -> ({out}) {{
    %y_2 = fixed.dequantize %y_0 : {half} to {wide}
    %y_3 = attn.unpack %y_2, %y_1 : ({wide}, {packing}) -> tensor<{batch}x{length}x{width}xf64>
    %y_4 = nn.cast %y_3 : (tensor<{batch}x{length}x{width}xf64>) -> {out}
    host.yield %y_4 : {out}
  }}
  func.return %y : {out}
}}
"""


def tiled(text: str, hw: str) -> ModuleOp:
    """A module of the fixed level, tiled."""
    context = make_context(hardware=load_hardware(hw))
    module = Parser(context, text).parse_module()
    module.verify()
    PlanTilesPass().apply(context, module)
    TileForHdpPass().apply(context, module)
    module.verify()
    return module


def encoded(module: ModuleOp, hw: Hardware) -> Encoded:
    """A tiled module as a program."""
    module, context = module.clone(), make_context(hardware=hw)
    LowerToHdpPass().apply(context, module)
    AllocateBuffersPass().apply(context, module)
    return encode_module(module)


def empty_memory(program: Encoded) -> Memory:
    """DRAM in which weights are 0, and constants what they are."""
    parts: list[bytes] = []
    for weight in program.weights:
        dtype = np.dtype(NUMPY_DTYPES[weight.dtype])
        zeros = np.zeros(weight.shape, dtype)
        parts.append((zeros if weight.values is None else weight.values.astype(dtype)).tobytes())
    return Memory(np.frombuffer(b"".join(parts), np.uint8), program.dram_bytes)


def weight_bytes(program: Encoded) -> int:
    """Bytes of the weights, which lie first in DRAM."""
    dtypes = {w.key: np.dtype(NUMPY_DTYPES[w.dtype]) for w in program.weights}
    return sum(int(np.prod(w.shape)) * dtypes[w.key].itemsize for w in program.weights)


def machine_run(
    module: ModuleOp, hw: Hardware, lengths: Sequence[int]
) -> tuple[RunResult, EnergyReport]:
    """What the machine counts for a tiled module of these sequences, without arithmetic."""
    program = encoded(module, hw)
    memory = empty_memory(program)
    for port in program.inputs:
        if port.role == "mask":
            real = np.zeros(port.shape, np.int64)
            for row, length in zip(real, lengths):
                row[:length] = 1
            memory.write(port.address, real, "i64")
    result = Machine(hw, memory).run(program.program, values=Shapes(NoMasks()))
    return result, energy_report(result, hw)
