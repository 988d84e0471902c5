"""bench/machine.py: GEMMs like SCALE-Sim's, the break-even, the exp unit, the generated page."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from bench import machine
from bench.support import programs
from bench.support.machine import attention as machine_attention
from bench.support.machine import models as machine_models
from bench.support.machine import page as machine_page
from bench.support.machine import scalesim_gemm
from bench.support.machine import softmax as machine_softmax
from bench.support.machine import watch as machine_watch
from bench.support.machine.scalesim_peer import Case
from bench.support.machine.setup import QUICK, Bench, random_inputs
from heatc.hardware import load_hardware
from oracle import bert as oracle

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("shape", [(32, 32, 8), (40, 70, 33), (7, 3, 5)])
def test_gemm_takes_scale_sims_cycles(shape: tuple[int, int, int]):
    case = Case(*shape)
    found = scalesim_gemm.measure(case, load_hardware("validation"), repeats=1)
    # systolic_compute_os.py: each fold alone, k steps skewed over rows and columns.
    assert found.compute == case.folds * (case.k + 32 + 32 - 2)
    assert found.compute < found.total < found.compute + 40


def test_gemm_in_parts_computes_the_same_and_stalls_on_slow_memory():
    case = Case(64, 96, 32)
    fast = load_hardware("validation")
    slow = dataclasses.replace(fast, dram_bytes_per_second=fast.clock_hz)
    quick, late = (scalesim_gemm.measure(case, hw, step=32, repeats=1) for hw in (fast, slow))
    assert quick.compute == late.compute
    assert late.total >= late.dram_bytes > quick.total


def test_break_even():
    assert machine_attention.break_even([(0.0, 1.5), (50.0, 1.0), (90.0, 0.5)]) == 50.0
    assert machine_attention.break_even([(80.0, 0.5), (40.0, 1.5)]) == 60.0
    assert machine_attention.break_even([(10.0, 0.9), (40.0, 0.5)]) == 10.0
    assert machine_attention.break_even([(10.0, 1.9), (40.0, 1.5)]) is None


def test_exponential_unit_holds():
    row, table = machine_softmax.exponential_errors()
    assert row.holds
    errors = [entry["largest error, 2^-16"] for entry in table]
    assert max(map(float, errors)) <= 65536 * 0.004  # pyright: ignore


def test_exact_softmax_is_near_the_units():
    scores = torch.randint(-3000, 3000, (4, 16), generator=torch.Generator().manual_seed(0))
    exact = machine_softmax.exact_softmax(scores, 8, 0.125)
    unit = oracle.softmax(scores, 8, 0.125)
    assert (exact - unit).abs().max() <= 0.004 * 2**14
    assert (
        machine_softmax.exact_softmax(scores, 8, 0.125, torch.zeros_like(scores, dtype=torch.bool))
        .eq(0)
        .all()
    )


def test_each_switch_is_turned_off_alone():
    base = load_hardware("hdp-edge")
    found = machine_models.mechanisms(base)
    assert found.pop("all on") == base
    for hardware in found.values():
        values = dataclasses.asdict(hardware), dataclasses.asdict(base)
        changed = [name for name in values[0] if values[0][name] != values[1][name]]
        assert len(changed) == 1
        assert values[0][changed[0]] is False or (changed, hardware.split_bits) == (
            ["split_bits"],
            8,
        )


def test_runs_on_split_pes_prune_what_the_run_before_them_did(tmp_path: Path):
    bench = Bench(QUICK, tmp_path)
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 64}
    model = bench.bert("small", num_hidden_layers=1, vocab_size=30000, **sizes)
    inputs = random_inputs(40)
    options = (*programs.paper(0.0, 0.0), "--pruned-score=neginf")
    program = bench.compiled(model, inputs, "hdp-edge", *options)
    found = machine_watch.measure(program, inputs)
    assert isinstance(found.values, machine_watch.Deciding)
    again = machine_watch.measure(program, inputs, None, machine_watch.Decided(found.values))
    assert again.attention() == found.attention()
    split = {
        bits: machine_watch.on_split_pes(program, inputs, found, bits)
        for bits in machine_attention.SPLITS
    }
    assert split[16] is found
    assert split[8].watch.cycles == split[4].watch.cycles < found.watch.cycles
    assert machine_watch.attention_joules(split[8]) < machine_watch.attention_joules(split[4])
    assert {run.result.blocks_kept for run in split.values()} == {found.result.blocks_kept}


def test_cells():
    assert machine_page.cell(None) == "never"
    assert machine_page.cell(1234567) == "1,234,567"
    assert machine_page.cell(2.0) == "2"
    assert machine_page.cell(math.pi) == "3.142"


def test_page_shows_the_results():
    content = json.loads(machine.RESULT.read_text(encoding="utf-8"))
    shown = machine_page.PAGE.read_text(encoding="utf-8")
    assert shown == machine_page.page(content), "run python bench/machine.py --page"
