"""One distillation from start to end: check, factorise, train, write the plan and its factors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from heatc.api import Compilation
from heatc.dialects.attn import SdpaOp
from heatc.dialects.einsum import ContractOp
from heatc.errors import HeatcError
from heatc.files import held_folder, safetensors_bytes, together
from heatc.heat.formats import Spec, parse_format, parse_shape
from heatc.heat.plan import entry
from heatc.heat.statistics import cache_root
from heatc.kinds import PLAN, PLAN_FACTORS, REPORT
from heatc.names import factors_file, report_file
from heatc.passes.factorising.emit import factors_path
from heatc.passes.heat_decompose import HeatDecomposePass
from heatc.passes.insert_hdp import InsertHdpPass
from heatc.passes.rewriting import describe_location, module_path
from heatc.pipeline import Instrument, run_passes
from heatc.plan import SCHEMA
from heatc.rules import Rule
from heatc.tuning.common.content_key import content_key
from heatc.tuning.common.packed_model import PackedModel
from heatc.tuning.common.plan_data import rule_data
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.common.samples import Samples, check_samples
from heatc.tuning.common.torch_model import TorchModel
from heatc.tuning.distill.fast_matmul import fast_matmul
from heatc.tuning.distill.recipe import RULES, Recipe
from heatc.tuning.distill.teacher import KeptTeacher, LiveTeacher
from heatc.tuning.distill.texts import Texts
from heatc.tuning.distill.train import STAGES, Training
from heatc.version import VERSION
from heatc.weights import WeightStore

__all__ = ["Request", "Result", "distill"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Request:
    """
    What the user asked for.

    Attributes:
        teacher, student: compilations of the same captured model, without and with its factors
            (`Options(Numpy(), level=0)`), not run yet.
        data: the task's inputs by file and name, `extra` unlabelled text of other domains, and
            `dev` what evaluates; without it a quarter of `data` is held back.
        output: the plan.json to write; factors and report come beside it.
        rule: the pruning rule of all attentions of the student, None where it is the plan that
            says it.
        device: of PyTorch.
        folder: where an interrupted run goes on, None for the user's cache.
        kept: the folder of what the teacher gives, None to run it at every step.
    """

    teacher: Compilation
    student: Compilation
    data: tuple[str, Mapping[str, Array]]
    extra: Mapping[str, Mapping[str, Array]]
    dev: tuple[str, Mapping[str, Array]] | None
    output: Path
    recipe: Recipe
    rule: Rule | None = None
    device: str = "cpu"
    folder: Path | None = None
    kept: Path | None = None


@dataclass(frozen=True)
class Result:
    """The report, and whether an earlier run's checkpoint was gone on with."""

    report: Mapping[str, Any]
    resumed: bool

    @property
    def worse(self) -> list[tuple[str, float, float]]:
        """Losses on samples held back that grew: name, before, after."""
        before, after = self.report["before"], self.report["after"]
        return [
            (name, before[name], loss)
            for name, loss in after.items()
            if not name.endswith("pruned") and loss > before[name]
        ]

    @property
    def slowed(self) -> list[tuple[str, float, float]]:
        """Stages that began again with a smaller rate: name, the rate asked for, the one taken."""
        asked, epochs = self.report["recipe"]["rates"], self.report["epochs"]
        last = {entry["stage"]: entry["rate"] for entry in epochs if "rate" in entry}
        return [
            (name, rate, last[number])
            for number, (name, rate) in enumerate(zip(STAGES, asked), 1)
            if last.get(number, rate) != rate
        ]


def distill(request: Request, progress: ProgressCallback) -> Result:
    """
    Train the factors and write `output`, `<stem>.factors.safetensors` and `<stem>.report.json`.

    The student's attention is pruned as the plan or `rule` says, the teacher's is dense. Raises
    `HeatcError` for data that does not fit the model, a rule that none is trained under, or a
    loss that is not finite.
    """
    _check_rules(request)
    with fast_matmul(request.device):
        return _distill(request, progress)


