"""What no unit has, on the host of the machine: every op computes what the interpreter says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from xdsl.parser import Parser
from xdsl.utils.exceptions import PassFailedException

from heatc.api import make_context
from heatc.backends.hdp.container import open_program
from heatc.backends.hdp.emit import write_module
from heatc.backends.hdp.simulation import simulate
from heatc.errors import HeatcError
from heatc.hardware import load_hardware
from heatc.interpreter import execute
from heatc.pipeline import build, run_passes
from heatc.weights import WeightStore

Arrays = dict[str, NDArray[Any]]
DOWN = (
    "fold-weights,partition-host,assign-fixed-point{ranges},plan-tiles,tile-for-hdp,lower-to-hdp,"
    "allocate-buffers"
)
RNG = np.random.default_rng(0)
WEIGHTS = {
    "w": RNG.standard_normal((4, 6)).astype(np.float32),
    "row": RNG.standard_normal(6).astype(np.float32),
    "table": RNG.standard_normal((7, 6)).astype(np.float32),
}
X = RNG.standard_normal((2, 3, 6)).astype(np.float32)
Y = RNG.standard_normal((2, 3, 6)).astype(np.float32)
IDS = RNG.integers(0, 5, (2, 3))
INPUTS: Arrays = {"x": X, "y": Y, "i": IDS}


def module_of(body: str, outputs: str) -> str:
    """A function of two float inputs and one of integers, 2 x 3 x 6 and 2 x 3."""
    return (
        'func.func @main(%x: tensor<2x3x6xf32> {heatc.name = "x"}, '
        '%y: tensor<2x3x6xf32> {heatc.name = "y"}, %i: tensor<2x3xi64> {heatc.name = "i"}) -> '
        f"({outputs}) {{\n{body}\n}}"
    )


def on_machine(text: str, folder: Path, ranges: str = "") -> Any:
    """A program of a module's text, as a function of inputs."""
    context = make_context()
    context.weights, context.hardware = WeightStore(dict(WEIGHTS)), load_hardware("hdp-edge")
    context.remarks = lambda remark: None
    module = Parser(context, text).parse_module()
    run_passes(context, module, build(DOWN.replace("{ranges}", ranges)))
    path = folder / "p.hdp"
    with path.open("wb") as stream:
        write_module(stream, module, context.weights, context.hardware)
    return lambda inputs: dict(simulate(open_program(path), inputs).outputs)


def expected(text: str, inputs: Arrays) -> Arrays:
    """What the interpreter computes of a module's text."""
    context = make_context()
    module = Parser(context, text).parse_module()
    return execute(module, inputs, WeightStore(dict(WEIGHTS)))


def compare(text: str, folder: Path, inputs: Arrays = INPUTS, atol: float = 1e-5) -> None:
    """The machine's outputs are the interpreter's."""
    found, wanted = on_machine(text, folder)(inputs), expected(text, inputs)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        np.testing.assert_allclose(found[name], value, atol=atol, err_msg=name)


T = "tensor<2x3x6xf32>"
BINARIES = ("add", "sub", "mul", "div", "maximum", "minimum", "remainder", "floor_div")


def sliced(shape: tuple[int, ...]) -> tuple[str, str]:
    """An op that takes the first elements of %y, and its type."""
    type_ = f"tensor<{'x'.join(map(str, shape))}xf32>"
    return (
        "%b = nn.slice %y {starts = array<i64: 0, 0, 0>, steps = array<i64: 1, 1, 1>} : "
        f"({T}) -> {type_}",
        type_,
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "shape", [(2, 3, 6), (1, 1, 6), (2, 3, 1), (1, 1, 1), (2, 1, 6), (1, 3, 1), (1, 3, 6)]
)
@pytest.mark.parametrize("op", BINARIES)
def test_operands_of_every_shape(op: str, shape: tuple[int, ...], reverse: bool, tmp_path: Path):
    """Sides of one row, one column, one element, and those that repeat in between."""
    cut, type_ = sliced(shape)
    pair, types = ("%b, %x", f"{type_}, {T}") if reverse else ("%x, %b", f"{T}, {type_}")
    body = f"{cut}\n%r = nn.{op} {pair} : ({types}) -> {T}\nfunc.return %r : {T}"
    compare(module_of(body, T), tmp_path, atol=1e-4)


