"""The figures of a page are those of the files that it was made of."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from report_kit import Made, Node, call, chart, compressed_front, parsed, value_of
from tiny_classifier import LAYERS

from heatc import kinds
from heatc.report.numbers import NOTHING
from heatc.report.page import MOST_BYTES
from heatc.report.sections import masks, timeline
from heatc.tools import main, report, run

CARD = {
    "Cycles": ("total_cycles", ""),
    "Time": ("time_seconds", "s"),
    "Energy": ("energy_joules", "J"),
    "Energy × delay": ("energy_delay_product_joule_seconds", "J s"),
}


@pytest.fixture(scope="module")
def page(made: Made) -> Node:
    return parsed(made.page)


def cards(page: Node) -> dict[str, dict[str, tuple[str, str]]]:
    """By run and row: the figure, and how it differs."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for card in page.all("article", "card"):
        rows: dict[str, tuple[str, str]] = {}
        for row in card.all("dl")[0].children:
            chips = row.all("span", "chip")
            name = " ".join(row.all("dt")[0].words).strip()
            rows[name] = (row.all("span", "figure")[0].text, chips[0].text if chips else "")
        found[card.all("h3")[0].text] = rows
    return found


@pytest.mark.parametrize("name", ["dense", "pruned"])
def test_cards_have_the_figures_of_the_run(made: Made, page: Node, name: str):
    stats, card = made.stats(name), cards(page)[name]
    for title, (figure, unit) in CARD.items():
        assert value_of(card[title][0], unit) == pytest.approx(stats["modelled"][figure], rel=1e-3)
    moved = sum(stats["modelled"][f"dram_{way}_bytes"] for way in ("read", "written"))
    text = card["To and from DRAM"][0]
    unit = "bytes" if text.endswith("bytes") else "B"
    assert value_of(text, unit) == pytest.approx(moved, rel=1e-3)
    heads = stats["functional"]["kept_heads_percent"]
    assert card["Heads kept"][0] == f"{heads:.1f} %"
    blocks = stats["functional"]["kept_blocks_percent"]
    assert card["Blocks kept"][0] == ("all" if blocks is None else f"{blocks:.1f} %")


def test_differences_say_what_is_better(made: Made, page: Node):
    dense, pruned = (made.stats(name)["modelled"] for name in ("dense", "pruned"))
    for title, (figure, _) in CARD.items():
        percent = 100 * (pruned[figure] / dense[figure] - 1)
        words = "more: worse" if percent > 0 else "less: better"
        assert cards(page)["pruned"][title][1] == f"{abs(percent):.1f} % {words}"
        assert cards(page)["dense"][title][1] == ""


def test_agreement_and_accuracy_are_those_of_the_files(made: Made, page: Node):
    card, stats = cards(page)["pruned"], made.stats("pruned")
    (found,) = stats["agreement"].values()
    text = f"{found['cosine']:.5f}, least {found['min_cosine']:.5f}"
    assert card["Cosine, logits"][0] == text
    evaluation = json.loads((made.folder / "eval.json").read_text())
    for subject, name in zip(evaluation["subjects"], ("dense", "pruned")):
        accuracy = subject["compared"]["accuracy_percent"]
        text = cards(page)[name]["Accuracy"][0]
        assert text.startswith(f"{accuracy['value']:.4g} % [{accuracy['low']:.4g}, ")


def test_every_figure_of_both_runs_is_in_the_comparison(made: Made, page: Node):
    section = page.by_id("comparison")
    rows = {r.children[0].text.split()[0]: r for t in section.all("tbody") for r in t.children}
    dense, pruned = made.stats("dense"), made.stats("pruned")
    known = {**pruned["functional"], **pruned["modelled"]}
    assert set(rows) == {name for name, value in known.items() if value is not None}
    for name in ("total_cycles", "dma_busy_cycles", "dram_read_bytes"):
        cells = [cell.text for cell in rows[name].children]
        unit = cells[1]
        for text, stats in ((cells[2], dense), (cells[3], pruned)):
            factor = 1e3 if unit == "kB" else 1e6 if unit == "MB" else 1
            value = float(text.replace(",", "")) * factor
            assert value == pytest.approx(stats["modelled"][name], rel=1e-3)


def test_bars_and_tables_have_the_figures_of_the_modules(made: Made, page: Node):
    data = chart(page, "modules-chart")
    for number, name in enumerate(("dense", "pruned")):
        rows, stats = made.modules(name), made.stats(name)["modelled"]
        time = data["figures"]["0-2"]["data"][number]["x"]
        assert time == [int(row["time_cycles"]) for row in rows]
        assert sum(time) == stats["total_cycles"]
        by_place = data["figures"]["0-0"]["data"][number]["x"]
        assert sum(by_place) == stats["total_cycles"]
        table = page.by_id(f"modules-table-{number}").all("tbody")[0]
        assert [r.children[0].text for r in table.children] == [r["module_path"] for r in rows]
        energy = [float(r.children[2].attributes["data-key"]) for r in table.children]
        assert sum(energy) == pytest.approx(stats["energy_joules"], rel=1e-9)
    tables = [page.by_id(f"modules-table-{n}").all("tbody")[0].children for n in (0, 1)]
    assert {row.children[-1].text for row in tables[0]} == {NOTHING}
    kept = [int(row["kept_blocks"]) for row in made.modules("pruned") if int(row["ranked_blocks"])]
    texts = [row.children[-1].text for row in tables[1] if row.children[-1].text != NOTHING]
    assert texts == [f"{count:,}" for count in kept]
    places = data["figures"]["0-0"]["layout"]["yaxis"]["ticktext"]
    assert "encoder.layer.*.attention" in places


