"""
`heatc-export`: a model with the factors of a plan, for stock PyTorch and ONNX Runtime.

    heatc-export model_folder --plan plan.json -o small
    heatc-export model.pt2 --plan plan.json -o small --formats onnx
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heatc.errors import UsageError, suggest
from heatc.tools.diagnostics import ToolParser, remark, run_tool
from heatc.tools.progress import READING, progress_bars
from heatc.tools.summary.output import add_output_arguments, show, wants_summary

if TYPE_CHECKING:
    from heatc.export.session import Request

PROG = "heatc-export"

FORMATS = {
    "torch": "modeling.py with model.safetensors, and model.pt2 for torch.export.load",
    "onnx": "model.onnx",
}
"""What `--formats` takes, and the files of each."""

_TEXT = f"""{(__doc__ or "").strip()}

The folder gets export.json, which says what is in it, and for each format:

{chr(10).join(f"    {name:6} {files}" for name, files in FORMATS.items())}

Everything is run against the plan's NumPy program before it is put there."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `heatc-export`."""
    return run_tool(_run, argv, PROG)


def make_parser() -> ToolParser:
    """The options of the command."""
    parser = ToolParser(PROG, _TEXT)
    add = parser.add_argument
    add("model", metavar="MODEL", help="torch.export archive, Hugging Face folder, ...")
    add("--plan", metavar="PLAN.json", required=True, help="which layers are factorised, and how")
    add("-o", dest="output", metavar="FOLDER", required=True, help="what is written")
    add("--formats", metavar="NAME,..", default=",".join(FORMATS), help="default: torch,onnx")
    add("--inputs", metavar="SPEC", help='e.g. "input_ids=1x128:i64,attention_mask=1x128:i64"')
    add("--calibrate", metavar="FILE.npz", help="inputs for the factors of a plan that has none")
    add("--static", action="store_true", help="keep the captured shapes: no free batch or length")
    add(
        "--external-data", action="store_true", help="the weights of model.onnx in a file beside it"
    )
    add("--no-verify", action="store_true", help="write without a look at the plan's NumPy program")
    add("--trust-pickle", action="store_true", help="unpickle MODEL: runs code that it contains")
    add_output_arguments(parser)
    return parser


def _run(argv: Sequence[str]) -> int:
    arguments = make_parser().parse_args(argv)
    with progress_bars(arguments.quiet) as progress:
        progress(READING, 0, 0)
        request = _request(arguments)
        from heatc.export.session import export_model

        result = export_model(request, progress)
    for text in result.remarks:
        remark(text, place=PROG)
    if wants_summary(arguments):
        from heatc.tools.summary.exported import summarize

        show(summarize(arguments, result), arguments)
    return 0


def _request(arguments: argparse.Namespace) -> Request:
    """What is asked for; every option is looked at before a model is."""
    from heatc.api import factor_options
    from heatc.commands import EXPORT
    from heatc.plan import read_plan

    formats = _formats(arguments.formats)
    model = Path(arguments.model)
    if model.suffix == ".mlir":
        raise UsageError(
            "IR has no PyTorch model behind it",
            place=arguments.model,
            notes=["give the torch.export archive or the folder that it was captured from"],
        )
    EXPORT.check({**vars(arguments), "formats": formats})
    plan = read_plan(arguments.plan)
    if not plan.heat:
        raise UsageError(
            "the plan factorises no layer",
            place=plan.path,
            notes=["heatc-tune search and distill write plans that do"],
        )
    factor_options(None, arguments.calibrate, plan)
    if "onnx" in formats:
        _check_onnx()
    from heatc.capture import parse_inputs
    from heatc.export.session import Request

    return Request(
        model=model,
        plan=plan,
        output=Path(arguments.output),
        formats=formats,
        inputs=parse_inputs(arguments.inputs) if arguments.inputs else None,
        calibrate=arguments.calibrate,
        external=arguments.external_data,
        is_static=arguments.static,
        verify=not arguments.no_verify,
        trust_pickle=arguments.trust_pickle,
    )


def _formats(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in FORMATS:
            notes = [*suggest(name, FORMATS), f"formats: {', '.join(FORMATS)}"]
            raise UsageError(f"unknown format {name!r}", place="--formats", notes=notes)
    return names


def _check_onnx() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the format onnx needs the package {missing[0]}",
            place="--formats",
            notes=["pip install 'heatc[export]', or give --formats=torch"],
        )


if __name__ == "__main__":
    sys.exit(main())
