"""
kill -9, SIGTERM and Ctrl-C at random moments of compile, tune and run, and the next run after them.

    python bench/kills.py -o bench/results/hostile.json
    python bench/kills.py --moments 10 --only "hdp-run"

A moment is a time since the start, or the n-th time that the tool touches a file. After the signal,
inputs must be what they were and outputs absent, the old ones, or the new ones; after the next run
of the same command everything must be as if nothing had happened.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from bench import parts, report
from bench.fuzz.corpus import ROOT
from bench.parts import Part
from bench.report import Json, Row

SEED = 21
MOMENTS = 200
GOAL = 200

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
"""In turn."""

GRACE = 20.0
"""Seconds in which a signal that can be handled must end a tool."""

LAUNCH = ROOT / "bench" / "fuzz" / "launch.py"
UNFINISHED = (".tmp", ".part")

VARYING = ("seconds", "reused", "resumed", "samples per second", "threads")
"""Keys of reports that tell how a run went, not what it found."""


_STORED = re.compile(r"\d+ stored results of an earlier run were used")


@dataclass(frozen=True)
class Job:
    """
    A command and its files.

    Attributes:
        name: for people.
        command: tool and arguments, in a folder that has `inputs`.
        other: arguments that replace the last ones for the outputs of an earlier run.
        outputs: what it writes; folders are given by their name.
        use: a command that uses the outputs, and the file that it writes or "-" for what it
            prints: of a mixture of old and new ones it must not make something of its own.
    """

    name: str
    command: tuple[str, ...]
    other: tuple[str, ...]
    outputs: tuple[str, ...]
    inputs: tuple[str, ...] = ("m.pt2", "m2.pt2", "data.npz", "in.npz")
    use: tuple[tuple[str, ...], str] | None = None


_DATA = ("--data", "data.npz", "--work-dir", "work", "--quiet")
_HEAT = ("--heat", "low-rank,ratio=0.5,init=plain", "--epochs", "1+1")

_USE = (
    "import numpy, prog; found = prog.main(**numpy.load('in.npz'));"
    "print({name: array.tolist() for name, array in found.items()})"
)

JOBS = (
    Job(
        "compile to HDP",
        ("heatc", "m.pt2", "-o", "prog.hdp", "--dump-phases-to", "phases", "--remarks", "r.jsonl",
         "--hdp-rule", "ours"),
        ("--hdp-rule", "none"),
        ("prog.hdp", "phases", "r.jsonl"),
    ),
    Job(
        "compile to NumPy",
        ("heatc", "-o", "prog.py", "--heat", "low-rank,ratio=0.5,init=plain", "m.pt2"),
        ("m2.pt2",),
        ("prog.py", "prog.safetensors"),
        use=(("python", "-c", _USE), "-"),
    ),
    Job(
        "heatc-tune calibrate",
        ("heatc-tune", "calibrate", "m.pt2", *_DATA, "-o", "plan.json", "--goal", "sparsity>=0.4"),
        ("--goal", "sparsity>=0.2"),
        ("plan.json", "plan.report.json"),
    ),
    Job(
        "heatc-tune search",
        ("heatc-tune", "search", "m.pt2", *_DATA, "-o", "front", "--jobs", "2", "--layers",
         "wide|narrow", "--formats", "low-rank", "--validate", "0", "--samples", "8",
         "--points", "3"),
        ("--points", "2"),
        ("front",),
    ),
    Job(
        "heatc-tune distill",
        ("heatc-tune", "distill", "m.pt2", *_DATA, "-o", "small.json", *_HEAT, "--seed", "0"),
        ("--seed", "1"),
        ("small.json", "small.safetensors", "small.report.json"),
        use=(("heatc", "m.pt2", "--plan", "small.json", "-o", "used.hdp"), "used.hdp"),
    ),
    Job(
        "hdp-run",
        ("hdp-run", "m.hdp", "-o", "out.npz", "--stats", "stats", "--layers", "layers.npz",
         "--save-masks", "masks.npz", "--trace", "t.json", "--quiet", "--inputs", "in.npz"),
        ("--inputs", "other.npz"),
        ("out.npz", "stats", "layers.npz", "masks.npz", "t.json"),
        inputs=("m.hdp", "in.npz", "other.npz"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Trouble:
    """What must not happen: `what` is one of the words below."""

    what: str
    detail: str


DAMAGED, LEFT, STUCK, RUDE = (
    "damaged or lost files",
    "leftovers after the next run",
    "jobs that do not resume",
    "signals that are not answered well",
)


@dataclass
class Ended:
    """How a process ended: its code, stderr, seconds, touches of files, and whether it was hit."""

    code: int
    stderr: str
    seconds: float
    touches: int
    hit: bool


# ---- one process --------------------------------------------------------------------------------


def _environment(folder: Path) -> dict[str, str]:
    caches = {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **caches, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def run(
    command: Sequence[str],
    folder: Path,
    *,
    number: int = signal.SIGKILL,
    touches: int = 0,
    after: float | None = None,
) -> Ended:
    """Runs a command; the signal comes at a touch of a file, or `after` seconds, or never."""
    note = folder.with_name(f"{folder.name}.note")
    note.unlink(missing_ok=True)
    launched = [sys.executable, str(LAUNCH), str(touches), str(int(number)), str(note), *command]
    errors = folder.with_name(f"{folder.name}.err")
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            launched,
            cwd=folder,
            env=_environment(folder),
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
        )
    while not note.exists() and process.poll() is None:
        time.sleep(0.002)
    start = time.monotonic()
    hit = _wait(process, number, after)
    seconds = time.monotonic() - start
    survivors = _end_group(process.pid)
    text = errors.read_text(errors="replace")
    count = int(note.read_text() or 0) if note.exists() else 0
    hit = hit or (touches > 0 and count >= touches)
    if survivors:
        text += f"\n{survivors} processes survived"
    return Ended(process.returncode, text, seconds, count, hit)


def _wait(process: subprocess.Popen[bytes], number: int, after: float | None) -> bool:
    """Waits for the end, sends the signal on the way; whether it was sent in time."""
    hit = False
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        hit = True
        process.send_signal(number)
    try:
        process.wait(GRACE if hit else 600)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return hit


def _end_group(pid: int) -> int:
    """Ends what stays of a process's session, and says how many processes these were."""
    for _ in range(20):
        if not _members(pid):
            return 0
        time.sleep(GRACE / 20)
    found = _members(pid)
    for path in found:
        os.kill(int(path.name), signal.SIGKILL)
    return len(found)


