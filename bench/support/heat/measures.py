"""What bench/heat_front.py says of a compiled form: accuracy, modelled gains, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from bench.support.heat import families as families
from bench.support.heat import runs as runs
from bench.support.heat.families import Layers
from bench.support.heat.points import FROZEN, VECTOR
from bench.support.heat.runs import ALL, Cost, Form
from bench.support.report import Json

PADDED = 128


@cache
def data_cost(form: Form, hw: str) -> Cost:
    """A test sentence at its own length, on average."""
    judged = runs.judged()["test"]
    return runs.cost(form, hw, runs.lengths_of(judged), judged.rows, runs.LENGTH)


@cache
def padded_cost(form: Form, hw: str, tokens: int = PADDED) -> Cost:
    """A text of so many tokens."""
    rows = runs.judged()["test"].rows
    return runs.cost(form, hw, {tokens: 1}, rows, tokens)


def gains(form: Form, hw: str) -> dict[str, float]:
    """Times less energy x latency than the dense program, on the data's lengths and at 128 tokens."""
    return {
        "data": data_cost(Form(), hw).edp / data_cost(form, hw).edp,
        str(PADDED): padded_cost(Form(), hw).edp / padded_cost(form, hw).edp,
    }


def measured(form: Form, machines: Sequence[str] = (*VECTOR, *FROZEN)) -> dict[str, Json]:
    """The columns of a table of points: accuracy by the NumPy program, modelled gains."""
    found: dict[str, Json] = {}
    compared = {name: runs.accuracy(form, judged) for name, judged in runs.judged().items()}
    for name, one in (compared | {ALL: runs.accuracy_on_all(form)}).items():
        found[f"{name}, %"] = round(one.accuracy, 2)
        found[f"{name}: points lost"] = round(one.lost, 2)
        found[f"{name}: 95 %"] = f"{one.low:.2f} to {one.high:.2f}"
        found[f"{name}: changed, %"] = round(one.changed, 2)
    for hw in machines:
        dense, mine = data_cost(Form(), hw), data_cost(form, hw)
        found[f"{hw}: EDP, times less"] = round(dense.edp / mine.edp, 2)
        found[f"{hw}: latency, us"] = round(1e6 * mine.seconds, 1)
        found[f"{hw}: energy, uJ"] = round(1e6 * mine.joules, 1)
        at = padded_cost(Form(), hw).edp / padded_cost(form, hw).edp
        found[f"{hw}: EDP at {PADDED} tokens, times less"] = round(at, 2)
    return found


def sizes(layers: Layers) -> dict[str, Json]:
    """Parameters and multiply-accumulates of the encoder's linears, as shares of the dense ones."""
    from heatc.heat.formats import Spec, parse_format, parse_shape
    from heatc.passes.analysis.ranks import layer_macs

    whole = parameters = macs = 0
    for path, (outputs, inputs) in families.linears(runs.model()).items():
        whole += inputs * outputs
        heat = layers.get(path, {}).get("heat")
        if heat is None:
            parameters, macs = parameters + inputs * outputs, macs + inputs * outputs
            continue
        ins, outs = parse_shape(heat["shape"]) if heat.get("shape") else ((inputs,), (outputs,))
        spec = Spec(parse_format(heat["format"]), ins, outs, tuple(heat["ranks"]))
        parameters += spec.parameters
        macs += layer_macs(spec, PADDED) / PADDED
    return {
        "parameters / dense": round(parameters / whole, 3),
        "MACs / dense": round(macs / whole, 3),
    }
