"""
A trace of a run: when each engine worked on which instruction, buffers and bandwidth over time.

A `TraceRecorder` watches the scoreboard and writes at once to a `Sink`: Perfetto's own format, or
Chrome's JSON. Everything in a trace is modelled. Nothing is kept but the changes of the buffers'
contents, which come out of order: a bounded number of them is sorted before it is written.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from typing import IO, Any, Protocol

import numpy as np

from heatc.backends.hdp.debug import Locations
from heatc.errors import HeatcError
from heatc.isa.table import CORE_ENGINES, Engine
from heatc.isa.units import Mask
from heatc.isa.words import Inst
from heatc.kinds import TRACE
from heatc.machine.state import Tile, Times, content_bytes

_PENDING = 1 << 16
"""Changes of buffers that are sorted at a time."""

LOADS, STORES = "dma loads", "dma stores"
READ_RATE, WRITE_RATE = "DRAM read bandwidth (bytes/s)", "DRAM write bandwidth (bytes/s)"
OCCUPANCY = {
    "local": "local buffer occupancy, fullest core (bytes)",
    "shared": "shared buffer occupancy (bytes)",
}


class Sink(Protocol):
    """Where a trace is written to; times in nanoseconds."""

    def track(self, track: int, name: str, unit: str | None = None) -> None:
        """Announces a track of slices, or of a counter if it has a unit."""
        ...

    def slice(self, track: int, start: float, end: float, pc: int, name: str) -> None:
        """An instruction on a track, not before the end of the one before."""
        ...

    def counter(self, track: int, time: float, value: float) -> None:
        """The value of a counter from a time on."""
        ...

    def close(self) -> None:
        """Writes what is left."""
        ...


class ChromeSink:
    """Chrome's JSON: complete events, which nest since tracks are sequential."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self._names: dict[int, str] = {}
        self._write(f'{{"otherData":{{"producer":"{TRACE.mark}"}},')
        self._write('"displayTimeUnit":"ns","traceEvents":[')
        self._event({"name": "process_name", "ph": "M", "args": {"name": "HDP"}}, first=True)

    def _write(self, text: str) -> None:
        self._stream.write(text.encode())

    def _event(self, event: dict[str, Any], *, first: bool = False) -> None:
        text = json.dumps({**event, "pid": 1}, separators=(",", ":"))
        self._write(f"{'' if first else ','}\n{text}")

    def track(self, track: int, name: str, unit: str | None = None) -> None:
        """See `Sink`."""
        self._names[track] = name
        if unit is not None:
            return
        self._event({"name": "thread_name", "ph": "M", "tid": track, "args": {"name": name}})
        self._event(
            {"name": "thread_sort_index", "ph": "M", "tid": track, "args": {"sort_index": track}}
        )

    def slice(self, track: int, start: float, end: float, pc: int, name: str) -> None:
        """See `Sink`; Chrome counts in microseconds."""
        self._event(
            {
                "name": name,
                "ph": "X",
                "tid": track,
                "ts": start / 1000,
                "dur": (end - start) / 1000,
                "args": {"pc": pc},
            }
        )

    def counter(self, track: int, time: float, value: float) -> None:
        """See `Sink`."""
        name = self._names[track]
        self._event({"name": name, "ph": "C", "ts": time / 1000, "args": {"value": value}})

    def close(self) -> None:
        """See `Sink`."""
        self._write("\n]}\n")


class PerfettoSink:
    """Perfetto's protobuf stream, by the package `perfetto`."""

    _SEQUENCE = 1

    def __init__(self, stream: IO[bytes]):
        try:
            from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto
            from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder
        except ImportError as error:
            raise HeatcError(
                "a .pftrace needs the package perfetto, which is not installed",
                notes=["pip install heatc[trace]", "or write Chrome's format: --trace x.json"],
            ) from error
        kinds: Any = proto.TrackEvent
        self._begin, self._end = kinds.TYPE_SLICE_BEGIN, kinds.TYPE_SLICE_END
        self._counter = kinds.TYPE_COUNTER
        self._builder: Any = StreamingTraceProtoBuilder(stream)
        packet = self._builder.create_packet()
        packet.track_descriptor.uuid = 1
        packet.track_descriptor.process.pid = 1
        packet.track_descriptor.process.process_name = "HDP"
        packet.track_descriptor.process.cmdline.append(TRACE.mark)
        self._builder.write_packet(packet)

    def track(self, track: int, name: str, unit: str | None = None) -> None:
        """See `Sink`."""
        packet = self._builder.create_packet()
        descriptor = packet.track_descriptor
        descriptor.uuid, descriptor.parent_uuid, descriptor.name = track + 2, 1, name
        descriptor.sibling_order_rank = track
        if unit is not None:
            descriptor.counter.unit_name = unit
        self._builder.write_packet(packet)

    def _event(self, track: int, time: float, kind: int) -> Any:
        packet = self._builder.create_packet()
        packet.timestamp = round(time)
        packet.trusted_packet_sequence_id = self._SEQUENCE
        packet.track_event.type = kind
        packet.track_event.track_uuid = track + 2
        return packet

    def slice(self, track: int, start: float, end: float, pc: int, name: str) -> None:
        """See `Sink`."""
        packet = self._event(track, start, self._begin)
        packet.track_event.name = name
        annotation = packet.track_event.debug_annotations.add()
        annotation.name, annotation.int_value = "pc", pc
        self._builder.write_packet(packet)
        self._builder.write_packet(self._event(track, end, self._end))

    def counter(self, track: int, time: float, value: float) -> None:
        """See `Sink`."""
        packet = self._event(track, time, self._counter)
        packet.track_event.double_counter_value = value
        self._builder.write_packet(packet)

    def close(self) -> None:
        """See `Sink`."""


