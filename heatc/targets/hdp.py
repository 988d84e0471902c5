"""The targets that are HDP machines: a preset by its name, or a hardware file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xdsl.utils.arg_spec import ArgSpec

from heatc import kinds
from heatc.files import together
from heatc.hardware import DEFAULT_PRESET, load_hardware
from heatc.heat.options import PassOptions
from heatc.targets.base import Check, Form, Options, Result, insert_hdp

DEFAULT = DEFAULT_PRESET
FORMS = (
    Form("hdp", ".hdp", kinds.HDP),
    Form("asm", ".s", kinds.ASSEMBLY, is_text=True, has_factors=True),
)


@dataclass(frozen=True)
class Hdp:
    """An HDP machine; `hw` is a preset or the path of a YAML file."""

    hw: str = DEFAULT
    forms: tuple[Form, ...] = FORMS
    prunes: bool = True

    @property
    def name(self) -> str:
        """The machine's."""
        return self.hw

    @property
    def summary(self) -> str:
        """What the description of the machine begins with."""
        return load_hardware(self.hw).description.partition(". ")[0].rstrip(".")

    def passes(self, options: Options) -> Sequence[ArgSpec]:
        """Products of the machine, a rule for every attention, fixed point, tiles, addresses."""
        return (
            ArgSpec("fuse-einsums", {}),
            ArgSpec("shape-products", {}),
            ArgSpec("fold-weights", {}),
            insert_hdp(options),
            ArgSpec("partition-host", {}),
            ArgSpec("assign-fixed-point", _ranges(options)),
            ArgSpec("plan-tiles", {}),
            ArgSpec("tile-for-hdp", {}),
            ArgSpec("lower-to-hdp", {}),
            ArgSpec("allocate-buffers", {}),
        )

    def write(self, result: Result, form: str, output: Path | None, check: Check) -> None:
        """Write a program or its assembly."""
        if form == "asm":
            _write_assembly(result, output, check)
        else:
            assert output is not None
            self._write_program(result, output, check)

    def _write_program(self, result: Result, output: Path, check: Check) -> None:
        from heatc.backends.hdp.emit import write_module
        from heatc.verify.programs import HdpFile

        with together() as files:
            stream = files.open(output)
            write_module(
                stream,
                result.module,
                result.weights,
                result.hardware or load_hardware(self.hw),
                options=result.echo,
                source={"model": result.source},
            )
            written = files.draft(stream)
            check(None if written is None else partial(HdpFile, written))


def _ranges(options: Options) -> PassOptions:
    """What `assign-fixed-point` is told of inputs."""
    return {"input_range": tuple(options.input_range)} if options.input_range else {}


def _write_assembly(result: Result, output: Path | None, check: Check) -> None:
    from heatc.backends.hdp.emit import assembly
    from heatc.targets.text import write_text

    check(None)
    write_text(assembly(result.module), kinds.ASSEMBLY, result.weights, output)