def test_both_sides_repeat(tmp_path: Path):
    """A column times a row, neither of which is the result."""
    body = f"""
    %a = nn.slice %x {{starts = array<i64: 0, 0, 0>, steps = array<i64: 1, 1, 1>}} : ({T}) -> tensor<2x3x1xf32>
    %b = nn.slice %y {{starts = array<i64: 0, 0, 0>, steps = array<i64: 1, 1, 1>}} : ({T}) -> tensor<2x1x6xf32>
    %r = nn.mul %a, %b : (tensor<2x3x1xf32>, tensor<2x1x6xf32>) -> {T}
    func.return %r : {T}"""
    compare(module_of(body, T), tmp_path)


@pytest.mark.parametrize(
    "function",
    ["exp", "sigmoid", "silu", "erf", "abs", "neg", "cos", "sin", "floor", "sign", "round"],
)
def test_functions(function: str, tmp_path: Path):
    """Each alone."""
    body = f'%r = nn.map %x {{function = "{function}"}} : ({T}) -> {T}\nfunc.return %r : {T}'
    compare(module_of(body, T), tmp_path)


@pytest.mark.parametrize("approximate", ["none", "tanh", "quick"])
def test_gelu(approximate: str, tmp_path: Path):
    """All forms."""
    body = f'%r = nn.gelu %x {{approximate = "{approximate}"}} : ({T}) -> {T}\nfunc.return %r : {T}'
    compare(module_of(body, T), tmp_path)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ((2,), "2x3"),
        ((1,), "2x6"),
        ((0,), "3x6"),
        ((0, 2), "3"),
        ((1, 2), "2"),
        ((0, 1), "6"),
        ((0, 1, 2), ""),
    ],
)
@pytest.mark.parametrize("kind", ["sum", "mean", "max", "min", "prod"])
def test_reductions(kind: str, axes: tuple[int, ...], shape: str, tmp_path: Path):
    """Over every axis, and over several that lie apart."""
    type_ = f"tensor<{shape + 'x' if shape else ''}f32>"
    listed = ", ".join(map(str, axes))
    body = (
        f'%r = nn.reduce %x {{kind = "{kind}", axes = array<i64: {listed}>}} : ({T}) -> {type_}\n'
        f"func.return %r : {type_}"
    )
    compare(module_of(body, type_), tmp_path)


MOVES = {
    "transpose": ("nn.transpose %x {permutation = array<i64: 2, 0, 1>}", "6x2x3"),
    "swap of the last": ("nn.transpose %x {permutation = array<i64: 0, 2, 1>}", "2x6x3"),
    "expand": ("nn.expand %x", "2x2x3x6"),
    "slice": ("nn.slice %x {starts = array<i64: 1, 0, 1>, steps = array<i64: 1, 2, 2>}", "1x2x3"),
    "reshape": ("nn.reshape %x", "9x4"),
}


@pytest.mark.parametrize("move", MOVES)
def test_moves(move: str, tmp_path: Path):
    """One move of what lies in memory, and of what is computed."""
    text, shape = MOVES[move]
    type_ = f"tensor<{shape}xf32>"
    computed = text.replace("%x", "%z")
    body = f"""%a = {text} : ({T}) -> {type_}
    %z = nn.add %x, %y : ({T}, {T}) -> {T}
    %b = {computed} : ({T}) -> {type_}
    %c = nn.add %z, %y : ({T}, {T}) -> {T}
    %r = nn.tanh %a : ({type_}) -> {type_}
    func.return %r, %b, %c : {type_}, {type_}, {T}"""
    compare(module_of(body, f"{type_}, {type_}, {T}"), tmp_path)


