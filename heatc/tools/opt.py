"""
`heatc-opt`: runs passes on IR in text form.

xDSL's driver with this project's registry, locations for everything that is parsed, and
errors as one message.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipeline
from xdsl.printer import Printer
from xdsl.utils.arg_spec import parse_spec
from xdsl.utils.exceptions import (
    ArgSpecParseError,
    DiagnosticException,
    ParseError,
)
from xdsl.xdsl_opt_main import xDSLOptMain

from heatc import kinds
from heatc.context import HeatcContext
from heatc.errors import HeatcError
from heatc.files import atomic_write, write_safetensors
from heatc.ir_errors import explain, explain_spec_error, failing_op, print_op
from heatc.parsing import input_name, parse_module, read_text
from heatc.pass_text import check_name, read_passes
from heatc.passed import PASSED, names_passed, record
from heatc.progress import ProgressCallback, no_progress
from heatc.readers.source import STDIN
from heatc.tools.completion import complete
from heatc.tools.diagnostics import (
    add_common_arguments,
    add_quiet_argument,
    raise_usage_error,
    run_tool,
    warn,
)
from heatc.tools.hardware_option import add_hardware_argument
from heatc.tools.progress import is_terminal, progress_bars
from heatc.universe import known_dialects, known_passes, known_targets
from heatc.version import VERSION

if TYPE_CHECKING:
    from heatc.remarks import RemarkLog
    from heatc.weights import WeightStore

PROG = "heatc-opt"
TEXT = "runs passes on IR in text form"

_COMMENTS = {
    "mlir": "//",
    "csl": "//",
    "wgsl": "//",
    "arm-asm": "//",
    "riscv-asm": "#",
    "x86-asm": "#",
    "llvm": ";",
    "wat": ";;",
    "mps": "*",
}
"""What begins a comment of each target's text; the first line of a file says who wrote it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `heatc-opt`."""
    return run_tool(_run, argv, PROG)


def make_parser() -> argparse.ArgumentParser:
    """The options of the command, as `HeatcOptMain` registers them."""
    parser = argparse.ArgumentParser(description=TEXT)
    HeatcOptMain.without_arguments().register_all_arguments(parser)
    return parser


def _run(argv: Sequence[str]) -> None:
    try:
        tool = HeatcOptMain(TEXT, argv)
    except ArgSpecParseError as error:
        # The target, which xDSL reads before the hook that sets up the passes.
        raise explain_spec_error("target", error) from error
    tool.run()


