"""The hardware preset `small-chip`."""

from pathlib import Path

PRESET = Path(__file__).parent / "small_chip.yaml"
