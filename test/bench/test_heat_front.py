"""What bench/heat_front.py makes of figures: dominance, comparisons, families, the page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bench import heat_front as front
from bench.support.heat import families as families
from bench.support.heat import front_page as heat_front_page
from bench.support.heat import runs as heat_runs
from bench.support.heat import together as heat_together
from bench.support.heat.ablations import left_to_right
from bench.support.heat.dominance import Curve, Judged, doubt, hypervolume, quotients
from bench.support.heat.dominance import curve as dominance_curve

GAIN = f"{front.SEARCHED}: EDP, times less"


def points(family: str, *pairs: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"family": family, "test: points lost": lost, GAIN: gain} for lost, gain in pairs]


def curve(*pairs: tuple[float, float]) -> Curve:
    return Curve(*(np.array(column, float) for column in zip(*pairs)))


def test_quotients_are_of_the_best_points_at_each_level():
    ours, theirs = curve((0.5, 4.0), (2.0, 12.0)), curve((1.0, 5.0), (3.0, 6.0))
    ratio = quotients(ours, theirs)
    # Up to half a point both are dense; from one point on it is 4 against 5.
    assert ratio[0] == 1.0
    assert ratio.min() == pytest.approx(4 / 5)
    assert (quotients(ours, ours) == 1.0).all()
    # Their four points at half a point lost against our dense model.
    assert quotients(theirs, ours).min() == pytest.approx(1 / 4)
    # From 0 to 0.9 and from 2 to 5 in steps of a tenth.
    assert (ratio >= 1).sum() == 10 + 31


def test_a_family_is_never_worse_than_the_dense_model():
    ours, theirs = curve((9.0, 100.0)), curve((-0.3, 2.0))
    assert quotients(ours, theirs).min() == pytest.approx(1 / 2)
    assert hypervolume(ours) == 0.0
    assert hypervolume(theirs) == pytest.approx(1.0)


def test_fronts_are_of_one_family():
    table = points("ours", (0.5, 4.0)) + points("theirs", (0.5, 2.0))
    found = dominance_curve(table, "theirs", "test: points lost", GAIN)
    assert found.lost.tolist() == [0.5]
    assert found.won.tolist() == [2.0]


def test_families_are_compared_by_what_they_change_too():
    table = [
        {"family": family, "test: changed, %": changed, GAIN: gain}
        for family, changed, gain in (("search", 2.0, 8.0), ("theirs", 1.0, 4.0))
    ]
    found = front.by_changes(table, "theirs", "test")
    # From 1.0 to 1.9 % in steps of a tenth they win 4 against our dense model, then it is 8 against 4.
    assert found["least quotient of EDP"] == 0.25
    assert found["levels at which search wins no less, 0 to 10 % changed, %"] == 90
    assert found["mean log2 of the EDP won more"] == round((81 - 10 * 2) / 101, 3)


def test_what_the_host_leaves_is_of_all_texts_together():
    def cost(joules: float, seconds: float) -> heat_runs.Cost:
        return heat_runs.Cost(
            10.0, seconds, joules, joules * seconds, 0.0, 0.0, {"host": 5.0}, {"host": joules / 4}
        )

    found = heat_together.host_alone([(1, cost(4.0, 1.0)), (2, cost(8.0, 3.0))])
    assert found["host's energy, %"] == 25.0
    assert found["host's time, %"] == 50.0
    # A quarter of the energy in half of the time, whatever the text.
    assert found["EDP, at most so many times less"] == 8.0


def test_many_sentences_leave_nothing_open():
    right = np.ones(3000, np.bool_)
    half, none = right.copy(), right.copy()
    none[:60] = False  # two points lost
    half[:15] = False  # half a point
    found = doubt([Judged(8.0, half)], [Judged(4.0, none)], right)
    # Eightfold from about half a point on, fourfold from about two points on.
    assert found.low > 0
    assert found.ahead > 0.7
    assert found.behind == 0.0
    back = doubt([Judged(4.0, none)], [Judged(8.0, half)], right)
    assert (back.ahead, back.behind) == (found.behind, found.ahead)
    assert back.high == pytest.approx(-found.low)


def test_few_sentences_leave_open_who_is_ahead():
    right = np.ones(100, np.bool_)
    one, two = right.copy(), right.copy()
    one[:2] = False
    two[2:5] = False
    found = doubt([Judged(4.0, one)], [Judged(4.0, two)], right)
    assert found.low < 0 < found.high
    assert (found.ahead, found.behind) == (0.0, 0.0)


def test_comparisons_are_paired():
    labels = np.array([0, 1, 1, 0, 1, 1, 0, 0])
    dense = np.array([0, 1, 1, 0, 1, 0, 0, 0])
    found = np.array([0, 1, 0, 0, 1, 1, 0, 1])
    one = heat_runs.compare(found, dense, labels)
    assert one.accuracy == pytest.approx(75.0)
    assert one.lost == pytest.approx(12.5)
    assert one.changed == pytest.approx(37.5)
    assert one.low < one.lost < one.high
    assert one.high - one.lost == pytest.approx(
        1.96 * 100 * np.std([0, 0, 1, 0, 0, -1, 0, 1], ddof=1) / math.sqrt(8)
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    weights = {
        f"bert.encoder.layer.0.{name}.weight": np.zeros(shape, np.float32)
        for name, shape in {"up": (1536, 384), "down": (384, 1536), "query": (384, 384)}.items()
    }
    weights |= {"bert.encoder.layer.0.norm.weight": np.zeros(384, np.float32)}
    weights |= {"bert.pooler.dense.weight": np.zeros((384, 384), np.float32)}
    save_file(weights, tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize("family", families.POINTS)
def test_points_of_a_family_get_smaller(family: str, model: Path):
    parameters: list[int] = []
    for point in families.POINTS[family]:
        plan = families.layers(family, point, model)
        assert plan.keys() == {f"bert.encoder.layer.0.{n}" for n in ("up", "down", "query")}
        assert len({one["heat"]["format"] for one in plan.values()}) == 1
        parameters.append(
            sum(
                families.spec(family, inputs, outputs, point).parameters
                for outputs, inputs in families.linears(model).values()
            )
        )
    assert parameters == sorted(parameters, reverse=True)
    assert len(set(parameters)) == len(parameters)


def test_uniform_keeps_its_share(model: Path):
    for share in families.POINTS["uniform"]:
        for outputs, inputs in families.linears(model).values():
            kept = families.spec("uniform", inputs, outputs, share).parameters / (inputs * outputs)
            assert share - 0.01 < kept <= share


def test_a_path_from_left_to_right_takes_every_factor_once():
    path = left_to_right({"format": "tt", "shape": "8x6x8|8x6x8", "ranks": [8, 9, 9, 9, 8]})["path"]
    assert path == [[0, 1], [7, 2], [8, 3], [9, 4], [10, 5], [11, 6]]
    path = left_to_right({"format": "ttm", "shape": "8x6x8|8x6x8", "ranks": [9, 9]})["path"]
    assert path == [[0, 1], [4, 2], [5, 3]]
    assert left_to_right({"format": "low-rank", "ranks": [3]})["path"] == [[0, 1], [3, 2]]


def test_the_page_shows_rows_and_fronts():
    row = {"what": "w", "measured": 2.0, "unit": "x", "goal": 1.0, "sense": ">=", "holds": True}
    origin = {"command": "c", "commit": "abc", "date": "d", "cpu": "u"}
    table = points("search", (0.5, 4.0)) + points("uniform", (1.0, 3.0))
    content = {
        "rows": [row],
        "tables": {"front: points": table, "search: space": [{"a": {"b": 1}, "c": 2}]},
        "provenance": {"parts": {"front": origin}},
    }
    page = heat_front_page.page(json.loads(json.dumps(content)))
    assert "| w " in page
    assert "heat_front.svg" in page
    assert "heat_front_ood.svg" not in page
    assert "abc" in page
    assert "{'b': 1}" not in page


def test_the_page_is_that_of_the_results():
    content = json.loads(front.RESULT.read_text(encoding="utf-8"))
    written = heat_front_page.PAGE.read_text(encoding="utf-8")
    assert written == heat_front_page.page(content), "run python bench/heat_front.py --page"
