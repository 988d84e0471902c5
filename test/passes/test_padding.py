"""The proof that a mask is key padding, against brute force over all 0/1 inputs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import TensorType, f32, i1, i64
from xdsl.dialects.func import FuncOp
from xdsl.interpreter import Interpreter
from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.interpreter.nn import NnFunctions
from heatc.passes.analysis.padding import KeyPadding, MaskTracker, prove_key_padding

BATCH, HEADS, LENGTH = 2, 3, 2
FULL = (BATCH, HEADS, LENGTH, LENGTH)


class Graph:
    """Builds a mask from the input (B, S), one op at a time."""

    def __init__(self, inputs: int = 1):
        type_ = TensorType(i64, (BATCH, LENGTH))
        self.function = FuncOp("main", ((type_,) * inputs, ()))
        self.inputs = list(self.function.body.block.args)
        self.interpreter = Interpreter(None)  # pyright: ignore
        self.interpreter.register_implementations(NnFunctions())

    def add(self, op: Operation) -> SSAValue:
        self.function.body.block.add_op(op)
        return op.results[0]

    def full(self, value: float, element: object = f32) -> SSAValue:
        return self.add(nn.FullOp(value, TensorType(element, ())))  # pyright: ignore

    def compare(self, x: SSAValue, value: float, predicate: str) -> SSAValue:
        constant = self.full(value, nn.element_of(x))
        return self.add(nn.CompareOp(x, constant, predicate, TensorType(i1, nn.shape_of(x))))

    def cast(self, x: SSAValue, element: object) -> SSAValue:
        return self.add(nn.CastOp(x, TensorType(element, nn.shape_of(x))))  # pyright: ignore

    def where(self, c: SSAValue, a: float, b: float) -> SSAValue:
        type_ = TensorType(f32, nn.shape_of(c))
        return self.add(nn.WhereOp(c, self.full(a), self.full(b), type_))

    def run(self, mask: SSAValue, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        values: dict[SSAValue, np.ndarray] = dict(zip(self.inputs, inputs))
        for op in self.function.body.block.ops:
            args = tuple(values[v] for v in op.operands)
            values[op.results[0]] = self.interpreter.run_op(op, args)[0]
        return values[mask]

    def prove(self, mask: SSAValue) -> KeyPadding | None:
        return prove_key_padding(MaskTracker(), mask, BATCH, HEADS, LENGTH)


def all_inputs() -> list[np.ndarray]:
    return [np.array(bits).reshape(BATCH, LENGTH) for bits in product((0, 1), repeat=4)]


def is_padding(graph: Graph, mask: SSAValue) -> bool:
    """Whether the mask attends to key (b, k) exactly where the input is 1, for every input."""
    for x in all_inputs():
        value = np.broadcast_to(graph.run(mask, (x,)), FULL)
        attends = value if value.dtype == np.bool_ else value == 0
        blocks = ~value if value.dtype == np.bool_ else value <= -1e4
        real = np.broadcast_to((x != 0)[:, None, None, :], FULL)
        if not (attends[real].all() and blocks[~real].all()):
            return False
    return True


def attends_everywhere(graph: Graph, mask: SSAValue) -> bool:
    values = (np.broadcast_to(graph.run(mask, (x,)), FULL) for x in all_inputs())
    return all((v if v.dtype == np.bool_ else v == 0).all() for v in values)


def random_mask(graph: Graph, choose: st.DataObject) -> SSAValue:
    """A random chain of the ops that masks are made of, on the input or a constant."""
    x: SSAValue = graph.inputs[0]
    for _ in range(choose.draw(st.integers(1, 7))):
        shape, element = nn.shape_of(x), nn.element_of(x)
        kinds = ["cast_f", "cast_b", "eq0", "ne0", "self_and"]
        if element == f32:
            kinds += ["one_minus", "times", "where"]
        if element == i1:
            kinds += ["not", "where"]
        if shape == (BATCH, LENGTH):
            kinds += ["keys", "queries", "swap"]
        kind = choose.draw(st.sampled_from(kinds))
        if kind == "cast_f":
            x = graph.cast(x, f32)
        elif kind == "cast_b":
            x = graph.cast(x, i1)
        elif kind in ("eq0", "ne0"):
            x = graph.compare(x, 0, kind[:2])
        elif kind == "self_and" and element != f32:
            x = graph.add(nn.AndOp(x, x))
        elif kind == "one_minus":
            x = graph.add(nn.SubOp(graph.full(1.0), x))
        elif kind == "times":
            x = graph.add(
                nn.MulOp(x, graph.full(choose.draw(st.sampled_from([-1e4, -100.0, 2.0]))))
            )
        elif kind == "where" and element == i1:
            low = choose.draw(st.sampled_from([-1e9, -float("inf"), -5.0]))
            pair = choose.draw(st.sampled_from([(0.0, low), (low, 0.0)]))
            x = graph.where(x, *pair)
        elif kind == "not":
            x = graph.add(nn.NotOp(x))
        elif kind == "keys":
            x = graph.add(nn.ReshapeOp(x, (BATCH, 1, 1, LENGTH)))
        elif kind == "queries":
            x = graph.add(nn.ReshapeOp(x, (BATCH, 1, LENGTH, 1)))
        elif kind == "swap":
            x = graph.add(nn.TransposeOp(x, (1, 0)))
    return x


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.data())
def test_a_proof_is_never_wrong(data: st.DataObject):
    graph = Graph()
    mask = random_mask(graph, data)
    try:
        np.broadcast_to(graph.run(mask, (all_inputs()[0],)), FULL)
    except ValueError:
        assert graph.prove(mask) is None
        return
    proof = graph.prove(mask)
    if proof is not None and proof.mask is not None:
        assert proof.mask is graph.inputs[0]
        assert is_padding(graph, mask)
    elif proof is not None:
        assert attends_everywhere(graph, mask)
    else:
        # The chains are simple enough that nothing provable is missed.
        assert not is_padding(graph, mask)


def keys(graph: Graph, x: SSAValue | None = None) -> SSAValue:
    return graph.add(nn.ReshapeOp(graph.inputs[0] if x is None else x, (BATCH, 1, 1, LENGTH)))


def hugging_face(graph: Graph) -> SSAValue:
    """(1 - mask) * lowest, what eager BERT adds."""
    x = graph.cast(keys(graph), f32)
    return graph.add(
        nn.MulOp(
            graph.add(nn.SubOp(graph.full(1.0), x)), graph.full(float(np.finfo(np.float32).min))
        )
    )


def indexed(graph: Graph) -> SSAValue:
    """mask[b, k] by index tensors, as newer versions of transformers build it."""
    b = graph.add(nn.IotaOp(0, 1, TensorType(i64, (BATCH,))))
    k = graph.add(nn.IotaOp(0, 1, TensorType(i64, (LENGTH,))))
    b = graph.add(nn.ReshapeOp(b, (BATCH, 1, 1, 1)))
    x = graph.cast(graph.inputs[0], i1)
    return graph.add(nn.IndexOp(x, (b, k), TensorType(i1, (BATCH, 1, 1, LENGTH))))


def per_head(graph: Graph) -> SSAValue:
    x = graph.cast(keys(graph), i1)
    return graph.add(nn.ExpandOp(x, FULL))


def with_ones(graph: Graph) -> SSAValue:
    ones = graph.add(nn.FullOp(1.0, TensorType(i1, (LENGTH, LENGTH))))
    return graph.add(nn.AndOp(graph.cast(keys(graph), i1), ones))


@pytest.mark.parametrize("build", [hugging_face, indexed, per_head, with_ones])
def test_proven(build: object):
    graph = Graph()
    mask = build(graph)  # pyright: ignore
    assert is_padding(graph, mask)
    proof = graph.prove(mask)
    assert proof is not None
    assert proof.mask is graph.inputs[0]


def of_queries(graph: Graph) -> SSAValue:
    return graph.cast(graph.add(nn.ReshapeOp(graph.inputs[0], (BATCH, 1, LENGTH, 1))), i1)


def both_ways(graph: Graph) -> SSAValue:
    return graph.add(nn.AndOp(of_queries(graph), graph.cast(keys(graph), i1)))


def inverted(graph: Graph) -> SSAValue:
    return graph.add(nn.NotOp(graph.cast(keys(graph), i1)))


def too_weak(graph: Graph) -> SSAValue:
    return graph.where(graph.cast(keys(graph), i1), 0.0, -9999.0)


def lifted(graph: Graph) -> SSAValue:
    return graph.where(graph.cast(keys(graph), i1), 1.0, -1e9)


def other_sequence(graph: Graph) -> SSAValue:
    b = graph.add(nn.IotaOp(1, -1, TensorType(i64, (BATCH,))))
    k = graph.add(nn.IotaOp(0, 1, TensorType(i64, (LENGTH,))))
    b = graph.add(nn.ReshapeOp(b, (BATCH, 1, 1, 1)))
    x = graph.cast(graph.inputs[0], i1)
    return graph.add(nn.IndexOp(x, (b, k), TensorType(i1, (BATCH, 1, 1, LENGTH))))


def shifted_by_one(graph: Graph) -> SSAValue:
    k = graph.add(nn.IotaOp(1, -1, TensorType(i64, (LENGTH,))))
    b = graph.add(
        nn.ReshapeOp(graph.add(nn.IotaOp(0, 1, TensorType(i64, (BATCH,)))), (BATCH, 1, 1, 1))
    )
    x = graph.cast(graph.inputs[0], i1)
    return graph.add(nn.IndexOp(x, (b, k), TensorType(i1, (BATCH, 1, 1, LENGTH))))


def causal_too(graph: Graph) -> SSAValue:
    i = graph.add(nn.IotaOp(0, 1, TensorType(i64, (LENGTH,))))
    rows = graph.add(nn.ReshapeOp(i, (LENGTH, 1)))
    causal = graph.add(nn.CompareOp(rows, i, "ge", TensorType(i1, (LENGTH, LENGTH))))
    return graph.add(nn.AndOp(causal, graph.cast(keys(graph), i1)))


def indexed_by_the_input(graph: Graph) -> SSAValue:
    k = graph.add(nn.IotaOp(0, 1, TensorType(i64, (LENGTH,))))
    x = graph.cast(graph.inputs[0], i1)
    i = graph.add(nn.ReshapeOp(graph.inputs[0], (BATCH, 1, 1, LENGTH)))
    return graph.add(nn.IndexOp(x, (i, k), TensorType(i1, (BATCH, 1, 1, LENGTH))))


def cumulative(graph: Graph) -> SSAValue:
    """An op the tracker does not know."""
    x = graph.cast(keys(graph), f32)
    return graph.add(nn.TanhOp(x))


@pytest.mark.parametrize(
    "build",
    [
        of_queries,
        both_ways,
        inverted,
        too_weak,
        lifted,
        other_sequence,
        shifted_by_one,
        causal_too,
        indexed_by_the_input,
        cumulative,
    ],
)
def test_near_misses(build: object):
    graph = Graph()
    mask = build(graph)  # pyright: ignore
    assert not is_padding(graph, mask)
    assert graph.prove(mask) is None


def test_two_inputs():
    graph = Graph(2)
    both = graph.add(nn.AndOp(graph.inputs[0], graph.inputs[1]))
    assert graph.prove(keys(graph, both)) is None


def test_no_mask():
    graph = Graph()
    assert graph.prove(graph.full(0.0)) == KeyPadding(None)
    assert graph.prove(graph.full(-1e9)) is None
