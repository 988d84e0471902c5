"""
`plan.json`: what is done to each layer of a model, as data.

    {"schema": 2, "model_sha256": "...", "hw": "hdp-edge", "hw_sha256": "...", "seed": 0,
     "layers": {"encoder.layer.0.attention.self":
                {"hdp": {"rule": "ours", "point": 2, "rho_b": [0.1, 0.2]}},
                "encoder.layer.0.output.dense":
                {"heat": {"format": "tt", "shape": "32x96|32x24", "ranks": [32, 64, 24],
                          "path": [[0, 1], [5, 2], [6, 3], [7, 4]], "fuse": 64},
                 "widths": {"activations": 16, "weights": 16}}},
     "factors": {"file": "plan.factors.safetensors", "sha256": "..."}}

A layer is named by its module path. Keys of `hdp` are the options of the rule
(`heatc.rules.OPTIONS`, and its own), `point` being the bits of `finer`; those of `heat` are
`heatc.heat.plan.LayerHeat`. `factors`, which may be absent, names a file beside the plan with the
factors themselves, `<module path>.<i>`, and after them the layer's bias: what `heatc-tune distill`
trained. `widths` are the bits of a layer's operands (`WIDTHS`); heatc computes in 16. `model_sha256`
is `weights_sha256`, the digest of the values of the model's weights, whatever file holds them; schema 1,
which is read too and has no widths, has `model_sha256` of the model's file or folder there. Digests
of the model and the machine that are absent or null are not compared. A plan for another model is
refused. One for another machine is taken, with a remark: its costs alone were for that machine, whose
name `hw` may say. `producer` says who wrote the plan; heatc replaces none that it did not write.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np

from heatc.errors import HeatcError
from heatc.files import from_os_error
from heatc.hardware import Hardware, load_hardware, preset_names, render
from heatc.heat.plan import LayerHeat, layer_heat
from heatc.readers.fields import short
from heatc.readers.json_text import kind_of, read_json
from heatc.readers.model_folder import is_index, model_files
from heatc.readers.source import as_path, open_file
from heatc.rules import OPTIONS, RULES, Rule, RuleError, known_options, make_rule
from heatc.weights import WeightStore

SCHEMA = 2
"""What is written."""

FILE_DIGEST = 1
"""The schema whose plans name the model's file; they are read as ever."""

WIDTHS = ("activations", "weights", "queries", "keys", "values", "probabilities")
"""The operands of a layer that a plan may say the width of."""

MOST_BITS = 32
_BITS = 16
_LAYER = {FILE_DIGEST: ("heat", "hdp"), SCHEMA: ("heat", "hdp", "widths")}
_TOP = ("producer", "schema", "model_sha256", "hw", "hw_sha256", "seed", "layers", "factors")
LARGEST_PLAN = 16 << 20


@dataclass(frozen=True)
class FactorFile:
    """The file of a plan's factors, and the SHA-256 that it must have."""

    path: Path
    sha256: str

    def open(self) -> WeightStore:
        """Map the factors; `HeatcError` where they are missing, or not those of the plan."""
        together = "keep the plan and its factors together, as heatc-tune wrote them"
        if not self.path.is_file():
            raise HeatcError(
                "the plan's factors are not there", place=str(self.path), notes=[together]
            )
        found = model_sha256(self.path)
        if found != self.sha256:
            raise HeatcError(
                f"the plan names factors with digest {self.sha256}, this is {found}",
                place=str(self.path),
                notes=[together],
            )
        return WeightStore.open(self.path)


