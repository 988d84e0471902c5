"""The part `scalesim` of bench/machine.py: dense products beside those of SCALE-Sim."""

from __future__ import annotations

import dataclasses

from bench.support.machine import scalesim_gemm, scalesim_peer
from bench.support.machine.scalesim_peer import Case
from bench.support.machine.setup import Bench, Table, random_inputs
from bench.support.machine.watch import measure
from bench.support.parts import Part
from bench.support.report import Json, Row
from heatc.backends.hdp.debug import Locations
from heatc.hardware import load_hardware
from heatc.isa.table import DTYPES, Engine


def scalesim_part(bench: Bench) -> Part:
    """Cycles of the dense GEMMs of BERT-Base against SCALE-Sim's, and both simulators' times."""
    gemms: Table = []
    worst = ours = theirs = 0.0
    for size, names in bench.sizes.gemms.items():
        hardware = dataclasses.replace(load_hardware("validation"), pe_rows=size, pe_columns=size)
        for name, case in scalesim_gemm.bert_base(size, size, names).items():
            answer = scalesim_peer.simulate(case)
            found = scalesim_gemm.measure(case, hardware)
            difference = 100 * abs(found.compute - answer.demands) / answer.demands
            worst, ours, theirs = (
                max(worst, difference), ours + found.seconds, theirs + answer.seconds
            )  # fmt: skip
            gemms.append({
                "array": f"{size}x{size}", "GEMM (m x k x n)": str(case), "of BERT-Base": name,
                "SCALE-Sim, cycles": answer.demands, "heatc, PE cycles": found.compute,
                "difference, %": difference, "heatc, to the end": found.total,
                "SCALE-Sim, s": answer.seconds, "heatc, cycles alone, s": found.seconds,
                "heatc, with values, s": found.with_values,
                "SCALE-Sim's run": "cached" if answer.cached else "this run",
            })  # fmt: skip
    what = f"dense GEMMs of BERT-Base on an equal output-stationary array, against {scalesim_peer.PINS[0]}"
    rows = [
        Row(f"{what}: compute cycles, each GEMM", worst, "% largest difference", 5, "<="),
        Row(
            f"{what}: simulation time, all of them, cycles without values",
            theirs / ours,
            "x faster",
            1000,
            ">=",
        ),
    ]
    tables: dict[str, Json] = {"scalesim: GEMMs with ideal memory": gemms}
    if bench.sizes.finite:
        tables["scalesim: 128x768x768 with finite bandwidth"] = finite_bandwidth()
    tables["scalesim: the linears as the compiler tiles them"] = compiled_linears(bench)
    return Part(rows, tables)


FINITE = ((4, 256), (16, 256), (4, 2048))
"""(words a cycle, KiB of SRAM for each operand) of the comparison with finite bandwidth"""


def finite_bandwidth() -> Table:
    """Stall cycles of one linear beside SCALE-Sim's, at equal words a cycle."""
    table: Table = []
    for words, sram in FINITE:
        case = Case(128, 768, 768, words=words, sram_kib=sram)
        answer = scalesim_peer.simulate(case)
        base = load_hardware("validation")
        bandwidth = words * DTYPES["i16"] * base.clock_hz
        hardware = dataclasses.replace(base, dram_bytes_per_second=bandwidth)
        found = scalesim_gemm.measure(case, hardware, step=64, repeats=1)
        table.append({
            "words a cycle": words, "SRAM an operand in SCALE-Sim, KiB": sram,
            "SCALE-Sim, stall cycles": answer.stalls,
            "heatc, stall cycles": found.total - found.compute,
            "heatc, bytes moved": found.dram_bytes,
            "least stalls of one port (bytes / width - compute)": max(
                0, found.dram_bytes // (words * DTYPES["i16"]) - found.compute
            ),
        })  # fmt: skip
    return table


def compiled_linears(bench: Bench) -> Table:
    """PE cycles of a compiled BERT-Base layer on the validation preset, by module."""
    model = bench.bert("bert-base-1", num_hidden_layers=1)
    inputs = random_inputs(128)
    program = bench.compiled(model, inputs, "validation", "--hdp-rule=none")
    measured = measure(program, inputs)
    paths = Locations(program.debug)
    linears = (("attention.self.query", 768, 768), ("intermediate.dense", 3072, 768),
               ("output.dense", 768, 3072))  # fmt: skip
    table: Table = []
    for suffix, n, k in linears:
        path = f"encoder.layer.0.{suffix}"
        busy = measured.result.pc_busy[Engine.PE.value]
        cycles = sum(busy[pc] for pc in range(len(busy)) if paths.at(pc).path == path)
        expected = scalesim_peer.simulate(Case(128, n, k)).demands
        table.append({
            "module": path, "GEMM (m x k x n)": str(Case(128, n, k)),
            "SCALE-Sim, cycles": expected, "heatc, PE cycles of the compiled tiles": cycles,
            "difference, %": 100 * (cycles - expected) / expected,
        })  # fmt: skip
    return table
