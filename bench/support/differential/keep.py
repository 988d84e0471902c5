"""What is kept of a wrong program: the simplest one that is wrong alike, as a script that shows it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

from bench.support.differential.build import NotExported
from bench.support.differential.judge import Verdict, judge
from bench.support.differential.models import generate
from bench.support.differential.program import Program

_ALIKE = 2
"""Scripts that are kept of programs that are wrong in the same way"""

_SCRIPT = '''\
"""
{target}: {reason}

{detail}

Found by bench/differential.py, seed {seed}; run it in the project's folder:
PYTHONPATH=. python {name}
"""

from bench.support.differential.judge import judge
from bench.support.differential.models import generate

program = generate({seed}, {forced})
print(program.text)
for verdict in judge(program):
    print(verdict.target, verdict.kind, verdict.reason, verdict.detail, sep=": ")
'''


def simplest(program: Program, verdict: Verdict) -> tuple[dict[str, int], Program, Verdict]:
    """
    The program with as many choices as possible at their first option, wrong in the same way.

    Returns the forced choices with it, see `Choices`.
    """
    forced: dict[str, int] = {}
    changed = True
    while changed:
        changed = False
        for name, choice in list(program.made.items()):
            if choice.number == 0 or name in forced or name not in program.made:
                continue
            tried = _tried(program.seed, {**forced, name: 0}, verdict)
            if tried is None:
                continue
            forced, (program, verdict) = {**forced, name: 0}, tried
            changed = True
    return forced, program, verdict


def _tried(
    seed: int, forced: Mapping[str, int], verdict: Verdict
) -> tuple[Program, Verdict] | None:
    """A simpler program and its verdict where that is wrong alike, else None."""
    program = generate(seed, forced)
    try:
        (found,) = judge(program, (verdict.target,))
    except NotExported:
        return None
    alike = found.kind == verdict.kind and found.reason == verdict.reason
    return (program, found) if alike else None


def keep(folder: Path, program: Program, verdict: Verdict) -> None:
    """Write the script of a wrong program, unless there are some that are wrong alike."""
    kind = f"{verdict.target}_{zlib.crc32(verdict.reason.encode()):08x}"
    if len(list(folder.glob(f"{kind}_*.py"))) >= _ALIKE:
        return
    forced, small, found = simplest(program, verdict)
    name = f"{kind}_{program.seed}.py"
    text = _SCRIPT.format(
        target=found.target,
        reason=found.reason,
        detail=found.detail,
        seed=small.seed,
        name=name,
        forced=forced,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
