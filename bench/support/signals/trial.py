"""A trial: a job, a signal at some moment, what is there then, and what the next run makes of it."""

from __future__ import annotations

import filecmp
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random

from bench.support.signals import files, process
from bench.support.signals.process import Ended


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
class Bench:
    """A job with what it gives undisturbed, once after an earlier run and once without."""

    job: Job
    folder: Path
    inputs: Path
    troubles: list[tuple[str, Trouble]] = field(default_factory=list[tuple[str, Trouble]])
    hits: Counter[str] = field(default_factory=Counter[str])
    late: int = 0

    @cached_property
    def old(self) -> files.Tree:
        """What an earlier run with other arguments left."""
        place = self._fresh("old", with_old=False)
        self._undisturbed(place, self._other())
        return files.tree(place, self.job.outputs)

    @cached_property
    def whole(self) -> tuple[Ended, files.Tree]:
        """The run that nothing disturbs, and all that is there after it."""
        place = self._fresh("new", with_old=False)
        ended = self._undisturbed(place, self.job.command)
        missing = [name for name in self.job.outputs if not (place / name).exists()]
        if missing:
            raise RuntimeError(f"{self.job.name} does not write {', '.join(missing)}")
        return ended, files.tree(place)

    @property
    def new(self) -> files.Tree:
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
        again = process.run(self.job.command, place)
        found += self._after_next_run(place, again)
        if found:
            self._keep(place)
        where = f"{self.job.name}, moment {moment}, {name}, touch {ended.touches}"
        self.troubles += [(where, trouble) for trouble in found]

    def _disturbed(self, rng: Random, place: Path, number: int) -> Ended:
        reference = self.whole[0]
        if rng.random() < 0.5 and reference.touches:
            touches = rng.randint(1, reference.touches)
            return process.run(self.job.command, place, number=number, touches=touches)
        after = rng.uniform(0, reference.seconds)
        return process.run(self.job.command, place, number=number, after=after)

    def _after_signal(
        self, place: Path, ended: Ended, number: int, with_old: bool
    ) -> list[Trouble]:
        found = self._inputs(place)
        before = self.old if with_old else {}
        now = files.tree(place, self.job.outputs)
        for name, data in now.items():
            known = [t[name] for t in (before, self.new) if name in t]
            if Path(name).suffix in files.UNFINISHED or Path(name).name.startswith(".heatc-"):
                continue
            if not any(files.same(name, data, k) for k in known):
                found.append(Trouble(DAMAGED, f"{name} has {len(data)} bytes that no run writes"))
        found += [Trouble(DAMAGED, f"{name} is lost") for name in before if name not in now]
        found += self._mixture(place, now)
        if number != signal.SIGKILL:
            found += [Trouble(LEFT, f"{name} after a signal") for name in files.unfinished(place)]
            found += _answer(ended, number)
        if "processes survived" in ended.stderr:
            found.append(Trouble(LEFT, ended.stderr.splitlines()[-1]))
        return found

    def _mixture(self, place: Path, now: files.Tree) -> list[Trouble]:
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
            files.write(place, outputs)
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
        done = subprocess.run(
            command,
            cwd=copy,
            env=process.environment(copy),
            capture_output=True,
            check=False,
            timeout=600,
        )
        if done.returncode:
            return None
        return done.stdout if target == "-" else (copy / target).read_bytes()

    def _after_next_run(self, place: Path, again: Ended) -> list[Trouble]:
        found = self._inputs(place)
        if again.code:
            return [*found, Trouble(STUCK, f"exit {again.code}: {again.stderr[-300:]}")]
        now = files.tree(place)
        names = [n for n in self.new if not files.same(n, now.get(n), self.new[n])]
        found += [Trouble(STUCK, f"{name} is not what an undisturbed run gives") for name in names]
        found += [Trouble(LEFT, name) for name in files.unfinished(place)]
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
        files.write(place, self.old if with_old else {})
        return place

    def _other(self) -> tuple[str, ...]:
        return (*self.job.command[: -len(self.job.other)], *self.job.other)

    def _undisturbed(self, place: Path, command: Sequence[str]) -> Ended:
        ended = process.run(command, place)
        if ended.code:
            raise RuntimeError(f"{' '.join(command)}: exit {ended.code}\n{ended.stderr}")
        return ended

    def _keep(self, place: Path) -> None:
        """The folder of the last trial with trouble stays beside the others."""
        target = self.folder / "trouble"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(place, target)


def _answer(ended: Ended, number: int) -> list[Trouble]:
    """Ctrl-C is one line and 130; no signal that can be handled gives a traceback."""
    found: list[Trouble] = []
    if "Traceback" in ended.stderr:
        found.append(Trouble(RUDE, f"a traceback: {ended.stderr.splitlines()[-1][:200]}"))
    elif number == signal.SIGINT and ended.code not in (130, 0):
        found.append(Trouble(RUDE, f"exit {ended.code}: {ended.stderr[-200:]}"))
    elif ended.code == -signal.SIGKILL:
        found.append(Trouble(RUDE, f"it did not end within {process.GRACE:g} s"))
    return found
