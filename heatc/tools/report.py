"""
`heatc-report`: one page of HTML that shows runs, plans, fronts and evaluations.

    hdp-run dense.hdp --inputs in.npz --stats dense
    hdp-run small.hdp --inputs in.npz --stats small --keep-masks 4
    heatc-report dense small front plan.json -o report.html

The page needs nothing but itself: it may be sent, and opened without a network.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heatc.commands import REPORT_PAGE
from heatc.errors import UsageError
from heatc.files import atomic_write
from heatc.tools.diagnostics import ToolParser, remark, run_tool

if TYPE_CHECKING:
    from heatc.report.material import FigureInfo, Material

PROG = "heatc-report"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `heatc-report`."""
    return run_tool(_run, argv, PROG)


def make_parser() -> ToolParser:
    """The options of the command."""
    parser = ToolParser(PROG, (__doc__ or "").strip())
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="a folder of hdp-run --stats or --sweep, the folder or front.json of heatc-tune search or "
        "compress, a plan.json, or an eval.json of heatc-tune eval; runs are compared with the first one",
    )
    parser.add_argument(
        "-o", dest="output", metavar="PAGE.html", required=True, help="the page to write"
    )
    parser.add_argument("--title", metavar="TEXT", default="heatc report", help="its heading")
    parser.add_argument("--quiet", "-q", action="store_true", help="print nothing")
    return parser


def _run(argv: Sequence[str]) -> None:
    args = make_parser().parse_args(argv)
    if Path(args.output).suffix != ".html":
        raise UsageError(f"expected a name that ends in .html: {args.output!r}", place="-o")
    REPORT_PAGE.check(vars(args))
    # Whoever asks for help needs none of it.
    from heatc.report.page import MOST_BYTES, page

    material = _material([Path(run) for run in args.runs], Path(args.output))
    text = page(material, args.title).encode()
    with atomic_write(args.output) as stream:
        stream.write(text)
    for told in material.remarks:
        remark(told, place=args.output)
    if len(text) > MOST_BYTES:
        notes = ["show fewer runs at a time"]
        remark(f"the page has {len(text):,} bytes", place=args.output, notes=notes)
    if not args.quiet:
        print(f"{args.output}: {len(text) / 1e6:.2f} MB, {len(material.runs)} runs")


def _material(paths: Sequence[Path], output: Path) -> Material:
    """Everything that the page is made of."""
    from heatc.report.material import Material
    from heatc.report.reading import read_run
    from heatc.tools.quantities import MEANINGS

    names = run_names(paths)
    runs = [read_run(path, name) for path, name in zip(paths, names)]
    kinds = {kind.value: meaning for kind, meaning in MEANINGS.items()}
    return Material(runs, _infos("stats.json"), _infos("layers.csv"), kinds, output)


def _infos(file: str) -> dict[str, FigureInfo]:
    """What each figure of a file is, from the dictionary of hdp-run."""
    from heatc.report.material import FigureInfo
    from heatc.tools.data_dictionary import entries
    from heatc.tools.quantities import Kind

    known = {kind.value for kind in Kind}
    found = [e for e in entries() if e.place.partition(",")[0] == file and e.kind in known]
    return {e.name: FigureInfo(e.name, e.unit, e.kind, e.meaning) for e in found}


def run_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as it takes to tell them apart."""
    parts = [path.absolute().parts for path in paths]
    names = [own[-1] for own in parts]
    for length in range(2, max(map(len, parts), default=0) + 1):
        counts = Counter(names)
        names = [
            name if counts[name] == 1 else "/".join(own[-length:]).removeprefix("//")
            for name, own in zip(names, parts)
        ]
    return names


if __name__ == "__main__":
    sys.exit(main())
