"""Layers whose weight is a product of small factors, and how they come into a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Step = tuple[int, int, str]
"""Two operands, and the equation of `torch.einsum` that they meet in."""


class FactorisedLayer(nn.Module):
    """
    A layer whose weight W (outputs, inputs) is the contraction of its factors.

    `inputs` and `outputs` are the modes that both sides are split into. `terms` has the indices of
    each factor by its name: `abc...` are inputs, `mno...` outputs, `ABC...` ranks. `path` says which
    two operands meet next, the factors being numbered in their order and results after them. A
    linear's operand 0 is its input.
    """

    def __init__(self, description: Mapping[str, Any], bias: nn.Parameter | None):
        super().__init__()
        self.format: str = description["format"]
        self.inputs: list[int] = description["inputs"]
        self.outputs: list[int] = description["outputs"]
        self.terms: dict[str, str] = {}
        for name, factor in description["factors"].items():
            self.terms[name] = factor["indices"]
            self.register_parameter(name, nn.Parameter(torch.empty(factor["shape"])))
        self.path: list[list[int]] = description["path"]
        self.register_parameter("bias", bias)

    def factors(self) -> list[Tensor]:
        """The factors in their order."""
        return [getattr(self, name) for name in self.terms]

    @property
    def in_letters(self) -> str:
        """The indices of the inputs."""
        return "abcdefghij"[: len(self.inputs)]

    @property
    def out_letters(self) -> str:
        """The indices of the outputs."""
        return "mnopqrstuv"[: len(self.outputs)]

    @property
    def weight(self) -> Tensor:
        """W (outputs, inputs) itself, made anew: for code that asks for it."""
        equation = f"{','.join(self.terms.values())}->{self.out_letters}{self.in_letters}"
        whole = torch.einsum(equation, *self.factors())
        return whole.flatten(0, len(self.outputs) - 1).flatten(1)

    def extra_repr(self) -> str:
        """Format, modes and factors."""
        modes = ["x".join(map(str, side)) for side in (self.inputs, self.outputs)]
        return f"{self.format}, {modes[0]} -> {modes[1]}, {', '.join(self.terms)}"


class LowRankLinear(FactorisedLayer):
    """y = B (A x) + bias, with A (rank, inputs) and B (outputs, rank)."""

    a: Tensor
    b: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return functional.linear(functional.linear(x, self.a), self.b, self.bias)


class EinsumLinear(FactorisedLayer):
    """y = W x + bias for every other format: Tucker, CP, TT, TT-matrix, in steps of two operands."""

    bias: Tensor | None

    def __init__(self, description: Mapping[str, Any], bias: nn.Parameter | None):
        super().__init__(description, bias)
        terms = ["..." + self.in_letters, *self.terms.values()]
        self.steps = contraction_steps(terms, "..." + self.out_letters, self.path)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        if len(self.inputs) > 1:
            x = x.unflatten(-1, self.inputs)
        y = contract([x, *self.factors()], self.steps)
        if len(self.outputs) > 1:
            y = y.flatten(-len(self.outputs))
        return y if self.bias is None else y + self.bias


class FactorisedEmbedding(FactorisedLayer):
    """
    Rows of an embedding table (rows, width).

    The id of a row is a number whose digits, one for each mode of the inputs, choose a slice of the
    factors that hold that mode, which is their first axis.
    """

    def __init__(self, description: Mapping[str, Any], bias: nn.Parameter | None):
        super().__init__(description, bias)
        self.rows: int = description["rows"]
        terms = ["..." + t[1:] if t[0] in self.in_letters else t for t in self.terms.values()]
        self.steps = contraction_steps(terms, "..." + self.out_letters, self.path)

    @property
    def weight(self) -> Tensor:
        """The table (rows, width)."""
        return super().weight.T[: self.rows]

    def digits(self, ids: Tensor) -> dict[str, Tensor]:
        """Of ids in a mixed radix, by the index of the mode; the last mode counts fastest."""
        found: dict[str, Tensor] = {}
        for letter, mode in reversed([*zip(self.in_letters, self.inputs)][1:]):
            found[letter] = ids % mode
            ids = ids // mode
        return {**found, self.in_letters[0]: ids}

    def forward(self, ids: Tensor) -> Tensor:
        """(...) to (..., width)."""
        digits = self.digits(ids)
        factors = zip(self.terms.values(), self.factors())
        slices = [f[digits[term[0]]] if term[0] in digits else f for term, f in factors]
        y = contract(slices, self.steps)
        return y.flatten(-len(self.outputs)) if len(self.outputs) > 1 else y


def contraction_steps(
    terms: Sequence[str], result: str, path: Sequence[Sequence[int]]
) -> list[Step]:
    """The steps of a path through operands with these indices; the last one gives `result`."""
    live = dict(enumerate(terms))
    steps: list[Step] = []
    for number, (i, j) in enumerate(path, len(terms)):
        one, other = live.pop(i), live.pop(j)
        wanted = set(result).union(*live.values())
        kept = "".join(c for c in dict.fromkeys(one + other) if c in wanted and c != ".")
        kept = result if not live else ("..." if "." in one + other else "") + kept
        steps.append((i, j, f"{one},{other}->{kept}"))
        live[number] = kept
    return steps


def contract(operands: Sequence[Tensor], steps: Sequence[Step]) -> Tensor:
    """Follow the steps; without one the single operand is the result."""
    live = dict(enumerate(operands))
    for number, (i, j, equation) in enumerate(steps, len(operands)):
        live[number] = torch.einsum(equation, live.pop(i), live.pop(j))
    (result,) = live.values()
    return result


def make_layer(description: Mapping[str, Any], bias: nn.Parameter | None) -> FactorisedLayer:
    """The layer of a description, its factors empty."""
    if description["kind"] == "embedding":
        return FactorisedEmbedding(description, bias)
    names = list(description["factors"])
    in_order = description["path"] == [[0, 1], [2, 3]] or description["path"] == [[0, 1], [3, 2]]
    if names == ["a", "b"] and in_order:
        return LowRankLinear(description, bias)
    return EinsumLinear(description, bias)


def replace_layers(model: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> None:
    """Put the layers in the place of the modules of their names, which keep their biases."""
    made: dict[str, FactorisedLayer] = {}
    for name, description in layers.items():
        shared = description.get("same_as")
        if shared is not None:
            model.set_submodule(name, made[shared])
            continue
        old = getattr(model.get_submodule(name), "bias", None)
        bias = old if isinstance(old, nn.Parameter) else None
        if description["bias"] and bias is None:
            bias = nn.Parameter(torch.empty(description["width"]))
        made[name] = make_layer(description, bias)
        model.set_submodule(name, made[name])
