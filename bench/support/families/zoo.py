"""The zoo: every family with every head, in the order of the page."""

from __future__ import annotations

from bench.support.families import heads, layers, pictures, sentences, sounds, text, written
from bench.support.families.entry import Entry


def zoo() -> list[Entry]:
    """All entries; their names are unique."""
    parts = (text, sentences, pictures, sounds, layers, written, heads)
    return [entry for part in parts for entry in part.entries()]
