"""Modules at the fixed level as text, written together with what they must compute.

`Net` writes one op after the other and evaluates it at once by docs/design/numerics.md, with NumPy
and the shared units; `run` compiles the text through the three HDP passes and runs the machine.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from xdsl.dialects import get_all_dialects
from xdsl.parser import Parser

from heatc import fixed_point
from heatc.backends.hdp.encode import Encoded, encode_module
from heatc.context import HeatcContext
from heatc.hardware import Hardware, load_hardware, render
from heatc.isa import units
from heatc.machine.machine import Machine, Memory, RunResult
from heatc.passes.allocate_buffers import AllocateBuffersPass
from heatc.passes.lower_to_hdp import LowerToHdpPass
from heatc.passes.plan_tiles import PlanTilesPass
from heatc.passes.tile_for_hdp import TileForHdpPass
from heatc.weights import WeightStore

Array = np.ndarray[Any, Any]

_ISA = {"int64": "i64", "int32": "i32", "int16": "i16", "float32": "f32", "bool": "i8"}
_DIALECTS = ("attn", "einsum", "fixed", "host", "nn", "hdp")


def context(store: WeightStore) -> HeatcContext:
    """A context with all dialects."""
    made = HeatcContext()
    for name, factory in get_all_dialects().items():
        made.register_dialect(name, factory)
    for name in _DIALECTS:
        module = import_module(f"heatc.dialects.{name}")
        made.register_dialect(name, lambda m=module, n=name: getattr(m, n.upper()))
    made.weights = store
    return made


def compile_text(text: str, store: WeightStore, hw: str) -> Encoded:
    """The program of a module at the fixed level."""
    ctx = context(store)
    ctx.hardware = load_hardware(hw)
    module = Parser(ctx, text).parse_module()
    module.verify()
    for pass_ in (PlanTilesPass(), TileForHdpPass(), LowerToHdpPass(), AllocateBuffersPass()):
        pass_.apply(ctx, module)
        module.verify()
    return encode_module(module)


def run(
    encoded: Encoded, store: WeightStore, hw: Hardware, inputs: dict[str, Array]
) -> tuple[dict[str, Array], RunResult]:
    """Outputs of a program by name, and what the run counted."""
    parts = [item.array(store) for item in encoded.weights]
    data = b"".join(np.ascontiguousarray(p).tobytes() for p in parts)
    memory = Memory(np.frombuffer(data, np.uint8), encoded.dram_bytes)
    for port in encoded.inputs:
        values = inputs[port.name].astype(port.dtype)
        assert values.shape == port.shape
        memory.write(port.address, values, _ISA[port.dtype])
    result = Machine(hw, memory).run(encoded.program)
    outputs = {
        p.name: memory.view(p.address, _ISA[p.dtype], 1, int(np.prod(p.shape))).reshape(p.shape)
        for p in encoded.outputs
    }
    return outputs, result


def write_hardware(hw: Hardware, folder: Path) -> str:
    """The path of a YAML file that describes some hardware."""
    path = folder / "machine.yaml"
    path.write_text(render(hw))
    return str(path)


def expect_same(found: RunResult, expected: RunResult) -> None:
    """All counts and times, but for saturations, which need values."""
    for field in fields(RunResult):
        if field.name == "saturations":
            continue
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "busy":
            a, b = ({k: v.tolist() for k, v in busy.items()} for busy in (a, b))
        elif field.name == "work":
            a, b = ((w.counts, w.extra, w.names, w.mnemonics) for w in (a, b))
        assert a == b, field.name


def hardware(name: str) -> Hardware:
    """A preset."""
    return load_hardware(name)


@dataclass(frozen=True)
class Value:
    """An SSA value of codes, its binary point, and the codes of the real tokens."""

    name: str
    point: int
    codes: Array

    @property
    def type(self) -> str:
        """Its type in the text; packed tokens are `?`."""
        return f"tensor<?x{self.codes.shape[1]}x!fixed.q<16, {self.point}>>"

    @property
    def real(self) -> Array:
        """Its float64 values."""
        return np.ldexp(self.codes.astype(np.float64), -self.point)


def _q(shape: object, width: int, point: int) -> str:
    return f"tensor<{shape}x!fixed.q<{width}, {point}>>"


class Net:
    """A batch of `mask.shape` sequences; `x` is the packed input of `width` columns."""

    def __init__(self, mask: Array, width: int, seed: int = 0, spread: int = 9000):
        self.rng = np.random.default_rng(seed)
        self.mask = mask
        self.batch, self.length = mask.shape
        self.lengths = [int(n) for n in (mask != 0).sum(axis=1)]
        self.tokens = sum(self.lengths)
        self.packing = f"!attn.packing<{self.batch}, {self.length}>"
        self.lines = [
            f"%p = attn.packing %mask : (tensor<{self.batch}x{self.length}xi64>) -> {self.packing}"
        ]
        self.weights: dict[str, Array] = {}
        codes = self.rng.integers(-spread, spread, (self.tokens, width))
        self.x = Value("%x", 11, codes)

    def inputs(self) -> dict[str, Array]:
        """What the program is run on."""
        padded = np.zeros((self.batch * self.length, self.x.codes.shape[1]), np.int16)
        padded[: self.tokens] = self.x.codes
        return {"mask": self.mask, "x": padded}

    def text(self, result: Value) -> str:
        """The module that returns a value as `y`."""
        mask = f'tensor<{self.batch}x{self.length}xi64> {{heatc.name = "mask"}}'
        head = f'%mask: {mask}, %x: {self.x.type} {{heatc.name = "x"}}'
        out = f'({result.type} {{heatc.name = "y"}})'
        last = f"func.return {result.name} : {result.type}"
        body = "\n".join(f"  {line}" for line in [*self.lines, last])
        return f"func.func @main({head}) -> {out} {{\n{body}\n}}\n"

    def store(self) -> WeightStore:
        """The weights."""
        return WeightStore(self.weights)

    def _weight(self, name: str, shape: tuple[int, ...], scale: float) -> Array:
        array = self.rng.normal(0, scale, shape).astype(np.float32)
        self.weights[name] = array
        return array

    def linear(self, name: str, x: Value, width: int, point: int, bias: bool = True) -> Value:
        """`x W^T + b`, weights at point 14, biases at 20."""
        depth, pw, pb = x.codes.shape[1], 14, 20
        accumulator = x.point + pw
        w = self._weight(f"{name}.weight", (width, depth), 0.7 / depth**0.5)
        wide, wt = _q(f"?x{width}", 48, accumulator), _q(f"{width}x{depth}", 16, pw)
        self.lines += [
            f'%w_{name} = einsum.weight ["{name}.weight"] : {wt}',
            f'%a_{name} = einsum.contract "ti,oi->to" {x.name}, %w_{name} : '
            f"({x.type}, {wt}) -> {wide}",
        ]
        codes = fixed_point.encode(w.astype(np.float64), pw, 16).codes
        acc = x.codes.astype(np.int64) @ codes.T
        total = f"%a_{name}"
        if bias:
            b = self._weight(f"{name}.bias", (width,), 0.3)
            bt, total = _q(width, 32, pb), f"%t_{name}"
            self.lines += [
                f'%b_{name} = einsum.weight ["{name}.bias"] : {bt}',
                f"%t_{name} = nn.add %a_{name}, %b_{name} : ({wide}, {bt}) -> {wide}",
            ]
            shift = accumulator - pb
            acc = acc + (fixed_point.encode(b.astype(np.float64), pb, 32).codes << shift)
        result = Value(f"%{name}", point, fixed_point.requantize(acc, accumulator, point, 16).codes)
        self.lines.append(f"%{name} = fixed.requantize {total} : {wide} to {result.type}")
        return result

    # -- attention -------------------------------------------------------------------------

    def _shape(self, heads: int, block: tuple[int, int] = (2, 2)) -> tuple[str, str]:
        blocks = "x".join(str(-(-self.length // extent)) for extent in block)
        scores = f"{self.batch}x{heads}x{self.length}x{self.length}"
        return scores, f"{self.batch}x{heads}x{blocks}"

    def dense(self, q: Value, k: Value, v: Value, heads: int, points: tuple[int, int]) -> Value:
        """Attention of rule `none`."""
        scores, _ = self._shape(heads)
        st = _q(scores, 32, points[0])
        self._begin("none", q, k, v, points[1])
        self.lines.append(
            f"%s = attn.scores %own_q, %own_k, %own_p {{heads = {heads} : i64}} : "
            f"({q.type}, {k.type}, {self.packing}) -> {st}"
        )

        def score(a: Array, b: Array) -> tuple[Array, bool]:
            exact = a @ b.T
            return fixed_point.requantize(exact, q.point + k.point, points[0], 32).codes, True

        return self._rest(q, k, v, heads, points, "", score)

    def paper(
        self,
        q: Value,
        k: Value,
        v: Value,
        heads: int,
        points: tuple[int, int],
        *,
        rho: float = 0.0,
        tau: float = 0.0,
        pruned: str = "zero",
        size: tuple[int, int] = (2, 2),
    ) -> Value:
        """Attention of rule `paper` with blocks of some size."""
        scores, blocks = self._shape(heads, size)
        it, a32, st = (
            _q(f"?x{q.codes.shape[1]}", 16, 0),
            _q(scores, 32, 0),
            _q(scores, 32, points[0]),
        )
        theta, mask, h = _q(blocks, 48, 0), f"tensor<{blocks}xi1>", f"heads = {heads} : i64"
        block = f"block = array<i64: {size[0]}, {size[1]}>"
        pack, gate = self.packing, f"tensor<{self.batch}x{heads}xi1>"
        self._begin("paper", q, k, v, points[1])
        self.lines += [
            f"%qi, %qf = attn.split %own_q : ({q.type}) -> ({it}, {q.type})",
            f"%ki, %kf = attn.split %own_k : ({k.type}) -> ({it}, {k.type})",
            f"%a = attn.integer_scores %qi, %ki, %own_p {{{h}}} : ({it}, {it}, {pack}) -> {a32}",
            f'%theta = attn.block_importance %a, %own_p {{{block}, importance = "abs"}} : ({a32}, {pack}) -> {theta}',
            f"%m = attn.block_mask %theta, %own_p {{rho_b = {rho} : f64, {block}}} : "
            f"({theta}, {pack}) -> {mask}",
            f"%s = attn.merge_scores %a, %qi, %qf, %ki, %kf, %m, %own_p "
            f'{{{h}, {block}, pruned = "{pruned}"}} : '
            f"({a32}, {it}, {q.type}, {it}, {k.type}, {mask}, {pack}) -> {st}",
        ]
        if tau > 0:
            self.lines.append(
                f'%g = attn.head_gate %theta, %own_p {{tau_h = {tau} : f64, {block}, importance = "abs"}} : ({theta}, {pack}) -> {gate}'
            )

        def score(a: Array, b: Array) -> tuple[Array, bool]:
            (qi, qf), (ki, kf) = fixed_point.split(a, q.point), fixed_point.split(b, k.point)
            integer = qi @ ki.T
            importance = units.block_importance(integer, size)
            kept = units.expand_mask(units.block_mask(importance, rho), size, integer.shape)
            merged = units.merge_scores(
                integer,
                qf @ ki.T,
                qi @ kf.T,
                kept,
                pruned,
                units.Points(q.point, k.point, points[0]),
            )
            alive = tau <= 0 or bool(units.head_gate(importance.sum(), len(a) ** 2, tau))
            return merged.codes, alive

        return self._rest(q, k, v, heads, points, "%g" if tau > 0 else "", score)

    def _rest(
        self,
        q: Value,
        k: Value,
        v: Value,
        heads: int,
        points: tuple[int, int],
        gate: str,
        score: Any,
    ) -> Value:
        width, (scores, _) = v.codes.shape[1], self._shape(heads)
        dim = width // heads
        scale = dim**-0.5
        codes, start = np.zeros((self.tokens, width), np.int64), 0
        for length in self.lengths:
            rows = slice(start, start + length)
            start += length
            for head in range(heads if length else 0):
                part = (rows, slice(head * dim, (head + 1) * dim))
                s, alive = score(q.codes[part], k.codes[part])
                p = units.softmax_unit(s, points[0], units.SoftmaxScale.of(scale))
                acc = p @ v.codes[part].astype(np.int64)
                o = fixed_point.requantize(acc, 14 + v.point, points[1], 16).codes
                codes[part] = o * alive
        result = Value("%o", points[1], codes)
        st, pt = _q(scores, 32, points[0]), _q(scores, 16, 14)
        kept = f", tensor<{self.batch}x{heads}xi1>" if gate else ""
        gated = ', gated = "zero"' if gate else ""
        self.lines += [
            f"%pr = attn.softmax %s, %own_p {{scale = {scale!r} : f64}} : ({st}, {self.packing}) -> {pt}",
            f"%y = attn.weighted_values %pr, %own_v, %own_p{', ' + gate if gate else ''} "
            f"{{heads = {heads} : i64{gated}}} : ({pt}, {v.type}, {self.packing}{kept}) -> {result.type}",
            f"attn.yield %y : {result.type}",
            "}",
        ]
        return result

    def _begin(self, rule: str, q: Value, k: Value, v: Value, point: int) -> None:
        """The attention whose steps follow, up to its yield."""
        given = zip(("%own_q", "%own_k", "%own_v"), (q, k, v))
        bound = ", ".join(f"{inner} = {value.name} : {value.type}" for inner, value in given)
        self.lines.append(
            f"%o = attn.pruned ({bound}, %own_p = %p : {self.packing}) "
            f"-> ({Value('', point, v.codes).type}) "
            f'attributes {{rule = #attn.rule<"{rule}", {{}}>}} {{'
        )

    # -- host ------------------------------------------------------------------------------

    def norm(self, name: str, x: Value, y: Value, point: int) -> Value:
        """Layer norm of a residual sum: one rounding."""
        width = x.codes.shape[1]
        gamma = self._weight(f"{name}.weight", (width,), 0.5)
        beta = self._weight(f"{name}.bias", (width,), 0.5)
        total = x.real + y.real
        centred = total - total.mean(axis=1, keepdims=True)
        variance = (centred * centred).mean(axis=1, keepdims=True)
        real = centred / np.sqrt(variance + 1e-12) * gamma.astype(np.float64) + beta
        result = Value(f"%{name}", point, fixed_point.encode(real, point, 16).codes)
        vector, real_type = f"tensor<{width}xf32>", f"tensor<?x{width}xf64>"
        self.lines += [
            f'%g_{name} = einsum.weight ["{name}.weight"] : {vector}',
            f'%e_{name} = einsum.weight ["{name}.bias"] : {vector}',
            f"%{name} = host.task (%x0 = {x.name} : {x.type}, %y0 = {y.name} : {y.type}, "
            f"%g0 = %g_{name} : {vector}, %b0 = %e_{name} : {vector}) -> ({result.type}) {{",
            f"  %1 = fixed.dequantize %x0 : {x.type} to {real_type}",
            f"  %2 = fixed.dequantize %y0 : {y.type} to {real_type}",
            f"  %3 = nn.add %1, %2 : ({real_type}, {real_type}) -> {real_type}",
            "  %4 = nn.layer_norm %3, %g0, %b0 {eps = 1.0e-12 : f64} : "
            f"({real_type}, {vector}, {vector}) -> {real_type}",
            f"  %5 = fixed.quantize %4 : {real_type} to {result.type}",
            f"  host.yield %5 : {result.type}",
            "}",
        ]
        return result

    def gelu(self, name: str, x: Value, point: int) -> Value:
        """GELU, exact form."""
        from scipy.special import erf

        real = 0.5 * x.real * (1 + erf(x.real / np.sqrt(2)))
        result = Value(f"%{name}", point, fixed_point.encode(real, point, 16).codes)
        real_type = f"tensor<?x{x.codes.shape[1]}xf64>"
        self.lines += [
            f"%{name} = host.task (%x0 = {x.name} : {x.type}) -> ({result.type}) {{",
            f"  %1 = fixed.dequantize %x0 : {x.type} to {real_type}",
            f'  %2 = nn.gelu %1 {{approximate = "none"}} : ({real_type}) -> {real_type}',
            f"  %3 = fixed.quantize %2 : {real_type} to {result.type}",
            f"  host.yield %3 : {result.type}",
            "}",
        ]
        return result
