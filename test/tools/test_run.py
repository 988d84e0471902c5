"""`hdp-run` end to end on a hand-written program: values, tables, files, refusals."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from heatc import files
from heatc.backends.hdp import open_program, simulate
from heatc.backends.hdp.container import Manifest, Port, Weight, write_program
from heatc.fixed_point import encode, requantize
from heatc.hardware import load_hardware, render
from heatc.isa.units import block_importance, block_mask
from heatc.isa.words import Inst, inst
from heatc.machine.energy import UNITS
from heatc.names import KEPT_MASKS, STATS, TIMELINE
from heatc.readers.npz import read_npz
from heatc.tools import data_dictionary, run

BATCH, LENGTH, WIDTH, ROWS = 2, 4, 8, 10
POINT = 8

_seeded = np.random.default_rng(0)
TABLE = _seeded.normal(size=(ROWS, WIDTH)).astype(np.float32) * 4
W_CODES = _seeded.integers(-300, 300, size=(WIDTH, WIDTH), dtype=np.int16)

W_END = TABLE.nbytes + W_CODES.nbytes
IDS, MASK, POS, INV, IDX, X, Y, OUT, DRAM = (W_END + 512 * i for i in range(9))

EDGE = load_hardware("hdp-edge")


def words(rho: float = 0.25, tau: float = 0.0, also_packed: tuple[int, ...] = ()) -> list[Inst]:
    """
    y = x w for the embedding x of every real token; masks of 2 heads of x x^T.

    `also_packed` are sizes of batches without a mask that are packed after the one that counts.
    """
    flat = {"rows_imm": BATCH * LENGTH, "cols": 1}
    tokens = {"rows_reg": 63, "cols": WIDTH, "dtype": "i16"}
    body = [
        inst("tensor", d=0, dtype="i64", base=IDS, **flat),
        inst("tensor", d=1, dtype="i64", base=MASK, **flat),
        inst("tensor", d=2, dtype="i64", base=POS, **flat),
        inst("tensor", d=3, dtype="i64", base=INV, **flat),
        inst("hpack", dpos=2, dinv=3, dmask=1, batch=BATCH, length=LENGTH, has_mask=1),
        *(
            inst("hpack", dpos=2, dinv=3, dmask=1, batch=batch, length=LENGTH, has_mask=0)
            for batch in also_packed
        ),
        inst("window", d=2, src=2, start_reg=0, rows_reg=63),
        inst("tensor", d=4, dtype="i64", base=IDX, rows_reg=63, cols=1),
        inst("hidx", dst=4, src=0, idx=2),
        inst("tensor", d=5, dtype="f32", base=0, rows_imm=ROWS, cols=WIDTH),
        inst("tensor", d=6, base=X, **tokens),
        inst("hgeti", h=0, d=5, idx=4, rows=BATCH * LENGTH),
        inst("hput", d=6, h=0, point=POINT),
        inst("tensor", d=7, dtype="i16", base=TABLE.nbytes, rows_imm=WIDTH, cols=WIDTH),
        inst("tensor", d=8, base=Y, **tokens),
        inst("tile", t=0, space="local", dtype="i16", address=0, bytes=256),
        inst("tile", t=1, space="local", dtype="i16", address=256, bytes=256),
        inst("tile", t=2, space="local", dtype="acc", address=512, bytes=512),
        inst("tile", t=3, space="local", dtype="i16", address=1024, bytes=256),
        inst("tile", t=4, space="local", dtype="i32", address=1280, bytes=256),
        inst("tile", t=5, space="local", dtype="acc", address=1536, bytes=256),
        inst("tile", t=6, space="local", dtype="i8", address=1792, bytes=256),
        inst("loop", r=2, bound=63, step=64, skip=8),
        inst("heads", rc=0, stride=1, limit=1),
        inst("ld", t=0, d=6, rows=BATCH * LENGTH, cols=WIDTH),
        inst("ld", t=1, d=7, rows=WIDTH, cols=WIDTH),
        inst("mm", acc=2, a=0, b=1, first=1),
        inst("drain", t=3, acc=2, shift=8),
        inst("st", d=8, t=3),
        inst("end", back=7),
    ]
    loop = [
        inst("seq", rb=1),
        inst("window", d=9, src=6, start_reg=61, rows_reg=60),
        inst("loop", r=2, bound=60, step=64, skip=7),
        inst("heads", rc=0, stride=1, limit=2),
        inst("ld", t=0, d=9, rows=LENGTH, cols=WIDTH // 2, core_cols=WIDTH // 2),
        inst("scores", a=4, q=0, k=0, theta=5),
        inst("mask", m=6, theta=5, rho=rho),
        inst("gate", tau=tau),
        inst("end", back=6),
    ]
    rest = [
        inst("tensor", d=10, dtype="f32", base=OUT, rows_imm=BATCH * LENGTH, cols=WIDTH),
        inst("hgeti", h=1, d=8, idx=3, rows=BATCH * LENGTH, point=POINT),
        inst("hput", d=10, h=1),
        inst("halt"),
    ]
    skip = len(loop) + 2
    begin, end = inst("loop", r=1, bound=62, step=1, skip=skip), inst("end", back=skip - 1)
    return [*body, begin, *loop, end, *rest]


def pcs(program: list[Inst], mnemonic: str) -> list[int]:
    return [pc for pc, i in enumerate(program) if i.mnemonic == mnemonic]


def write(
    path: Path, inputs: tuple[Port, ...] = (), first: Inst | None = None, **changes: Any
) -> Path:
    program = words(**changes)
    if first is not None:
        program.insert(0, first)
    debug = {
        "locations": [
            {"pc": 0, "path": "embeddings", "source": "toy.py:1"},
            {"pc": 12, "path": "layer.0", "source": "toy.py:2"},
        ],
        "tensors": {
            "x": {
                "address": X,
                "dtype": "i16",
                "rows": BATCH * LENGTH,
                "cols": WIDTH,
                "point": POINT,
                "pc": pcs(program, "hput")[0],
            },
            "y": {
                "address": Y,
                "dtype": "i16",
                "rows": -1,
                "cols": WIDTH,
                "point": POINT,
                "pc": pcs(program, "st"),
            },
        },
        "attentions": {
            "layer.0.attention": {
                "mask_pcs": pcs(program, "mask"),
                "gate_pcs": pcs(program, "gate"),
                "heads": 2,
                "dim": WIDTH // 2,
            }
        },
    }
    manifest = Manifest(
        EDGE,
        (
            Port("input_ids", "int64", (BATCH, LENGTH), IDS, limit=ROWS),
            Port("attention_mask", "int64", (BATCH, LENGTH), MASK),
            *inputs,
        ),
        (Port("last_hidden_state", "float32", (BATCH, LENGTH, WIDTH), OUT),),
        DRAM,
        points={"x": POINT, "y": POINT},
    )
    weights = [
        Weight("table", "F32", TABLE.shape, [TABLE]),
        Weight("w", "I16", W_CODES.shape, [W_CODES]),
    ]
    with open(path, "wb") as stream:
        write_program(stream, program, manifest, weights, debug)
    return path


def expected(ids: NDArray[Any], mask: NDArray[Any]) -> NDArray[np.float32]:
    x = encode(TABLE[ids].astype(np.float64), POINT, 16).codes
    y = requantize(x @ W_CODES.astype(np.int64), 16, POINT, 16).codes
    return np.where(mask[..., None] != 0, y / 2.0**POINT, 0).astype(np.float32)


IDS_IN = np.array([[1, 2, 3, 9], [0, 5, 5, 7]])
MASK_IN = np.array([[1, 1, 0, 1], [1, 1, 1, 0]])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(Path("p.hdp"))
    np.savez("in.npz", input_ids=IDS_IN, attention_mask=MASK_IN)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run.main(arguments)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


RUN = ("p.hdp", "--inputs", "in.npz")


EVERYTHING = (
    *("-o", "out.npz", "--layers", "layers.npz", "--save-masks", "masks.npz"),
    *("--stats", "stats", "--trace", "t.json"),
)


def test_what_it_wrote_is_replaced(capsys: pytest.CaptureFixture[str]):
    """Every file has the mark of its kind, by which the second run knows it."""
    runs: list[dict[str, bytes]] = []
    for _ in range(2):
        assert call(capsys, *RUN, *EVERYTHING)[0] == 0
        runs.append({str(p): p.read_bytes() for p in Path().rglob("*") if p.is_file()})
    assert runs[0] == runs[1]
    assert call(capsys, *RUN, "--trace", "t.pftrace")[0] == 0
    assert call(capsys, *RUN, "--trace", "t.pftrace")[0] == 0


def test_outputs_in_the_folder_of_the_statistics(capsys: pytest.CaptureFixture[str]):
    assert call(capsys, *RUN, "--stats", "new", "-o", "new/out.npz")[0] == 0
    assert Path("new/out.npz").is_file()


def test_devices_and_pipes_are_written_to(capsys: pytest.CaptureFixture[str]):
    assert call(capsys, *RUN, "-q", "-o", "/dev/null", "--layers", "/dev/null")[0] == 0
    command = [sys.executable, "-m", "heatc.tools.run", *RUN, "-q", "-o", "/dev/stdout"]
    piped = subprocess.run(command, capture_output=True, check=True).stdout
    assert call(capsys, *RUN, "-q", "-o", "out.npz")[0] == 0
    Path("piped.npz").write_bytes(piped)
    found, expected = read_npz("piped.npz"), read_npz("out.npz")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in found)


def test_a_full_disk_leaves_no_half_of_a_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    written = files._Noting.write

    def write(self: files._Noting, data: bytes) -> int:
        if b"Begin Simulation Statistics" in bytes(data):
            self.failure = OSError(28, "No space left on device")
            raise self.failure
        return written(self, data)

    monkeypatch.setattr(files._Noting, "write", write)
    code, _, err = call(capsys, *RUN, *EVERYTHING)
    assert (code, err) == (
        1,
        "hdp-run: error: stats/stats.txt: cannot write: no space left on device\n",
    )
    assert {p.name for p in Path().rglob("*")} == {"p.hdp", "in.npz", "stats"}


def test_outputs_and_table(capsys: pytest.CaptureFixture[str]):
    code, out, err = call(capsys, *RUN, "-o", "out.npz")
    assert (code, err) == (0, "")
    found = read_npz("out.npz")
    assert list(found) == ["last_hidden_state"]
    assert found["last_hidden_state"].dtype == np.float32
    assert np.array_equal(found["last_hidden_state"], expected(IDS_IN, MASK_IN))
    kinds = {line.split()[0]: line.split()[-1] for line in filter(None, out.splitlines())}
    assert kinds["cycles"] == kinds["time"] == kinds["DRAM"] == kinds["host"] == "modelled"
    assert kinds["kept"] == kinds["saturated"] == "functional"
    assert "500 MHz" in out


def test_same_run_same_files():
    for name in ("a", "b"):
        code = run.main(
            [*RUN, "-o", f"{name}.npz", "--layers", f"{name}.layers", "--stats", name, "--quiet"]
        )
        assert code == 0
    names = (*STATS, TIMELINE)
    for path in ("{}.npz", "{}.layers", *(f"{{}}/{name}" for name in names)):
        assert Path(path.format("a")).read_bytes() == Path(path.format("b")).read_bytes()


def test_integers_are_converted_when_lossless(capsys: pytest.CaptureFixture[str]):
    np.savez("in.npz", input_ids=IDS_IN.astype(np.uint8), attention_mask=MASK_IN != 0)
    assert call(capsys, *RUN, "-o", "out.npz")[0] == 0
    assert np.array_equal(read_npz("out.npz")["last_hidden_state"], expected(IDS_IN, MASK_IN))


def test_data_set(capsys: pytest.CaptureFixture[str]):
    seeded = np.random.default_rng(1)
    ids = seeded.integers(0, ROWS, size=(5, LENGTH))
    mask = seeded.integers(0, 2, size=(5, LENGTH))
    mask[:2] = 0
    np.savez("in.npz", input_ids=ids, attention_mask=mask)
    code, out, _ = call(capsys, *RUN, "-o", "out.npz", "--layers", "layers.npz")
    assert code == 0
    assert "of 3 passes" in out
    assert "p50 / p95 / max / mean" in out
    assert np.array_equal(read_npz("out.npz")["last_hidden_state"], expected(ids, mask))
    layers = read_npz("layers.npz")
    assert len(layers["codes/x"]) == np.count_nonzero(mask)


def test_layers(capsys: pytest.CaptureFixture[str]):
    assert call(capsys, *RUN, "--layers", "layers.npz", "--quiet")[:2] == (0, "")
    layers = read_npz("layers.npz")
    x = encode(TABLE[IDS_IN[MASK_IN != 0]].astype(np.float64), POINT, 16).codes
    assert np.array_equal(layers["codes/x"], x)
    assert layers["codes/x"].dtype == np.int16
    assert layers["point/x"] == POINT
    assert layers["codes/y"].shape == x.shape
    mask = layers["mask/layer.0.attention"]
    assert (mask.shape, mask.dtype) == ((BATCH, 2, 2, 2), np.bool_)
    for sequence, start in ((0, 0), (1, 3)):
        for head in (0, 1):
            q = x[start : start + 3, 4 * head : 4 * head + 4]
            kept = block_mask(block_importance(q @ q.T, (2, 2)), 0.25)
            assert np.array_equal(mask[sequence, head], kept)
    assert layers["gate/layer.0.attention"].all()


@pytest.mark.parametrize("also", [0, 1])
def test_layers_of_a_program_that_packs_two_shapes(capsys: pytest.CaptureFixture[str], also: int):
    write(Path("p.hdp"), also_packed=(also, BATCH))
    code, _, err = call(capsys, *RUN, "--layers", "layers.npz", "--quiet")
    assert code == 1
    assert f"the program packs {BATCH} x {LENGTH} and {also} x {LENGTH} tokens" in err
    assert not Path("layers.npz").exists()


def test_layers_are_of_what_is_packed_not_of_the_largest_input(capsys: pytest.CaptureFixture[str]):
    """An input with more axes and other extents does not say how many sequences there are."""
    write(Path("p.hdp"), inputs=(Port("bias", "float32", (1, 3, WIDTH), OUT),))
    bias = np.zeros((1, 3, WIDTH), np.float32)
    np.savez("in.npz", input_ids=IDS_IN, attention_mask=MASK_IN, bias=bias)
    assert call(capsys, *RUN, "--layers", "layers.npz", "--quiet")[0] == 0
    assert read_npz("layers.npz")["mask/layer.0.attention"].shape == (BATCH, 2, 2, 2)


def test_layers_of_a_pack_that_no_memory_holds(capsys: pytest.CaptureFixture[str]):
    write(Path("p.hdp"), first=inst("hpack", dpos=2, dinv=3, batch=65535, length=65535))
    tracemalloc.start()
    code, _, err = call(capsys, *RUN, "--layers", "layers.npz", "--quiet")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert code == 1
    assert "65535 x 65535 tokens" in err
    assert peak < 64 << 20


def test_layers_of_short_sequences(capsys: pytest.CaptureFixture[str]):
    np.savez("in.npz", input_ids=IDS_IN, attention_mask=[[1, 0, 0, 0], [0, 0, 0, 0]])
    assert call(capsys, *RUN, "--layers", "layers.npz")[0] == 0
    mask = read_npz("layers.npz")["mask/layer.0.attention"]
    assert mask[0, :, 0, 0].all()
    assert mask.sum() == 2


def test_gate(capsys: pytest.CaptureFixture[str]):
    write(Path("p.hdp"), tau=1e30)
    code, out, _ = call(capsys, *RUN, "--layers", "layers.npz")
    assert code == 0
    assert not read_npz("layers.npz")["gate/layer.0.attention"].any()
    # Of five rounds of heads one is the linear's, which has no gate.
    assert any(line.split()[:3] == ["kept", "heads", "20.0"] for line in out.splitlines())


def test_stats(capsys: pytest.CaptureFixture[str]):
    assert call(capsys, *RUN, "--stats", "stats/deep")[0] == 0
    stats = json.loads(Path("stats/deep/stats.json").read_text())
    assert stats["schema"] == 1
    units = ("_count", "_percent", "_cycles", "_seconds", "_bytes", "_joules", "_joule_seconds")
    for group in ("functional", "modelled"):
        assert all(name.endswith(units) for name in stats[group])
    modelled = stats["modelled"]
    assert modelled["time_seconds"] == modelled["total_cycles"] / EDGE.clock_hz
    assert stats["functional"]["ranked_blocks_count"] == 2 * 2 * 4
    assert stats["instructions_by_mnemonic_count"]["mask"] == 2
    assert load_hardware("stats/deep/hardware.yaml") == EDGE
    text = Path("stats/deep/stats.txt").read_text()
    assert "modelled.total_cycles" in text
    assert "# " in text


def read_stats(folder: str) -> dict[str, Any]:
    return json.loads(Path(folder, "stats.json").read_text())


def read_layers(folder: str) -> dict[str, list[str]]:
    with open(Path(folder, "layers.csv"), newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.parametrize("samples", [2, 5])
def test_layers_sum_to_the_totals(capsys: pytest.CaptureFixture[str], samples: int):
    write(Path("p.hdp"), tau=1e30)
    rng = np.random.default_rng(3)
    ids = rng.integers(0, ROWS, (samples, LENGTH))
    np.savez("in.npz", input_ids=ids, attention_mask=np.ones_like(ids))
    assert call(capsys, *RUN, "--stats", "s")[0] == 0
    layers, stats = read_layers("s"), read_stats("s")
    assert layers["module_path"] == ["embeddings", "layer.0"]
    sums = {n: sum(map(float, values)) for n, values in layers.items() if n != "module_path"}
    functional, modelled = stats["functional"], stats["modelled"]
    for column, figure in {
        "instructions": "executed_instructions_count",
        "macs": "multiply_accumulates_count",
        "ranked_blocks": "ranked_blocks_count",
        "kept_blocks": "kept_blocks_count",
        "entered_heads": "entered_heads_count",
        "saturated_values": "saturated_values_count",
    }.items():
        assert sums[column] == functional[figure], column
    kept = functional["kept_heads_count"]
    assert sums["entered_heads"] - sums["pruned_heads"] == kept
    names = [name for name in sums if name in modelled]
    assert {"pe_busy_cycles", "host_busy_cycles", "dram_read_bytes"} <= set(names)
    for name in names:
        assert sums[name] == pytest.approx(modelled[name], rel=1e-9), name
    busy = [modelled[name] for name in modelled if name.endswith("_busy_cycles")]
    assert sums["busy_cycles"] == sum(busy)
    for name in ("dynamic_energy_joules", "leakage_energy_joules", "energy_joules"):
        assert sums[name] == pytest.approx(modelled[name], rel=1e-9), name
    assert sums["time_cycles"] == modelled["total_cycles"]
    assert sums["share_of_total_percent"] == pytest.approx(100, abs=1e-3)


def read_timeline(folder: str) -> dict[str, Any]:
    return json.loads(Path(folder, TIMELINE).read_text())


def test_the_timeline_has_the_busy_cycles_of_the_layers(capsys: pytest.CaptureFixture[str]):
    write(Path("p.hdp"), tau=1e30)
    assert call(capsys, *RUN, "--stats", "s")[0] == 0
    timeline, layers = read_timeline("s"), read_layers("s")
    assert timeline["total_cycles"] == read_stats("s")["modelled"]["total_cycles"]
    assert set(timeline["modules"]) <= set(layers["module_path"])
    for row, path in enumerate(layers["module_path"]):
        busy = {t: sum(b) for t, b in timeline["modules"][path]["busy_cycles"].items()}
        busy["dma"] = busy.pop("dma_loads", 0) + busy.pop("dma_stores", 0)
        for engine, cycles in busy.items():
            assert cycles == int(layers[f"{engine}_busy_cycles"][row]), (path, engine)
    whole = {t: sum(b) for t, b in timeline["whole_run"]["busy_cycles"].items()}
    parts = [strip["busy_cycles"] for strip in timeline["modules"].values()]
    assert whole == {t: sum(sum(part.get(t, [])) for part in parts) for t in whole}


def test_the_timeline_is_of_the_first_pass(capsys: pytest.CaptureFixture[str]):
    ids = np.random.default_rng(3).integers(0, ROWS, (2 * BATCH, LENGTH))
    for name, samples in (("one", BATCH), ("two", 2 * BATCH)):
        np.savez("in.npz", input_ids=ids[:samples], attention_mask=np.ones_like(ids[:samples]))
        assert call(capsys, *RUN, "--stats", name)[0] == 0
    assert read_timeline("one") == read_timeline("two")


def test_masks_of_the_first_inputs_are_kept(capsys: pytest.CaptureFixture[str]):
    argv = [*RUN, "--stats", "s", "--keep-masks", "1", "--save-masks", "all.npz"]
    assert call(capsys, *argv)[0] == 0
    kept, saved = read_npz("s/masks.npz"), read_npz("all.npz")
    assert kept.keys() == saved.keys()
    for name, array in kept.items():
        assert np.array_equal(array, saved[name][:1]), name
    digests = read_stats("s")["files"]
    assert set(digests) == {"layers.csv", TIMELINE, KEPT_MASKS}
    for name, digest in digests.items():
        assert hashlib.sha256(Path("s", name).read_bytes()).hexdigest() == digest


def test_a_run_without_masks_does_not_claim_those_of_another(capsys: pytest.CaptureFixture[str]):
    assert call(capsys, *RUN, "--stats", "s", "--keep-masks", "1")[0] == 0
    assert call(capsys, *RUN, "--stats", "s")[0] == 0
    assert KEPT_MASKS not in read_stats("s")["files"]
    assert call(capsys, *RUN, "--stats", "s", "--model=functional")[0] == 0
    assert set(read_stats("s")["files"]) == {"layers.csv"}


@pytest.mark.parametrize(
    "words",
    [
        ("--keep-masks", "1"),
        ("--stats", "s", "--keep-masks", "0"),
        ("--stats", "s", "--keep-masks", "x"),
    ],
)
def test_keep_masks_is_checked(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]):
    assert call(capsys, *RUN, *words)[0] == 2
    assert not Path("s").exists()


def test_stats_name_inputs_and_agreement(capsys: pytest.CaptureFixture[str]):
    assert call(capsys, *RUN, "-o", "golden.npz")[0] == 0
    assert call(capsys, *RUN, "--reference", "golden.npz", "--stats", "s")[0] == 0
    stats = read_stats("s")
    digest = hashlib.sha256(Path("in.npz").read_bytes()).hexdigest()
    assert stats["inputs"] == {"file": "in.npz", "sha256": digest}
    (found,) = stats["agreement"].values()
    assert (found["max_abs_error"], found["holds"]) == (0, True)
    assert found["min_cosine"] == pytest.approx(1)


def test_saturations_are_counted_by_layer(capsys: pytest.CaptureFixture[str]):
    np.savez("in.npz", input_ids=IDS_IN, attention_mask=MASK_IN)
    program = open_program("p.hdp")
    result = simulate(program, {"input_ids": IDS_IN, "attention_mask": MASK_IN}).result
    assert call(capsys, *RUN, "--stats", "s")[0] == 0
    by_path = read_stats("s")["saturated_values_by_path_count"]
    layers = read_layers("s")
    counted = dict(zip(layers["module_path"], map(int, layers["saturated_values"])))
    assert {path: n for path, n in counted.items() if n} == by_path
    assert sum(by_path.values()) == sum(result.saturations.values())


def test_data_set_figures(capsys: pytest.CaptureFixture[str]):
    mask = np.zeros((6, LENGTH), np.int64)
    for row in range(6):
        mask[row, : 1 + row // 2] = 1
    np.savez("in.npz", input_ids=np.ones_like(mask), attention_mask=mask)
    assert call(capsys, *RUN, "--stats", "s")[0] == 0
    stats = read_stats("s")
    modelled = stats["modelled"]
    assert stats["functional"]["passes_count"] == 3
    for name in ("cycles", "seconds", "dram_bytes", "joules"):
        p50, p95, most, mean = (modelled[f"pass_{s}_{name}"] for s in ("p50", "p95", "max", "mean"))
        assert 0 < p50 <= p95 <= most
        assert mean <= most
    assert modelled["pass_mean_cycles"] * 3 == pytest.approx(modelled["total_cycles"])
    moved = modelled["dram_read_bytes"] + modelled["dram_written_bytes"]
    assert modelled["pass_mean_dram_bytes"] * 3 == pytest.approx(moved)
    assert modelled["pass_mean_joules"] * 3 == pytest.approx(modelled["energy_joules"])
    parts = sum(modelled[f"{unit}_energy_joules"] for unit in UNITS)
    assert parts == pytest.approx(modelled["energy_joules"])
    kept = stats["functional"]["pass_mean_kept_blocks_count"] * 3
    assert kept == pytest.approx(stats["functional"]["kept_blocks_count"])


# --- One side alone ---------------------------------------------------------------------------


def test_timing_on_stored_masks(capsys: pytest.CaptureFixture[str]):
    """Five samples in three passes: the same figures, but for what needs values."""
    write(Path("p.hdp"), rho=0.5, tau=300.0)
    rng = np.random.default_rng(1)
    ids, mask = rng.integers(0, ROWS, (5, LENGTH)), rng.integers(0, 2, (5, LENGTH))
    np.savez("in.npz", input_ids=ids, attention_mask=mask)
    assert call(capsys, *RUN, "--save-masks", "m.npz", "--stats", "both")[0] == 0
    arguments = ("p.hdp", "--model=timing", "--masks", "m.npz", "--stats", "timing")
    code, out, err = call(capsys, *arguments)
    assert (code, err) == (0, "")
    kinds = {line.split()[-1] for line in out.splitlines() if line.startswith("kept")}
    assert kinds == {"masks"}
    assert "functional" not in out
    assert "saturated" not in out
    whole, timed = read_stats("both"), read_stats("timing")
    assert timed["modelled"] == whole["modelled"]
    assert timed["functional"] | {"saturated_values_count": 0} == (
        whole["functional"] | {"saturated_values_count": 0}
    )
    assert timed["functional"]["saturated_values_count"] is None
    assert (whole["model"], timed["model"]) == ("both", "timing")
    both, alone = read_layers("both"), read_layers("timing")
    both["saturated_values"] = alone["saturated_values"]
    assert alone == both


def test_functional_alone(capsys: pytest.CaptureFixture[str]):
    code, out, _ = call(capsys, *RUN, "--model=functional", "-o", "out.npz", "--stats", "s")
    assert code == 0
    assert "modelled" not in out
    assert "cycles" not in out
    stats = read_stats("s")
    assert "modelled" not in stats
    assert not any(name.endswith(("cycles", "bytes")) for name in read_layers("s"))
    assert "modelled" not in Path("s/stats.txt").read_text()
    assert np.array_equal(read_npz("out.npz")["last_hidden_state"], expected(IDS_IN, MASK_IN))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model=timing",), "--model=timing needs --masks"),
        (("--model=timing", "--masks", "m", "--inputs", "i"), "--inputs needs values"),
        (("--model=timing", "--masks", "m", "-o", "i"), "-o needs values"),
        (("--model=timing", "--masks", "m", "--save-masks", "i"), "--save-masks needs values"),
        ((), "--inputs is missing"),
        (("--inputs", "in.npz", "--masks", "m"), "--masks needs --model=timing"),
        (("--inputs", "in.npz", "--model=functional", "--trace", "x.json"), "--trace shows"),
        (("--inputs", "in.npz", "--trace", "x.txt"), "ends in .json or .pftrace"),
        (("--explain", "pe_busy_cycle"), "did you mean 'pe_busy_cycles'"),
    ],
)
def test_modes_that_contradict(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
):
    code, _, err = call(capsys, "p.hdp", *arguments)
    assert code == 2
    assert message in err


def test_masks_of_another_program(capsys: pytest.CaptureFixture[str]):
    np.savez("m.npz", lengths=np.array([4, 4]))
    code, _, err = call(capsys, "p.hdp", "--model=timing", "--masks", "m.npz", "--stats", "s")
    assert code == 1
    assert "m.npz: masks 'mask/layer.0.attention'" in err
    assert not Path("s").exists()


@pytest.mark.parametrize("suffix", ["json", "pftrace"])
def test_trace(capsys: pytest.CaptureFixture[str], suffix: str):
    if suffix == "pftrace":
        pytest.importorskip("perfetto")
    assert call(capsys, *RUN, "--trace", f"x.{suffix}")[0] == 0
    data = Path(f"x.{suffix}").read_bytes()
    assert b"mask layer.0" in data
    if suffix == "json":
        assert {e["ph"] for e in json.loads(data)["traceEvents"]} == {"M", "X", "C"}


def test_explain(capsys: pytest.CaptureFixture[str]):
    code, out, _ = call(capsys, "--explain", "modelled.pe_busy_cycles")
    assert code == 0
    assert "unit: cycles" in out
    assert "kind: modelled" in out
    assert "stats.json" in out
    assert "layers.csv" in out


def test_every_figure_is_in_the_dictionary(capsys: pytest.CaptureFixture[str]):
    page = Path(data_dictionary.__file__).parents[2] / "docs" / "stats.md"
    text = page.read_text(encoding="utf-8")
    assert text == data_dictionary.render(), "run python -m heatc.tools.data_dictionary"
    assert call(capsys, *RUN, "-o", "golden.npz")[0] == 0
    assert call(capsys, *RUN, "--stats", "s", "--reference", "golden.npz")[0] == 0
    stats, timeline = read_stats("s"), read_timeline("s")
    names = {*stats, *stats["functional"], *stats["modelled"], *read_layers("s")}
    names |= {*timeline, *timeline["whole_run"]}
    assert names == {entry.name for entry in data_dictionary.entries()}
    for entry in data_dictionary.entries():
        assert f"| `{entry.name}` | {entry.unit} | {entry.kind} |" in text


def test_python_api():
    program = open_program("p.hdp")
    result = simulate(program, {"input_ids": IDS_IN, "attention_mask": MASK_IN}, layers=True)
    assert np.array_equal(result.outputs["last_hidden_state"], expected(IDS_IN, MASK_IN))
    assert result.result.cycles > 0
    assert "mask/layer.0.attention" in result.layers


def test_other_hardware(capsys: pytest.CaptureFixture[str]):
    Path("hw.yaml").write_text("base: hdp-edge\ndram: {bandwidth: 1 GB/s}\nname: slow\n")
    assert call(capsys, *RUN, "--stats", "fast")[0] == 0
    code, out, _ = call(capsys, *RUN, "--hw", "hw.yaml", "--stats", "slow")
    assert code == 0
    assert "slow" in out
    cycles = [
        json.loads(Path(name, "stats.json").read_text())["modelled"]["total_cycles"]
        for name in ("fast", "slow")
    ]
    assert cycles[0] < cycles[1]
    Path("hw.yaml").write_text("base: hdp-edge\nbuffers: {local: 32 KiB}\n")
    code, _, err = call(capsys, *RUN, "--hw", "hw.yaml")
    assert code == 4
    assert "65536 bytes of local buffer, hw has 32768" in err
    code, _, err = call(capsys, *RUN, "--hw", "hdp-server")
    assert code == 4
    assert "8 cores" in err
    assert call(capsys, "none.hdp", "--inputs", "in.npz", "--hw", "hdp-big")[0] == 2


# --- The reference ----------------------------------------------------------------------------


def test_reference(capsys: pytest.CaptureFixture[str]):
    good = expected(IDS_IN, MASK_IN)
    # What stands at padding does not count.
    good[MASK_IN == 0] = np.nan
    np.savez("golden.npz", last_hidden_state=good, other=np.zeros(3))
    arguments = (*RUN, "-o", "out.npz", "--reference", "golden.npz")
    code, out, err = call(capsys, *arguments, "--atol=0")
    assert (code, err) == (0, "")
    assert "largest difference 0, cosine 1.000000" in out
    good[0, 0] += 1
    np.savez("golden.npz", last_hidden_state=good)
    Path("out.npz").unlink()
    code, out, err = call(capsys, *arguments, "--atol=0.5", "--rtol=0")
    assert code == 3
    assert "max abs error 1" in err
    assert "OUT OF BOUNDS" in out
    # The result that is wrong is there to be looked at.
    assert Path("out.npz").exists()
    assert call(capsys, *arguments, "--atol=1.01")[0] == 0
    assert call(capsys, *arguments, "--min-cosine=0.999999")[0] == 3
    good[0, 0] = np.nan
    np.savez("golden.npz", last_hidden_state=good)
    assert call(capsys, *arguments)[0] == 3
    assert call(capsys, *arguments, "--atol=1e9")[0] == 3


def test_reference_of_wrong_form(capsys: pytest.CaptureFixture[str]):
    np.savez("golden.npz", other=np.zeros(3))
    code, _, err = call(capsys, *RUN, "--reference", "golden.npz", "-o", "out.npz")
    assert code == 1
    assert "holds none of the outputs" in err
    assert "last_hidden_state" in err
    np.savez("golden.npz", last_hidden_state=np.zeros(3))
    code, _, err = call(capsys, *RUN, "--reference", "golden.npz", "-o", "out.npz")
    assert code == 1
    assert "golden.npz: last_hidden_state: expected numbers of shape (2, 4, 8)" in err
    assert not Path("out.npz").exists()


# --- Bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "expected_message"),
    [
        ({"input_ids": IDS_IN}, "input 'attention_mask': the input is missing"),
        ({"attention_mask": MASK_IN}, "input 'input_ids': the input is missing"),
        ({"input_ids": IDS_IN, "attention_mask": MASK_IN, "x": IDS_IN}, "input 'x'"),
        ({"input_ids": IDS_IN[:, :3], "attention_mask": MASK_IN}, "expected input_ids (2x4 int64)"),
        ({"input_ids": IDS_IN[0], "attention_mask": MASK_IN}, "expected input_ids (2x4 int64)"),
        ({"input_ids": IDS_IN * 1.0, "attention_mask": MASK_IN}, "expected integers"),
        ({"input_ids": IDS_IN + 1, "attention_mask": MASK_IN}, "10 at [0, 3] is outside 0 to 9"),
        ({"input_ids": IDS_IN - 1, "attention_mask": MASK_IN}, "-1 at [1, 0] is outside 0 to 9"),
        (
            {"input_ids": IDS_IN, "attention_mask": np.full((2, 4), 2**64 - 1, np.uint64)},
            "it is int64",
        ),
        (
            {"input_ids": IDS_IN[:1], "attention_mask": MASK_IN[:1]},
            "1 samples, the program takes 2",
        ),
        ({"input_ids": IDS_IN[:0], "attention_mask": MASK_IN[:0]}, "0 samples"),
        (
            {"input_ids": np.vstack([IDS_IN, IDS_IN]), "attention_mask": MASK_IN},
            "different numbers of samples: input_ids 4, attention_mask 2",
        ),
        ({"input_ids": np.full((2, 4), "a"), "attention_mask": MASK_IN}, "expected integers"),
        (
            {"input_ids": IDS_IN.astype("M8[s]"), "attention_mask": MASK_IN},
            "expected integers",
        ),
    ],
)
def test_wrong_inputs(
    capsys: pytest.CaptureFixture[str], arrays: dict[str, Any], expected_message: str
):
    np.savez("in.npz", **arrays)
    code, out, err = call(capsys, *RUN, "-o", "out.npz")
    assert (code, out) == (1, "")
    assert expected_message in err
    assert "in.npz" in err
    assert not Path("out.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "expected_message"),
    [
        (("none.hdp", "--inputs", "in.npz"), 1, "cannot open: no such file"),
        (("p.hdp", "--inputs", "none.npz"), 1, "cannot open: no such file"),
        (("in.npz", "--inputs", "in.npz"), 1, "not an HDP program"),
        (("p.hdp", "--inputs", "p.hdp"), 1, "p.hdp"),
        (("p.hdp",), 2, "--inputs"),
        ((*RUN, "--atol=1"), 2, "need --reference"),
        ((*RUN, "--reference=in.npz", "--atol=x"), 2, "expected a number"),
        ((*RUN, "--output=x"), 2, "unknown option"),
        ((*RUN, "-o", "none/out.npz"), 1, "cannot write"),
        ((*RUN, "-o", "."), 1, "cannot write"),
        ((*RUN, "--stats", "in.npz"), 1, "cannot create"),
        ((*RUN, "--hw", "hdp-edgy"), 2, "did you mean 'hdp-edge'"),
        # The program is checked before the inputs.
        (("none.hdp", "--inputs", "none.npz"), 1, "none.hdp"),
    ],
)
def test_errors(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, expected_message: str
):
    found, out, err = call(capsys, *arguments)
    assert (found, out) == (code, "")
    assert expected_message in err


def test_a_data_set_may_have_labels(capsys: pytest.CaptureFixture[str]):
    arrays: dict[str, Any] = {"input_ids": IDS_IN, "attention_mask": MASK_IN}
    np.savez("in.npz", **arrays, labels=np.array(["a", "b"]))
    assert call(capsys, *RUN, "-o", "out.npz")[0] == 0
    np.savez("in.npz", **arrays, label=np.zeros(2))
    code, _, err = call(capsys, *RUN, "-o", "out.npz")
    assert code == 1
    assert "in.npz: input 'label': the program has no such input" in err


def test_names_and_shapes_come_before_data(capsys: pytest.CaptureFixture[str]):
    """Gigabytes of another shape, or of another name, are not read."""
    header: dict[str, Any] = {"descr": "<i8", "fortran_order": False, "shape": (1 << 22, 8)}
    for name, expected in (("input_ids", "expected input_ids (2x4 int64)"), ("x", "is missing")):
        with zipfile.ZipFile("in.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array_header_1_0(stream, header)
                for _ in range(256):
                    stream.write(bytes(1 << 20))
            with archive.open("attention_mask.npy", "w") as stream:
                np.save(stream, MASK_IN)
        tracemalloc.start()
        code, _, err = call(capsys, *RUN, "-o", "out.npz")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert code == 1
        assert expected in err
        assert peak < 32 << 20


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"locations": [{"pc": 10_000}]}, "locations: expected a pc below"),
        ({"attentions": {"mask_pcs": [0]}}, "mask_pcs: expected mask or topk or filter or likely"),
        ({"attentions": {"gate_pcs": [10**6]}}, "gate_pcs: expected a pc below"),
        ({"attentions": {"gate_pcs": [0]}}, "gate_pcs: expected gate or cascade at pc 0"),
        ({"attentions": {"heads": 1 << 40}}, "heads: expected an integer from 1 to 4096"),
        ({"tensors": {"shared": 1}}, "tensors.y.shared: expected true or false"),
        ({"tensors": {"dtype": "i5"}}, "tensors.y.dtype: expected the element type of a tensor"),
        ({"tensors": {"rows": 1 << 30}}, "tensors.y: expected bytes below"),
        ({"tensors": {"address": 1 << 39}}, "tensors.y: expected bytes below"),
        ({"tensors": {"pc": [10**6]}}, "tensors.y.pc: expected a pc below"),
    ],
)
@pytest.mark.parametrize("option", ["--layers", "--save-masks", "--stats"])
def test_debug_of_another_program(
    capsys: pytest.CaptureFixture[str], changes: dict[str, Any], expected: str, option: str
):
    """What debug.json says is compared with the program before it is believed."""
    program = open_program("p.hdp")
    debug = json.loads(json.dumps(program.debug))
    for section, change in changes.items():
        if isinstance(change, list):
            debug[section] = change
        else:
            debug[section]["y" if section == "tensors" else "layer.0.attention"].update(change)
    weights = [
        Weight("table", "F32", TABLE.shape, [TABLE]),
        Weight("w", "I16", W_CODES.shape, [W_CODES]),
    ]
    with open("bad.hdp", "wb") as stream:
        write_program(stream, program.instructions, program.manifest, weights, debug)
    code, _, err = call(capsys, "bad.hdp", "--inputs", "in.npz", option, "out")
    assert code == 1
    assert expected in err
    assert err.startswith("hdp-run: error: bad.hdp: debug.json: ")


def test_a_run_is_bounded(capsys: pytest.CaptureFixture[str]):
    """A loop that cannot end in time does not begin."""
    program = [
        inst("li", rd=1, imm=1 << 60),
        inst("loop", r=2, bound=1, step=1, skip=3),
        inst("addi", rd=3, ra=3, imm=1),
        inst("end", back=2),
        inst("halt"),
    ]
    manifest = open_program("p.hdp").manifest
    weights = [
        Weight("table", "F32", TABLE.shape, [TABLE]),
        Weight("w", "I16", W_CODES.shape, [W_CODES]),
    ]
    with open("long.hdp", "wb") as stream:
        write_program(stream, program, manifest, weights)
    code, _, err = call(capsys, "long.hdp", "--inputs", "in.npz")
    assert code == 1
    assert "1152921504606846976 iterations of 2 instructions" in err
    assert "note: a pass takes 300 seconds and 9830400 instructions at most" in err
    assert "--max-seconds" in err
    code, _, err = call(capsys, *RUN, "--max-seconds", "0.0005")
    assert code == 1
    assert "note: a pass takes 0.0005 seconds and 16 instructions at most" in err
    assert call(capsys, *RUN, "--max-seconds", "0")[0] == 2


def test_a_trap_names_the_module(capsys: pytest.CaptureFixture[str]):
    program = words()
    program[25] = inst("mm", acc=2, a=0, b=9, first=1)
    manifest = open_program("p.hdp").manifest
    debug = dict(open_program("p.hdp").debug)
    weights = [
        Weight("table", "F32", TABLE.shape, [TABLE]),
        Weight("w", "I16", W_CODES.shape, [W_CODES]),
    ]
    with open("bad.hdp", "wb") as stream:
        write_program(stream, program, manifest, weights, debug)
    code, _, err = call(capsys, "bad.hdp", "--inputs", "in.npz", "-o", "out.npz")
    assert code == 1
    assert "bad.hdp: pc 25: `mm t2, t0, t9" in err
    assert "in layer.0 (toy.py:2)" in err
    assert not Path("out.npz").exists()


def test_damaged_programs_end_with_one_message(capsys: pytest.CaptureFixture[str]):
    data = Path("p.hdp").read_bytes()
    seeded = random.Random(0)
    damages = [bytearray(data) for _ in range(200)]
    for damaged in damages:
        damaged[seeded.randrange(len(data))] ^= seeded.randrange(1, 256)
    damages += [bytearray(data[: seeded.randrange(len(data))]) for _ in range(50)]
    for damaged in damages:
        Path("bad.hdp").write_bytes(damaged)
        code, out, err = call(capsys, "bad.hdp", "--inputs", "in.npz", "-o", "out.npz")
        assert (code, out) == (1, "")
        assert err.startswith("hdp-run: error: bad.hdp")
        assert "error: " in err
    assert not Path("out.npz").exists()


def test_render_is_loadable():
    Path("hw.yaml").write_text(render(EDGE))
    assert load_hardware("hw.yaml") == EDGE