def _distill(request: Request, progress: ProgressCallback) -> Result:
    request.teacher.run()
    module, weights = request.teacher.module, request.teacher.weights
    shapes = PackedModel(module, weights)
    train, held = _samples(request, shapes)
    layers = _factorise(request.student)
    rules = _rules(request)
    layers = _with_rules(layers, request.rule, rules)
    names = request.student.weights.added
    model = TorchModel(module, weights, device=request.device)
    student = TorchModel(
        request.student.module, request.student.weights, names, request.device, rules
    )
    own = _model_key(module, weights)
    folder = _folder(request, own, layers, rules)
    recipe = replace(request.recipe, batch=shapes.batch)
    with held_folder(folder):
        teacher = LiveTeacher(model)
        if request.kept is not None:
            sets, kept = [train, *held.values()], request.kept / own
            teacher = KeptTeacher(model, sets, recipe.batch, kept, progress)
        training = Training(teacher, student, train, held, recipe, folder, progress)
        training.run()
    # Of the first epoch's start, which a run that was gone on with has from its checkpoint.
    first = training.state.history[0]
    before = {k: v for k, v in first.items() if k not in ("stage", "epoch", "rate")}
    report = {
        "recipe": asdict(recipe),
        "rules": {module_path(op): rule_data(rule) for op, rule in rules.items()},
        "samples": {"train": len(train), **{k: len(v) for k, v in held.items()}},
        "device": request.device,
        "teacher": "run at every step" if request.kept is None else "kept, features in float16",
        "threads": torch.get_num_threads(),
        "seconds": round(training.state.seconds, 1),
        "steps": training.state.taken,
        "before": before,
        "after": training.evaluate(),
        "epochs": training.state.history,
    }
    _write(request, layers, student.arrays(), report)
    return Result(report, training.resumed)


# ---- data -------------------------------------------------------------------------------------


def _samples(request: Request, model: PackedModel) -> tuple[Texts, dict[str, Texts]]:
    """What is trained on, and the sets that it is evaluated on."""
    seed = request.recipe.seed

    def checked(name: str, arrays: Mapping[str, Array]) -> Samples:
        return check_samples(arrays, model.shapes, model.limits, seed, name)

    own = checked(*request.data)
    everything = np.ones(len(own), np.bool_)
    if request.dev is not None:
        parts, held = [(own, everything)], {"dev": _texts(checked(*request.dev))}
    else:
        parts, held = [(own, ~own.held)], {"dev": _texts(own, own.held)}
    for name, arrays in request.extra.items():
        other, stem = checked(name, arrays), Path(name).stem
        if stem in held:
            raise HeatcError(f"two sets of text are called {stem!r}", place=name)
        parts.append((other, ~other.held))
        held[stem] = _texts(other, other.held)
    texts = [_texts(samples, chosen) for samples, chosen in parts]
    joined = {k: np.concatenate([t.inputs[k] for t in texts]) for k in texts[0].inputs}
    return Texts(joined, np.concatenate([t.lengths for t in texts])), held


def _texts(samples: Samples, chosen: NDArray[np.bool_] | None = None) -> Texts:
    """The chosen samples that have a token."""
    keep = samples.lengths > 0 if chosen is None else chosen & (samples.lengths > 0)
    return Texts({n: a[keep] for n, a in samples.inputs.items()}, samples.lengths[keep])


# ---- layers -----------------------------------------------------------------------------------