def test_windows_of_one_value_are_one_gather(tmp_path: Path):
    """Slices of what is computed, joined: more of them than there are registers."""
    parts = [(i % 2, i % 3) for i in range(12)]
    lines = [f"%z = nn.tanh %x : ({T}) -> {T}"]
    for n, (a, b) in enumerate(parts):
        lines.append(
            f"%s{n} = nn.slice %z {{starts = array<i64: {a}, {b}, 0>, steps = array<i64: 1, 1, 1>}} : "
            f"({T}) -> tensor<1x1x6xf32>"
        )
    names = ", ".join(f"%s{n}" for n in range(12))
    types = ", ".join(["tensor<1x1x6xf32>"] * 12)
    lines.append(f"%r = nn.concat {names} {{dim = 1 : i64}} : ({types}) -> tensor<1x12x6xf32>")
    lines.append("func.return %r : tensor<1x12x6xf32>")
    compare(module_of("\n".join(lines), "tensor<1x12x6xf32>"), tmp_path)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_concat_of_two_values(dim: int, tmp_path: Path):
    """Along every axis."""
    shape = [2, 3, 6]
    shape[dim] *= 2
    type_ = f"tensor<{'x'.join(map(str, shape))}xf32>"
    body = f"""%a = nn.tanh %x : ({T}) -> {T}
    %r = nn.concat %a, %y {{dim = {dim} : i64}} : ({T}, {T}) -> {type_}
    func.return %r : {type_}"""
    compare(module_of(body, type_), tmp_path)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_softmax_and_running_sums(dim: int, tmp_path: Path):
    """Along every axis."""
    body = f"""%a = nn.softmax %x {{dim = {dim} : i64}} : ({T}) -> {T}
    %b = nn.cumsum %y {{axis = {dim} : i64}} : ({T}) -> {T}
    func.return %a, %b : {T}, {T}"""
    compare(module_of(body, f"{T}, {T}"), tmp_path)


@pytest.mark.parametrize(
    ("equation", "shape"),
    [
        ("abc,adc->abd", "2x3x3"),
        ("abc,adc->adb", "2x3x3"),
        ("abc,dec->adbe", "2x2x3x3"),
        ("abc,adc->db", "3x3"),
        ("abc,dec->ac", "2x6"),
        ("abc,abd->cd", "6x6"),
    ],
)
def test_products_of_activations(equation: str, shape: str, tmp_path: Path):
    """Batches, and results in another order."""
    type_ = f"tensor<{shape}xf32>"
    body = f"""%a = nn.tanh %x : ({T}) -> {T}
    %r = einsum.contract "{equation}" %a, %y : ({T}, {T}) -> {type_}
    func.return %r : {type_}"""
    compare(module_of(body, type_), tmp_path)


def test_norms(tmp_path: Path):
    """By weights, and by numbers, which become weights."""
    body = f"""%g = einsum.weight ["row"] : tensor<6xf32>
    %o = nn.full {{value = 1.0 : f64}} : tensor<6xf32>
    %z = nn.full {{value = 0.0 : f64}} : tensor<6xf32>
    %a = nn.rms_norm %x, %g {{eps = 1.0e-6 : f64}} : ({T}, tensor<6xf32>) -> {T}
    %b = nn.layer_norm %a, %o, %z {{eps = 1.0e-6 : f64}} : ({T}, tensor<6xf32>, tensor<6xf32>) -> {T}
    func.return %a, %b : {T}, {T}"""
    compare(module_of(body, f"{T}, {T}"), tmp_path)


LOOKED_UP = """%n = nn.full {value = 1.0 : f64} : tensor<i64>
    %t = einsum.weight ["table"] : tensor<7x6xf32>
    %c = nn.cumsum %i {axis = 1 : i64} : (tensor<2x3xi64>) -> tensor<2x3xi64>
    %m = nn.sub %c, %n : (tensor<2x3xi64>, tensor<i64>) -> tensor<2x3xi64>
    %e = nn.embedding %t, %m : (tensor<7x6xf32>, tensor<2x3xi64>) -> tensor<2x3x6xf32>
    func.return %e : tensor<2x3x6xf32>"""


