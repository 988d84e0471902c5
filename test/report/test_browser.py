"""The page in a browser: it is drawn, it asks for nothing, and its controls work."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from report_kit import NAMES, Made

from bench.support import browser as support
from bench.support.browser import Opened, opened
from heatc.readers.npz import read_npz

pytest.importorskip("playwright", reason="needs the package playwright")
pytestmark = pytest.mark.skipif(
    support.executable() is None, reason=f"needs one of {', '.join(support.NAMES)}"
)

SHOWN = "[...document.querySelectorAll('{}')].filter(e => e.offsetParent !== null)"


@pytest.fixture(scope="module")
def browser() -> Generator[Any]:
    with support.chromium() as found:
        yield found


@pytest.fixture(scope="module")
def visit(browser: Any, made: Made) -> Generator[Opened]:
    with opened(browser, made.page) as found:
        yield found


def choose(page: Any, target: str, number: int, label: str) -> None:
    """Choose in the control of that number of a chart or of panels, and wait for what it shows."""
    controls = page.locator(f"select[data-target='{target}']")
    controls.nth(number).select_option(label=label)
    if page.locator(f"#{target}.chart").count():
        key = "-".join(controls.evaluate_all("all => all.map(one => one.value)"))
        page.wait_for_selector(f"#{target}[data-shown='{key}']", state="attached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_drawn(browser: Any, made: Made, width: int, scheme: str):
    with opened(browser, made.page, width, color_scheme=scheme, offline=True) as found:
        page = found.page
        assert found.complaints == []
        assert found.requests == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        charts = page.locator(".chart")
        assert charts.count() >= 6
        assert charts.count() == page.locator(".chart .main-svg").count() / _svgs(page)
        over = page.evaluate(
            "[...document.querySelectorAll('section > *, .chart, select')]"
            ".filter(e => e.getBoundingClientRect().right > innerWidth).length"
        )
        assert over == 0


def _svgs(page: Any) -> float:
    """How many drawings plotly makes of a chart."""
    return page.locator("#modules-chart .main-svg").count()


def test_colours_follow_the_reader(browser: Any, made: Made):
    def colours(scheme: str) -> list[str]:
        with opened(browser, made.page, color_scheme=scheme) as found:
            return found.page.evaluate(
                "[getComputedStyle(document.body).backgroundColor,"
                " document.querySelector('#modules-chart .ytick text').style.fill]"
            )

    light, dark = colours("light"), colours("dark")
    assert light[0] != dark[0]
    assert light[1] != dark[1]


def test_another_quantity_is_drawn(visit: Opened, made: Made):
    page = visit.page
    choose(page, "modules-chart", 1, "all modules")
    choose(page, "modules-chart", 0, "Multiply-accumulates")
    title = page.locator("#modules-chart .xtitle").text_content()
    assert title.startswith("multiply-accumulates (count, counted)")
    drawn = page.evaluate("document.getElementById('modules-chart-plot').data[1].x")
    assert drawn == [int(row["macs"]) for row in made.modules("pruned")]
    choose(page, "modules-chart", 0, "Energy, leakage shared out by time")
    rows = made.modules("dense")
    largest = max(range(len(rows)), key=lambda n: float(rows[n]["energy_joules"]))
    bar = page.locator("#modules-chart .trace.bars").nth(0).locator(".point path").nth(largest)
    bar.hover(force=True)
    text = page.locator("#modules-chart .hovertext").first.text_content()
    assert rows[largest]["module_path"] in text
    assert "dense: " in text
    assert "J, modelled" in page.locator("#modules-chart .xtitle").text_content()
    assert visit.complaints == []


def test_another_layer_is_on_the_timeline(visit: Opened, made: Made):
    page = visit.page
    timeline = json.loads((made.folder / "pruned/timeline.json").read_text())
    name = "encoder.layer.1.attention"
    choose(page, "timeline-chart", 0, "pruned")
    choose(page, "timeline-chart", 1, name)
    drawn = page.evaluate("document.getElementById('timeline-chart-plot').data[0]")
    strip = timeline["modules"][name]
    assert drawn["dx"] == strip["bin_cycles"]
    assert drawn["x0"] == strip["first_cycle"] + strip["bin_cycles"] / 2
    assert page.locator("#timeline-chart .empty").is_hidden()


PIXELS = """async (image) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    await image.decode();
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const kept = [];
    for (let row = 0; row < canvas.height; row++)
        kept.push(Array.from({length: canvas.width},
            (_, column) => data[4 * (row * canvas.width + column) + 3] > 0));
    return kept;
}"""


@pytest.mark.parametrize(("layer", "sample"), [(0, 0), (1, 2)])
def test_pictures_are_the_masks(visit: Opened, made: Made, layer: int, sample: int):
    page, name = visit.page, f"encoder.layer.{layer}.attention"
    masks = read_npz(made.folder / "pruned/masks.npz")
    length = int(masks["lengths"][sample])
    blocks = -(-length // 2)
    choose(page, "masks-panels", 1, name)
    choose(page, "masks-panels", 2, f"input {sample + 1}")
    images = page.locator("#masks-panels > [data-key]:not([hidden]) img")
    kept = masks[f"mask/{name}"][sample]
    assert images.count() == len(kept)
    for head in range(len(kept)):
        found = images.nth(head).evaluate(PIXELS)
        assert found == kept[head, :blocks, :blocks].tolist()
    texts = page.locator("#masks-panels > [data-key]:not([hidden]) figcaption").all_text_contents()
    gates = masks[f"gate/{name}"][sample]
    assert ["pruned by the gate" in text for text in texts] == [not gate for gate in gates]


def test_one_head_alone(visit: Opened):
    page = visit.page
    page.locator("select[data-items='masks-panels']").select_option(label="head 3")
    shown = page.evaluate(f"{SHOWN.format('#masks-panels .head')}.map(e => e.dataset.item)")
    assert shown == ["2"]
    page.locator("select[data-items='masks-panels']").select_option(label="all")
    assert page.evaluate(f"{SHOWN.format('#masks-panels .head')}.length") == 4


def test_tables_are_sorted_by_mouse_and_keyboard(visit: Opened, made: Made):
    page = visit.page
    rows = made.modules("dense")
    time = sorted((int(row["time_cycles"]) for row in rows), reverse=True)
    column = "[...document.querySelectorAll('#modules-table-0 tbody tr')].map(r => r.cells[{}].dataset.key ?? r.cells[{}].textContent)"
    button = page.locator("#modules-table-0 thead button").nth(1)
    button.click()
    assert [int(key) for key in page.evaluate(column.format(1, 1))] == time
    assert button.locator("..").get_attribute("aria-sort") == "descending"
    button.focus()
    page.keyboard.press("Enter")
    assert [int(key) for key in page.evaluate(column.format(1, 1))] == time[::-1]
    page.locator("#modules-table-0 thead button").nth(0).click()
    assert page.evaluate(column.format(0, 0)) == sorted(row["module_path"] for row in rows)


def test_a_table_of_another_run(visit: Opened):
    page = visit.page
    choose(page, "modules-tables", 0, "pruned")
    assert page.locator("#modules-table-1").is_visible()
    assert page.locator("#modules-table-0").is_hidden()


def test_every_control_has_a_name_and_takes_the_keyboard(visit: Opened):
    page = visit.page
    names = page.evaluate(
        f"{SHOWN.format('select')}.map(e => [e.labels[0]?.innerText.trim(), e.tabIndex])"
    )
    assert len(names) >= 8
    assert all(name and index == 0 for name, index in names)


def test_a_point_of_the_front_leads_to_its_plan(browser: Any, made: Made):
    with opened(browser, made.page) as found:
        page = found.page
        page.evaluate(
            "document.getElementById('front-0-plot').emit('plotly_click',"
            " {points: [{customdata: 'front/00.json'}]})"
        )
        page.wait_for_url("**/front/00.json")


def test_a_point_tells_its_plan_to_the_pointer(visit: Opened):
    page = visit.page
    plot = page.locator("#front-0-plot")
    plot.scroll_into_view_if_needed()
    plot.locator(".trace.scatter").nth(1).locator("path.point").nth(0).hover(force=True)
    text = page.locator("#front-0 .hovertext").text_content()
    assert "00.json" in text
    assert "low-rank 2, dense 1" in text
    assert "modelled" in text


def test_names_do_no_harm(browser: Any, hostile: Path):
    script = "window.alert = () => { window.hacked = 2; }"
    with opened(browser, hostile, script=script) as found:
        page = found.page
        for number, name in enumerate(NAMES):
            choose(page, "timeline-chart", 1, name)
            text = page.locator("#modules-table-0 tbody th").nth(number).text_content()
            assert text == name
        choose(page, "modules-chart", 1, "all modules")
        labels = page.locator("#modules-chart .ytick text").all_text_contents()
        assert any("<b>bold</b>" in label for label in labels)
        assert page.evaluate("window.hacked") is None
        assert found.complaints == []
        assert found.requests == []


def test_an_old_browser_is_told_and_has_the_tables(browser: Any, made: Made):
    with opened(browser, made.page, script="delete window.DecompressionStream") as found:
        page = found.page
        assert page.locator(".failed").count() == page.locator(".chart").count()
        assert "cannot inflate" in page.locator(".failed").first.text_content()
        page.locator("#modules-table-0 thead button").nth(1).click()
        head = page.locator("#modules-table-0 thead th").nth(1)
        assert head.get_attribute("aria-sort") == "descending"


def test_figures_of_the_page_can_be_measured(browser: Any, made: Made):
    found = support.measured(browser, made.page)
    assert found["bytes"] == made.page.stat().st_size
    assert 0 < found["seen_ms"] <= found["drawn_ms"]
    assert (found["complaints"], found["requests"]) == (0, 0)
