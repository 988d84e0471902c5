"""
A layer alone, lowered along a path and timed.

The layer is made of nothing but its network: packed tokens, factors, a path, a bias. It goes the
way that every layer goes: `lower-contractions`, `fuse-einsums` where wanted, `shape-products`,
`tile-for-hdp`. Between these passes each value that depends on weights alone becomes a weight, and
all values become codes of 16 bits. Their binary point is arbitrary, since no cycle depends on it.
`hpack` is timed alone, so that its time can be subtracted.
"""

from __future__ import annotations

from functools import lru_cache

from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    ModuleOp,
    StringAttr,
    TensorType,
    f32,
    f64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import Rewriter

from heatc.context import HeatcContext
from heatc.dialects.attn import PackingOp, PrunedOp, RuleAttr, ScoresOp, SoftmaxOp, WeightedValuesOp
from heatc.dialects.einsum import ContractOp, PathAttr, WeightOp
from heatc.dialects.fixed import DequantizeOp, QType, QuantizeOp, RequantizeOp
from heatc.dialects.host import TaskOp, YieldOp
from heatc.dialects.nn import TOKENS, AddOp, ReshapeOp, TransposeOp, element_of, shape_of
from heatc.hardware import Hardware
from heatc.isa.table import ACC_BITS
from heatc.passes.analysis.normal_form import bias_of
from heatc.passes.analysis.paths import Network, Path
from heatc.passes.fuse_einsums import FuseEinsumsPass
from heatc.passes.lower_contractions import LowerContractionsPass
from heatc.passes.plan_tiles import PlanTilesPass
from heatc.passes.rewriting import erase_dead, insert_before
from heatc.passes.shape_products import ShapeProductsPass
from heatc.passes.tile_for_hdp import TileForHdpPass
from heatc.passes.tiling.timing import Timed, time_module
from heatc.remarks import drop_remark
from heatc.rules import Rule

_CODES, _WEIGHTS = QType(16, 10), QType(16, 18)
_SUMS, _BIAS = QType(ACC_BITS, 28), QType(32, 28)
_SCORES, _CHANCES = QType(32, 20), QType(16, 14)


def scratch_layer(network: Network, path: Path, hw: Hardware, *, fused: bool) -> ModuleOp:
    """
    A layer at the fixed level, its steps along a path.

    The network has one operand that is no weight, whose first index are the tokens, also of the
    result. Raises `HeatcError` for any other, and where a step is no contraction of an activation
    with a weight.
    """
    module = _raised(network, path)
    context = _context(hw)
    LowerContractionsPass().apply(context, module)
    if fused:
        FuseEinsumsPass(tokens=network.sizes[network.result[0]]).apply(context, module)
    ShapeProductsPass().apply(context, module)
    function = module.body.block.first_op
    assert isinstance(function, FuncOp)
    _fold(function)
    _fix(function)
    erase_dead(module)
    first = function.body.block.first_op
    assert first is not None
    insert_before(first, PackingOp(None, 1, network.sizes[network.result[0]]))
    return module


def time_scratch(module: ModuleOp, hw: Hardware) -> Timed:
    """
    Times a layer at the fixed level from a standing start; `hpack` is in it, see `time_packing`.

    The module is tiled in place.

    Raises `PassFailedException` where a step is no product of the machine, `InfeasibleError` where
    its tiles do not fit.
    """
    _tile(module, hw)
    return time_module(module, hw)


@lru_cache(maxsize=64)
def time_packing(tokens: int, hw: Hardware) -> Timed:
    """What `hpack` of so many tokens and the end of a program take."""
    block = Block()
    block.add_ops([PackingOp(None, 1, tokens), ReturnOp()])
    module = ModuleOp([FuncOp("main", ((), ()), Region(block))])
    _tile(module, hw)
    return time_module(module, hw)


@lru_cache(maxsize=64)
def time_attention(batch: int, length: int, heads: int, dim: int, hw: Hardware) -> Timed:
    """What the dense attention of full sequences takes, `hpack` included."""
    planes, square = TensorType(_CODES, [TOKENS, heads * dim]), [batch, heads, length, length]
    block = Block(arg_types=[planes] * 3)
    q, k, v = block.args
    packing = PackingOp(None, batch, length)
    scores = ScoresOp(q, k, packing, heads, TensorType(_SCORES, square))
    chances = SoftmaxOp(scores, packing, dim**-0.5, TensorType(_CHANCES, square))
    values = WeightedValuesOp(chances, v, packing, None, heads, planes)
    steps = Block([scores, chances, values])
    attention = PrunedOp.around(steps, [values.result])
    attention.rule = RuleAttr.of(Rule())
    block.add_ops([packing, attention, ReturnOp(attention)])
    function = FuncOp("main", ([planes] * 3, [planes]), Region(block))
    function.arg_attrs = _names("q", "k", "v")
    function.res_attrs = _names("y")
    return time_scratch(ModuleOp([function]), hw)


def _tile(module: ModuleOp, hw: Hardware) -> None:
    context = _context(hw)
    PlanTilesPass().apply(context, module)
    TileForHdpPass().apply(context, module)