@dataclass(frozen=True)
class Plan:
    """
    A plan that was read and checked.

    Attributes:
        path: where it was read from.
        rules: the pruning rule of each attention, by module path.
        heat: how each factorised layer is factorised, by module path.
        factors: the factors themselves, None where they are to be found.
        schema: that of the file.
        widths: bits of the operands of each layer that it says them of, by module path.
        layers: as the text has them.
        model_sha256: of the model it was made for, None where it does not say: `weights_sha256`, or
            `model_sha256` where `schema` is `FILE_DIGEST`.
        hw_sha256: `hardware_sha256` of the machine it was made for, None where it does not say.
        seed: of whatever was random in making it.
        hw: the name of that machine, None where it does not say.
    """

    path: str
    rules: Mapping[str, Rule] = field(default_factory=dict[str, Rule])
    model_sha256: str | None = None
    hw_sha256: str | None = None
    seed: int | None = None
    heat: Mapping[str, LayerHeat] = field(default_factory=dict[str, LayerHeat])
    factors: FactorFile | None = None
    schema: int = SCHEMA
    widths: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    layers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    hw: str | None = None

    @property
    def names_file(self) -> bool:
        """Whether it names the file of the model."""
        return self.schema == FILE_DIGEST and self.model_sha256 is not None

    @property
    def names_weights(self) -> bool:
        """Whether it names the weights of the model."""
        return self.schema != FILE_DIGEST and self.model_sha256 is not None

    def check_model(self, digest: str) -> None:
        """Raise `HeatcError` where the plan was made for another model."""
        if self.model_sha256 not in (None, digest):
            raise HeatcError(
                "model_sha256: the plan was made for another model: "
                f"{self.model_sha256}, this is {digest}",
                place=self.path,
                notes=["make the plan again, or set the key to null to use it all the same"],
            )

    def check_weights(self, weights: WeightStore, names: Collection[str], digest: str) -> None:
        """
        Raise `HeatcError` where the plan was made for other weights than those of these names.

        `digest` is `weights_sha256` of them. The same weights under a prefix are told apart from others.
        """
        try:
            self.check_model(digest)
        except HeatcError as error:
            told = self._told_prefix(weights, names)
            if told is None:
                raise
            message = (
                f"model_sha256: the weights are those of the plan, their names are not: {told}"
            )
            note = "give the model that the plan was made for, or make the plan again for this one"
            raise HeatcError(message, place=self.path, notes=[note]) from error

    def _told_prefix(self, weights: WeightStore, names: Collection[str]) -> str | None:
        """What a prefix more or less of all names would mend; None where it is other weights."""
        for prefix in sorted({name[: name.index(".") + 1] for name in names if "." in name}):
            without = {n: n.removeprefix(prefix) for n in names}
            if all(n.startswith(prefix) for n in names) and self._is_of(weights, without):
                return f"this model's begin with {prefix!r}, the plan's do not"
        for prefix in sorted({path[: path.index(".") + 1] for path in self.layers if "." in path}):
            if self._is_of(weights, {n: f"{prefix}{n}" for n in names}):
                return f"the plan's begin with {prefix!r}, this model's do not"
        return None

    def _is_of(self, weights: WeightStore, renamed: Mapping[str, str]) -> bool:
        return weights_sha256(weights, renamed, renamed) == self.model_sha256

    def for_other_machine(self, hardware: Hardware) -> str | None:
        """What to tell of a plan whose costs are of another machine; None of one for this machine."""
        if self.hw_sha256 in (None, hardware_sha256(hardware)):
            return None
        made_for = self.hw or _preset_of(self.hw_sha256) or "another hardware description"
        if made_for == hardware.name:
            made_for = f"another {made_for}"
        return (
            f"the plan was made for {made_for}, this is {hardware.name}: it is used all the same, but "
            f"what it costs was planned for {made_for}"
        )


def _preset_of(digest: str) -> str | None:
    """The preset that has a digest."""
    names = (n for n in preset_names() if hardware_sha256(load_hardware(n)) == digest)
    return next(names, None)


def model_sha256(model: str | PathLike[str]) -> str:
    """
    The SHA-256 of a model file, or of the configurations and weights of a model folder.

    Of a folder: name and bytes of every file that it is read from, by name, without an index of
    shards; what heatc wrote there, weights of programs and factors, is no part of the model.
    """
    path, digest = as_path(model, "a model"), hashlib.sha256()
    files = [path]
    if path.is_dir():
        try:
            files = [f for f in model_files(path) if f.exists() and not is_index(f)]
        except OSError as error:
            raise from_os_error(error, verb="read") from error
    for file in files:
        if path.is_dir():
            digest.update(f"{file.relative_to(path)}\n".encode())
        try:
            with open_file(file, "a model", pipes=False) as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        except OSError as error:
            raise from_os_error(error, str(file)) from error
    return digest.hexdigest()


