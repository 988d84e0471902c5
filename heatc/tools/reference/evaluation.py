"""docs/reference/evaluation.md: what `heatc-tune eval -o` writes, from its declarations."""

from __future__ import annotations

from collections.abc import Mapping

from heatc.tools.reference.markdown import code, head, table
from heatc.tuning.evaluate.figures import FIGURES, LEVEL, SCHEMA
from heatc.tuning.evaluate.intervals import RESAMPLES
from heatc.tuning.evaluate.keys import PROVENANCE, SUBJECT, TOP

_TEXT = f"""\
What `heatc-tune eval -o eval.json` writes, in version {SCHEMA} of its schema. [Evaluate](../howto/evaluate.md)
says how to use the command.

A *subject* is what was evaluated: a program, a model or a plan. The *reference* is the subject that
the others are compared with. It is `--model` where that is given, else the first model, else the
first subject.

Intervals are of {LEVEL} %. Figures of the group `compared` are objects of `value`, `low` and `high`; the
ends are null where the figure has no interval. Figures of the other groups are numbers. What does not
apply is null: scores without labels, cycles of a NumPy program. A bootstrap draws the samples
{RESAMPLES} times, with the seed of `provenance`; the reference is scored on the same drawings."""


def render() -> str:
    """The text of the page."""
    figures = ([code(f.name), f.source, f.unit, f.meaning, f.interval or "-"] for f in FIGURES)
    parts = [
        head("Evaluation", _TEXT),
        _keys("The file", TOP),
        _keys("A subject", SUBJECT),
        _keys("Provenance", PROVENANCE),
        "## Figures of a subject\n",
        table(("name", "group", "unit", "meaning", "interval"), figures),
    ]
    return "\n".join(parts)


def _keys(title: str, keys: Mapping[str, tuple[str, str]]) -> str:
    rows = ([code(name), unit, text] for name, (unit, text) in keys.items())
    return f"## {title}\n\n" + table(("key", "unit or type", "meaning"), rows)