def _members(session: int) -> list[Path]:
    return [p for p in Path("/proc").iterdir() if p.name.isdigit() and _session(p) == session]


def _session(process: Path) -> int:
    try:
        state, _, _, session = process.joinpath("stat").read_text().rpartition(")")[2].split()[:4]
    except (OSError, ValueError):
        return 0
    return 0 if state == "Z" else int(session)


# ---- folders ------------------------------------------------------------------------------------


Tree = Mapping[str, bytes]


def tree(folder: Path, names: Sequence[str] = ()) -> dict[str, bytes]:
    """The files of a folder, or of some of its entries, by name."""
    roots = [folder / name for name in names] or [folder]
    found: dict[str, bytes] = {}
    for root in roots:
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def same(name: str, one: bytes | None, other: bytes | None) -> bool:
    """Whether two files say the same; reports also tell how long things took."""
    if one == other:
        return True
    if one is None or other is None or not name.endswith("json"):
        return False
    try:
        return _lasting(json.loads(one)) == _lasting(json.loads(other))
    except ValueError:
        return False


def _lasting(value: Any) -> Any:
    """A report without what tells how a run went."""
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if k not in VARYING}
    if isinstance(value, list):
        return [_lasting(item) for item in value if not _STORED.fullmatch(str(item))]
    return value


