"""Traces: what is recorded agrees with what is counted, in both formats."""

from __future__ import annotations

import io
import itertools
import json
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from machine_kit import Kit, Tiny, codes

from heatc.backends.hdp import trace
from heatc.backends.hdp.trace import ChromeSink, PerfettoSink, Sink, TraceRecorder
from heatc.errors import HeatcError
from heatc.isa.words import Inst
from heatc.machine.machine import Machine, Memory, RunResult

CORES = 3
DEBUG = {"locations": [{"pc": 0, "path": "layer.0", "source": "toy.py:1"}]}
Slice = tuple[float, float, str]


def program() -> tuple[Kit, list[Inst]]:
    """Two linears spread over cores, the host, loads and stores."""
    kit = Kit(Tiny(cores=CORES))
    dx, dw = kit.put(codes((6, 8), 1), "i16"), kit.put(codes((8, 10), 2), "i16")
    dy = kit.tensor((6, 10), "i16")
    tx, tw = kit.tile("shared", "i16", 96), kit.tile("local", "i16", 64)
    acc, ty = kit.tile("local", "acc", 6 * 4 * 6), kit.tile("local", "i16", 48)
    for _ in range(2):
        kit.emit("ld", t=tx, d=dx, rows=6, cols=8)
        kit.emit("ld", t=tw, d=dw, rows=8, cols=4, core_cols=4)
        kit.emit("mm", acc=acc, a=tx, b=tw, first=1)
        kit.emit("drain", t=ty, acc=acc, shift=12)
        kit.emit("st", d=dy, t=ty, core_cols=4)
        kit.emit("hget", h=0, d=dy, rows=6, point=4)
        kit.emit("hrelu", h=0)
    return kit, kit.program()


def record(sink: Sink, passes: int = 1) -> RunResult:
    kit, instructions = program()
    kit.run()
    hardware = kit.hardware
    recorder = TraceRecorder(sink, instructions, DEBUG, CORES, hardware.clock_hz)
    result = None
    for _ in range(passes):
        memory = Memory(np.zeros(4096, np.uint8), 1 << 16)
        result = Machine(hardware, memory).run(instructions, recorder=recorder)
        recorder.end_pass(result.cycles)
    recorder.close()
    assert result is not None
    return result


def chrome(passes: int = 1) -> tuple[list[dict[str, Any]], RunResult]:
    stream = io.BytesIO()
    result = record(ChromeSink(stream), passes)
    return json.loads(stream.getvalue())["traceEvents"], result


def tracks_of(events: list[dict[str, Any]]) -> dict[str, list[Slice]]:
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    tracks: dict[str, list[Slice]] = {name: [] for name in names.values()}
    for e in events:
        if e["ph"] == "X":
            tracks[names[e["tid"]]].append((e["ts"], e["ts"] + e["dur"], e["name"]))
    return tracks


def perfetto(passes: int = 1) -> tuple[dict[str, list[Slice]], list[Any], RunResult]:
    pb = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
    stream = io.BytesIO()
    result = record(PerfettoSink(stream), passes)
    packets: list[Any] = list(pb.Trace.FromString(stream.getvalue()).packet)
    names = {p.track_descriptor.uuid: p.track_descriptor.name for p in packets}
    tracks: dict[str, list[Slice]] = {}
    opened: dict[int, tuple[float, str]] = {}
    for packet in packets:
        event = packet.track_event
        if event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
            assert event.track_uuid not in opened
            opened[event.track_uuid] = (packet.timestamp / 1000, event.name)
        elif event.type == pb.TrackEvent.TYPE_SLICE_END:
            start, name = opened.pop(event.track_uuid)
            end = packet.timestamp / 1000
            tracks.setdefault(names[event.track_uuid], []).append((start, end, name))
    assert not opened
    return tracks, packets, result


def total(slices: Iterable[Slice]) -> float:
    return sum(end - start for start, end, _ in slices)


def test_slices_are_the_busy_cycles():
    """At 1 MHz a microsecond is a cycle."""
    events, result = chrome()
    tracks = tracks_of(events)
    for core in range(CORES):
        assert total(tracks[f"core {core} pe"]) == result.busy["pe"][core]
    assert total([*tracks["dma loads"], *tracks["dma stores"]]) == result.busy["dma"][0]
    assert total(tracks["host"]) == result.busy["host"][0]
    assert max(end for slices in tracks.values() for _, end, _ in slices) <= result.cycles
    assert {name for slices in tracks.values() for _, _, name in slices} == {
        f"{mnemonic} layer.0" for mnemonic in ("ld", "mm", "drain", "st", "hget", "hrelu")
    }


@pytest.mark.parametrize("passes", [1, 2])
def test_slices_of_a_track_follow_each_other(passes: int):
    for slices in tracks_of(chrome(passes)[0]).values():
        for before, after in itertools.pairwise(slices):
            assert before[1] <= after[0]


def test_passes_follow_each_other():
    one, two = chrome(1)[0], chrome(2)[0]
    cycles = chrome(1)[1].cycles
    for name, slices in tracks_of(one).items():
        moved = [(start + cycles, end + cycles, text) for start, end, text in slices]
        assert tracks_of(two)[name] == slices + moved


def test_formats_agree():
    tracks, packets, _ = perfetto()
    assert tracks == {name: slices for name, slices in tracks_of(chrome()[0]).items() if slices}
    counters = [p.track_descriptor for p in packets if p.track_descriptor.counter.unit_name]
    assert {c.counter.unit_name for c in counters} == {"bytes", "bytes/s"}
    values = [p.track_event.double_counter_value for p in packets if p.track_event.type == 4]
    expected = [e["args"]["value"] for e in chrome()[0] if e["ph"] == "C"]
    assert values == expected


def test_counters():
    events, result = chrome()
    counters: dict[str, list[tuple[float, float]]] = {}
    for e in events:
        if e["ph"] == "C":
            counters.setdefault(e["name"], []).append((e["ts"], e["args"]["value"]))
    for samples in counters.values():
        times = [time for time, _ in samples]
        assert times == sorted(times)
        assert samples[-1][1] == 0
    read = counters[trace.READ_RATE]
    # Bytes per second times microseconds.
    area = sum(v * (b - a) for (a, v), (b, _) in itertools.pairwise(read)) / 1e6
    loads = sum(result.pc_bytes_read) - 2 * 6 * 10 * 2
    assert area == pytest.approx(loads)
    assert max(v for _, v in read) <= Tiny().dram_bytes_per_second
    held = counters[trace.OCCUPANCY["local"]]
    assert max(v for _, v in held) == 64 + 6 * 4 * 6 + 48
    assert max(v for _, v in counters[trace.OCCUPANCY["shared"]]) == 96


def test_recorded_runs_cost_the_same():
    kit, _ = program()
    plain = kit.run()
    assert chrome()[1].cycles == plain.cycles


def test_changes_of_buffers_are_bounded(monkeypatch: pytest.MonkeyPatch):
    expected = [e for e in chrome()[0] if e["ph"] == "C" and "occupancy" in e["name"]]
    monkeypatch.setattr(trace, "_PENDING", 4)
    found = [e for e in chrome()[0] if e["ph"] == "C" and "occupancy" in e["name"]]
    assert len(found) == len(expected)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "perfetto.trace_builder.proto_builder", None)
    with pytest.raises(HeatcError) as caught:
        PerfettoSink(io.BytesIO())
    assert "pip install heatc[trace]" in caught.value.notes
