"""GEMMs on the HDP machine, for the comparison with SCALE-Sim: instructions written by hand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from bench.support.machine.scalesim_peer import Case
from heatc.hardware import Hardware
from heatc.isa.table import DTYPES
from heatc.isa.words import Inst, decode_program, encode_program, inst
from heatc.machine.machine import Machine, Memory, RunResult
from heatc.machine.values import Shapes

SHIFT = 12
"""The result is requantised by this."""

_CODE, _ACC = DTYPES["i16"], DTYPES["acc"]
_PAGE = 4096


class Measured(NamedTuple):
    """What one GEMM cost on the machine, and the seconds it took to simulate."""

    compute: int
    """Busy cycles of the PE array"""
    total: int
    """Cycles until the result lies in DRAM"""
    dram_bytes: int
    seconds: float
    """To simulate the cycles alone, as SCALE-Sim does"""
    with_values: float
    """To compute the product's values too"""


class Layout(NamedTuple):
    """First bytes of the operands and the result in DRAM, and its size."""

    a: int
    b: int
    c: int
    size: int

    @classmethod
    def of(cls, case: Case) -> Layout:
        """Weights (n, k) first, then the inputs (m, k) and the result (m, n)."""
        a = _paged(case.n * case.k * _CODE)
        c = a + _paged(case.m * case.k * _CODE)
        return cls(a, 0, c, c + _paged(case.m * case.n * _CODE))


def program(case: Case, step: int) -> list[Inst]:
    """
    C = requantise(A B^T): A loaded once, B and C in parts of `step` columns, double-buffered.

    Args:
        case: the GEMM.
        step: columns of C at a time; `case.n` makes the whole product one instruction.
    """
    at = Layout.of(case)
    weight, cells = step * case.k * _CODE, case.m * step
    turns = 1 if step >= case.n else 2
    code = [
        _tensor(0, at.a, case.m, case.k),
        _tensor(1, at.b, case.n, case.k),
        _tensor(2, at.c, case.m, case.n),
        inst("tile", t=0, space="shared", dtype="i16", address=0, bytes=case.m * case.k * _CODE),
    ]
    sizes = (("i16", weight), ("acc", cells * _ACC), ("i16", cells * _CODE))
    address = 0
    for turn in range(turns):
        for index, (dtype, nbytes) in enumerate(sizes):
            tile = 1 + 3 * turn + index
            place = {"address": address, "bytes": nbytes}
            code.append(inst("tile", t=tile, space="local", dtype=dtype, **place))
            address += nbytes
    code.append(inst("ld", t=0, d=0, rows=case.m, cols=case.k))
    for number, column in enumerate(range(0, case.n, step)):
        b, acc, out = (1 + 3 * (number % turns) + index for index in range(3))
        code += [
            inst("li", rd=1, imm=column),
            inst("ld", t=b, d=1, row_reg=1, rows=step, cols=case.k),
            inst("mm", acc=acc, a=0, b=b, first=1, b_transposed=1),
            inst("drain", t=out, acc=acc, bias=acc, shift=SHIFT),
            inst("st", d=2, t=out, col_reg=1),
        ]
    return [*code, inst("halt")]


def measure(case: Case, hardware: Hardware, step: int | None = None, repeats: int = 5) -> Measured:
    """Runs the GEMM on random codes, warm; the result is checked against NumPy."""
    generator = np.random.default_rng(0)
    a, b = (generator.integers(-256, 256, (x, case.k)).astype(np.int16) for x in (case.m, case.n))
    words = decode_program(encode_program(program(case, step or case.n)))
    times: list[float] = []
    result: RunResult | None = None
    at = Layout.of(case)
    weights = np.zeros(at.a, np.uint8)
    weights[: b.nbytes] = b.reshape(-1).view(np.uint8)
    alone: list[float] = []
    for _ in range(repeats + 1):
        memory = Memory(weights, at.size)
        memory.write(at.a, a, "i16")
        machine = Machine(hardware, memory)
        start = time.perf_counter()
        shapes = machine.run(words, values=Shapes(cast(Any, None)))
        alone.append(time.perf_counter() - start)
        start = time.perf_counter()
        result = machine.run(words)
        times.append(time.perf_counter() - start)
        _check(memory.view(at.c, "i16", case.m, case.n), a, b)
        assert shapes.cycles == result.cycles
    assert result is not None
    moved = result.dram_bytes_read + result.dram_bytes_written
    compute = int(result.busy["pe"].sum())
    seconds = (statistics.median(timed[1:]) for timed in (alone, times))
    return Measured(compute, result.cycles, moved, *seconds)


def _check(found: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    exact = a.astype(np.float64) @ b.astype(np.float64).T
    expected = np.clip(np.rint(exact / 2**SHIFT), -32768, 32767)
    assert np.array_equal(found, expected), "the machine's GEMM is wrong"


SHAPES = {
    "query, key, value, attention output": (128, 768, 768),
    "intermediate": (128, 3072, 768),
    "output": (128, 768, 3072),
    "scores of a head": (128, 128, 64),
    "probabilities times values of a head": (128, 64, 128),
}
"""(m, n, k) of the dense GEMMs of a BERT-Base layer on 128 tokens"""


def bert_base(rows: int, columns: int, names: Sequence[str] = tuple(SHAPES)) -> dict[str, Case]:
    """The named GEMMs on an array."""
    return {name: Case(*SHAPES[name], rows=rows, columns=columns) for name in names}


def _tensor(number: int, base: int, rows: int, columns: int) -> Inst:
    place = {"base": base, "rows_imm": rows, "cols": columns}
    return inst("tensor", d=number, space="dram", dtype="i16", **place)


def _paged(nbytes: int) -> int:
    return -(-nbytes // _PAGE) * _PAGE