def unfinished(folder: Path) -> list[str]:
    """Temporary files below a folder."""
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.suffix in UNFINISHED or path.name.startswith(".heatc-")
    ]


# ---- trials -------------------------------------------------------------------------------------


@dataclass
class Bench:
    """A job with what it gives undisturbed, once after an earlier run and once without."""

    job: Job
    folder: Path
    inputs: Path
    troubles: list[tuple[str, Trouble]] = field(default_factory=list[tuple[str, Trouble]])
    hits: Counter[str] = field(default_factory=Counter[str])
    late: int = 0

    @cached_property
    def old(self) -> Tree:
        """What an earlier run with other arguments left."""
        place = self._fresh("old", with_old=False)
        self._undisturbed(place, self._other())
        return tree(place, self.job.outputs)

    @cached_property
    def whole(self) -> tuple[Ended, Tree]:
        """The run that nothing disturbs, and all that is there after it."""
        place = self._fresh("new", with_old=False)
        ended = self._undisturbed(place, self.job.command)
        return ended, tree(place)

    @property
    def new(self) -> Tree:
        """The outputs of the undisturbed run."""
        roots = self.job.outputs
        return {n: d for n, d in self.whole[1].items() if n.split("/")[0] in roots}

    def trial(self, seed: int, moment: int, number: int) -> None:
        """A signal at a moment, and the next run."""
        rng = Random(f"{seed}:{moment}")
        with_old = rng.random() < 0.5
        place = self._fresh("trial", with_old=with_old)
        ended = self._disturbed(rng, place, number)
        if not ended.hit:
            self.late += 1
            return
        name = signal.Signals(number).name
        self.hits[name] += 1
        found = [*self._after_signal(place, ended, number, with_old)]
        again = run(self.job.command, place)
        found += self._after_next_run(place, again)
        if found:
            self._keep(place)
        where = f"{self.job.name}, moment {moment}, {name}, touch {ended.touches}"
        self.troubles += [(where, trouble) for trouble in found]

    def _disturbed(self, rng: Random, place: Path, number: int) -> Ended:
        reference = self.whole[0]
        if rng.random() < 0.5 and reference.touches:
            touches = rng.randint(1, reference.touches)
            return run(self.job.command, place, number=number, touches=touches)
        after = rng.uniform(0, reference.seconds)
        return run(self.job.command, place, number=number, after=after)

    def _after_signal(
        self, place: Path, ended: Ended, number: int, with_old: bool
    ) -> list[Trouble]:
        found = self._inputs(place)
        before = self.old if with_old else {}
        now = tree(place, self.job.outputs)
        for name, data in now.items():
            known = [t[name] for t in (before, self.new) if name in t]
            if Path(name).suffix in UNFINISHED or Path(name).name.startswith(".heatc-"):
                continue
            if not any(same(name, data, k) for k in known):
                found.append(Trouble(DAMAGED, f"{name} has {len(data)} bytes that no run writes"))
        found += [Trouble(DAMAGED, f"{name} is lost") for name in before if name not in now]
        found += self._mixture(place, now)
        if number != signal.SIGKILL:
            found += [Trouble(LEFT, f"{name} after a signal") for name in unfinished(place)]
            found += _answer(ended, number)
        if "processes survived" in ended.stderr:
            found.append(Trouble(LEFT, ended.stderr.splitlines()[-1]))
        return found

    def _mixture(self, place: Path, now: Tree) -> list[Trouble]:
        """What is made of outputs of which some are old and some new, if anything is."""
        if self.job.use is None or dict(now) in (self.old, self.new, {}):
            return []
        made = self._used(place)
        if made is None or made in self.uses:
            return []
        return [Trouble(DAMAGED, f"a mixture is used: {', '.join(sorted(now))}")]

    @cached_property
    def uses(self) -> tuple[bytes | None, bytes | None]:
        """What is made of the old outputs and of the new ones."""
        made: list[bytes | None] = []
        for outputs in (self.old, self.new):
            place = self._fresh("use", with_old=False)
            _write(place, outputs)
            made.append(self._used(place))
        return made[0], made[1]

    def _used(self, place: Path) -> bytes | None:
        """What `use` makes of a folder's files, None where it refuses them."""
        assert self.job.use is not None
        (tool, *arguments), target = self.job.use
        copy = place.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(place, copy)
        command = [str(Path(sys.executable).parent / tool), *arguments]
        environment = _environment(copy)
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, check=False, timeout=600
        )
        if done.returncode:
            return None
        return done.stdout if target == "-" else (copy / target).read_bytes()

    def _after_next_run(self, place: Path, again: Ended) -> list[Trouble]:
        found = self._inputs(place)
        if again.code:
            return [*found, Trouble(STUCK, f"exit {again.code}: {again.stderr[-300:]}")]
        now = tree(place)
        names = [n for n in self.new if not same(n, now.get(n), self.new[n])]
        found += [Trouble(STUCK, f"{name} is not what an undisturbed run gives") for name in names]
        found += [Trouble(LEFT, name) for name in unfinished(place)]
        ours = ("work/", "cache/")
        more = now.keys() - self.whole[1].keys() - self.old.keys()
        found += [Trouble(LEFT, name) for name in sorted(more) if not name.startswith(ours)]
        return found

    def _inputs(self, place: Path) -> list[Trouble]:
        _, wrong, errors = filecmp.cmpfiles(self.inputs, place, self.job.inputs, shallow=False)
        return [Trouble(DAMAGED, f"the input {name} is another file") for name in wrong + errors]

    def _fresh(self, name: str, *, with_old: bool) -> Path:
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for input_ in self.job.inputs:
            shutil.copyfile(self.inputs / input_, place / input_)
        _write(place, self.old if with_old else {})
        return place

    def _other(self) -> tuple[str, ...]:
        return (*self.job.command[: -len(self.job.other)], *self.job.other)

    def _undisturbed(self, place: Path, command: Sequence[str]) -> Ended:
        ended = run(command, place)
        if ended.code:
            raise RuntimeError(f"{' '.join(command)}: exit {ended.code}\n{ended.stderr}")
        return ended

    def _keep(self, place: Path) -> None:
        """The folder of the last trial with trouble stays beside the others."""
        target = self.folder / "trouble"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(place, target)