class HeatcOptMain(xDSLOptMain):
    """xDSL's driver, changed through its hooks only."""

    version_format = f"{PROG} {VERSION} (xdsl {{xdsl_version}})"

    # What is happening, for the errors that do not say.
    stage = ""
    start_offset = 0
    output: IO[str] | None = None
    remarks: RemarkLog | None = None
    progress: ProgressCallback = staticmethod(no_progress)

    # --- Registration -------------------------------------------------------------------------

    @classmethod
    def without_arguments(cls) -> HeatcOptMain:
        """One that has read no command line: it knows its options alone."""
        tool = cls.__new__(cls)
        tool.available_frontends, tool.available_passes, tool.available_targets = {}, {}, {}
        tool.register_all_dialects()
        tool.register_all_frontends()
        tool.register_all_passes()
        tool.register_all_targets()
        return tool

    # xDSL's own registration imports the universe of every package; ours waits for a name.

    def register_all_dialects(self) -> None:
        self.context = HeatcContext(_registered_dialects=known_dialects())
        self.ctx = self.context

    def register_all_passes(self) -> None:
        self.available_passes = known_passes()

    def register_all_targets(self) -> None:
        self.available_targets = known_targets()

    def register_all_frontends(self) -> None:
        self.available_frontends["mlir"] = self._parse

    def register_all_arguments(self, arg_parser: argparse.ArgumentParser) -> None:
        arg_parser.prog = PROG
        arg_parser.allow_abbrev = False
        arg_parser.error = partial(raise_usage_error, arg_parser)
        super().register_all_arguments(arg_parser)
        add_common_arguments(arg_parser)
        add_quiet_argument(arg_parser)
        arg_parser.add_argument(
            "--print-ir-after",
            metavar="PASS",
            action="append",
            default=[],
            help="print the IR to stderr after this pass (several: repeat, or separate by comma)",
        )
        arg_parser.add_argument(
            "--print-ir-after-all",
            action="store_true",
            help="print the IR to stderr after every pass",
        )
        arg_parser.add_argument(
            "--remarks", metavar="FILE", help="what passes decided: JSON lines, or - for stderr"
        )
        _add_context_options(arg_parser.add_argument_group("what passes work with").add_argument)
        complete(arg_parser)

    # --- Passes -------------------------------------------------------------------------------

    def setup_pipeline(self) -> None:
        # An unknown pass or a wrong option is refused before the input is opened.
        read_passes(self.args.passes)
        super().setup_pipeline()
        self._check_print_ir_after()
        inherited = self.pipeline.callback
        assert inherited is not None

        def callback(before: ModulePass | None, module: ModuleOp, after: ModulePass | None) -> None:
            self.stage = f"after pass '{before.name}'" if before is not None else ""
            inherited(before, module, after)
            if before is not None and PASSED in module.attributes:
                from heatc.pipeline import spelled

                record(module, spelled([before.pipeline_pass_spec()]))
            if before is not None and self._prints_after(before.name):
                _print_ir(before.name, module)
            self.stage = f"in pass '{after.name}'" if after is not None else ""
            if after is not None:
                self.progress(f"pass {after.name}", 0, 0)
            if self.remarks is not None and after is not None:
                self.remarks.running = after.name

        self.pipeline = PassPipeline(self.pipeline.passes, callback)
        if self.args.remarks is not None:
            from heatc.remarks import RemarkLog

            self.remarks = RemarkLog(self.args.remarks)
            self.context.remarks = self.remarks.take

    def _check_print_ir_after(self) -> None:
        self.print_after = {
            name.strip() for names in self.args.print_ir_after for name in names.split(",")
        }
        running = {p.name for p in self.pipeline.passes}
        for name in sorted(self.print_after):
            check_name(name)
            if name not in running:
                warn(f"--print-ir-after: pass '{name}' is not in the pipeline", place=PROG)

    def _prints_after(self, name: str) -> bool:
        return self.args.print_ir_after_all or name in self.print_after

    def apply_passes(self, prog: ModuleOp) -> None:
        # Passes add the weights of a chunk of the input to a store of its own.
        given = self.context.weights or self._weights_beside(prog)
        weights = self.context.weights = None if given is None else given.copy()
        try:
            with self.remarks or nullcontext():
                super().apply_passes(prog)
        except Exception as error:
            if self.args.verify_diagnostics and isinstance(error, DiagnosticException):
                raise _shorten(error) from None
            notes = (self.stage,) if self.stage else ()
            explained = explain(error, place=self.get_input_name(), notes=notes)
            if explained is None:
                error.add_note(self.stage)
                raise
            raise explained from error
        finally:
            self.context.weights = given
        if self.args.factors is not None and weights is not None:
            added = {name: weights[name] for name in weights.added}
            write_safetensors(self.args.factors, added, kinds.IR_FACTORS)

    def _weights_beside(self, module: ModuleOp) -> WeightStore | None:
        """What heatc wrote beside a text that says which passes it has been through."""
        if PASSED not in module.attributes or self.args.input_file in (None, STDIN):
            return None
        from heatc.ir_weights import weights_beside
        from heatc.weights import WeightStore

        found = weights_beside(Path(self.args.input_file), names_passed(module))
        return WeightStore.open_all(found) if found else None

    def _read_files(self) -> None:
        """What passes work with, each file once; what reads it is imported where it is given."""
        context, args = self.context, self.args
        if args.weights:
            from heatc.weights import WeightStore

            context.weights = WeightStore.open_all(args.weights)
        if args.hw is not None:
            from heatc.hardware import load_hardware

            context.hardware = load_hardware(args.hw)
        if args.plan is not None:
            from heatc.plan import read_plan

            context.plan = read_plan(args.plan)
        if args.calibrate is not None:
            from heatc.readers.npz import open_npz

            context.calibration = open_npz(args.calibrate)

    # --- Input and output ---------------------------------------------------------------------

    def run(self) -> None:
        # Here alone: `--version` starts without it.
        from heatc.commands import HEATC_OPT

        HEATC_OPT.check(vars(self.args))
        with progress_bars(self.args.quiet, plain=is_terminal(sys.stdout)) as self.progress:
            self._run()

    def _run(self) -> None:
        self._read_files()
        if self.args.output_file in (None, "-"):
            super().run()
            return
        destination: AbstractContextManager[IO[str]] = atomic_write(self.args.output_file, "w")
        with destination as self.output:
            if lead := _COMMENTS.get(parse_spec(self.args.target).name):
                self.output.write(kinds.IR.line(lead))
            super().run()

    def prepare_output(self) -> IO[str]:
        stream = sys.stdout if self.output is None else self.output
        if stream is None:  # pyright: ignore[reportUnnecessaryComparison]
            raise HeatcError("cannot write: standard output is closed")
        return stream

    def get_input_name(self) -> str:
        return input_name(self.args.input_file)

    def get_input_stream(self) -> tuple[IO[bytes], str]:
        """The whole input, checked to be text; the suffix of the file means nothing."""
        return BytesIO(read_text(self.args.input_file)), "mlir"

    def parse_chunk(
        self, chunk: IO[bytes], file_extension: str, start_offset: int = 0
    ) -> ModuleOp | None:
        self.stage, self.start_offset = "", start_offset
        try:
            return super().parse_chunk(chunk, file_extension, start_offset)
        except HeatcError as error:
            cause = error.__cause__
            if self.args.parsing_diagnostics and isinstance(cause, ParseError):
                raise cause from None
            if self.args.verify_diagnostics and isinstance(cause, DiagnosticException):
                raise cause from None
            raise

    def _parse(self, stream: IO[bytes]) -> ModuleOp:
        return parse_module(
            self.ctx,
            stream.read(),
            self.get_input_name(),
            line_offset=self.start_offset,
            implicit_module=not self.args.no_implicit_module,
            ordered=not self.args.disable_verify,
        )


def _add_context_options(add: Callable[..., argparse.Action]) -> None:
    add_hardware_argument(add)
    add(
        "--weights",
        metavar="FILE",
        action="append",
        default=[],
        help="safetensors file of the weights that the IR names; may be repeated",
    )
    add("--plan", metavar="FILE", help="plan.json, for apply-plan and those that follow it")
    add("--calibrate", metavar="FILE", help=".npz of inputs on which factors are near the weights")
    add("--factors", metavar="FILE", help="write the weights that passes add to this file")


def _print_ir(pass_name: str, module: ModuleOp) -> None:
    print(f"// IR after {pass_name}:", file=sys.stderr)
    Printer(sys.stderr).print_op(module)
    print(file=sys.stderr, flush=True)


def _shorten(error: DiagnosticException) -> DiagnosticException:
    """Only the failing op is of interest, not the module around it."""
    op = failing_op(error)
    if op is not None:
        error.__notes__ = [print_op(op)]
    return error


if __name__ == "__main__":
    sys.exit(main())