class TraceRecorder:
    """
    Records the passes of a program one after the other; give it to the machine as `recorder`.

    Args:
        sink: where to.
        program: the instructions, for the slices' names.
        debug: debug.json, for the module paths in them.
        cores: number of cores.
        clock_hz: cycles per second.
    """

    def __init__(
        self,
        sink: Sink,
        program: Sequence[Inst],
        debug: Mapping[str, Any],
        cores: int,
        clock_hz: int,
    ):
        self._sink = sink
        self._cores = cores
        self._clock_hz = clock_hz
        self._ns = 1e9 / clock_hz
        locations = Locations(debug)
        self._names = [
            f"{inst.mnemonic} {locations.at(pc).path}".rstrip() for pc, inst in enumerate(program)
        ]
        self._base = 0
        self._tracks: dict[str, int] = {}
        for engine in (e for e in Engine if e in CORE_ENGINES):
            for core in range(cores):
                self._track(f"core {core} {engine.value}")
        for name in (LOADS, STORES, Engine.VECTOR.value, Engine.HOST.value):
            self._track(name)
        for name in (READ_RATE, WRITE_RATE):
            self._track(name, "bytes/s")
        for name in OCCUPANCY.values():
            self._track(name, "bytes")
        self._rate_end = {READ_RATE: -1, WRITE_RATE: -1}
        self._begin_pass()

    def _begin_pass(self) -> None:
        self._held: dict[str, dict[Tile, int]] = {space: {} for space in OCCUPANCY}
        self._occupied = dict.fromkeys(OCCUPANCY, 0)
        self._changes: list[tuple[int, int, str, int]] = []
        self._order = 0
        self._flushed = 0

    def _track(self, name: str, unit: str | None = None) -> None:
        self._tracks[name] = len(self._tracks)
        self._sink.track(self._tracks[name], name, unit)

    def _time(self, cycle: int) -> float:
        return (self._base + cycle) * self._ns

    def _slice(self, track: str, pc: int, start: int, end: int) -> None:
        if end > start:
            times = self._time(start), self._time(end)
            self._sink.slice(self._tracks[track], *times, pc, self._names[pc])

    def _count(self, track: str, cycle: int, value: float) -> None:
        self._sink.counter(self._tracks[track], self._time(cycle), value)

    # -- what the scoreboard reports ---------------------------------------------------------

    def core(self, pc: int, engine: Engine, start: Times, end: Times, live: Mask | None) -> None:
        """See `heatc.machine.scoreboard.Recorder`."""
        starts, ends = (np.broadcast_to(time, self._cores).tolist() for time in (start, end))
        for core in range(self._cores):
            if live is None or live[core]:
                self._slice(f"core {core} {engine.value}", pc, starts[core], ends[core])

    def transfer(self, pc: int, space: str, loads: bool, start: int, end: int, nbytes: int) -> None:
        """See `heatc.machine.scoreboard.Recorder`."""
        self._slice(LOADS if loads else STORES, pc, start, end)
        if space != "dram" or end <= start:
            return
        track = READ_RATE if loads else WRITE_RATE
        last = self._rate_end[track]
        if 0 <= last < start:
            self._count(track, last, 0)
        self._count(track, start, nbytes * self._clock_hz / (end - start))
        self._rate_end[track] = end

    def host(self, pc: int, engine: Engine, start: int, end: int) -> None:
        """See `heatc.machine.scoreboard.Recorder`."""
        self._slice(engine.value, pc, start, end)

    def written(self, tile: Tile, start: int) -> None:
        """See `heatc.machine.scoreboard.Recorder`; what shares its bytes is lost then."""
        held = self._held[tile.space]
        lost = [other for other in held if other.meets(tile.address, tile.end)]
        before = sum(held.pop(other) for other in lost)
        size = 0 if tile.contents is None else content_bytes(tile.dtype, tile.contents)
        held[tile] = size
        if size != before:
            self._order += 1
            heapq.heappush(self._changes, (start, self._order, tile.space, size - before))
        if len(self._changes) > _PENDING:
            self._flush(_PENDING // 2)

    def _flush(self, leave: int) -> None:
        """Writes the earliest changes of the buffers; what comes too late counts from then on."""
        while len(self._changes) > leave:
            time, _, space, change = heapq.heappop(self._changes)
            self._flushed = max(self._flushed, time)
            self._occupied[space] += change
            self._count(OCCUPANCY[space], self._flushed, max(0, self._occupied[space]))

    def end_pass(self, cycles: int) -> None:
        """The pass has ended; the next one begins `cycles` after its beginning."""
        self._flush(0)
        for track, last in self._rate_end.items():
            if last >= 0:
                self._count(track, last, 0)
            self._rate_end[track] = -1
        for track in OCCUPANCY.values():
            self._count(track, cycles, 0)
        self._base += cycles
        self._begin_pass()

    def close(self) -> None:
        """Completes the file."""
        self._sink.close()


SINKS: Mapping[str, type[ChromeSink | PerfettoSink]] = {
    ".json": ChromeSink,
    ".pftrace": PerfettoSink,
}
"""The format of a trace by its file's suffix."""