def _write(place: Path, files: Tree) -> None:
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)


def _answer(ended: Ended, number: int) -> list[Trouble]:
    """Ctrl-C is one line and 130; no signal that can be handled gives a traceback."""
    found: list[Trouble] = []
    if "Traceback" in ended.stderr:
        found.append(Trouble(RUDE, f"a traceback: {ended.stderr.splitlines()[-1][:200]}"))
    elif number == signal.SIGINT and ended.code not in (130, 0):
        found.append(Trouble(RUDE, f"exit {ended.code}: {ended.stderr[-200:]}"))
    elif ended.code == -signal.SIGKILL:
        found.append(Trouble(RUDE, f"it did not end within {GRACE:g} s"))
    return found


# ---- the command --------------------------------------------------------------------------------


def make_inputs(folder: Path) -> None:
    """Two models of one layer, data, and a program; torch is imported by another process."""
    folder.mkdir(parents=True)
    code = (
        "import sys; from pathlib import Path; from bench.fuzz.models import save_archive;"
        "[save_archive(Path(sys.argv[1]) / f'm{s or str()}.pt2', 16, 32, s) for s in (0, 2)]"
    )
    command = [sys.executable, "-c", code, str(folder)]
    subprocess.run(command, cwd=ROOT, env=_environment(folder.parent), check=True)
    write_data(folder)
    target = ("heatc", "m.pt2", "-o", "m.hdp", "--hdp-rule", "ours")
    if run(target, folder).code:
        raise RuntimeError("the model does not compile")