def weights_sha256(
    weights: WeightStore, names: Iterable[str], renamed: Mapping[str, str] | None = None
) -> str:
    """
    The SHA-256 of some weights: of the name, type, shape and values of each, by name.

    `renamed` has other names that they go by, none twice.

    Those that are no floating-point numbers are left out: which of them (position ids, token types) a
    model reads depends on the inputs that it is captured with. Memory that is mapped from files is
    given back as it goes.
    """
    digest = hashlib.sha256()
    called = {name: name for name in names} if renamed is None else renamed
    for name, own in sorted(called.items(), key=itemgetter(1)):
        array = weights[name]
        if array.dtype.kind != "f":
            continue
        digest.update(f"{own} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        weights.release(name)
    return digest.hexdigest()


def hardware_sha256(hardware: Hardware) -> str:
    """The SHA-256 of a resolved hardware description."""
    return hashlib.sha256(render(hardware).encode()).hexdigest()


def read_plan(path: str | PathLike[str]) -> Plan:
    """Read and check a plan; `HeatcError` names the key that is wrong."""
    file = as_path(path, "a plan")
    return _Reader(str(file)).plan(read_json(file, "a plan", LARGEST_PLAN))


class _Reader:
    def __init__(self, place: str):
        self.place = place

    def error(self, key: str, message: str) -> HeatcError:
        return HeatcError(f"{key}: {message}" if key else message, place=self.place)

    def table(self, key: str, value: Any, known: tuple[str, ...] | None = None) -> dict[str, Any]:
        """A JSON object, of known keys if they are given."""
        if not isinstance(value, dict):
            raise self.error(key, f"expected an object, got {kind_of(value)}")
        found = cast("dict[str, Any]", value)
        unknown = [k for k in found if known is not None and k not in known]
        if unknown:
            expected = ", ".join(known or ())
            name = unknown[0][:80]
            place = f"{key}.{name}" if key else name
            raise self.error(place, f"unknown key, expected one of {expected}")
        return found

    def plan(self, data: Any) -> Plan:
        top = self.table("", data, _TOP)
        if "schema" not in top:
            raise self.error("schema", "the key is missing")
        schema = top["schema"]
        if type(schema) is not int or schema not in _LAYER:
            raise self.error("schema", f"expected {FILE_DIGEST} or {SCHEMA}, got {short(schema)}")
        if "layers" not in top:
            raise self.error("layers", "the key is missing")
        layers = self.table("layers", top["layers"])
        rules: dict[str, Rule] = {}
        heat: dict[str, LayerHeat] = {}
        widths: dict[str, Mapping[str, int]] = {}
        for name, layer in layers.items():
            key = f"layers[{json.dumps(name[:200])}]"
            table = self.table(key, layer, _LAYER[schema])
            if table.get("heat") is not None:
                heat[name] = self.heat(f"{key}.heat", table["heat"])
            if table.get("hdp") is not None:
                rules[name] = self.rule(f"{key}.hdp", table["hdp"])
            if table.get("widths") is not None:
                widths[name] = self.widths(f"{key}.widths", table["widths"])
        return Plan(
            self.place,
            rules,
            self.digest(top, "model_sha256"),
            self.digest(top, "hw_sha256"),
            self.seed(top),
            heat,
            self.factors(top),
            schema,
            widths,
            layers,
            self.name(top),
        )

    def widths(self, key: str, value: Any) -> dict[str, int]:
        """Bits by operand; any but those that heatc computes in are refused."""
        table = self.table(key, value, WIDTHS)
        for operand, bits in table.items():
            place = f"{key}.{operand}"
            if type(bits) is not int or not 1 <= bits <= MOST_BITS:
                expected = f"expected a number of bits from 1 to {MOST_BITS}, got {short(bits)}"
                raise self.error(place, expected)
            if bits != _BITS:
                raise self.error(place, f"operands of {bits} bits: heatc computes in {_BITS} alone")
        return table

    def factors(self, top: dict[str, Any]) -> FactorFile | None:
        if top.get("factors") is None:
            return None
        table = self.table("factors", top["factors"], ("file", "sha256"))
        name, digest = table.get("file"), self.digest(table, "sha256", "factors.")
        if not isinstance(name, str) or not name or digest is None:
            raise self.error("factors", "expected a file and its sha256")
        if Path(name).name != name:
            raise self.error("factors.file", f"expected a file beside the plan, got {short(name)}")
        return FactorFile(Path(self.place).parent / name, digest)

    def digest(self, top: dict[str, Any], key: str, within: str = "") -> str | None:
        value = top.get(key)
        if value is None:
            return None
        text = value if isinstance(value, str) else ""
        if len(text) != 64 or set(text) - set("0123456789abcdef"):
            raise self.error(
                f"{within}{key}", f"expected 64 hexadecimal digits or null, got {short(value)}"
            )
        return text

    def name(self, top: dict[str, Any]) -> str | None:
        """Of the machine."""
        value = top.get("hw")
        if value is not None and not isinstance(value, str):
            raise self.error("hw", f"expected the name of a machine or null, got {short(value)}")
        return value

    def seed(self, top: dict[str, Any]) -> int | None:
        value = top.get("seed")
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise self.error("seed", f"expected an integer or null, got {short(value)}")
        return value

    def heat(self, key: str, value: Any) -> LayerHeat:
        def error(part: str, message: str) -> HeatcError:
            return self.error(f"{key}.{part}" if part else key, message)

        return layer_heat(value, error)

    def rule(self, key: str, value: Any) -> Rule:
        table = self.table(key, value)
        kind = RULES.find(table["rule"]) if isinstance(table.get("rule"), str) else None
        known = OPTIONS if kind is None else known_options(kind)
        names = {option.key or name: name for name, option in known.items()}
        self.table(key, table, ("rule", *names))
        if not isinstance(table.get("rule"), str):
            raise self.error(
                f"{key}.rule", f"expected a rule's name, got {short(table.get('rule'))}"
            )
        options = {names[k]: v for k, v in table.items() if k != "rule"}
        try:
            return make_rule(table["rule"], options)
        except RuleError as error:
            option = known.get(error.option)
            name = error.option if option is None else option.key or error.option
            raise self.error(f"{key}.{name}", str(error)) from error
