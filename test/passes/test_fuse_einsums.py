"""`fuse-einsums` cuts a chain where the fewest bytes move, and never takes more than fits."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.dialects.einsum import ContractOp
from heatc.errors import HeatcError
from heatc.hardware import load_hardware
from heatc.heat.formats import Spec
from heatc.passes.analysis.costs import layer_cost
from heatc.passes.analysis.ranks import layer_network
from heatc.passes.fuse_einsums import FuseEinsumsPass

BYTES = {None: 4, "hdp-edge": 2}
UNITS = {None: 32, "hdp-edge": 16}


def chain(widths: list[int]) -> ModuleOp:
    """Linears one behind the other, between values of so many elements a token."""
    lines = [f"func.func @main(%x0: tensor<?x{widths[0]}xf32>) -> tensor<?x{widths[-1]}xf32> {{"]
    for k, (a, b) in enumerate(itertools.pairwise(widths)):
        lines.append(f'%w{k} = einsum.weight ["layer.{k}"] : tensor<{b}x{a}xf32>')
        lines.append(
            f'%x{k + 1} = einsum.contract "ti,oi->to" %x{k}, %w{k} : '
            f"(tensor<?x{a}xf32>, tensor<{b}x{a}xf32>) -> tensor<?x{b}xf32>"
        )
    last = len(widths) - 1
    lines += [f"func.return %x{last} : tensor<?x{widths[-1]}xf32>", "}"]
    return Parser(make_context(), "\n".join(lines)).parse_module()


def room(hw: str | None, cache: int) -> int:
    return cache if hw is None else load_hardware(hw).shared_buffer_bytes


def need(widths: list[int], tokens: int, hw: str | None) -> int:
    """Bytes on the chip for a group that takes values of so many elements a token in and out."""
    last = len(widths) - 2
    most = 0
    for k in range(last + 1):
        read, written = widths[k] if k else 0, widths[k + 1] if k < last else 0
        if hw is None:
            most = max(most, 4 * tokens * (read + written))
            continue
        tiles = [widths[k]] * (2 if k else 1) + [written] * 2
        most = max(most, sum(-(-2 * tokens * n // 64) * 64 for n in tiles))
    return most


def moved(widths: list[int], tokens: int, hw: str | None, cache: int) -> tuple[int, int]:
    """The least bytes that a group moves, and its tile; infinite where nothing fits."""
    unit = UNITS[hw]
    tiles = range(unit, -(-tokens // unit) * unit + 1, unit)
    fitting = [n for n in tiles if need(widths, n, hw) <= room(hw, cache)]
    weights = sum(a * b for a, b in itertools.pairwise(widths))
    alone = len(widths) == 2
    if not fitting and not alone:
        return 1 << 60, 0
    tile = max(fitting, default=unit)
    fetches = 1 if alone and hw is None else -(-tokens // tile)
    return BYTES[hw] * (tokens * (widths[0] + widths[-1]) + fetches * weights), tile


@given(
    st.lists(st.integers(1, 400), min_size=3, max_size=6),
    st.sampled_from([None, "hdp-edge"]),
    st.integers(1, 3000),
    st.integers(1, 1 << 17),
)
@settings(max_examples=80, deadline=None)
def test_no_cut_moves_less(widths: list[int], hw: str | None, tokens: int, cache: int) -> None:
    module = chain(widths)
    context = make_context(hardware=None if hw is None else load_hardware(hw))
    FuseEinsumsPass(cache=cache, tokens=tokens).apply(context, module)
    module.verify()
    steps = len(widths) - 1
    best = min(
        sum(
            moved(widths[a : b + 1], tokens, hw, cache)[0]
            for a, b in itertools.pairwise((0, *cuts, steps))
        )
        for count in range(steps)
        for cuts in itertools.combinations(range(1, steps), count)
    )
    fuses = [op.fuse for op in module.walk() if isinstance(op, ContractOp)]
    ends = [k + 1 for k, fuse in enumerate(fuses) if fuse is None]
    total = 0
    for a, b in itertools.pairwise((0, *ends)):
        least, tile = moved(widths[a : b + 1], tokens, hw, cache)
        total += least
        assert all(fuse is not None and fuse.data == tile for fuse in fuses[a : b - 1])
    assert total == best


def test_a_cache_without_a_byte_is_refused() -> None:
    with pytest.raises(HeatcError, match="cache: expected at least 1 byte, got 0"):
        FuseEinsumsPass(cache=0).apply(make_context(), chain([4, 2, 4]))


@pytest.mark.parametrize("tokens", [128, 384])
def test_a_fused_layer_moves_less_on_the_machine(tokens: int) -> None:
    """As its instructions are timed, for more tokens than a module without a packing counts too."""
    network = layer_network(Spec("low-rank", (768,), (768,), (153,)), tokens)
    plain, fused = (
        layer_cost(network, ((0, 1), (3, 2)), load_hardware("hdp-edge"), fused=fuse)
        for fuse in (False, True)
    )
    assert fused.dram_bytes == pytest.approx(plain.dram_bytes - 2 * 2 * 153 * tokens, rel=0.01)
    assert fused.cycles < plain.cycles
