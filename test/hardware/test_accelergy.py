"""Accelergy's tables replace rows of a hardware description."""

from __future__ import annotations

from pathlib import Path

import pytest

from heatc.errors import HeatcError
from heatc.hardware import load_hardware, render
from heatc.hardware.accelergy import import_ert

EDGE = load_hardware("hdp-edge")

ERT = """\
ERT:
  version: '0.4'
  tables:
  - name: chip.local_buffer[1..8]
    actions:
    - name: read
      arguments: {data_delta: 1, address_delta: 1}
      energy: 6.0
    - name: read
      arguments: {data_delta: 0, address_delta: 1}
      energy: 1.0
    - {name: write, arguments: {}, energy: 5}
  - name: chip.pe[1..2048].mac
    actions:
    - {name: compute, energy: 0.125}
    - {name: leak, energy: 0.02}
"""
ART = """\
ART:
  version: '0.4'
  tables:
  - {name: 'chip.pe[1..2048].mac', area: 332.25}
  - {name: 'chip.local_buffer[1..8]', area: 15000.0}
"""
MAPPING = {
    "energy.mac_16x16": "chip.pe[1..2048].mac.compute",
    "energy.local_read": "chip.local_buffer.read / 8",
    "energy.local_write": "chip.local_buffer.write / 8",
    "leakage.pe": "chip.pe.mac.leak",
    "area.pe": "chip.pe.mac",
    "area.local_buffer": "chip.local_buffer / 0.0625",
}


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> tuple[Path, Path]:
    ert, art = tmp_path / "ERT.yaml", tmp_path / "ART.yaml"
    ert.write_text(ERT, encoding="utf-8")
    art.write_text(ART, encoding="utf-8")
    return ert, art


def test_rows_come_from_the_tables(files: tuple[Path, Path], tmp_path: Path):
    hardware = import_ert(EDGE, files[0], MAPPING, art=files[1])
    assert hardware.energy_mac_16x16_aj == 125_000
    assert hardware.energy_local_read_aj == 750_000
    assert hardware.energy_local_write_aj == 625_000
    assert hardware.leakage_pe_nw == 10_000  # 20 fJ a cycle at 500 MHz
    assert hardware.area_pe_nm2 == 332_250_000
    assert hardware.area_local_buffer_nm2 == 240_000_000_000
    assert hardware.energy_dram_read_aj == EDGE.energy_dram_read_aj
    assert hardware.sources["area.pe"] == "Accelergy: chip.pe.mac of ART.yaml"
    path = tmp_path / "mine.yaml"
    path.write_text(render(hardware), encoding="utf-8")
    again = load_hardware(path)
    assert again == hardware
    assert again.sources == hardware.sources


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"energy.mac": "chip.pe.mac.compute"}, "the mapping names 'energy.mac'"),
        ({"energy.mac_8x8": "chip.pe.mac.multiply"}, "energy.mac_8x8: no 'chip.pe.mac.multiply'"),
        ({"energy.mac_8x8": "chip.pe.mac.compute / x"}, "does not divide by a number"),
        ({"energy.mac_8x8": "chip.pe.mac.compute / 0"}, "does not divide by a number"),
        ({"area.pe": "chip.pe.mac"}, "is the file given?"),
    ],
)
def test_bad_mapping(files: tuple[Path, Path], mapping: dict[str, str], expected: str):
    with pytest.raises(HeatcError) as caught:
        import_ert(EDGE, files[0], mapping)
    assert expected in caught.value.render()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected 'ERT: tables:'"),
        ("ERT: {tables: [{actions: []}]}", "a table without a name"),
        ("ERT: {tables: [{name: a, actions: [{energy: 1}]}]}", "a: an action without a name"),
        ("ERT: {tables: [{name: a, actions: [{name: r, energy: x}]}]}", "a.r: expected a number"),
        ("ERT: [", "not YAML"),
    ],
)
def test_bad_file(tmp_path: Path, text: str, expected: str):
    path = tmp_path / "ERT.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HeatcError) as caught:
        import_ert(EDGE, path, {})
    assert expected in caught.value.render()
    with pytest.raises(HeatcError, match="cannot open: no such file"):
        import_ert(EDGE, tmp_path / "none.yaml", {})