def test_the_roof_is_that_of_the_machine(made: Made, page: Node):
    hardware = made.stats("dense")["hardware"]
    peak = hardware["cores"] * hardware["pe_rows"] * hardware["pe_columns"] * hardware["clock_hz"]
    roof, *runs = chart(page, "roofline-chart")["figures"]["0"]["data"]
    assert roof["y"][1:] == [peak, peak]
    assert roof["x"][1] == pytest.approx(peak / hardware["dram_bytes_per_second"])
    bandwidth = hardware["dram_bytes_per_second"]
    for number, name in enumerate(("dense", "pruned")):
        rows = {row["module_path"]: row for row in made.modules(name)}
        points = runs[number]
        for text, x, y in zip(points["hovertext"], points["x"], points["y"]):
            row = rows[text.split("<br>")[0]]
            moved = int(row["dram_read_bytes"]) + int(row["dram_written_bytes"])
            assert x == pytest.approx(int(row["macs"]) / moved)
            assert y <= min(peak, x * bandwidth) * (1 + 1e-6)


def test_strips_are_shares_of_busy_cycles(made: Made, page: Node):
    timeline = json.loads((made.folder / "pruned/timeline.json").read_text())
    drawn = chart(page, "timeline-chart")["figures"]["1-0"]["data"][0]
    strip = timeline["whole_run"]
    tracks = [track for track in timeline["units"] if track in strip["busy_cycles"]]
    for track, shares in zip(tracks, drawn["z"], strict=True):
        whole = strip["bin_cycles"] * timeline["units"][track]
        for busy, share in zip(strip["busy_cycles"][track], shares, strict=True):
            assert share == pytest.approx(100 * busy / whole, abs=0.5)
    assert drawn["dx"] == strip["bin_cycles"]


def test_points_of_the_front_link_their_plans(made: Made, page: Node):
    traces = {trace["name"]: trace for trace in chart(page, "front-0")["figures"][""]["data"]}
    assert traces["front"]["y"] == [0.5, 0.25, 0.5 / 3]
    assert traces["front"]["x"] == pytest.approx([1, 2, 3])
    assert traces["front"]["customdata"] == ["front/00.json", None, None]
    assert traces["for the goal"]["customdata"] == ["front/plan.json"]
    assert "low-rank 2, dense 1" in traces["front"]["hovertext"][0]
    links = [link.attributes["href"] for link in page.by_id("front").all("a")]
    assert links == ["front/00.json", "front/plan.json"]
    for link in links:
        assert (made.page.parent / link).is_file()
    assert "87.5 % less: better" in page.by_id("front").text


def test_a_front_of_a_compression_has_the_accuracy_lost(tmp_path: Path):
    data = compressed_front()
    (tmp_path / "front.json").write_text(kinds.FRONT.json_text(data))
    call(report, tmp_path, "-o", tmp_path / "p.html", "-q")
    page = parsed(tmp_path / "p.html")
    drawn = chart(page, "front-0")
    assert drawn["layout"]["yaxis"]["title"]["text"] == "accuracy lost (points, compared)"
    traces = {trace["name"]: trace for trace in drawn["figures"][""]["data"]}
    assert traces["dense model"]["y"] == [0]
    assert traces["front"]["y"] == [2.5]
    assert traces["for the goal"]["y"] == [1.5]
    bars = traces["for the goal"]["error_y"]
    assert (bars["array"], bars["arrayminus"]) == ([1.25], [1.0])
    text = page.by_id("front").text
    assert "nearest to accuracy-drop<=1" in text
    assert "1.5 [0.5, 2.75]" in text
    assert "Plans are judged by: accuracy lost against labels." in text
    assert "75.0 % less: better" in text


def test_a_goal_that_a_search_missed_names_the_nearest_plan(made: Made, tmp_path: Path):
    data = json.loads((made.folder / "front/front.json").read_text())
    del data["chosen"]
    data["missed"] = {"goal": "edp>=90x", "nearest": "01.json", "message": "no plan"}
    (tmp_path / "front.json").write_text(json.dumps(data))
    call(report, tmp_path, "-o", tmp_path / "p.html", "-q")
    rows = parsed(tmp_path / "p.html").by_id("front").all("tr")
    (row,) = (row for row in rows if "nearest to edp>=90x" in row.text)
    assert "01.json" in row.children[0].text