def test_tables_by_computed_integers(tmp_path: Path):
    """Rows by sums of ids; one that the table has not stops the program, -1 and -2 too."""
    text = module_of(LOOKED_UP, T)
    run = on_machine(text, tmp_path)
    good = {**INPUTS, "i": np.array([[1, 2, 3], [3, 0, 4]])}
    np.testing.assert_array_equal(run(good)["output_0"], expected(text, good)["output_0"])
    for wrong in ([[1, 2, 3], [0, 1, 1]], [[1, 2, 3], [-1, 3, 1]], [[1, 2, 3], [5, 2, 1]]):
        with pytest.raises(HeatcError, match="is outside of 7 rows"):
            run({**INPUTS, "i": np.array(wrong)})


def test_rows_by_argmax(tmp_path: Path):
    """`x[arange, ids.argmax(1)]`, and a negative index."""
    body = """%r = nn.iota {start = 0 : i64, step = 1 : i64} : tensor<2xi64>
    %k = nn.argmax %i {axis = 1 : i64} : (tensor<2x3xi64>) -> tensor<2xi64>
    %a = nn.index %x, %r, %k : (tensor<2x3x6xf32>, tensor<2xi64>, tensor<2xi64>) -> tensor<2x6xf32>
    %m = nn.full {value = -3.0 : f64} : tensor<i64>
    %n = nn.add %k, %m : (tensor<2xi64>, tensor<i64>) -> tensor<2xi64>
    %b = nn.index %y, %r, %n : (tensor<2x3x6xf32>, tensor<2xi64>, tensor<2xi64>) -> tensor<2x6xf32>
    func.return %a, %b : tensor<2x6xf32>, tensor<2x6xf32>"""
    compare(module_of(body, "tensor<2x6xf32>, tensor<2x6xf32>"), tmp_path)


def test_outputs_of_integers_and_truth_values(tmp_path: Path):
    body = """  %z = nn.full {value = 0.0 : f64} : tensor<f32>
  %a = nn.argmax %x {axis = 2 : i64} : (tensor<2x3x6xf32>) -> tensor<2x3xi64>
  %n = nn.cast %a : (tensor<2x3xi64>) -> tensor<2x3xi16>
  %t = nn.compare %x, %z {predicate = "gt"} : (tensor<2x3x6xf32>, tensor<f32>) -> tensor<2x3x6xi1>
  func.return %a, %n, %t, %i2 : tensor<2x3xi64>, tensor<2x3xi16>, tensor<2x3x6xi1>, tensor<2x3xi64>"""
    body = "  %i2 = nn.add %i, %i : (tensor<2x3xi64>, tensor<2x3xi64>) -> tensor<2x3xi64>\n" + body
    text = module_of(body, "tensor<2x3xi64>, tensor<2x3xi16>, tensor<2x3x6xi1>, tensor<2x3xi64>")
    inputs = {**INPUTS, "i": IDS + (1 << 40)}
    want = [X.argmax(2), X.argmax(2).astype(np.int16), X > 0, 2 * inputs["i"]]
    found = list(on_machine(text, tmp_path)(inputs).values())
    assert [a.dtype for a in found] == [a.dtype for a in want]
    for a, b in zip(found, want):
        np.testing.assert_array_equal(a, b)


def test_truth_values_of_packed_tokens_come_back(tmp_path: Path):
    """Several columns a token, which memory holds in one."""
    body = """  %z = nn.full {value = 0.0 : f64} : tensor<f32>
  %p = attn.packing %i : (tensor<2x3xi64>) -> !attn.packing<2, 3>
  %r = attn.pack %x, %p : (tensor<2x3x6xf32>, !attn.packing<2, 3>) -> tensor<?x6xf32>
  %t = nn.compare %r, %z {predicate = "gt"} : (tensor<?x6xf32>, tensor<f32>) -> tensor<?x6xi1>
  %u = attn.unpack %t, %p : (tensor<?x6xi1>, !attn.packing<2, 3>) -> tensor<2x3x6xi1>
  func.return %u : tensor<2x3x6xi1>"""
    real = np.array([[0, 1, 1], [1, 0, 1]])
    run = on_machine(module_of(body, "tensor<2x3x6xi1>"), tmp_path)
    (found,) = run({**INPUTS, "i": real}).values()
    np.testing.assert_array_equal(found, (X > 0) & (real > 0)[..., None])


