"""Signals at random moments: jobs that take them well, and jobs that do not, which must be seen."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from bench.support.signals import files, process
from bench.support.signals.trial import DAMAGED, LEFT, RUDE, STUCK, Bench, Job

PLANTED = Path(__file__).resolve().with_name("planted_job.py")


def _bench(tmp_path: Path, way: str) -> Bench:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "in.npz").write_bytes(b"1")
    job = Job(
        way, (str(PLANTED), way, "new"), ("old",), ("out.json", "out.bin"), inputs=("in.npz",)
    )
    return Bench(job, tmp_path / way, tmp_path / "inputs")


def _seen(bench: Bench, number: signal.Signals, moments: int) -> set[str]:
    for moment in range(moments):
        bench.trial(0, moment, number)
    assert bench.hits[number.name]
    return {trouble.what for _, trouble in bench.troubles}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_good_job_has_no_trouble(tmp_path: Path, number: signal.Signals) -> None:
    bench = _bench(tmp_path, "good")
    assert _seen(bench, number, 8) == set(), bench.troubles
    assert bench.whole[0].touches > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "number", "what"),
    [
        ("torn", signal.SIGKILL, DAMAGED),
        ("greedy", signal.SIGKILL, DAMAGED),
        ("littering", signal.SIGKILL, LEFT),
        ("stuck", signal.SIGKILL, STUCK),
        ("rude", signal.SIGINT, RUDE),
        ("deaf", signal.SIGTERM, RUDE),
    ],
)
def test_trouble_is_seen(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    number: signal.Signals,
    what: str,
) -> None:
    monkeypatch.setattr(process, "GRACE", 1.0)
    bench = _bench(tmp_path, way)
    for moment in range(40):
        bench.trial(1, moment, number)
        if any(trouble.what == what for _, trouble in bench.troubles):
            break
    assert what in {trouble.what for _, trouble in bench.troubles}


def test_an_output_that_no_run_writes_is_no_job(tmp_path: Path) -> None:
    bench = _bench(tmp_path, "good")
    bench.job = replace(bench.job, outputs=("out.json", "other.bin"))
    with pytest.raises(RuntimeError, match=r"good does not write other\.bin"):
        _ = bench.new


def test_reports_are_compared_without_times() -> None:
    assert files.same("a.report.json", b'{"a": 1, "seconds": 2}', b'{"a": 1, "seconds": 3}')
    assert not files.same("a.report.json", b'{"a": 1}', b'{"a": 2}')
    assert not files.same("a.bin", b'{"seconds": 1}', b'{"seconds": 2}')
    assert not files.same("a.json", b"{}", None)
    lines = [b'{"pass": "cse", "text": "1"}', b'{"pass": "verify", "text": "in 1 s"}']
    assert files.same("a.jsonl", b"\n".join(lines), lines[0] + b'\n{"pass": "verify"}')
    assert not files.same("a.jsonl", b"\n".join(lines), lines[1])
