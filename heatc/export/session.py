"""One export from start to end: capture, factorise, write every form, hold it against NumPy."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heatc.api import Compilation, factor_options
from heatc.capture.exported import TORCH_DTYPES
from heatc.capture.hf_model import quiet_transformers
from heatc.capture.inputs import InputSpec, check_specs
from heatc.capture.origin import Origin, open_origin
from heatc.capture.paths import Request as CaptureRequest
from heatc.errors import HeatcError
from heatc.export.agreement import (
    Form,
    Reference,
    archive_form,
    check_agreement,
    check_other_extents,
    modeling_form,
    onnx_form,
    torch_form,
)
from heatc.export.archive import (
    by_name,
    export_dynamic,
    export_static,
    free_axes,
    write_archive,
)
from heatc.export.factors import NotePlanned, PlannedLayer
from heatc.export.live import CannotReplace, live_model
from heatc.export.modeling import (
    build_description,
    folder_text,
    graph_tensors,
    graph_text,
    write_description,
    write_weights,
)
from heatc.export.onnx_file import write_onnx
from heatc.export.program import folded_product, graph_model
from heatc.files import make_folder, together
from heatc.names import (
    EXPORT_FILE,
    MODEL_WEIGHTS_FILE,
    MODELING_FILE,
    ONNX_FILE,
    PROGRAM_FILE,
)
from heatc.pipeline import run_passes
from heatc.plan import Plan
from heatc.progress import ProgressCallback
from heatc.readers.model_folder import side_files
from heatc.remarks import print_remark
from heatc.targets import Numpy, Options
from heatc.temporary import scratch_folder
from heatc.verify import Levels
from heatc.verify.stages import Stages

SCHEMA = 1
"""Of export.json."""


@dataclass(frozen=True)
class Request:
    """
    What the user asked for.

    Attributes:
        model: the file or folder of the model.
        plan: what is factorised, and how; rules of attention in it are left out.
        output: the folder to write.
        formats: of `torch` and `onnx`.
        inputs: shapes and types where the model leaves them open.
        calibrate: the .npz of inputs that factors are made on, where the plan brings none.
        external: whether the weights of the ONNX model lie in a file beside it.
        is_static: whether shapes stay as they were captured.
        verify: whether all that is written is held against the plan's NumPy program.
        trust_pickle: whether a pickled module may be unpickled.
    """

    model: Path
    plan: Plan
    output: Path
    formats: Sequence[str]
    inputs: Mapping[str, InputSpec] | None = None
    calibrate: str | None = None
    external: bool = False
    is_static: bool = False
    verify: bool = True
    trust_pickle: bool = False


@dataclass
class Result:
    """
    What was written.

    Attributes:
        files: their names in the folder.
        layers: how many layers are factorised.
        parameters: of the factorised model; 0 where no PyTorch form was asked for.
        differences: the largest absolute difference of each form from the NumPy program.
        axes: the axes of each input that may have another extent.
        remarks: what the user is to know.
    """

    files: list[str] = field(default_factory=list[str])
    layers: int = 0
    parameters: int = 0
    differences: dict[str, float] = field(default_factory=dict[str, float])
    axes: dict[str, list[int]] = field(default_factory=dict[str, "list[int]"])
    remarks: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class _Model:
    """
    The factorised model of one way to write it.

    Attributes:
        module: takes inputs by name, gives outputs by name.
        text: what makes modeling.py.
        description: for export.json.
        write_weights: writes model.safetensors.
        is_live: whether it is the model's own code.
        options: what `forward` of the model in modeling.py is told beside tensors.
    """

    module: nn.Module
    text: Callable[[], str]
    description: Mapping[str, Any]
    write_weights: Callable[[Path], int]
    is_live: bool
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


def export_model(request: Request, progress: ProgressCallback) -> Result:
    """
    Write the factorised model into a folder, all files of it or none.

    Raises `HeatcError` for a model or plan that cannot be exported, `VerificationError` where a form
    differs from the NumPy program.
    """
    return _Export(request, progress).run()


class _Export:
    """The state of one export."""

    def __init__(self, request: Request, progress: ProgressCallback):
        self.request = request
        self.result = Result()
        self._progress = progress
        self._done = 0

    def run(self) -> Result:
        """Every step."""
        check_specs(self.request.inputs)
        self._step("read the model")
        told = CaptureRequest(self.request.inputs, self.request.trust_pickle, print_remark)
        origin = open_origin(self.request.model, told)
        self._step("make the factors")
        compilation, levels, layers = self._factorise(origin)
        with scratch_folder() as scratch:
            reference = self._reference(scratch, compilation, levels)
            self._step("replace the layers")
            model = self._model(origin, layers)
            folder = scratch / "export"
            folder.mkdir()
            forms = self._write(folder, origin, model)
            if self.request.verify:
                self._step("compare with NumPy")
                place = str(self.request.output)
                self.result.differences = check_agreement(reference, forms, place)
                if any(self.result.axes.values()):
                    own, axes = torch_form(model.module), self.result.axes
                    check_other_extents(reference.stages, own, forms, axes, place)
            self._describe(folder, model)
            self._put(folder)
        return self.result

    def _step(self, name: str) -> None:
        total = 4 + 2 * len(self.request.formats)
        self._progress(name, self._done, total)
        self._done += 1

    # --- The plan -----------------------------------------------------------------------------

    def _factorise(self, origin: Origin) -> tuple[Compilation, Levels, list[PlannedLayer]]:
        """The plan's NumPy program, as a module, and its layers."""
        plan = self._plan()
        data = self.request.calibrate
        options = Options(Numpy(), plan=plan, heat=factor_options(None, data, plan), calibrate=data)
        compilation = Compilation(options, quiet=True)
        compilation.check_model(self.request.model)
        compilation.adopt(origin.module, origin.weights, self.request.model.name)
        noted, levels = NotePlanned(compilation.weights), Levels()
        run_passes(compilation.context(), compilation.module, compilation.passes, [noted, levels])
        self.result.layers = len(noted.layers)
        return compilation, levels, list(noted.layers.values())

    def _plan(self) -> Plan:
        """The plan without what PyTorch and ONNX have nothing for."""
        plan = self.request.plan
        if plan.rules:
            self.result.remarks.append(
                f"the plan prunes {len(plan.rules)} attentions, which PyTorch and ONNX have no form of: "
                "all attention is computed"
            )
        if plan.factors is None and self.request.calibrate is None:
            self.result.remarks.append(
                "the plan brings no factors: they are nearest to the weights; --calibrate makes them "
                "nearest to what the layers compute"
            )
        return replace(plan, rules={})

    def _reference(self, scratch: Path, compilation: Compilation, levels: Levels) -> Reference:
        program = scratch / "reference.py"
        if self.request.verify:
            compilation.write(program, "numpy")
        stages = Stages(levels, compilation.module, compilation.weights)
        return Reference(stages, program, program.with_suffix(".safetensors"))

    # --- The model ----------------------------------------------------------------------------

    def _model(self, origin: Origin, layers: Sequence[PlannedLayer]) -> _Model:
        """The model's own code where that is possible, else its graph."""
        _check_weights(origin, layers)
        loaded = origin.loaded
        if loaded is not None and loaded.whole is not None:
            try:
                return self._live(origin, layers)
            except CannotReplace as reason:
                self.result.remarks.append(f"{reason}: modeling.py has the model's graph")
        found = graph_model(origin, layers)
        names = [named.name for named in origin.graph.inputs]
        description: dict[str, Any] = {
            "build": {"kind": "graph"},
            "layers": found.layers,
            "tensors": graph_tensors(found.module, found.layers),
        }
        return _Model(
            found.module,
            partial(graph_text, self.request.model.name, found.module, names),
            description,
            partial(write_weights, found.module, is_tied=False),
            is_live=False,
        )

    def _live(self, origin: Origin, layers: Sequence[PlannedLayer]) -> _Model:
        loaded = origin.loaded
        assert loaded is not None
        path = folded_product(origin.graph, layers)
        if path is not None:
            # DeBERTa's keys are applied to relative positions too, which are folded with W itself.
            raise CannotReplace(f"{path} is also applied to what no input decides")
        build = build_description(loaded)
        found = live_model(loaded, layers)
        names = [named.name for named in origin.graph.inputs]
        description = {
            "build": build,
            "layers": found.layers,
            "absent": sorted(found.absent),
        }
        return _Model(
            by_name(found.model, names, _outputs(origin), loaded.options),
            partial(folder_text, build["class"], loaded, names),
            description,
            partial(write_weights, found.model, absent=found.absent),
            is_live=True,
            options=loaded.options,
        )

    # --- Writing ------------------------------------------------------------------------------

    def _write(self, folder: Path, origin: Origin, model: _Model) -> dict[str, Form]:
        """Write every form; what runs each of them, by name, the model's own code first."""
        forms: dict[str, Form] = {}
        program = self._program(origin, model)
        self.result.axes = free_axes(program)
        self._describe(folder, model)
        if "torch" in self.request.formats:
            self._step("write PyTorch")
            (folder / MODELING_FILE).write_text(model.text(), encoding="utf-8")
            count = model.write_weights(folder / MODEL_WEIGHTS_FILE)
            self.result.parameters = count
            for file in side_files(self.request.model) if model.is_live else ():
                shutil.copyfile(file, folder / file.name)
            write_archive(program, folder / PROGRAM_FILE)
            self._step("read PyTorch again")
            if self.request.verify:
                forms[MODELING_FILE] = self._modeling_form(folder, origin, model)
                forms[PROGRAM_FILE] = archive_form(folder / PROGRAM_FILE)
        if "onnx" in self.request.formats:
            self._step("write ONNX")
            file, external = folder / ONNX_FILE, self.request.external
            write_onnx(program, _outputs(origin), file, external=external)
            self._step("read ONNX again")
            if self.request.verify:
                runner, form = onnx_form(file)
                forms[f"{ONNX_FILE} ({runner})"] = form
        return forms

    def _modeling_form(self, folder: Path, origin: Origin, model: _Model) -> Form:
        names = [named.name for named in origin.graph.inputs]
        with quiet_transformers() if model.is_live else nullcontext():
            return modeling_form(folder, names, _outputs(origin), model.options)

    def _program(self, origin: Origin, model: _Model) -> torch.export.ExportedProgram:
        """The exported program, of any batch where torch finds how."""
        examples = {n.name: _example(origin, n.value) for n in origin.graph.inputs}
        with quiet_transformers() if model.is_live else nullcontext():
            if model.is_live and not self.request.is_static:
                found = export_dynamic(model.module, examples)
                if found is not None:
                    return found
                self.result.remarks.append(
                    "torch traces this model for one shape alone: model.pt2 and model.onnx take that"
                )
            return export_static(model.module, examples)

    def _describe(self, folder: Path, model: _Model) -> None:
        """Write export.json, with what is known by now."""
        plan, result = self.request.plan, self.result
        write_description(
            folder / EXPORT_FILE,
            {
                "schema": SCHEMA,
                "model": self.request.model.resolve().name,
                "plan": Path(plan.path).name,
                "model_sha256": plan.model_sha256,
                "largest_difference": result.differences or None,
                **model.description,
            },
        )

    def _put(self, folder: Path) -> None:
        """Move what was written to where it is wanted, all of it or nothing."""
        output = make_folder(self.request.output)
        with together() as files:
            for file in sorted(folder.iterdir()):
                with file.open("rb") as source:
                    shutil.copyfileobj(source, files.open(output / file.name))
                self.result.files.append(file.name)


def _check_weights(origin: Origin, layers: Sequence[PlannedLayer]) -> None:
    """Raise `HeatcError` for a layer whose weight is made of the model's own: a convolution's."""
    bound = {bound.weight for bound in origin.graph.weights}
    for layer in layers:
        if layer.weight not in bound:
            raise HeatcError(
                f"the layer {layer.path!r} of the plan cannot be exported: its weight is no tensor "
                "of the model as it is, but that of a convolution, or computed from others",
                notes=["leave the layer out of the plan"],
            )


def _outputs(origin: Origin) -> list[str]:
    """The names of the model's outputs, in order."""
    return [named.name for named in origin.graph.outputs]


def _example(origin: Origin, value: str) -> Tensor:
    """An input of the captured shape: ones, which every id and mask may be."""
    tensor = origin.graph.tensor(value)
    return torch.ones(tensor.shape, dtype=getattr(torch, TORCH_DTYPES[tensor.dtype]))
