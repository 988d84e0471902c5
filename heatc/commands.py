"""
Every path that every command reads and writes, the derived ones too.

A new option that names a file is one line here: all that is refused of it, and the tests of that,
follow. Values that are no options, such as the form of the output, are added by the tool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from heatc import kinds
from heatc.artifacts import Command, Read, Values, Write
from heatc.errors import HeatcError
from heatc.kinds import Kind
from heatc.names import (
    DIVERGENCE,
    EXPORT_FILE,
    FRONT_FILE,
    FRONT_PLAN,
    FRONT_REPORT,
    KEPT_MASKS,
    MODEL_WEIGHTS_FILE,
    MODELING_FILE,
    ONNX_FILE,
    ONNX_WEIGHTS_FILE,
    PHASE,
    PROGRAM_FILE,
    STATS,
    SWEEP,
    TIMELINE,
    compressed_program,
    factors_file,
    ir_weights_file,
    labels_file,
    machine_file,
    plan_file,
    point_file,
    report_file,
    weights_file,
)
from heatc.readers.model_folder import model_files as folder_files
from heatc.readers.model_folder import side_files

Files = Iterable[tuple[Path, Kind]]

_STATS_KINDS = (
    kinds.STATS_JSON,
    kinds.STATS_TEXT,
    kinds.LAYERS_CSV,
    kinds.HARDWARE,
    kinds.PROGRAM_JSON,
)

# --- What an option names ---------------------------------------------------------------------


def model_files(path: Path) -> list[Path]:
    """
    The files of a MODEL: of a folder its configurations, weights and their index.

    A state dict is read with the config.json beside it. What heatc wrote is no part of a folder; of
    IR it is what the weights are read from.
    """
    if path.is_dir():
        return folder_files(path)
    if path.suffix == ".mlir":
        is_phase = PHASE.match(path.name) is not None
        phases = path.parent.glob("*.mlir.safetensors") if is_phase else ()
        beside = [ir_weights_file(path), *(f for f in phases if PHASE.match(f.name))]
        return [path, *(f for f in dict.fromkeys(beside) if f.is_file())]
    config = path.parent / "config.json"
    return [path, config] if config.exists() else [path]


def plan_files(path: Path) -> list[Path]:
    """A plan, and the factors that it names."""
    from heatc.plan import read_plan

    try:
        plan = read_plan(path)
    except HeatcError:
        return [path]  # whoever needs it says what is wrong with it
    return [path] if plan.factors is None else [path, plan.factors.path]


def shown_files(path: Path) -> list[Path]:
    """A file that a report shows, or the files of a folder, whose pages are made and not read."""
    if path.is_dir():
        return sorted(f for f in path.iterdir() if f.is_file() and f.suffix != ".html")
    return plan_files(path)


def hardware_files(path: Path) -> list[Path]:
    """A hardware description and the files that it is based on; the name of a target names no file."""
    from heatc.hardware import description_files
    from heatc.targets import target_names

    if str(path) in target_names():
        return []
    try:
        return description_files(path)
    except HeatcError:
        return [path]  # whoever needs it says what is wrong with it


def subject_files(path: Path) -> list[Path]:
    """What `heatc-tune eval` reads: a program with its weights, a plan with its factors, or a model."""
    if path.suffix == ".py":
        return [path, weights_file(path)]
    return plan_files(path) if path.suffix == ".json" else model_files(path)


def tokenizer_files(path: Path) -> list[Path]:
    """The files of a folder that a tokenizer is read from."""
    if not path.is_dir():
        return [path]
    return sorted({found for pattern in _TOKENIZER for found in path.glob(pattern)})


_TOKENIZER = ("config.json", "*token*.json", "vocab*", "merges.txt", "*.model")
"""What transformers calls the files of a tokenizer; labels are read from the configuration."""


def _one(kind: Kind) -> Callable[[Path, Values], Files]:
    return lambda path, values: [(path, kind)]


def _compiled(path: Path, values: Values) -> Files:
    """The output of a compilation, in the form (`heatc.targets.base.Form`) that was asked for."""
    form = values["form"]
    found = [(path, form.kind), *form.beside(path)]
    if form.has_weights:
        found.append((ir_weights_file(path), kinds.IR_WEIGHTS))
    elif form.has_factors and values["has_factors"]:
        found.append((ir_weights_file(path), kinds.IR_FACTORS))
    return found


def _phases(path: Path, values: Values) -> Files:
    texts = [path / name for name in values["phases"]]
    weights = [(ir_weights_file(text), kinds.IR_WEIGHTS) for text in texts]
    return [*((text, kinds.IR) for text in texts), *weights]


def _calibrated(path: Path, values: Values) -> Files:
    return _planned(path, with_factors=values["plan"] is not None)


def _distilled(path: Path, values: Values) -> Files:
    return _planned(path, with_factors=True)


def _planned(path: Path, *, with_factors: bool) -> Files:
    factors = [(factors_file(path), kinds.PLAN_FACTORS)] if with_factors else []
    return [(path, kinds.PLAN), *factors, (report_file(path), kinds.REPORT)]


def _searched(path: Path, values: Values) -> Files:
    files = [(path / FRONT_FILE, kinds.FRONT), (path / FRONT_REPORT, kinds.REPORT)]
    files += [(path / point_file(n), kinds.PLAN) for n in range(values["points"])]
    files += [(path / FRONT_PLAN, kinds.PLAN)] if values["goal"] is not None else []
    return files + [(path / machine_file(n), kinds.HARDWARE) for n in range(values["machines"])]


def _tokenized(path: Path, values: Values) -> Files:
    return [(path, kinds.DATA), (labels_file(path), kinds.LABEL_NAMES)]


def _compressed(path: Path, values: Values) -> Files:
    """A plan for each point, one more where attention is pruned, the chosen one, and its program."""
    names = [FRONT_PLAN, *(plan_file(n) for n in range(1, values["points"] + 2))]
    files = [(path / FRONT_FILE, kinds.FRONT), *((path / name, kinds.PLAN) for name in names)]
    files += [(factors_file(path / name), kinds.PLAN_FACTORS) for name in names]
    program = path / compressed_program(values["is_numpy"])
    if not values["is_numpy"]:
        return [*files, (program, kinds.HDP)]
    return [*files, (program, kinds.PROGRAM), (weights_file(program), kinds.WEIGHTS)]


def _stats(path: Path, values: Values) -> Files:
    if values.get("sweep"):
        return list(zip((path / name for name in SWEEP), (kinds.SWEEP_CSV, kinds.SWEEP_JSON)))
    files = [(path / name, kind) for name, kind in zip(STATS, _STATS_KINDS, strict=True)]
    files += [(path / TIMELINE, kinds.TIMELINE)] if values["model"] != "functional" else []
    return files + ([(path / KEPT_MASKS, kinds.MASKS)] if values["keep_masks"] else [])


def _diverged(path: Path, values: Values) -> Files:
    return [(path / name, kinds.DIVERGENCE) for name in DIVERGENCE]


def _exported(path: Path, values: Values) -> Files:
    """The files of each format (`heatc.tools.export.FORMATS`), and copies of the model's own."""
    found = [(path / EXPORT_FILE, kinds.EXPORT_JSON)]
    if "torch" in values["formats"]:
        found += [
            (path / MODELING_FILE, kinds.MODELING),
            (path / MODEL_WEIGHTS_FILE, kinds.EXPORT_WEIGHTS),
            (path / PROGRAM_FILE, kinds.EXPORTED_PROGRAM),
        ]
        copied = side_files(Path(values["model"]))
        found += [(path / f.name, kinds.Copy(f"copy of {f.name}", b"", source=f)) for f in copied]
    if "onnx" in values["formats"]:
        found += [(path / ONNX_FILE, kinds.ONNX), (path / ONNX_WEIGHTS_FILE, kinds.ONNX_WEIGHTS)]
    return found


