"""What the verdicts of the zoo come to: rows with a goal, a table by family, refusals by message."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bench.support.families.entry import MASKS
from bench.support.families.judge import HDP_COSINE, NUMPY_ERROR, TARGETS
from bench.support.report import Json, Row

Entries = Sequence[Mapping[str, Any]]

WHAT = "families of point 2 x {eager, SDPA} x {archive, folder} x {no, right, left padding, holes}"
CLAIMS = {
    "numpy": f"NumPy within {NUMPY_ERROR:g} of PyTorch",
    "hdp": f"HDP none, cosine >= {HDP_COSINE:g} a token",
}
_EXAMPLES = 6
_LONGEST = 240


def rows(found: Entries) -> list[Row]:
    """How many cases are right and how many wrong, by target."""
    result: list[Row] = []
    for target in TARGETS:
        cases = _of(found, target=target)
        if not cases:
            continue
        right = len(_of(cases, kind="right"))
        result.append(Row(f"{WHAT}: {CLAIMS[target]}", right, "cases", len(cases), ">="))
        wrong = len(_of(cases, kind="wrong"))
        result.append(Row(f"{WHAT}: wrong [{target}]", wrong, "cases", 0, "<="))
    return result


def families(found: Entries) -> list[Json]:
    """A line a family: right of all cases, the worst figures, on both targets."""
    return [_family(name, _of(found, family=name)) for name in _names(found, "family")]


def _family(name: str, found: Entries) -> dict[str, Json]:
    line: dict[str, Json] = {"family": name, "heads": len(_names(found, "head"))}
    for target in TARGETS:
        cases = _of(found, target=target)
        right = _of(cases, kind="right")
        line[f"{target}: right"] = f"{len(right)} of {len(cases)}"
        line[f"{target}: refused"] = len(_of(cases, kind="refused"))
        line[f"{target}: wrong"] = len(_of(cases, kind="wrong"))
        if target == "numpy":
            line["largest error"] = f"{max((c['error'] for c in right), default=0):.1e}"
        else:
            line["least cosine"] = f"{min((c['cosine'] for c in right), default=1):.6f}"
    return line


def heads(found: Entries) -> list[Json]:
    """A line a family and head: right cases of all, by target, and where the others are."""
    lines: list[Json] = []
    for family in _names(found, "family"):
        of_family = _of(found, family=family)
        for head in _names(of_family, "head"):
            cases = _of(of_family, head=head)
            line: dict[str, Json] = {"family": family, "head": head}
            for target in TARGETS:
                line[target] = _told(_of(cases, target=target))
            lines.append(line)
    return lines


def _told(cases: Entries) -> str:
    """`all 16`, or how many are right with the masks and routes of the others."""
    others = [case for case in cases if case["kind"] != "right"]
    if not others:
        return f"all {len(cases)}"
    text = f"{len(cases) - len(others)} of {len(cases)}"
    if len(others) == len(cases):
        return text
    for key in ("implementation", "route", "mask"):
        names = _names(others, key)
        if len(names) < len(_names(cases, key)):
            text += f", not {key} {', '.join(names)}"
    return text


def faults(found: Entries, kind: str) -> list[Json]:
    """Messages of wrong or refused cases, the most frequent first, with the models."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for case in _of(found, kind=kind):
        groups.setdefault(normalised(case["message"]), []).append(case)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        {
            "message": message,
            "cases": len(cases),
            "targets": ", ".join(_names(cases, "target")),
            "models": _models(cases),
        }
        for message, cases in ordered
    ]


def _models(cases: Entries) -> str:
    names = list(dict.fromkeys(f"{case['family']}: {case['head']}" for case in cases))
    more = f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
    return "; ".join(names[:_EXAMPLES]) + more


def normalised(message: str) -> str:
    """A message without its numbers, names and places, its ops kept."""
    lines = message.strip().splitlines()[:4]
    text = " | ".join(line.strip() for line in lines)
    text = re.sub(r"first in [^:|]*(?:\([^)]*\))?: ", "", text)
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'..'", text)
    text = re.sub(r"tensor<[^>]*>+", "tensor", text)
    text = re.sub(r"(?<=at )[\w.]+\.[\w.]+(?: \([^)]*\))?", "..", text)
    text = re.sub(r"\([\w./-]+\.py:\d+\)|[\w./-]+\.py:\d+", "..", text)
    return re.sub(r"(?<![\w])-?\d+(?:\.\d+)?(?:e-?\d+)?", "N", text)[:_LONGEST]


def _of(found: Entries, **wanted: str) -> list[Mapping[str, Any]]:
    return [case for case in found if all(case[key] == value for key, value in wanted.items())]


def _names(found: Entries, key: str) -> list[str]:
    """The values of a key in the order of their first case; masks in theirs."""
    names = dict.fromkeys(str(case[key]) for case in found)
    return sorted(names, key=MASKS.index) if key == "mask" else list(names)
