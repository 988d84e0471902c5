"""
The kinds of files that heatc writes, and how each is told from a file that somebody else wrote.

A file carries its mark, `heatc <version> <kind>`, where its format has a place for it; the others
have a form that nothing else has. A file without the mark of its kind is never replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatc.version import VERSION

_LOOKED_AT = 1 << 16
"""Bytes at either end of a file that are searched for a mark."""


@dataclass(frozen=True)
class Kind:
    """
    A kind of file.

    Attributes:
        name: what messages and marks call it.
        pattern: of the bytes at the head of such a file, or at its end where `at_end`.
        lead: what begins the mark's line in a text, empty where the mark stands elsewhere.
    """

    name: str
    pattern: bytes
    at_end: bool = False
    lead: str = ""

    @property
    def mark(self) -> str:
        """What a file of this kind says of itself."""
        return f"heatc {VERSION} {self.name}"

    def line(self, lead: str = "") -> str:
        """The mark as the first line of a text, behind `lead` where comments begin otherwise."""
        return f"{lead or self.lead} {self.mark}\n"

    def json_text(self, data: Mapping[str, Any], *, indent: int | None = 1) -> str:
        """The text of a JSON file whose first value is the mark; in one line without `indent`."""
        import json  # here alone: most commands write none

        return f"{json.dumps({'producer': self.mark, **data}, indent=indent)}\n"

    def is_kind_of(self, path: Path) -> bool:
        """Whether heatc wrote this file as one of this kind; `OSError` where it can't be read."""
        with path.open("rb") as stream:
            if self.at_end:
                stream.seek(max(0, path.stat().st_size - _LOOKED_AT))
            data = stream.read(_LOOKED_AT)
        find = re.search if self.at_end else re.match
        return find(self.pattern, data, re.DOTALL) is not None


def _mark(name: str) -> bytes:
    """The pattern of a mark, of any version."""
    return rb"heatc [^\s\"]+ " + re.escape(name).encode()


def text_kind(name: str, lead: str, other_leads: str = "") -> Kind:
    """A text whose first line is a comment with the mark."""
    leads = b"|".join(re.escape(word).encode() for word in (lead, *other_leads.split()))
    return Kind(name, rb"(?:" + leads + rb") " + _mark(name) + rb"\r?\n", lead=lead)


def _json(name: str) -> Kind:
    """A JSON object whose first value is the mark."""
    return Kind(name, rb'\s*\{\s*"\w+":\s*"' + _mark(name) + rb'"')


def _safetensors(name: str, mark: Callable[[str], bytes] = _mark) -> Kind:
    """A safetensors file whose metadata have the mark as `producer`."""
    return Kind(name, rb'.{8}\{"__metadata__":\{[^{}]*"producer":"' + mark(name) + rb'"')


def _npz(name: str) -> Kind:
    """An .npz file, a zip archive, whose comment is the mark."""
    return Kind(name, rb"PK\x05\x06.{18}" + _mark(name) + rb"\Z", at_end=True)


# What every command writes by `--json`.
SUMMARY = _json("summary")

# What `heatc` and `heatc-opt` write.
PROGRAM = Kind("NumPy program", rb'"""\n[^\n]* as a NumPy program, written by heatc ')
# Those of the first version have no kind in their mark.
WEIGHTS = _safetensors("program weights", lambda name: rb"heatc [^\s\"]+(?: %b)?" % name.encode())
HDP = Kind("HDP program", rb"PK\x03\x04.{26}program\.bin.{0,256}?HDPPROG\x00")
ASSEMBLY = text_kind("assembly", "#")
IR = text_kind("IR", "//", other_leads="# ; ;; *")
IR_FACTORS = _safetensors("IR factors")
IR_WEIGHTS = _safetensors("IR weights")
REMARKS = Kind("remarks", rb'\{"pass": "[^"\n]*", "layer": ')

DIVERGENCE = _npz("divergence")

# What `hdp-as` writes.
BINARY = Kind("program.bin", rb"HDPPROG\x00")

# What `hdp-run` writes.
OUTPUTS = _npz("outputs")
LAYERS = _npz("layers")
MASKS = _npz("masks")
STATS_JSON = _json("stats")
STATS_TEXT = text_kind("stats", "#")
LAYERS_CSV = Kind("layers.csv", rb"module_path,instructions,macs,")
HARDWARE = text_kind("hardware", "#")
PROGRAM_JSON = _json("provenance")
TIMELINE = _json("timeline")
SWEEP_JSON = _json("sweep")
SWEEP_CSV = Kind("sweep.csv", rb"point,[^\n]*,total_cycles,")
TRACE = Kind("trace", rb".{0,4096}?" + _mark("trace"))

# What `heatc-tune` writes.
PLAN = _json("plan")
PLAN_FACTORS = _safetensors("plan factors")
REPORT = _json("report")
FRONT = _json("front")

# What `heatc-report` writes.
PAGE = Kind("page", rb"<!DOCTYPE html>\r?\n<!-- " + _mark("page") + rb" -->")
EVALUATION = _json("evaluation")
DATA = _npz("data set")
LABEL_NAMES = _json("label names")


# What `heatc-export` writes.
EXPORT_JSON = _json("export")
EXPORT_WEIGHTS = _safetensors("exported weights")
EXPORTED_PROGRAM = Kind(
    "torch program", rb"PK\x05\x06.{18}" + _mark("torch program") + rb"\Z", True
)
MODELING = text_kind("PyTorch model", "#")
ONNX = Kind("ONNX model", rb"\x08.\x12." + _mark("ONNX model"))
ONNX_WEIGHTS = text_kind("ONNX weights", "#")


@dataclass(frozen=True)
class Copy(Kind):
    """A file that is copied as it is: one of this kind has the bytes of its source."""

    source: Path = Path()

    def is_kind_of(self, path: Path) -> bool:
        """Whether a file is what would be written."""
        return path.read_bytes() == self.source.read_bytes()


def is_heatc_safetensors(path: Path) -> bool:
    """
    Whether heatc wrote a safetensors file: beside a model's own, it is no part of the model.

    False for what cannot be read: whoever needs its tensors says so.
    """
    try:
        is_kind = path.is_file() and any(
            kind.is_kind_of(path)
            for kind in (WEIGHTS, IR_FACTORS, IR_WEIGHTS, PLAN_FACTORS, EXPORT_WEIGHTS)
        )
    except OSError:
        return False
    return is_kind
