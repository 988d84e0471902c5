"""
What the generator of random models is made of: named choices, a writer of model text, programs.

Every choice has a name, and what is chosen depends on the seed and that name alone. A program can
therefore be made simpler by forcing one choice to its first option, with all others as they are.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = dict[str, Array]
T = TypeVar("T")


class Choice(NamedTuple):
    """What was chosen: the number of the option, of how many, and how it reads."""

    number: int
    options: int
    text: str


@dataclass
class Choices:
    """
    The choices of one program.

    `forced` maps names of choices to the option that is taken whatever the seed says; `simple` is
    for the first option wherever none is forced. `made` is filled with what was taken.
    """

    seed: int
    forced: Mapping[str, int] = field(default_factory=dict[str, int])
    simple: bool = False
    made: dict[str, Choice] = field(default_factory=dict[str, Choice])
    path: str = ""

    def pick(
        self,
        name: str,
        options: Sequence[T],
        weights: Sequence[float] | None = None,
        *,
        plain: int | None = None,
    ) -> T:
        """
        One of the options; the first is the simplest.

        A plain program takes one of the first `plain`, where that is given; others are taken less
        unevenly than `weights` say.
        """
        full = self.path + name
        if full in self.forced:
            index = min(self.forced[full], len(options) - 1)
        elif self.simple:
            index = 0
        else:
            count = plain if plain is not None and self.is_plain else len(options)
            shares = [1.0] * count if weights is None else list(weights[:count])
            if not self.is_plain:
                shares = [math.sqrt(share) for share in shares]
            index = random.Random(f"{self.seed}/{full}").choices(range(count), shares)[0]
        self.made[full] = Choice(index, len(options), _reading(options[index]))
        return options[index]

    def chance(self, name: str, probability: float, *, plain: bool = False) -> bool:
        """True as often as said, in plain programs only where `plain`; False is the simplest."""
        weights = (1 - probability, probability)
        if not self.is_plain:
            weights = (weights[0] ** 2, weights[1] ** 2)
        return self.pick(name, (False, True), weights, plain=None if plain else 1)

    def under(self, part: str) -> Choices:
        """The choices of a part of the program, which may use the same names again."""
        return Choices(self.seed, self.forced, self.simple, self.made, f"{self.path}{part}/")

    @property
    def is_plain(self) -> bool:
        """Whether the program keeps to what an encoder usually is."""
        return "profile" in self.made and self.made["profile"].number == 0


def _reading(option: object) -> str:
    name = getattr(option, "__name__", None) or getattr(option, "name", None)
    return str(name or option)


@dataclass(frozen=True)
class Value:
    """
    A tensor of `forward`: its text, shape, and what each axis is.

    `axes` has a letter an axis: `b` sequences, `s` tokens, `?` perhaps tokens (a shift or a mixer
    made it), anything else is neither.
    """

    text: str
    shape: tuple[int, ...]
    axes: str
    dtype: str = "float32"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Port:
    """An input: `role` says how it is filled, see `differential_inputs`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    role: str
    limit: int = 0
    """Ids are below it"""


@dataclass(frozen=True)
class Extents:
    """Sequences, tokens, width and heads of a model, and how many ids it knows."""

    batch: int
    length: int
    width: int
    heads: int
    vocabulary: int

    @property
    def head(self) -> int:
        """The width of a head."""
        return self.width // self.heads


