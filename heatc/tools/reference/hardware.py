"""docs/reference/hardware.md: every key of a hardware file, read from its schema."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from heatc.hardware import PRESETS, SCHEMA, load_hardware
from heatc.hardware.schema import Key
from heatc.hardware.units import Unit
from heatc.hardware.values import rendered
from heatc.tools.reference.markdown import code, head, table

_TEXT = """\
What a machine has, as a YAML file: `heatc MODEL --hw machine.yaml`, or `hdp-run prog.hdp --hw machine.yaml`. A value has
its unit with it. It may say where it comes from: `bandwidth: {value: 6.4 GB/s, source: "a data sheet"}`.

A file says which machine it is based on, and the keys that differ:

```yaml
schema: 1
name: small-chip          # the name of the file where none is given
description: 4 cores on slow memory.
base: hdp-edge            # a preset, or another file: its path from this one
cores: 4
dram:
  bandwidth: 6.4 GB/s
```

A file without `base` has every key below. The whole is checked, whichever file a value comes from, and a message names the
file and line of the value. A base may have a base; a circle is refused. `heatc --print-hw machine.yaml` prints the resolved
description with the area of the machine.

`hdp-run --sweep` takes the same keys ([sweeps](../howto/hardware.md#sweeps)).

Energies are of one action, leakage and area of one part. Every value of the presets has its source: `heatc --print-hw
hdp-edge`."""

_SHOWN = ("hdp-edge", "hdp-server")
"""The presets whose values the page has."""


def render() -> str:
    """The text of the page."""
    sections: dict[str, list[Key]] = {}
    for key in SCHEMA:
        sections.setdefault(key.path.partition(".")[0], []).append(key)
    alone = [key for keys in sections.values() for key in keys if "." not in key.path]
    rest = {name: keys for name, keys in sections.items() if keys[0] not in alone}
    tables = [_section("the machine", alone), *(_section(n, keys) for n, keys in rest.items())]
    return "\n".join([head("Hardware files", _TEXT), *tables, _presets()])


def _section(name: str, keys: Iterable[Key]) -> str:
    machines = [load_hardware(preset) for preset in _SHOWN]
    rows = [
        (
            code(key.path),
            key.meaning,
            type_of(key),
            bounds_of(key),
            *(_value(key, getattr(machine, key.attribute)) for machine in machines),
        )
        for key in keys
    ]
    return f"## {name}\n\n{table(('key', 'meaning', 'type', 'bounds', *_SHOWN), rows)}"


def _value(key: Key, value: Any) -> str:
    """A value as a file has it."""
    text = str(rendered(key, value))
    return text.lower() if key.kind is bool else text


def type_of(key: Key) -> str:
    """What a value is, with the units that it may have."""
    return " or ".join(map(_unit, key.units)) or "a whole number"


def _unit(unit: Unit) -> str:
    names = ", ".join(name for name, _ in unit.scales)
    return f"{unit.what} ({names})" if names else unit.what


def bounds_of(key: Key) -> str:
    """The values that are taken."""
    if key.kind is bool:
        return "true, false"
    if key.choices:
        return ", ".join(str(rendered(key, choice)) for choice in key.choices)
    if key.is_blocks:
        return f"extents {key.low} to {key.high}"
    return f"{rendered(key, key.low)} to {rendered(key, key.high)}"


def _presets() -> str:
    rows = [(code(name), load_hardware(name).description) for name in PRESETS.own]
    return f"## Presets\n\n{table(('name', 'what it is'), rows)}"
