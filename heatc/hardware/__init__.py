"""Hardware descriptions: `load_hardware("hdp-edge")` or a YAML file of one's own."""

from heatc.hardware.description import (
    SCHEMA,
    SCHEMA_VERSION,
    Hardware,
    from_json,
    load_hardware,
    preset_names,
    render,
)

__all__ = [
    "SCHEMA",
    "SCHEMA_VERSION",
    "Hardware",
    "from_json",
    "load_hardware",
    "preset_names",
    "render",
]