class Writer:
    """Writes a model as text: modules of `__init__`, lines of `forward`, inputs and outputs."""

    def __init__(self) -> None:
        self.modules: list[str] = []
        self.lines: list[str] = []
        self.ports: list[Port] = []
        self._scope = "self"
        self._names: dict[str, int] = {}

    def name(self, stem: str) -> str:
        """A name that nothing has yet."""
        number = self._names.get(stem, 0)
        self._names[stem] = number + 1
        return f"{stem}{number or ''}"

    @contextlib.contextmanager
    def within(self, owner: str) -> Generator[None]:
        """
        Modules belong to `owner`, such as `self.layers[0]`, for a while.

        The same owner again means the same modules again: shared ones.
        """
        before, self._scope = self._scope, owner
        for name in [n for n in self._names if n.startswith(f"{owner}.")]:
            del self._names[name]
        yield
        self._scope = before

    def module(self, stem: str, text: str) -> str:
        """A module, parameter or buffer of the model; returns what `forward` calls it."""
        name = self.name(f"{self._scope}.{stem}")
        line = f"{name} = {text}"
        if line not in self.modules:
            self.modules.append(line)
        return name

    def linear(self, stem: str, inputs: int, outputs: int, bias: bool = True) -> str:
        """A linear layer."""
        return self.module(stem, f"nn.Linear({inputs}, {outputs}{'' if bias else ', bias=False'})")

    def parameter(self, stem: str, *shape: int) -> str:
        """A parameter."""
        return self.module(stem, f"nn.Parameter(torch.zeros({shape}))")

    def buffer(self, stem: str, text: str) -> str:
        """A buffer with the values that a text gives."""
        name = self.name(stem)
        self.modules.append(f"self.register_buffer({name!r}, {text})")
        return f"self.{name}"

    def port(self, port: Port, axes: str) -> Value:
        """An input of `forward`; asked for twice, it is the first one."""
        known = next((p for p in self.ports if p.name == port.name), None)
        if known is None:
            self.ports.append(port)
        found = known or port
        return Value(found.name, found.shape, axes, found.dtype)

    def let(
        self, text: str, shape: Sequence[int], axes: str, dtype: str = "float32", stem: str = "x"
    ) -> Value:
        """A line of `forward` that names a tensor."""
        assert len(shape) == len(axes), (text, shape, axes)
        name = self.name(stem)
        self.lines.append(f"{name} = {text}")
        return Value(name, tuple(shape), axes, dtype)

    def text(self, result: str) -> str:
        """The model as a class."""
        names = ", ".join(["self", *(port.name for port in self.ports)])
        lines = [
            "class Model(nn.Module):",
            "    def __init__(self):",
            "        super().__init__()",
            *(f"        {line}" for line in self.modules),
            "",
            f"    def forward({names}):",
            *(f"        {line}" for line in self.lines),
            f"        return {result}",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Output:
    """An output under the name that a compiled program gives it, and its axes (see `Value`)."""

    name: str
    axes: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Padding:
    """
    How a model is told which tokens are real.

    `port` is the input, `real` an expression over it (`m`) that gives a (batch, length) tensor of
    bool; `encode` makes the input of which tokens shall be real, `odd` one of values that such
    masks seldom hold, None where there are none.
    """

    port: str
    real: str
    encode: Callable[[npt.NDArray[np.bool_], np.random.RandomState], Array]
    odd: Callable[[npt.NDArray[np.bool_], np.random.RandomState], Array] | None = None
    patterns: tuple[str, ...] = ("right", "left", "holes", "one")


@dataclass(frozen=True)
class Program:
    """
    A random model as text, with what is known about its inputs and outputs.

    `padding` is None where no token is ever masked. `decompose` names the decompositions that are
    run after export: "", "none" (an empty table) or "all"; `hardware` is the preset of the HDP
    program, `positions` what is asked for of masked positions (--padding), `odd` whether masks of odd values are among the inputs, `by_tools` whether it goes
    through the commands that people use.
    """

    seed: int
    text: str
    ports: tuple[Port, ...]
    outputs: tuple[Output, ...]
    extents: Extents
    padding: tuple[Padding, ...]
    decompose: str
    hardware: str
    positions: str
    odd: bool
    by_tools: bool
    made: Mapping[str, Choice]


HARDWARE = ("hdp-edge", "hdp-server", "hdp-edge-vector", "hdp-server-vector")


def finished(
    choices: Choices,
    writer: Writer,
    result: str,
    outputs: Sequence[Output],
    extents: Extents,
    padding: Sequence[Padding] = (),
) -> Program:
    """A program out of what was written, and the choices that are left."""
    return Program(
        choices.seed,
        writer.text(result),
        tuple(writer.ports),
        tuple(outputs),
        extents,
        tuple({p.port: p for p in padding}.values()),
        choices.pick("decompose", ("", "none", "all"), (92, 4, 4), plain=1),
        choices.pick("hardware", HARDWARE, (60, 12, 14, 14)),
        choices.pick("masked positions", ("skip", "compute"), (85, 15)),
        choices.chance("odd values", 0.2, plain=True),
        choices.chance("by tools", 0.05, plain=True),
        choices.made,
    )
