"""`heatc-tune data`: labelled text as the inputs of a model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heatc.commands import DATA
from heatc.errors import UsageError
from heatc.files import together
from heatc.kinds import DATA as DATA_KIND
from heatc.kinds import LABEL_NAMES
from heatc.names import labels_file
from heatc.tools.config import add_config_argument
from heatc.tools.diagnostics import ToolParser, remark, warn
from heatc.tools.progress import progress_bars
from heatc.tools.summary.output import add_output_arguments, show, wants_summary

if TYPE_CHECKING:
    from heatc.tuning.evaluate.tokens import TextRequest, Tokenized

PROG = "heatc-tune data"

_TEXT = """\
Tokenize labelled text: a data set that heatc-tune, heatc --calibrate and hdp-run read.

    heatc-tune data --text train.csv --tokenizer MODEL -o train.npz
    heatc-tune data --text pairs.tsv --text-column premise,hypothesis --tokenizer MODEL -o pairs.npz

The file is .csv, .tsv or .jsonl with named columns. The names of labels are written beside the data,
in x.labels.json for x.npz. Nothing is fetched from a network."""

LENGTH = 128
TEXT_COLUMN, LABEL_COLUMN = "text", "label"

_TEXT_OPTIONS = (
    "tokenizer",
    "text_column",
    "label_column",
    "label_names",
    "length",
    "padding",
    "shuffle",
)
"""What says how text is read: without --text it has no meaning."""


def make_parser() -> ToolParser:
    """The options of the command."""
    parser = ToolParser(PROG, _TEXT)
    add_text_options(parser)
    add = parser.add_argument
    add("-o", dest="output", metavar="FILE.npz", required=True, help="the data set")
    add("--limit", metavar="N", type=int, help="the first N samples, after --shuffle")
    add_config_argument(parser)
    add_output_arguments(parser)
    return parser


def add_text_options(parser: ToolParser) -> None:
    """The options that say what text there is and how it is tokenized."""
    add = parser.add_argument
    add("--text", metavar="FILE.csv", help=".csv, .tsv or .jsonl with named columns")
    add("--tokenizer", metavar="DIR", help="model folder whose tokenizer is used")
    add("--text-column", metavar="A[,B]", help="column of the text, two for pairs (text)")
    add("--label-column", metavar="NAME", help="column of the labels (label, if there is one)")
    add("--label-names", metavar="A,B", help="names of the classes in their order, from 0")
    add("--length", metavar="N", type=int, help=f"tokens of a sequence at most, {LENGTH}")
    add("--padding", choices=("max", "longest"), help="up to --length (max), or to the longest")
    add("--shuffle", metavar="SEED", type=int, help="take the samples in a random order")


def data_command(argv: Sequence[str]) -> int:
    """The command, with what follows its name."""
    arguments = make_parser().parse_args(argv)
    if arguments.text is None:
        raise UsageError("--text is missing", notes=[f"see {PROG} --help"])
    check_text_options(arguments)
    if Path(arguments.output).suffix != ".npz":
        raise UsageError(f"expected a name that ends in .npz: {arguments.output!r}", place="-o")
    DATA.check(vars(arguments))
    from heatc.readers.npz import write_npz
    from heatc.tuning.evaluate.tokens import tokenized

    with progress_bars(arguments.quiet) as progress:
        found = tokenized(text_request(arguments), progress)
    tell(found, arguments.text)
    with together() as files:
        write_npz(files.open(arguments.output), found.arrays, DATA_KIND)
        if found.classes is not None:
            names = {"schema": 1, "names": list(found.classes.names)}
            stream = files.open(labels_file(Path(arguments.output)), "w")
            stream.write(LABEL_NAMES.json_text(names))
    if wants_summary(arguments):
        from heatc.tools.summary.tokenized import summarize

        show(summarize(arguments, found), arguments)
    return 0


def check_text_options(arguments: argparse.Namespace) -> None:
    """Raise `UsageError` for options of text that are wrong, or that nothing reads."""
    if arguments.text is None:
        given = [n for n in _TEXT_OPTIONS if getattr(arguments, n) is not None]
        if given:
            option = f"--{given[0].replace('_', '-')}"
            raise UsageError("only --text needs it", place=option)
        return
    if arguments.tokenizer is None:
        raise UsageError("text needs a tokenizer", notes=["give a model folder: --tokenizer DIR"])
    columns = _split(arguments.text_column or TEXT_COLUMN)
    if not 1 <= len(columns) <= 2 or not all(columns):
        raise UsageError("expected one column or two, A or A,B", place="--text-column")
    names = _split(arguments.label_names or "x")
    if len(set(names)) < len(names) or not all(names):
        raise UsageError("expected different names, A,B", place="--label-names")
    for name, least in {"length": 2, "limit": 1, "shuffle": 0}.items():
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UsageError(f"{value} is below {least}", place=f"--{name}")


def text_request(arguments: argparse.Namespace) -> TextRequest:
    """What is tokenized; a column `label` is read where it is there and no other is named."""
    from heatc.tuning.evaluate.text_table import columns_of
    from heatc.tuning.evaluate.tokens import TextRequest

    label = arguments.label_column
    if label is None and LABEL_COLUMN in columns_of(Path(arguments.text)):
        label = LABEL_COLUMN
    return TextRequest(
        file=Path(arguments.text),
        tokenizer=Path(arguments.tokenizer),
        columns=_split(arguments.text_column or TEXT_COLUMN),
        label=label,
        label_names=_split(arguments.label_names) if arguments.label_names else (),
        length=arguments.length or LENGTH,
        padding=arguments.padding or "max",
        limit=arguments.limit,
        shuffle=arguments.shuffle,
    )


def tell(found: Tokenized, text: str) -> None:
    """Say which label became which class, and what was cut."""
    if found.classes is not None and found.classes.source != "numbers":
        names = ", ".join(f"{name} = {n}" for n, name in enumerate(found.classes.names))
        notes = ["--label-names gives another order, and one for files that lack a class"]
        remark(f"labels by {found.classes.source}: {names}", place=text, notes=notes)
    if found.cut:
        count = len(next(iter(found.arrays.values())))
        notes = ["--length keeps more of them"]
        warn(f"{found.cut} of {count} samples were cut", place=text, notes=notes)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]