def test_a_sweep_is_drawn_over_the_values_of_its_first_key(made: Made, page: Node):
    data = json.loads((made.folder / "sweep/sweep.json").read_text())
    first, second = data["sweeps"]
    drawn = chart(page, "sweep-0")["figures"]["1"]
    assert drawn["layout"]["xaxis"]["title"]["text"] == first
    assert drawn["layout"]["yaxis"]["title"]["text"] == "cycles (cycles, modelled)"
    assert [t["name"] for t in drawn["data"]] == [f"{second} {v}" for v in data["sweeps"][second]]
    for trace, value in zip(drawn["data"], data["sweeps"][second], strict=True):
        points = [p for p in data["points"] if p["changes"][second] == value]
        assert trace["x"] == [point["changes"][first] for point in points]
        assert trace["y"] == [point["figures"]["total_cycles"] for point in points]
    (body,) = page.by_id("sweep").all("tbody")
    cycles = [row.children[3].text for row in body.children]
    assert cycles == [f"{point['figures']['total_cycles']:,}" for point in data["points"]]


def test_plans_say_formats_ranks_and_rules(page: Node):
    text = page.by_id("ranks").text
    assert "4, 8, 4" in text
    # (4x4 + 4x4x8 + 8x4x4 + 4x4) of 16 x 16.
    assert "288" in text
    assert "112.5 %" in text
    assert "ours, point 2, rho_b 0.25 to 0.75" in text


def test_provenance_names_every_file_by_its_digest(made: Made, page: Node):
    text = page.by_id("provenance").text
    for name in ("dense/stats.json", "pruned/masks.npz", "front/front.json", "eval.json"):
        path = made.folder / name
        assert str(path) in text
        assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    assert made.stats("dense")["inputs"]["sha256"] in text
    cores = re.search(r"\bcores: (?:value: )?(\d+)", text)
    assert cores is not None
    assert int(cores[1]) == made.stats("dense")["hardware"]["cores"]


def test_sections_without_data_are_left_out(made: Made, tmp_path: Path):
    path = tmp_path / "p.html"
    assert report.main([str(made.folder / "heat.json"), "-o", str(path), "-q"]) == 0
    ids = [section.attributes["id"] for section in parsed(path).all("section")]
    assert ids == ["ranks", "provenance", "terms"]


def test_the_same_files_give_the_same_page(made: Made, tmp_path: Path):
    pages: list[bytes] = []
    for name in ("a", "b"):
        place = tmp_path / name
        place.mkdir()
        # Links are relative to the page.
        os.symlink(made.folder / "front", place / "front")
        assert report.main([*made.runs, "-o", str(place / "p.html"), "-q"]) == 0
        pages.append((place / "p.html").read_bytes())
    assert pages[0] == pages[1]
    assert len(pages[0]) <= MOST_BYTES


def test_a_page_replaces_a_page_alone(made: Made, tmp_path: Path):
    path, argv = tmp_path / "p.html", [str(made.folder / "heat.json"), "-q", "-o"]
    assert report.main([*argv, str(path)]) == 0
    assert kinds.PAGE.is_kind_of(path)
    assert report.main([*argv, str(path)]) == 0
    path.write_text("<!DOCTYPE html>\nmine")
    assert report.main([*argv, str(path)]) == 1
    assert path.read_text() == "<!DOCTYPE html>\nmine"


@pytest.mark.parametrize("section", [masks, timeline])
def test_what_has_no_room_is_told(
    made: Made,
    section: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(section, "BUDGET", 4000)
    path = tmp_path / "p.html"
    assert report.main([str(made.folder / "pruned"), "-o", str(path), "-q"]) == 0
    left_out = parsed(path).by_id("left-out").text
    told = " ".join(capsys.readouterr().err.split())
    assert "the page has no room for" in left_out
    for item in parsed(path).by_id("left-out").all("li"):
        assert f"{path}: {item.text}" in told


def test_a_plan_names_rule_and_blocks_of_each_attention(made: Made, tmp_path: Path):
    rule = {"rule": "ours", "rho_b": 0.5, "block": [4, 2]}
    plan = {"schema": 2, "layers": {LAYERS[1]: {"hdp": rule}}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    model = (made.folder / "model.mlir", "--weights", made.folder / "w.safetensors")
    target = ("--target", "hdp-edge", "--plan", tmp_path / "plan.json", "--no-verify")
    call(main, *model, *target, "-o", tmp_path / "x.hdp")
    stats = ("--stats", tmp_path / "run", "--keep-masks", 1, "-q")
    call(run, tmp_path / "x.hdp", "--inputs", made.folder / "in.npz", *stats)
    call(report, tmp_path / "run", "-o", tmp_path / "p.html", "-q")
    page = parsed(tmp_path / "p.html")
    assert "x.hdp: pruning by rule ours" in page.by_id("headline").text
    assert "of 4 queries and 2 keys" in page.by_id("masks").text


def test_no_name_is_markup(hostile: Path):
    page = parsed(hostile)
    assert [s.attributes.get("type", "") for s in page.all("script")].count("") == 1
    assert not [image for image in page.all("img") if image.attributes["src"] == "x"]
    for node in _all(page):
        assert not [name for name in node.attributes if name.startswith("on")]


def _all(node: Node) -> list[Any]:
    return [node, *(found for child in node.children for found in _all(child))]
