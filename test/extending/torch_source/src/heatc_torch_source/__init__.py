"""The target `torch-source`: a function of PyTorch, without any instruction of heatc's machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xdsl.utils.arg_spec import ArgSpec

from heatc.kinds import text_kind
from heatc.targets import Options
from heatc.targets.base import Check, Form, Result
from heatc.targets.text import write_text

FORM = Form("torch", ".py", text_kind("PyTorch source", "#"), is_text=True, has_factors=True)


@dataclass(frozen=True)
class TorchSource:
    """One function, `main(weights, ...)`, that takes the model's own weights by name."""

    name: str = "torch-source"
    summary: str = "a function of PyTorch that takes the model's weights by name"
    forms: tuple[Form, ...] = (FORM,)
    hw: None = None
    prunes: bool = False

    def passes(self, options: Options) -> Sequence[ArgSpec]:
        """The passes of all targets are enough."""
        return ()

    def write(self, result: Result, form: str, output: Path | None, check: Check) -> None:
        """Write the function; heatc runs it against the model before anybody sees it."""
        from heatc_torch_source.program import Program
        from heatc_torch_source.source import source

        text = source(result.module)
        check(partial(Program, text, result.weights))
        write_text(text, FORM.kind, result.weights, output)


TARGET = TorchSource()
