"""The proof that a mask is key padding, against brute force over inputs of many values."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import IntegerType, Signedness, TensorType, f32, i1, i32, i64
from xdsl.dialects.func import FuncOp
from xdsl.interpreter import Interpreter
from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.interpreter.nn import NnFunctions
from heatc.interpreter.values import dtype_of
from heatc.intervals import contained
from heatc.passes.analysis.padding import (
    KeyPadding,
    MaskTracker,
    _keeps_order,
    prove_key_padding,
)

BATCH, HEADS, LENGTH = 2, 3, 2
FULL = (BATCH, HEADS, LENGTH, LENGTH)
U8 = IntegerType(8, Signedness.UNSIGNED)
ELEMENTS = (i64, i32, U8, i1, f32)
NUMBERS: dict[Any, tuple[float, ...]] = {
    i64: (-(1 << 40), -101, -100, -2, -1, 0, 1, 2, 3, 4, 99, 1 << 40),
    i32: (-(1 << 31), -100, -2, -1, 0, 1, 2, 3, 5, (1 << 31) - 1),
    U8: (0, 1, 2, 3, 4, 100, 255),
    i1: (0, 1),
    f32: (-1e30, -100.0, -1.0, -0.5, 0.0, 1e-30, 0.25, 0.5, 0.75, 0.9997, 1.0, 1.5, 2.0, 1e30),
}
"""Values that inputs are tried with."""


class Graph:
    """Builds a mask from the input (B, S), one op at a time."""

    def __init__(self, inputs: int = 1, element: object = i64):
        type_ = TensorType(element, (BATCH, LENGTH))  # pyright: ignore
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
        return prove_key_padding(MaskTracker(), mask, FILL, BATCH, HEADS, LENGTH)


FILL = -float("inf")


def all_inputs() -> list[np.ndarray]:
    return [np.array(bits).reshape(BATCH, LENGTH) for bits in product((0, 1), repeat=4)]


def says(graph: Graph, mask: SSAValue, x: np.ndarray, real: np.ndarray) -> bool:
    """Whether the mask of an input attends to key (b, k) where `real` is true, and hides it elsewhere."""
    value = np.broadcast_to(graph.run(mask, (x,)), FULL)
    attends = value if value.dtype == np.bool_ else value == 0
    hides = ~value if value.dtype == np.bool_ else value <= -1e4
    keys = np.broadcast_to(real[:, None, None, :], FULL)
    return bool(attends[keys].all() and hides[~keys].all())


def is_padding(graph: Graph, mask: SSAValue) -> bool:
    """Whether 1 says that a token is real and 0 that it is not, or the other way, for every input."""
    dtype = dtype_of(nn.element_of(graph.inputs[0]))
    inputs = [x.astype(dtype) for x in all_inputs()]
    return any(all(says(graph, mask, x, x == one) for x in inputs) for one in (1, 0))


def holds(graph: Graph, mask: SSAValue, proof: KeyPadding, seed: int = 0) -> bool:
    """Whether the mask means what its proof says, for many inputs of values that it speaks of."""
    element = nn.element_of(graph.inputs[0])
    numbers = np.array(NUMBERS[element]).astype(dtype_of(element))
    real = contained(numbers, proof.real)
    known = np.flatnonzero(real | contained(numbers, proof.masked))
    assert set(real[known]) == {True, False}
    rng = np.random.default_rng(seed)
    for _ in range(40):
        at = rng.choice(known, (BATCH, LENGTH))
        if not says(graph, mask, numbers[at], real[at]):
            return False
    return True


def attends_everywhere(graph: Graph, mask: SSAValue) -> bool:
    element = nn.element_of(graph.inputs[0])
    inputs = [np.full((BATCH, LENGTH), n).astype(dtype_of(element)) for n in NUMBERS[element]]
    values = (np.broadcast_to(graph.run(mask, (x,)), FULL) for x in inputs)
    return all((v if v.dtype == np.bool_ else v == 0).all() for v in values)


def random_mask(graph: Graph, choose: st.DataObject) -> SSAValue:
    """A random chain of the ops that masks are made of, on the input or a constant."""
    x: SSAValue = graph.inputs[0]
    for _ in range(choose.draw(st.integers(1, 7))):
        shape, element = nn.shape_of(x), nn.element_of(x)
        kinds = ["cast_f", "cast_b", "compare", "self_and"]
        if element == f32:
            kinds += ["one_minus", "times", "where"]
        elif element != i1:
            kinds += ["narrow", "wide"]
        if element == i1:
            kinds += ["not", "where"]
        if shape == (BATCH, LENGTH):
            kinds += ["keys", "queries", "swap"]
        kind = choose.draw(st.sampled_from(kinds))
        if kind == "cast_f":
            x = graph.cast(x, f32)
        elif kind == "cast_b":
            x = graph.cast(x, i1)
        elif kind == "narrow":
            x = graph.cast(x, U8)
        elif kind == "wide":
            x = graph.cast(x, i64)
        elif kind == "compare":
            predicate = choose.draw(st.sampled_from(nn.PREDICATES))
            x = graph.compare(x, choose.draw(st.sampled_from([0, 1, 2, 0.5, -100])), predicate)
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
    graph = Graph(element=data.draw(st.sampled_from(ELEMENTS)))
    mask = random_mask(graph, data)
    dtype = dtype_of(nn.element_of(graph.inputs[0]))
    try:
        np.broadcast_to(graph.run(mask, (all_inputs()[0].astype(dtype),)), FULL)
    except ValueError:
        assert graph.prove(mask) is None
        return
    proof = graph.prove(mask)
    if proof is not None and proof.mask is not None:
        assert proof.mask is graph.inputs[0]
        assert holds(graph, mask, proof)
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
    assert holds(graph, mask, proof)


def inverted(graph: Graph) -> SSAValue:
    return graph.add(nn.NotOp(graph.cast(keys(graph), i1)))


def positive(graph: Graph) -> SSAValue:
    return graph.compare(keys(graph), 0, "gt")


def labelled(graph: Graph) -> SSAValue:
    return graph.compare(keys(graph), -100, "ne")


def full_byte(graph: Graph) -> SSAValue:
    return graph.compare(keys(graph), 255, "eq")


def constant_first(graph: Graph) -> SSAValue:
    """2 > x"""
    x = keys(graph)
    constant = graph.full(2, nn.element_of(x))
    return graph.add(nn.CompareOp(constant, x, "gt", TensorType(i1, nn.shape_of(x))))


def in_segment(graph: Graph) -> SSAValue:
    return graph.compare(keys(graph), 1, "eq")


def far_from_five(graph: Graph) -> SSAValue:
    """(x - 5) * (x - 5) * -1e9."""
    x = graph.cast(keys(graph), f32)
    less = graph.add(nn.SubOp(x, graph.full(5.0)))
    return graph.add(nn.MulOp(graph.add(nn.MulOp(less, less)), graph.full(-1e9)))


INFINITE = float("inf")


def beside(number: float, toward: float) -> float:
    return float(np.nextafter(np.float32(number), np.float32(toward)))


LEAST = beside(0, 1)


@pytest.mark.parametrize(
    ("build", "element", "real", "masked"),
    [
        (positive, i64, ((1, INFINITE),), ((-INFINITE, 0),)),
        (positive, U8, ((1, INFINITE),), ((0, 0),)),
        (labelled, i64, ((-INFINITE, -101), (-99, INFINITE)), ((-100, -100),)),
        (
            labelled,
            f32,
            ((-INFINITE, beside(-100, -1e9)), (beside(-100, 0), INFINITE)),
            ((-100, -100),),
        ),
        (full_byte, U8, ((255, 255),), ((0, 254),)),
        (constant_first, i64, ((-INFINITE, 1),), ((2, INFINITE),)),
        (in_segment, i32, ((1, 1),), ((-INFINITE, 0), (2, INFINITE))),
        (inverted, i1, ((0, 0),), ((1, 1),)),
        (inverted, i64, ((0, 0),), ((-INFINITE, -1), (1, INFINITE))),
        # Arithmetic says nothing of what was not tried.
        (hugging_face, i64, ((1, 1),), ((-100, -100), (-1, 0))),
        (hugging_face, f32, ((1, 1),), ((0, 0),)),
        # What is beside a constant is tried.
        (far_from_five, i32, ((5, 5),), ((-100, -100), (-1, 4), (6, 6))),
        (positive, f32, ((LEAST, INFINITE),), ((-INFINITE, 0),)),
    ],
)
def test_which_values_are_proven(build: object, element: object, real: object, masked: object):
    graph = Graph(element=element)
    mask = build(graph)  # pyright: ignore
    proof = graph.prove(mask)
    assert proof is not None
    assert (proof.real, proof.masked) == (real, masked)
    assert holds(graph, mask, proof)


def test_the_greatest_number_of_a_type():
    """No 8-bit integer is greater than 127: nothing would be real."""
    proofs: list[KeyPadding | None] = []
    for predicate in ("eq", "gt"):
        graph = Graph(element=IntegerType(8))
        proofs.append(graph.prove(graph.compare(keys(graph), 127, predicate)))
    greatest, greater = proofs
    assert greatest is not None
    assert (greatest.real, greatest.masked) == (((127, 127),), ((-INFINITE, 126),))
    assert greater is None


def test_a_fill_that_is_too_weak():
    graph = Graph()
    mask = positive(graph)
    tracker = MaskTracker()
    assert prove_key_padding(tracker, mask, -9999.0, BATCH, HEADS, LENGTH) is None
    assert prove_key_padding(tracker, mask, -1e9, BATCH, HEADS, LENGTH) is not None


@pytest.mark.parametrize("element", [i64, i1, f32])
@pytest.mark.parametrize(
    ("bias", "proven"), [(-50, False), (-100, False), (-9999, False), (-1e4, True), (-1e9, True)]
)
def test_a_bias_that_is_too_weak(bias: float, proven: bool, element: object):
    """(1 - mask) * bias: a bias that hides nothing at 0 hides much at -1000, which no mask holds."""
    graph = Graph(element=element)
    x = graph.cast(keys(graph), f32)
    less = graph.add(nn.SubOp(graph.full(1.0), x))
    proof = graph.prove(graph.add(nn.MulOp(less, graph.full(bias))))
    assert (proof is not None) == proven
    assert proof is None or proof.weakest == bias


@pytest.mark.parametrize("fill", [-1e4, -1e9])
def test_the_weakest_of_truth_values_is_the_fill(fill: float):
    graph = Graph()
    proof = prove_key_padding(MaskTracker(), positive(graph), fill, BATCH, HEADS, LENGTH)
    assert proof is not None
    assert proof.weakest == fill


def test_a_value_that_does_neither():
    """where(x == 2, -50, where(x == 0, -1e9, 0)): what 2 does is a bias."""
    graph = Graph()
    x = keys(graph)
    strong = graph.where(graph.compare(x, 0, "eq"), -1e9, 0.0)
    assert graph.prove(strong) is not None
    weak = graph.where(graph.compare(x, 2, "eq"), -50.0, 0.0)
    assert graph.prove(graph.add(nn.AddOp(weak, strong))) is None


def test_a_long_chain_of_ops_is_given_up():
    graph = Graph()
    x = graph.cast(keys(graph), i1)
    for _ in range(5000):
        x = graph.add(nn.AndOp(x, x))
    assert graph.prove(x) is None


def of_queries(graph: Graph) -> SSAValue:
    return graph.cast(graph.add(nn.ReshapeOp(graph.inputs[0], (BATCH, 1, LENGTH, 1))), i1)


def both_ways(graph: Graph) -> SSAValue:
    return graph.add(nn.AndOp(of_queries(graph), graph.cast(keys(graph), i1)))


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


INTEGERS = [
    *(IntegerType(bits) for bits in (1, 8, 16, 32, 64)),
    *(IntegerType(bits, Signedness.UNSIGNED) for bits in (8, 16)),
]


def numbers(type_: IntegerType) -> tuple[int, int]:
    """The least and the greatest number of a type."""
    if type_ == i1:
        return 0, 1
    if type_.signedness.data == Signedness.UNSIGNED:
        return 0, (1 << type_.width.data) - 1
    return -(1 << (type_.width.data - 1)), (1 << (type_.width.data - 1)) - 1


@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("source", INTEGERS)
def test_a_cast_keeps_the_order_of_what_fits(source: IntegerType, target: IntegerType):
    graph = Graph(element=source)
    op = nn.CastOp(graph.inputs[0], TensorType(target, (BATCH, LENGTH)))
    (low, high), (least, most) = numbers(source), numbers(target)
    fits = source == target if target == i1 else least <= low and high <= most
    assert _keeps_order(op) == fits
