"""Hardware descriptions: `load_hardware("hdp-edge")` or a YAML file of one's own."""

from heatc.hardware.description import (
    Hardware,
    description_files,
    from_json,
    load_hardware,
    render,
)
from heatc.hardware.presets import DEFAULT_PRESET, PRESETS, preset_names
from heatc.hardware.schema import SCHEMA, SCHEMA_VERSION

__all__ = [
    "DEFAULT_PRESET",
    "PRESETS",
    "SCHEMA",
    "SCHEMA_VERSION",
    "Hardware",
    "description_files",
    "from_json",
    "load_hardware",
    "preset_names",
    "render",
]
