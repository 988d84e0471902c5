"""Hardware files: the frozen presets, units, and messages that name the key."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatc.errors import HeatcError, UsageError
from heatc.hardware import (
    SCHEMA,
    Hardware,
    costs,
    description_files,
    from_json,
    load_hardware,
    preset_names,
    render,
    units,
)
from heatc.hardware.variants import changes_of, parse_sweep, variant

EDGE = render(load_hardware("hdp-edge"))


def write(folder: Path, text: str) -> Path:
    path = folder / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path | str) -> str:
    with pytest.raises(HeatcError) as caught:
        load_hardware(path)
    return caught.value.render()


def test_presets_are_frozen():
    vector = ("hdp-edge-vector", "hdp-server-vector")
    assert preset_names() == tuple(sorted((*vector, "hdp-edge", "hdp-server", "validation")))
    edge, server = load_hardware("hdp-edge"), load_hardware("hdp-server")
    assert (edge.cores, edge.pe_rows, edge.pe_columns, edge.clock_hz) == (8, 16, 16, 500_000_000)
    assert (edge.shared_buffer_bytes, edge.local_buffer_bytes) == (1 << 20, 64 << 10)
    assert edge.dram_bytes_per_second == 25_600_000_000
    assert (server.cores, server.pe_rows, server.pe_columns) == (32, 32, 32)
    assert server.clock_hz == 1_000_000_000
    assert (server.shared_buffer_bytes, server.local_buffer_bytes) == (16 << 20, 256 << 10)
    assert server.dram_bytes_per_second == 256_000_000_000
    assert edge.macs_per_cycle == 2048
    assert edge.dram_bytes_per_cycle == 51.2


@pytest.mark.parametrize("name", preset_names())
def test_every_value_of_a_preset_has_a_source(name: str):
    hardware = load_hardware(name)
    assert set(hardware.sources) == {key.path for key in SCHEMA}


@pytest.mark.parametrize("name", preset_names())
def test_render_and_json_round_trip(tmp_path: Path, name: str):
    hardware = load_hardware(name)
    again = load_hardware(write(tmp_path, render(hardware)))
    assert again == hardware
    assert again.sources == hardware.sources
    assert from_json(json.loads(json.dumps(hardware.to_json())), "manifest") == hardware


def test_base_gives_what_the_file_leaves_out(tmp_path: Path):
    path = write(tmp_path, "base: hdp-edge\nclock: 1 GHz\nhost: {operations: 60 Gop/s}\n")
    hardware = load_hardware(path)
    assert hardware.name == "my"
    assert hardware.host_ops_per_second == 60_000_000_000
    # 100 ns are twice as many cycles at twice the clock.
    assert hardware.dram_latency_cycles == 100
    assert "clock" not in hardware.sources
    assert hardware.sources["cores"]


def test_a_pe_splits_into_halves_or_not_at_all(tmp_path: Path):
    for split in (16, 8, 4):
        path = write(tmp_path, f"base: hdp-edge\npe_array: {{split: {split} bit}}\n")
        assert load_hardware(path).split_bits == split
    assert {load_hardware(name).split_bits for name in preset_names()} == {16}
    path = write(tmp_path, "base: hdp-edge\npe_array: {split: 12 bit}\n")
    assert "pe_array.split: '12 bit' is none of 4 bit, 8 bit, 16 bit" in message(path)
    path = write(tmp_path, "base: hdp-edge\npe_array: {split: 2 bit}\n")
    assert "pe_array.split: '2 bit' is outside 4 bit to 16 bit" in message(path)
    path = write(tmp_path, "base: hdp-edge\npe_array: {split: 8}\n")
    assert "the unit is missing" in message(path)
    data = {**load_hardware("hdp-edge").to_json(), "split_bits": 12}
    with pytest.raises(HeatcError, match="split_bits: expected one of"):
        from_json(data, "manifest")


def test_a_splitting_pe_needs_its_area_stated(tmp_path: Path):
    """A file of its own that does not say how large a splitting PE is is refused."""
    whole = render(load_hardware("hdp-edge")).replace(
        "split: {value: 16 bit", "split: {value: 8 bit"
    )
    lines = whole.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("area:"))
    row = next(i for i in range(start, len(lines)) if lines[i].startswith("  pe_split_8:"))
    end = next(i for i in range(row + 1, len(lines)) if lines[i].startswith("  pe_split_4:"))
    path = write(tmp_path, "\n".join(lines[:row] + lines[end:]))
    assert "the key 'area.pe_split_8' is missing" in message(path)


def test_switches_are_true_or_false(tmp_path: Path):
    path = write(tmp_path, "base: hdp-edge\npe_array: {fold_overlap: false}\n")
    assert load_hardware(path).fold_overlap is False
    assert load_hardware("hdp-edge").fold_overlap is True
    path = write(tmp_path, "base: hdp-edge\npe_array: {fold_overlap: 1}\n")
    assert "pe_array.fold_overlap: expected true or false, found '1'" in message(path)


def test_unknown_preset_is_a_usage_error():
    with pytest.raises(UsageError) as caught:
        load_hardware("hdp-egde")
    assert "did you mean 'hdp-edge'" in caught.value.render()
    assert "hdp-edge, hdp-edge-vector, hdp-server" in caught.value.render()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base: hdp-edge\nclock: 500\n", "my.yaml:2: clock: expected a frequency"),
        ("base: hdp-edge\nclock: 500 MB\n", "the unit 'MB' is unknown (one of GHz, MHz, kHz, Hz)"),
        ("base: hdp-edge\npe_array: {rows: 16.5}\n", "pe_array.rows: expected a whole number"),
        ("base: hdp-edge\ncores: 0\n", "cores: '0' is outside 1 to 1024"),
        ("base: hdp-edge\ncores: -3\n", "cores: expected a whole number, found '-3'"),
        ("base: hdp-edge\ncores: true\n", "cores: expected a whole number, found 'true'"),
        ("base: hdp-edge\npe_array: {row: 16}\n", "did you mean 'pe_array.rows'"),
        ("base: hdp-edge\npe_aray: {rows: 16}\n", "unknown key 'pe_aray.rows'"),
        (
            "base: hdp-edge\ncores: 4\ncores: 8\n",
            "my.yaml:3: the key 'cores' is given twice",
        ),
        ("base: hdp-big\n", "'base' is neither a preset nor a file: 'hdp-big'"),
        ("cores: 8\nclock: 1 GHz\n", "the key 'pe_array.rows' is missing"),
        ("base: hdp-edge\nbuffers: {local: 0.3 KiB}\n", "buffers.local: '0.3 KiB' is not a whole"),
        (
            "base: hdp-edge\nenergy:\n  mac_8x8: 3 mJ/B\n",
            "my.yaml:3: energy.mac_8x8: expected an energy such as '0.25 pJ'; the unit 'mJ/B'",
        ),
        ("base: hdp-edge\nenergy: {mac_8x9: 1 pJ}\n", "did you mean 'energy.mac_8x8'"),
        ("base: hdp-edge\nleakage: {pe: 0.5 nW}\n", "leakage.pe: '0.5 nW' is not a whole number"),
        ("base: hdp-edge\narea: {pe: 300}\n", "area.pe: expected an area such as '0.3 mm2'"),
        (
            "base: hdp-edge\nsparsity_engine: {blocks: 2 x 2}\n",
            "my.yaml:2: sparsity_engine.blocks: expected sizes of blocks such as '1x1, 2x2'",
        ),
        ("base: hdp-edge\nsparsity_engine: {blocks: '2x2, 2x2'}\n", "each once"),
        ("base: hdp-edge\nsparsity_engine: {blocks: 65x1}\n", "'65x1' has an extent above 64"),
        ("base: hdp-edge\ncores: [1, 2]\n", "cores: expected one value, found a collection"),
        ("base: hdp-edge\ncores: {value: 1, value: 2}\n", "the key 'value' is given twice"),
        ("base: hdp-edge\ncores:\n", "cores: the value is empty"),
        ("schema: 9\nbase: hdp-edge\n", "made for schema 9, this heatc reads 1"),
        ("", "expected a mapping"),
        ("cores: [8\n", "not YAML"),
        ("a: " + "[" * 50_000, "nesting depth"),
        ("a: " + "[" * 20 + "]" * 20, "my.yaml:1: nested more than 8 deep"),
        ("a: &a {b: *a}\n", "an alias (*name)"),
        ("base: hdp-edge\nclock: 1e99999999 Hz\n", "expected a frequency"),
        ("base: hdp-edge\nbuffers: {shared: 64 GiB}\n", "'64 GiB' is outside 1 KiB to 1 GiB"),
        ("base: hdp-edge\nbuffers: {local: 1 GiB}\n", "'1 GiB' is outside 1 KiB to 64 MiB"),
        (
            "base: hdp-edge\ncores: 1024\nbuffers: {local: 64 MiB}\n",
            "buffers.local of 1024 cores and buffers.shared have 68720525312 bytes, at most 1073741824",
        ),
        (
            "base: hdp-edge\ncores: 1024\npe_array: {rows: 128, columns: 128}\n",
            "16777216 PEs in all, at most 4194304",
        ),
        ("base: hdp-edge\ndram: {capacity: 2048 GiB}\n", "is outside 1 KiB to 1024 GiB"),
    ],
)
def test_bad_file(tmp_path: Path, text: str, expected: str):
    assert expected in message(write(tmp_path, text))


def test_missing_and_binary_file(tmp_path: Path):
    assert "cannot open: no such file" in message(tmp_path / "none.yaml")
    path = tmp_path / "my.yaml"
    path.write_bytes(bytes(range(256)))
    assert "not YAML" in message(path)


def test_from_json_is_checked():
    good = load_hardware("hdp-edge").to_json()
    bad_ones: list[object] = [None, [], {}]
    bad_ones += [good | {"blocks": b} for b in ([], [[2]], [[2, 0]], [[2, 65]], "2x2", [[2, True]])]
    bad_ones += [good | {"cores": "8"}, good | {"cores": 0}, good | {"name": 3}]
    for bad in bad_ones:
        with pytest.raises(HeatcError, match="expected"):
            from_json(bad, "x.hdp: manifest.json: hardware")


def test_presets_load_without_numpy():
    code = (
        "import sys; from heatc.hardware import load_hardware; load_hardware('hdp-edge');"
        "sys.exit(any(m in sys.modules for m in ('numpy', 'torch', 'scipy', 'pydantic', 'xdsl')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.integers(min_value=0, max_value=10**17))
def test_units_round_trip(value: int):
    for unit in (units.BYTES, units.FREQUENCY, units.BANDWIDTH, units.OPERATIONS):
        assert unit.parse(unit.render(value)) == value


@given(st.integers(min_value=0, max_value=10**18))
def test_units_of_costs_round_trip(value: int):
    for unit in (units.ENERGY, units.ENERGY_PER_BYTE, units.POWER, units.AREA_PER_MIB):
        assert unit.parse(unit.render(value)) == value


def test_costs_of_the_presets_are_consistent():
    for name in ("hdp-edge", "hdp-server"):
        hardware = load_hardware(name)
        energies = [getattr(hardware, f"energy_mac_{width}_aj") for width in costs.MAC_WIDTHS]
        assert energies == sorted(energies, reverse=True)
        assert hardware.energy_local_read_aj < hardware.energy_shared_read_aj
        assert hardware.energy_shared_read_aj < hardware.energy_dram_read_aj
        assert min(getattr(hardware, row.attribute) for row in costs.ROWS) > 0
        assert all("14 nm" in hardware.sources[f"area.{name}"] for name in ("pe", "sequencer"))


def test_units():
    assert units.ENERGY.parse("0.25 pJ") == 250_000
    assert units.POWER.parse("12 mW") == 12_000_000
    assert units.AREA.parse("0.3 mm2") == 300_000_000_000
    assert units.TIME.parse("100 ns") == Fraction(1, 10**7)
    assert units.BYTES.render(1 << 20) == "1 MiB"
    assert units.BANDWIDTH.render(25_600_000_000) == "25.6 GB/s"


def test_the_echo_says_the_area():
    text = render(load_hardware("hdp-edge"))
    assert "# area, modelled: 2.25 mm2" in text
    assert "#   shared: 0.303 mm2" in text


def test_a_base_may_have_a_base(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: hdp-edge-vector\ncores: 2\n")
    assert replace(load_hardware("hdp-edge-vector"), name="mine", cores=2) == load_hardware(path)


def test_a_base_may_be_a_file_of_another_folder(tmp_path: Path):
    (tmp_path / "boards").mkdir()
    (tmp_path / "slow.yaml").write_text("base: hdp-edge\nclock: 250 MHz\ncores: 4\n")
    path = tmp_path / "boards" / "mine.yaml"
    path.write_text("base: ../slow.yaml\ncores: 2\ndram: {latency: 100 ns}\n")
    found = load_hardware(path)
    assert (found.name, found.cores, found.clock_hz) == ("mine", 2, 250 * 10**6)
    assert found.dram_latency_cycles == 25
    assert found.pe_rows == load_hardware("hdp-edge").pe_rows
    assert description_files(path) == [path, tmp_path / "boards" / ".." / "slow.yaml"]


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("clock: 3 MB", "slow.yaml:2: clock: expected a frequency"),
        ("cores: 4096", "slow.yaml:2: cores: '4096' is outside 1 to 1024"),
        ("corse: 4", "slow.yaml:2: unknown key 'corse'\nnote: did you mean 'cores'"),
        ("buffers: {local: 64 MiB}", "mine.yaml: buffers.local of 512 cores"),
    ],
)
def test_what_is_wrong_in_a_base_is_said_of_its_file(tmp_path: Path, base: str, expected: str):
    (tmp_path / "slow.yaml").write_text(f"base: hdp-edge\n{base}\n")
    path = tmp_path / "mine.yaml"
    path.write_text("base: slow.yaml\ncores: 512\n" if "buffers" in base else "base: slow.yaml\n")
    assert expected in message(path)


@pytest.mark.parametrize("base", ["none.yaml", "/dev/zero", "slow.txt", "x\\0.yaml", "a" * 5000])
def test_a_base_that_is_none(tmp_path: Path, base: str):
    (tmp_path / "slow.txt").write_text("base: hdp-edge\n")
    path = write(tmp_path, f'base: "{base}"\n')
    assert "'base' is neither a preset nor a file" in message(path)


def test_bases_that_go_round_in_a_circle(tmp_path: Path):
    for name, base in (("a", "b"), ("b", "c"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"base: {base}.yaml\n")
    text = message(tmp_path / "a.yaml")
    assert "'base' goes round in a circle: a.yaml -> b.yaml -> c.yaml -> a.yaml" in text
    (tmp_path / "own.yaml").write_text("base: ./own.yaml\n")
    assert "own.yaml -> own.yaml" in message(tmp_path / "own.yaml")


def test_every_key_says_what_it_means():
    attributes = {field.name for field in fields(Hardware)} - {"name", "description", "sources"}
    assert {key.attribute for key in SCHEMA} == attributes
    assert [key.path for key in SCHEMA if not key.meaning] == []


# --- Machines that differ in some keys --------------------------------------------------------


def test_a_unit_is_that_of_the_last_value():
    sweep = parse_sweep("dram.bandwidth=6.4, 12.8 ,25.6 GB/s")
    assert sweep.texts == ("6.4 GB/s", "12.8 GB/s", "25.6 GB/s")
    assert parse_sweep("cores=1,2").texts == ("1", "2")
    assert parse_sweep("mechanisms.stage_overlap=true,false").texts == ("true", "false")
    assert parse_sweep("sparsity_engine.blocks=2x2;4x4, 2x2").texts == ("2x2", "4x4, 2x2")
    assert parse_sweep("dram.latency=50 cycles,100 ns").texts == ("50 cycles", "100 ns")


def test_machines_are_the_product():
    sweeps = [parse_sweep("clock=250,1000 MHz"), parse_sweep("dram.bandwidth=1,2 GB/s")]
    changes = changes_of(sweeps)
    assert [tuple(c.values()) for c in changes] == [
        ("250 MHz", "1 GB/s"),
        ("250 MHz", "2 GB/s"),
        ("1000 MHz", "1 GB/s"),
        ("1000 MHz", "2 GB/s"),
    ]
    edge = load_hardware("hdp-edge")
    found = variant(edge, changes[0])
    times = {"dram_latency_cycles": 25, "host_call_cycles": 50}
    expected = replace(edge, clock_hz=250 * 10**6, dram_bytes_per_second=10**9, **times)
    assert replace(found, name=edge.name) == expected
    told = variant(edge, {"clock": "250 MHz", "dram.latency": "400 ns"})
    assert told.dram_latency_cycles == 100
    # What was swept is said where a file says its sources.
    assert found.sources["clock"] == "--sweep"
    assert variant(edge, {"cores": "8"}).cores == edge.cores


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dram.bandwith=1 GB/s", "did you mean 'dram.bandwidth'"),
        ("bandwidth=1 GB/s", "unknown key 'bandwidth'"),
        ("dram.bandwidth=1,2 GiB", "the unit 'GiB' is unknown"),
        ("dram.bandwidth=1,2", "the unit is missing"),
        ("dram.bandwidth", "no value is given"),
        ("dram.bandwidth=", "no value is given"),
        ("dram.bandwidth=1,,2 GB/s", "expected a bandwidth"),
        ("cores=1.5", "expected a whole number"),
        ("cores=0,1", "'0' is outside 1 to 1024"),
        ("cores=2,2", "a value is given twice"),
        ("", "unknown key ''"),
    ],
)
def test_wrong_sweeps(text: str, expected: str):
    with pytest.raises(UsageError) as caught:
        parse_sweep(text)
    assert expected in caught.value.render()


def test_sweeps_that_do_not_go_together():
    twice = [parse_sweep("cores=1,2"), parse_sweep("cores=4")]
    with pytest.raises(UsageError, match="cores is swept twice"):
        changes_of(twice)
    many = [
        parse_sweep(f"{k}={','.join(map(str, range(1, 60)))}") for k in ("cores", "adder.lanes")
    ]
    with pytest.raises(UsageError, match="3481 machines, at most 1024"):
        changes_of(many)
    with pytest.raises(UsageError, match=r"buffers\.local of 1024 cores"):
        variant(load_hardware("hdp-edge"), {"cores": "1024", "buffers.local": "64 MiB"})


def test_a_machine_of_a_manifest_is_bounded_too():
    data = load_hardware("hdp-edge").to_json()
    assert from_json(data, "x") == load_hardware("hdp-edge")
    for change in (
        {"shared_buffer_bytes": 64 << 30},
        {"cores": 1024, "local_buffer_bytes": 1 << 26},
    ):
        with pytest.raises(HeatcError, match="shared"):
            from_json(data | change, "x")


@pytest.mark.parametrize("value", [None, 3, b"hdp-edge", ["hdp-edge"]])
def test_what_names_no_machine(value: Any):
    with pytest.raises(HeatcError, match="expected a path for a hardware file"):
        load_hardware(value)