def _kept(path: Path, values: Values) -> Files:
    """A folder whose files are named by what they depend on: none of them meets anything."""
    return []


# --- The commands -----------------------------------------------------------------------------

_MODEL = Read("model", "MODEL", model_files)
_PLAN = Read("plan", "--plan", plan_files)
_CONFIG = Read("config", "--config")
_HW = Read("hw", "--hw", hardware_files)
_TUNED = (_MODEL, _CONFIG, Read("weights", "--weights"), Read("data", "--data"))
_JSON = Write("json", "--json", _one(kinds.SUMMARY))
_WORK = Write("work_dir", "--work-dir", _kept, is_folder=True)

HEATC = Command(
    "heatc",
    reads=(
        _MODEL,
        _CONFIG,
        Read("weights", "--weights"),
        _PLAN,
        Read("calibrate", "--calibrate"),
        _HW,
    ),
    writes=(
        Write("output", "-o", _compiled),
        _JSON,
        Write("remarks", "--remarks", _one(kinds.REMARKS)),
        Write("dump_phases_to", "--dump-phases-to", _phases, is_folder=True),
        Write("dump_divergence", "--dump-divergence", _diverged, is_folder=True),
    ),
)

COMPILE = Command(
    "heatc.compile",
    reads=(
        Read("model", "model", model_files),
        Read("plan", "plan", plan_files),
        Read("calibrate", "calibrate"),
        Read("target", "target", hardware_files),
    ),
    writes=(
        Write("output", "output", _compiled),
        Write("remarks", "remarks", _one(kinds.REMARKS)),
        Write("dump_divergence", "dump_divergence", _diverged, is_folder=True),
    ),
)