class _FactorisedEntries(Instrument):
    """Notes what `heat-decompose` made of each layer, as entries of plan.json."""

    def __init__(self) -> None:
        self.layers: dict[str, dict[str, Any]] = {}

    def after(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Read the contractions that say where their factors come from."""
        if pass_.name != HeatDecomposePass.name:
            return
        for op in module.walk():
            if isinstance(op, ContractOp) and op.decomposition is not None:
                format_, shape, ranks, _ = op.decomposition.data
                spec = Spec(parse_format(format_), *parse_shape(shape), ranks)
                self.layers[factors_path(op)] = {"heat": entry(spec)}


def _factorise(student: Compilation) -> dict[str, dict[str, Any]]:
    """Runs the student's pipeline; the plan's layers, or those that options chose."""
    noted = _FactorisedEntries()
    run_passes(student.context(), student.module, student.passes, [noted])
    if student.plan is None:
        _check_apart(noted.layers)
        return noted.layers
    return dict(student.plan.layers)


def _check_apart(layers: Mapping[str, Any]) -> None:
    joint = next((path for path in layers if "+" in path), None)
    if joint is not None:
        raise HeatcError(
            f"{joint}: a plan has no name for layers that are decomposed as one",
            notes=["leave `joint` out of --heat"],
        )


# ---- pruning ----------------------------------------------------------------------------------


def _check_rules(request: Request) -> None:
    """Refuse what the plan asks for and training has not, before any work."""
    if request.rule is not None or request.student.plan is None:
        return
    for path, rule in request.student.plan.rules.items():
        if rule.name not in RULES:
            raise HeatcError(
                f"layers[{json.dumps(path)}].hdp: nothing is trained under rule {rule.name}",
                place=request.student.plan.path,
                notes=[
                    f"rules for training: {', '.join(RULES)}",
                    "--hdp-rule=none trains without pruning and keeps the plan's rules",
                ],
            )


def _rules(request: Request) -> dict[Operation, Rule]:
    """The rule of each attention of the student that is pruned."""
    module, chosen = request.student.module, InsertHdpPass()
    if request.rule is not None:
        _forget_rules(module)
        options: dict[str, Any] = request.rule.options
        chosen = InsertHdpPass(rule=request.rule.name, **options)  # pyright: ignore[reportArgumentType]
    return {op: rule for op, rule in chosen.rules(module).items() if rule.name != "none"}


def _forget_rules(module: ModuleOp) -> None:
    """One rule is for all attentions, whatever the plan says."""
    for op in module.walk():
        if isinstance(op, SdpaOp):
            op.rule = None


def _with_rules(
    layers: Mapping[str, dict[str, Any]], rule: Rule | None, rules: Mapping[Operation, Rule]
) -> dict[str, dict[str, Any]]:
    """The layers of the plan to write: those of options get a rule by their module path."""
    found = dict(layers)
    for op in rules if rule is not None else ():
        path = module_path(op)
        if not path:
            raise HeatcError(
                "an attention has no module path, which is its name in a plan",
                place=describe_location(op),
            )
        found[path] = {**found.get(path, {}), "hdp": rule_data(rules[op])}
    return found


# ---- files ------------------------------------------------------------------------------------


def _folder(
    request: Request, model: str, layers: Mapping[str, Any], rules: Mapping[Operation, Rule]
) -> Path:
    """
    Where this distillation keeps its checkpoints: named by the content of all that it depends on.

    Where its files lie is no part of the name: what is done from copies of them goes on.
    """
    texts = {
        "version": VERSION,
        "model": model,
        "layers": json.dumps(layers, sort_keys=True),
        "rules": repr([(module_path(op), rule) for op, rule in rules.items()]),
        "recipe": repr(request.recipe),
        "device": request.device,
    }
    if request.kept is not None:
        texts["teacher"] = "kept"
    sets = [("data", request.data[1])]
    sets += [(f"extra {Path(name).stem}", own) for name, own in request.extra.items()]
    sets += [] if request.dev is None else [("dev", request.dev[1])]
    arrays = {f"{name} {key}": array for name, own in sets for key, array in own.items()}
    start = request.student.weights
    arrays |= {f"start {name}": np.asarray(start[name]) for name in start.added}
    return (request.folder or cache_root() / "distill") / content_key(texts, arrays)


def _model_key(module: ModuleOp, weights: WeightStore) -> str:
    """Names a model by its module and all of its weights, wherever they were read from."""
    arrays = {name: np.asarray(weights[name]) for name in weights}
    return content_key({"module": str(module)}, arrays)


def _write(
    request: Request,
    layers: Mapping[str, Any],
    factors: Mapping[str, NDArray[np.float32]],
    report: Mapping[str, Any],
) -> None:
    path, student = request.output, request.student.plan
    content = safetensors_bytes(factors, PLAN_FACTORS)
    plan = {
        "schema": SCHEMA,
        "model_sha256": request.student.weights_sha256(),
        "hw": None if student is None else student.hw,
        "hw_sha256": None if student is None else student.hw_sha256,
        "seed": request.recipe.seed,
        "factors": {
            "file": factors_file(path).name,
            "sha256": hashlib.sha256(content).hexdigest(),
        },
        "layers": layers,
    }
    with together() as files:
        files.open(factors_file(path)).write(content)
        files.open(report_file(path), "w").write(REPORT.json_text(report))
        files.open(path, "w").write(PLAN.json_text(plan))
