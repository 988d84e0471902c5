"""Kinds of cases of the planted tool, one a deed; workers import this module."""

from __future__ import annotations

from functools import partial
from random import Random

from planted_tool import DEEDS

from bench.support.fuzz import entry
from bench.support.fuzz.case import Case, kind
from bench.support.fuzz.corpus import Corpus

entry.MODULES["planted"] = "planted_tool"


def _case(deed: str, _rng: Random, _corpus: Corpus) -> Case:
    references = (("input", "safetensors"),) if deed == "accept" else ()
    return Case((deed,), {"input": b"no safetensors"}, references=references, old=deed == "old")


for _deed in DEEDS:
    kind("planted", _deed, 1)(partial(_case, _deed))