def write_data(folder: Path) -> None:
    """Data sets with padding on the right."""
    import numpy as np

    rng = np.random.default_rng(0)
    for name, samples in {"data.npz": 24, "in.npz": 2, "other.npz": 4}.items():
        lengths = rng.integers(4, 17, samples)
        mask = (np.arange(16) < lengths[:, None]).astype(np.int64)
        more = {"labels": rng.integers(0, 2, samples)} if name == "data.npz" else {}
        ids = rng.integers(0, 24, (samples, 16))
        np.savez(folder / name, allow_pickle=False, input_ids=ids, attention_mask=mask, **more)


def measure(benches: Sequence[Bench], moments: int, seed: int, console: Console) -> None:
    """Job after job in turn, signal after signal, until there are enough hits."""
    number = 0
    while sum(b.hits.total() for b in benches) < moments:
        bench = benches[number % len(benches)]
        signal_ = SIGNALS[number // len(benches) % len(SIGNALS)]
        bench.trial(seed, number, signal_)
        number += 1
        if number % 20 == 0:
            hits = sum(b.hits.total() for b in benches)
            troubles = sum(len(b.troubles) for b in benches)
            console.print(f"{number} runs, {hits} hits, {troubles} troubles")


def part(benches: Sequence[Bench]) -> Part:
    """Rows and tables."""
    what = "kill -9 and SIGTERM at 200 random moments of compile, tune and run"
    hits = sum(b.hits["SIGKILL"] + b.hits["SIGTERM"] for b in benches)
    cases = {(where, trouble.what) for b in benches for where, trouble in b.troubles}
    counts = Counter(kind for _, kind in cases)
    rows = [Row(what, hits, "moments", GOAL, ">=")]
    rows += [Row(f"{what}: {w}", counts[w], "cases", 0, "<=") for w in (DAMAGED, LEFT, STUCK)]
    rows.append(Row(f"{what}, and Ctrl-C: {RUDE}", counts[RUDE], "cases", 0, "<="))
    jobs: dict[str, Json] = {b.job.name: {**b.hits, "ended before": b.late} for b in benches}
    found: list[Json] = [
        {"where": where, "what": trouble.what, "detail": trouble.detail}
        for b in benches
        for where, trouble in b.troubles
    ]
    return Part(rows, {"kills: moments": jobs, "kills: troubles": found})


def main(arguments: Sequence[str]) -> int:
    """Runs what was asked for; 0 if nothing was damaged, left or stuck."""
    parser = argparse.ArgumentParser(description="signals at random moments")
    parser.add_argument("--moments", type=int, default=MOMENTS, help=f"default {MOMENTS}")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the moments, default {SEED}")
    parser.add_argument("--only", default="", metavar="TEXT", help="jobs whose name has this text")
    parser.add_argument("--keep", type=Path, help="folder in which to work, and to look afterwards")
    parser.add_argument("-o", "--output", type=Path, help="the result file")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="heatc-kills-") as place:
        folder = options.keep or Path(place)
        shutil.rmtree(folder / "inputs", ignore_errors=True)
        make_inputs(folder / "inputs")
        benches = [
            Bench(job, folder / job.name.replace(" ", "-"), folder / "inputs")
            for job in JOBS
            if options.only in job.name
        ]
        measure(benches, options.moments, options.seed, console)
    found = part(benches)
    for bench in benches:
        for where, trouble in bench.troubles:
            console.print(f"{where}: {trouble.what}: {trouble.detail}", markup=False)
    report.show(found.rows)
    if options.output is not None:
        origin = report.provenance(f"python bench/kills.py {' '.join(arguments)}", options.seed)
        parts.merge(options.output, {"kills": found}, ("inputs", "kills"), origin)
    return int(any(bench.troubles for bench in benches))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