def test_choices_and_truth(tmp_path: Path):
    """Comparisons, logic, casts and `where`."""
    body = f"""%z = nn.full {{value = 2.0 : f64}} : tensor<i64>
    %f = nn.full {{value = 0.5 : f64}} : tensor<f32>
    %a = nn.compare %i, %z {{predicate = "ge"}} : (tensor<2x3xi64>, tensor<i64>) -> tensor<2x3xi1>
    %b = nn.compare %i, %z {{predicate = "ne"}} : (tensor<2x3xi64>, tensor<i64>) -> tensor<2x3xi1>
    %c = nn.and %a, %b : (tensor<2x3xi1>, tensor<2x3xi1>) -> tensor<2x3xi1>
    %d = nn.not %c : (tensor<2x3xi1>) -> tensor<2x3xi1>
    %e = nn.reshape %d : (tensor<2x3xi1>) -> tensor<2x3x1xi1>
    %r = nn.where %e, %x, %f : (tensor<2x3x1xi1>, {T}, tensor<f32>) -> {T}
    %g = nn.cast %e : (tensor<2x3x1xi1>) -> tensor<2x3x1xf32>
    %s = nn.mul %y, %g : ({T}, tensor<2x3x1xf32>) -> {T}
    func.return %r, %s : {T}, {T}"""
    compare(module_of(body, f"{T}, {T}"), tmp_path)


def test_a_product_of_a_float_input(tmp_path: Path):
    """The host rounds what nobody computed; a value outside of the range is refused."""
    body = f"""%w = einsum.weight ["w"] : tensor<4x6xf32>
    %r = einsum.contract "tpa,oa->tpo" %x, %w : ({T}, tensor<4x6xf32>) -> tensor<2x3x4xf32>
    func.return %r : tensor<2x3x4xf32>"""
    text = module_of(body, "tensor<2x3x4xf32>")
    compare(text, tmp_path, atol=2e-2)
    run = on_machine(text, tmp_path, '{input-range="x=3"}')
    np.testing.assert_allclose(
        run(INPUTS)["output_0"], expected(text, INPUTS)["output_0"], atol=4e-3
    )
    far = X.copy()
    far[1, 2, 5] = 4.0
    with pytest.raises(HeatcError, match=r"4 at \[1, 2, 5\] is outside -3 to 3") as caught:
        run({**INPUTS, "x": far})
    assert "--input-range x=" in caught.value.notes[0]


def test_ranges_of_what_is_no_input(tmp_path: Path):
    """A declared name has to be an input's."""
    body = f"%r = nn.tanh %x : ({T}) -> {T}\nfunc.return %r : {T}"
    with pytest.raises(PassFailedException, match="declared for 'z', which is no input"):
        on_machine(module_of(body, T), tmp_path, '{input-range="z=3"}')
    with pytest.raises(ValueError, match="no range of an input"):
        build('assign-fixed-point{input-range="x=3:1"}')


def test_a_residual_stream_has_32_bits(tmp_path: Path):
    """Large sums that only the host reads keep what 16 bits of their bound would lose."""
    body = f"""%w = einsum.weight ["w"] : tensor<4x6xf32>
    %g = einsum.weight ["row"] : tensor<6xf32>
    %k = nn.full {{value = 100.0 : f64}} : tensor<f32>
    %a = nn.mul %x, %k : ({T}, tensor<f32>) -> {T}
    %n = nn.rms_norm %a, %g {{eps = 1.0e-6 : f64}} : ({T}, tensor<6xf32>) -> {T}
    %l = einsum.contract "tpa,oa->tpo" %n, %w : ({T}, tensor<4x6xf32>) -> tensor<2x3x4xf32>
    %s = nn.slice %a {{starts = array<i64: 0, 0, 0>, steps = array<i64: 1, 1, 1>}} : ({T}) -> tensor<2x3x4xf32>
    %r = nn.add %s, %l : (tensor<2x3x4xf32>, tensor<2x3x4xf32>) -> tensor<2x3x4xf32>
    func.return %r : tensor<2x3x4xf32>"""
    compare(module_of(body, "tensor<2x3x4xf32>"), tmp_path, atol=2e-2)