def _context(hw: Hardware) -> HeatcContext:
    """What passes say of layers that nobody has is for nobody."""
    return HeatcContext(hardware=hw, remarks=drop_remark)


# --- The layer --------------------------------------------------------------------------------


def _raised(network: Network, path: Path) -> ModuleOp:
    """The layer as `order-contractions` leaves it, with a bias."""
    x, sizes = network.activation, network.sizes
    tokens = network.result[0]
    inputs, outputs = _width(network.terms[x], sizes), _width(network.result, sizes)
    block = Block(arg_types=[TensorType(f32, [TOKENS, inputs])])

    def shape(term: str) -> list[int]:
        return [TOKENS if letter == tokens else sizes[letter] for letter in term]

    split = ReshapeOp(block.args[0], shape(network.terms[x]))
    factors = {
        i: WeightOp(f"factor.{i}", TensorType(f32, shape(term)))
        for i, term in enumerate(network.terms)
        if i != x
    }
    operands = [split if i == x else factors[i] for i in range(len(network.terms))]
    whole = ContractOp(
        network.equation,
        operands,
        TensorType(f32, shape(network.result)),
        PathAttr(path) if len(operands) > 2 else None,
    )
    rows = ReshapeOp(whole, [TOKENS, outputs])
    bias = WeightOp("bias", TensorType(f32, [outputs]))
    total = AddOp(rows, bias)
    end = ReturnOp(total)
    block.add_ops([split, *factors.values(), whole, rows, bias, total, end])
    types = [block.args[0].type], [total.results[0].type]
    function = FuncOp("main", types, Region(block))
    function.arg_attrs = _names("x")
    function.res_attrs = _names("y")
    return ModuleOp([function])


def _width(term: str, sizes: dict[str, int]) -> int:
    width = 1
    for letter in term[1:]:
        width *= sizes[letter]
    return width


def _names(*names: str) -> ArrayAttr[DictionaryAttr]:
    return ArrayAttr(DictionaryAttr({"heatc.name": StringAttr(name)}) for name in names)


# --- Fixed point ------------------------------------------------------------------------------


def _fold(function: FuncOp) -> None:
    """What depends on weights only becomes a weight, as `fold-weights` does where it has values."""
    for number, op in enumerate(list(function.body.block.ops)):
        if not isinstance(op, ContractOp | ReshapeOp | TransposeOp):
            continue
        if all(isinstance(value.owner, WeightOp) for value in op.operands):
            weight = WeightOp(f"folded.{number}", TensorType(f32, shape_of(op.result)))
            insert_before(op, weight)
            op.result.replace_all_uses_with(weight.result)


def _fix(function: FuncOp) -> None:
    """Every value becomes codes."""
    for argument in function.body.block.args:
        _retype(argument, _CODES)
    for op in list(function.body.block.ops):
        if isinstance(op, WeightOp):
            _retype(op.result, _WEIGHTS)
        elif isinstance(op, ContractOp):
            _retype(op.result, _SUMS)
            if not _is_biased(op.result):
                _round(op.result)
        elif isinstance(op, ReshapeOp | TransposeOp):
            element = element_of(op.x)
            assert isinstance(element, QType)
            _retype(op.result, element)
        elif isinstance(op, AddOp):
            _add(op)
    function.update_function_type()


def _retype(value: SSAValue, element: QType) -> None:
    Rewriter.replace_value_with_new_type(value, TensorType(element, shape_of(value)))


def _add(op: AddOp) -> None:
    """A bias is added before its product is rounded, or else by the host."""
    if bias_of(op) is None:
        _add_on_host(op)
        return
    _retype(op.rhs, _BIAS)
    _retype(op.result, _SUMS)
    _round(op.result)


def _add_on_host(op: AddOp) -> None:
    block = Block(arg_types=[op.lhs.type, op.rhs.type])
    codes = [DequantizeOp(a, TensorType(f64, shape_of(a))) for a in block.args]
    total = AddOp(codes[0], codes[1])
    rounded = QuantizeOp(total, TensorType(_CODES, shape_of(op.result)))
    block.add_ops([*codes, total, rounded, YieldOp(rounded)])
    task = TaskOp([op.lhs, op.rhs], [rounded.result.type], Region(block))
    insert_before(op, task)
    op.result.replace_all_uses_with(task.outputs[0])


def _is_biased(value: SSAValue) -> bool:
    """Whether a bias is added next."""
    user = value.get_user_of_unique_use()
    if isinstance(user, ReshapeOp):
        user = user.result.get_user_of_unique_use()
    return isinstance(user, AddOp) and bias_of(user) is not None


def _round(value: SSAValue) -> None:
    """Whoever reads a sum reads its codes."""
    owner = value.owner
    assert isinstance(owner, Operation)
    rounded = RequantizeOp(value, TensorType(_CODES, shape_of(value)))
    block = owner.parent
    assert block is not None
    block.insert_op_after(rounded, owner)
    value.replace_uses_with_if(rounded.result, lambda use: use.operation is not rounded)
