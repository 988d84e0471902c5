"""
The table of functions of single elements: what `nn.map` can say.

A row has all that the levels need of a function. Capture takes the ATen op of the same name, the
interpreter and the machine `compute`, NumPy programs `text`, bounds `reach`, and the machine's costs
`operations`.

Dialects name its rows. NumPy is imported when one is computed: a tool that reads IR starts without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heatc.intervals import Interval

    Array = NDArray[Any]
    Reach = Callable[[float, float], Interval]


@dataclass(frozen=True)
class Function:
    """
    A row of the table.

    Attributes:
        name: that of PyTorch's ATen op.
        compute: the function of an array, in its own type.
        text: the NumPy expression of the operand `{x}`; `helpers` are those of a NumPy program's
            runtime that it calls.
        reach: the least and the greatest value on an interval; infinite ends where it has none.
        operations: of a host an element.
        is_simple: whether it is done in one step of an adder or comparator.
    """

    name: str
    compute: Callable[[Array], Array]
    text: str
    reach: Reach
    operations: int
    helpers: tuple[str, ...] = ()
    is_simple: bool = False


def _numpy(name: str) -> Callable[[Array], Array]:
    """NumPy's function of a name."""

    def compute(x: Array) -> Array:
        import numpy

        return getattr(numpy, name)(x)

    return compute


def _erf(x: Array) -> Array:
    from scipy.special import erf  # pyright: ignore[reportMissingTypeStubs]

    return erf(x)


def _sigmoid(x: Array) -> Array:
    import numpy

    return 0.5 * (1.0 + numpy.tanh(0.5 * x))


def _rsqrt(x: Array) -> Array:
    import numpy

    return 1.0 / numpy.sqrt(x)


def _exp(x: float) -> float:
    return math.exp(x) if x < 700.0 else math.inf


def _log(x: float) -> float:
    return -math.inf if x <= 0.0 else math.log(x)


def _root(x: float) -> float:
    return math.sqrt(max(x, 0.0))


def _logistic(x: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * x))


def _rising(function: Callable[[float], float]) -> Reach:
    """The reach of a function that never falls."""
    return lambda low, high: (function(low), function(high))


def _stepping(function: Callable[[float], int]) -> Reach:
    """The reach of a rounding, which leaves an infinite end as it is."""
    return _rising(lambda x: float(function(x)) if math.isfinite(x) else x)


def _falling(function: Callable[[float], float]) -> Reach:
    """The reach of a function that never rises."""
    return lambda low, high: (function(high), function(low))


def _inverse_root(x: float) -> float:
    return math.inf if x <= 0.0 else 1.0 / math.sqrt(x)


def _magnitude(low: float, high: float) -> Interval:
    least = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
    return least, max(abs(low), abs(high))


_SILU_LEAST = -0.2784645427610738
"""The least value of x sigmoid(x), at x = -1.278."""


def _silu(low: float, high: float) -> Interval:
    ends = [x * _logistic(x) if math.isfinite(x) else max(x, 0.0) for x in (low, high)]
    return (_SILU_LEAST if low <= -1.27 and high >= -1.28 else min(ends)), max(ends)


def _inverse(low: float, high: float) -> Interval:
    if low <= 0.0 <= high:
        return -math.inf, math.inf
    return 1.0 / high, 1.0 / low


def _unit(low: float, high: float) -> Interval:
    return -1.0, 1.0


FUNCTIONS: Mapping[str, Function] = {
    row.name: row
    for row in (
        Function("abs", _numpy("abs"), "np.abs({x})", _magnitude, 1, is_simple=True),
        Function(
            "neg", _numpy("negative"), "-{x}", lambda low, high: (-high, -low), 1, is_simple=True
        ),
        Function("sign", _numpy("sign"), "np.sign({x})", _unit, 1, is_simple=True),
        Function(
            "floor", _numpy("floor"), "np.floor({x})", _stepping(math.floor), 1, is_simple=True
        ),
        Function("ceil", _numpy("ceil"), "np.ceil({x})", _stepping(math.ceil), 1, is_simple=True),
        Function("round", _numpy("rint"), "np.rint({x})", _stepping(round), 1, is_simple=True),
        Function(
            "trunc", _numpy("trunc"), "np.trunc({x})", _stepping(math.trunc), 1, is_simple=True
        ),
        Function("exp", _numpy("exp"), "np.exp({x})", _rising(_exp), 20),
        Function("log", _numpy("log"), "np.log({x})", _rising(_log), 20),
        Function("sqrt", _numpy("sqrt"), "np.sqrt({x})", _rising(_root), 4),
        Function("rsqrt", _rsqrt, "1 / np.sqrt({x})", _falling(_inverse_root), 8),
        Function("reciprocal", lambda x: 1.0 / x, "1 / {x}", _inverse, 4),
        Function("sigmoid", _sigmoid, "sigmoid({x})", _rising(_logistic), 20, ("sigmoid",)),
        Function("silu", lambda x: x * _sigmoid(x), "silu({x})", _silu, 21, ("sigmoid", "silu")),
        Function("erf", _erf, "erf({x})", _rising(math.erf), 20, ("erf",)),
        Function("cos", _numpy("cos"), "np.cos({x})", _unit, 20),
        Function("sin", _numpy("sin"), "np.sin({x})", _unit, 20),
    )
}
"""
By name. `operations` are counts of the usual polynomial kernels, as those of the host's rows of the
ISA are: one for what an adder does, 4 for a root or quotient, 20 for a transcendental function.
"""
