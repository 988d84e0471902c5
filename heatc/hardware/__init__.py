"""Hardware descriptions: `load_hardware("hdp-edge")` or a YAML file of one's own."""

from heatc.hardware.description import (
    SCHEMA,
    SCHEMA_VERSION,
    Hardware,
    from_json,
    load_hardware,
    render,
)
from heatc.hardware.presets import DEFAULT_PRESET, PRESETS, preset_names

__all__ = [
    "DEFAULT_PRESET",
    "PRESETS",
    "SCHEMA",
    "SCHEMA_VERSION",
    "Hardware",
    "from_json",
    "load_hardware",
    "preset_names",
    "render",
]