HEATC_OPT = Command(
    "heatc-opt",
    reads=(
        Read("input_file", "the input"),
        Read("weights", "--weights"),
        Read("calibrate", "--calibrate"),
        _PLAN,
        _HW,
    ),
    writes=(
        Write("output_file", "-o", _one(kinds.IR)),
        Write("remarks", "--remarks", _one(kinds.REMARKS)),
        Write("factors", "--factors", _one(kinds.IR_FACTORS)),
    ),
)

CALIBRATE = Command(
    "heatc-tune calibrate",
    reads=(*_TUNED, _PLAN, _HW),
    writes=(Write("output", "-o", _calibrated), _JSON, _WORK),
)

SEARCH = Command(
    "heatc-tune search",
    reads=(*_TUNED, Read("dev", "--dev"), _HW, Read("hw_space", "--hw-space")),
    writes=(Write("output", "-o", _searched, is_folder=True), _JSON, _WORK),
)

DISTILL = Command(
    "heatc-tune distill",
    reads=(*_TUNED, _PLAN, Read("extra", "--extra"), Read("dev", "--dev")),
    writes=(
        Write("output", "-o", _distilled),
        _JSON,
        _WORK,
        Write("keep_teacher", "--keep-teacher", _kept, is_folder=True),
    ),
)

_TEXT = (Read("text", "--text"), Read("tokenizer", "--tokenizer", tokenizer_files))

EVAL = Command(
    "heatc-tune eval",
    reads=(
        Read("subjects", "SUBJECT", subject_files),
        _CONFIG,
        Read("model", "--model", model_files),
        Read("weights", "--weights"),
        Read("data", "--data"),
        Read("calibrate", "--calibrate"),
        _HW,
        *_TEXT,
    ),
    writes=(Write("result", "-o", _one(kinds.EVALUATION)),),
)

DATA = Command(
    "heatc-tune data",
    reads=(_CONFIG, *_TEXT),
    writes=(Write("output", "-o", _tokenized), _JSON),
)

EXPORT = Command(
    "heatc-export",
    reads=(
        Read("model", "MODEL", lambda path: [*model_files(path), *side_files(path)]),
        _PLAN,
        Read("calibrate", "--calibrate"),
    ),
    writes=(Write("output", "-o", _exported, is_folder=True), _JSON),
)

COMPRESS = Command(
    "heatc-tune compress",
    reads=(*_TUNED, Read("dev", "--dev"), Read("extra", "--extra"), _HW),
    writes=(Write("output", "-o", _compressed, is_folder=True), _JSON, _WORK),
)

HDP_RUN = Command(
    "hdp-run",
    reads=(
        Read("program", "PROG.hdp"),
        _CONFIG,
        Read("inputs", "--inputs"),
        Read("reference", "--reference"),
        Read("masks", "--masks"),
        Read("recompile", "--recompile", model_files),
        _PLAN,
        _HW,
    ),
    writes=(
        Write("output", "-o", _one(kinds.OUTPUTS)),
        _JSON,
        Write("layers", "--layers", _one(kinds.LAYERS)),
        Write("save_masks", "--save-masks", _one(kinds.MASKS)),
        Write("trace", "--trace", _one(kinds.TRACE)),
        Write("stats", "--stats", _stats, is_folder=True),
    ),
)

REPORT_PAGE = Command(
    "heatc-report",
    reads=(Read("runs", "RUN", shown_files),),
    writes=(Write("output", "-o", _one(kinds.PAGE)),),
)

HDP_AS = Command(
    "hdp-as", reads=(Read("input", "FILE"),), writes=(Write("output", "-o", _one(kinds.BINARY)),)
)

HDP_OBJDUMP = Command("hdp-objdump", reads=(Read("file", "FILE"),))

COMMANDS = (
    HEATC,
    COMPILE,
    HEATC_OPT,
    CALIBRATE,
    SEARCH,
    DISTILL,
    EVAL,
    DATA,
    EXPORT,
    COMPRESS,
    HDP_RUN,
    REPORT_PAGE,
    HDP_AS,
    HDP_OBJDUMP,
)
