"""bench/differential.py: a minute of it, and that what is wrong is found and made simple."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from bench import differential
from bench.support import report
from bench.support.differential import equations as differential_equations
from bench.support.differential import judge as differential_judge
from bench.support.differential import keep as differential_keep
from bench.support.differential.build import (
    Compiled,
    NotExported,
    Rounding,
    conditioning,
    module_of,
    reference,
)
from bench.support.differential.compare import HDP, NUMPY, Bound, Mask, difference, masked_positions
from bench.support.differential.inputs import Case, cases
from bench.support.differential.judge import TARGETS, Kind, Verdict, judge
from bench.support.differential.masks import SOURCES, Source
from bench.support.differential.models import generate
from bench.support.differential.program import Array, Arrays, Output, Program
from bench.support.differential.tally import State, Tally, read_entry

pytestmark = pytest.mark.torch

EQUATIONS = range(0, 2100, 140)


# ---- A minute of it -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
def test_random_models(seed: int):
    assert not [v for v in judge(generate(seed)) if v.kind in ("wrong", "invalid")]


@pytest.mark.parametrize(
    "forced",
    [
        {"profile": 1, "layers": 1, "outputs": 6},
        {"profile": 1, "extents/batch": 1, "layer/spelling": 5},
        {"profile": 1, "layer/nn.TransformerEncoderLayer": 1, "decompose": 1},
        {"layer/projections": 1, "layer/parts": 3},
        {"profile": 1, "output/token head": 7},
    ],
    ids=["stacked", "sequence first", "as exported", "packed by a view", "similarities"],
)
def test_what_was_wrong_once_is_right(forced: dict[str, int]):
    """Each was wrong where a sequence has no real token, or at masked positions."""
    (verdict,) = judge(generate(0, forced, simple=True), ("numpy",))
    assert (verdict.kind, verdict.later) == ("right", ())


def test_most_of_them_are_compiled_for_both_targets():
    """Without this a compiler that refuses everything would pass."""
    plain = [seed for seed in range(200) if generate(seed).made["profile"].number == 0][:6]
    verdicts = [verdict for seed in plain for verdict in judge(generate(seed))]
    right = sum(verdict.kind == "right" for verdict in verdicts)
    assert right >= 0.6 * len(verdicts)


@pytest.mark.parametrize("number", EQUATIONS)
def test_equations(number: int):
    program = differential_equations.program(*differential_equations.programs()[number])
    try:
        verdicts = judge(program)
    except NotExported:
        pytest.skip("PyTorch does not take it")
    assert not [v for v in verdicts if v.kind == "wrong"]


@pytest.mark.parametrize("name", ["mT", "index_select"])
def test_samples_of_ops(name: str):
    pytest.importorskip("expecttest", reason="torch's op_db needs it")
    from bench.support.differential.ops import judge_op

    tally = judge_op(name)
    assert tally.count("numpy", "right")
    assert not [
        tally.reasons(target, "wrong") for target in TARGETS if tally.count(target, "wrong")
    ]


def test_sparse_samples_are_left_out():
    pytest.importorskip("expecttest", reason="torch's op_db needs it")
    from bench.support.differential.ops import samples

    assert not list(samples("sparse.mm.reduce", torch.float32))


# ---- The same everywhere --------------------------------------------------------------------------


def test_a_seed_is_the_same_program_in_every_process():
    code = (
        "from bench.support.differential.models import generate\n"
        "from bench.support.differential.inputs import cases\n"
        "for seed in range(40):\n"
        "    program = generate(seed)\n"
        "    print(program.text, [{k: v.tolist() for k, v in c.inputs.items()} for c in cases(program)])"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=report.ROOT, env={"PYTHONHASHSEED": salt, "PYTHONPATH": str(report.ROOT)},
            check=True, capture_output=True, text=True,
        ).stdout
        for salt in ("1", "2")
    }  # fmt: skip
    assert len(texts) == 1


def test_a_choice_that_is_forced_leaves_the_others():
    program = generate(5)
    name = next(n for n, choice in program.made.items() if choice.number and "/" in n)
    forced = generate(5, {name: 0})
    assert forced.made[name].number == 0
    for other, choice in forced.made.items():
        assert other == name or program.made.get(other, choice) == choice


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_every_spelling_of_a_mask_says_what_is_real(source: Source):
    keep = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], np.bool_)
    mask = source.encode(keep, np.random.RandomState(0))
    names: dict[str, Any] = {"torch": torch, "m": torch.from_numpy(mask)}
    for spelling in source.reals:
        real = eval(spelling.format(m="m", length=4), names)
        assert real.dtype == torch.bool
        np.testing.assert_array_equal(real.numpy(), keep)
    for spelling in source.floats:
        np.testing.assert_array_equal(eval(spelling.format(m="m"), names).numpy(), keep)


def test_cases_have_padding_on_every_side():
    found = {case.name: case.real for case in cases(generate(0, simple=True))}
    assert found["whole"].all()
    assert found["right"][:, 0].all()
    assert not found["right"][:, -1].any()
    assert found["left"][:, -1].all()
    assert not found["left"][:, 0].any()
    assert (found["one"].sum(axis=1) == 1).all()
    assert (found["empty"].sum(axis=1) == 0).any()


# ---- What is wrong is found -----------------------------------------------------------------------


def _silent() -> Array:
    return np.zeros(())


@pytest.mark.parametrize(
    ("bound", "error", "wrong"),
    [(NUMPY, 5e-5, False), (NUMPY, 2e-4, True), (HDP, 1e-2, False), (HDP, 5e-2, True)],
)
def test_a_bound_is_kept(bound: Bound, error: float, wrong: bool):
    want = np.linspace(-1, 1, 12, dtype=np.float32)
    got = want.copy()
    got[3] += error
    assert bool(difference(want, got, None, bound, _silent)) == wrong


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_value_that_is_none(value: float):
    want = np.ones(4, np.float32)
    got = want.copy()
    got[1] = value
    assert difference(want, got, None, NUMPY, _silent).startswith("values differ")
    assert not difference(got, got.copy(), None, NUMPY, _silent)
    assert difference(got, want, None, NUMPY, _silent).startswith("values differ")


def test_integers_are_equal_or_wrong():
    want = np.array([250, 3], np.uint8)
    assert difference(want, want + np.uint8(1), None, NUMPY, _silent)
    assert difference(want, want[:1], None, NUMPY, _silent).startswith("shape")


def test_zeros_at_masked_positions_are_wanted_only_there():
    want = np.ones((2, 3), np.float32)
    zeros: Mask = np.array([[0, 0, 1], [0, 0, 0]], np.bool_)
    got = np.where(zeros, 0, want).astype(np.float32)
    assert not difference(want, got, zeros, NUMPY, _silent)
    assert difference(want, want, zeros, NUMPY, _silent).startswith("not 0 at masked")
    assert difference(want, got, None, NUMPY, _silent).startswith("values differ")


def test_rounding_explains_a_little_but_not_everything():
    want = np.ones(4, np.float32)

    def loud() -> Array:
        return np.full(4, 10.0)

    assert not difference(want, want + np.float32(0.05), None, HDP, loud)
    assert difference(want, want + np.float32(0.5), None, HDP, loud).startswith("rounding")


def test_inputs_that_are_numbers_are_rounded_and_masks_are_not():
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    softmax = torch.nn.Softmax(-1)
    (moved,) = conditioning(softmax, {"input": x}, Rounding(1e-3))
    assert moved.min() > 0
    (still,) = conditioning(softmax, {"input": x}, Rounding(1e-3), ["input"])
    assert not still.any()


@pytest.mark.parametrize(
    ("axes", "shape", "masked"),
    [("bs.", (2, 3, 1), [2]), ("sb.", (3, 2, 1), [4]), ("b.", (2, 4), []), ("m.", (6, 1), [2])],
)
def test_where_an_output_is_masked(axes: str, shape: tuple[int, ...], masked: list[int]):
    real = np.array([[1, 1, 0], [1, 1, 1]], np.bool_)
    case = Case("right", {}, real, {"mask": real, "other": ~real})
    found = masked_positions(Output("y", axes, shape), case, ["mask"])
    assert np.flatnonzero(found).tolist() == masked


Spoil = Callable[[Array, np.random.RandomState], Array]


def _last_and_first(values: Array, random: np.random.RandomState) -> Array:
    return np.roll(values, 1, axis=1)


def _a_little_larger(values: Array, random: np.random.RandomState) -> Array:
    return values * np.float32(1.05)


def _one_value(values: Array, random: np.random.RandomState) -> Array:
    values = values.copy()
    values.flat[random.randint(values.size)] += 1
    return values


def _not_zero(values: Array, random: np.random.RandomState) -> Array:
    return np.where(values == 0, np.float32(0.25), values)


def _other_dtype(values: Array, random: np.random.RandomState) -> Array:
    return values.astype(np.float64)


SPOILS: tuple[Spoil, ...] = (_last_and_first, _a_little_larger, _one_value, _not_zero)


def _spoiled(monkeypatch: pytest.MonkeyPatch, spoil: Spoil) -> None:
    """Programs give other outputs from now on."""
    compiled = differential_judge.compiled

    def wrong(*arguments: Any) -> Compiled:
        built = compiled(*arguments)

        def run(inputs: Arrays) -> Arrays:
            random = np.random.RandomState(0)
            return {name: spoil(array, random) for name, array in built.run(inputs).items()}

        return built._replace(run=run)

    monkeypatch.setattr(differential_judge, "compiled", wrong)


def test_what_the_check_after_compiling_finds_is_a_refusal(monkeypatch: pytest.MonkeyPatch):
    from heatc.backends.numpy.program import LoadedProgram

    right = LoadedProgram.__call__
    monkeypatch.setattr(
        LoadedProgram,
        "__call__",
        lambda self, inputs: {k: 2 * v for k, v in right(self, inputs).items()},
    )
    (verdict,) = judge(generate(0, simple=True), ("numpy",))
    assert verdict.kind == "refused"
    assert verdict.reason.startswith("the program differs from the model")


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_wrong_program_is_found(monkeypatch: pytest.MonkeyPatch, spoil: Spoil):
    _spoiled(monkeypatch, spoil)
    assert [verdict.kind for verdict in judge(generate(0, simple=True))] == ["wrong", "wrong"]


def test_a_wrong_dtype_is_found(monkeypatch: pytest.MonkeyPatch):
    _spoiled(monkeypatch, _other_dtype)
    (verdict,) = judge(generate(0, simple=True), ("numpy",))
    assert verdict.reason.startswith("dtype float64, PyTorch float32")


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ValueError("row 9 has no real token"), "wrong"), (KeyError("x"), "wrong"), (None, "right")],
)
def test_a_program_that_fails_is_wrong(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, kind: str
):
    def failing(*arguments: Any) -> Compiled:
        def run(inputs: Arrays) -> Arrays:
            if error is not None:
                raise error
            return found.pop(0)

        return Compiled(run, Rounding(0.0), {"output": "computed"})

    program = generate(0, simple=True)
    module = differential_judge.module_of(program)
    found = [
        {"output": differential_judge.reference(module, case.inputs)[0]} for case in cases(program)
    ]
    monkeypatch.setattr(differential_judge, "compiled", failing)
    (verdict,) = judge(program, ("numpy",))
    assert verdict.kind == kind


def test_what_is_no_number_in_pytorch_may_be_refused_when_it_runs():
    program = generate(0, simple=True)
    case = next(iter(cases(program)))
    error = ValueError("a row sees no key: the model has no number there")
    number, none = np.ones(3, np.float32), np.array([1, np.nan], np.float32)
    assert differential_judge.may_refuse(program, case, error, [number, none])
    assert not differential_judge.may_refuse(program, case, error, [number])
    assert not differential_judge.may_refuse(program, case, ValueError("no"), [none])


@pytest.mark.parametrize(("fill", "kind"), [("-1e9", "right"), ("-3.0", "wrong")])
def test_a_fill_that_scores_reach(monkeypatch: pytest.MonkeyPatch, fill: str, kind: str):
    """What hides its keys as -1e9 does is right, and any other value than PyTorch's is wrong."""
    weak = "-2.0"
    found = (generate(seed) for seed in range(60))
    program = next(p for p in found if differential_judge.WEAK_FILL in p.text)
    text = program.text.replace(differential_judge.WEAK_FILL, weak)
    program = dataclasses.replace(program, text=text)
    given = module_of(dataclasses.replace(program, text=text.replace(weak, fill)))

    def other(*arguments: Any) -> Compiled:
        def run(inputs: Arrays) -> Arrays:
            leaves = reference(given, inputs)
            return {output.name: leaf for output, leaf in zip(program.outputs, leaves)}

        return Compiled(run, Rounding(0.0), {output.name: "computed" for output in program.outputs})

    monkeypatch.setattr(differential_judge, "WEAK_FILL", weak)
    monkeypatch.setattr(differential_judge, "compiled", other)
    (verdict,) = judge(program, ("numpy",))
    assert verdict.kind == kind
    assert any("fill of -1e4" in line for line in verdict.later) == (kind == "right")


def test_a_wrong_program_is_made_simple(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What is wrong whenever there is an option keeps that option alone."""

    def judged(program: Program, targets: tuple[str, ...]) -> list[Verdict]:
        bad = program.made.get("norms")
        kind = "wrong" if bad is not None and bad.number == 1 else "right"
        return [Verdict(targets[0], kind, "a norm")]

    monkeypatch.setattr(differential_keep, "judge", judged)
    seed = next(s for s in range(50) if generate(s).made.get("norms", (0,))[0] == 1)
    program, verdict = generate(seed), Verdict("numpy", "wrong", "a norm")
    _, simple, _ = differential_keep.simplest(program, verdict)
    assert {name for name, choice in simple.made.items() if choice.number} == {"norms"}
    for other in (seed, seed, seed):
        differential_keep.keep(tmp_path, generate(other), verdict)
    (script,) = tmp_path.iterdir()
    compile(script.read_text(), script.name, "exec")


# ---- A run that goes on ---------------------------------------------------------------------------


def test_a_tally_is_read_back():
    tally = Tally()
    tally.add("1", [Verdict("numpy", "right", later=("empty",)), Verdict("hdp", "refused", "op")])
    tally.add("2", [Verdict("numpy", "wrong", "value"), Verdict("hdp", "right")])
    assert read_entry(json.loads(json.dumps(tally.entry()))) == tally
    assert (tally.programs, tally.both) == (2, 0)
    assert tally.reasons("numpy", "refused when run") == {"empty": 1}
    tally.merge(read_entry(tally.entry()))
    assert tally.count("numpy", "wrong") == 2


def test_a_run_goes_on_where_it_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    done: list[str] = []

    def run(task: str, folder: Path | None) -> Tally:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task)
        tally = Tally()
        tally.add(task, [Verdict(target, "right") for target in TARGETS])
        return tally

    monkeypatch.setitem(
        differential.PARTS,
        "models",
        differential.Part(lambda options: ["models a", "models b", "models c"], run),
    )
    words = ["--only", "models", "--jobs", "0", "--state", str(tmp_path / "state.json")]
    assert differential.main(words) == 130
    done.append("not the third call")
    assert differential.main(words) == 0
    assert [task[-1] for task in done] == ["a", "b", "l", "c"]
    with pytest.raises(ValueError, match="another run"):
        State(tmp_path / "state.json", {"seed": 1})


def test_what_was_wrong_is_judged_again(tmp_path: Path):
    state = State(tmp_path / "state.json", {})
    kinds: dict[str, Kind] = {"models a": "right", "models b": "wrong", "models c": "refused"}
    for task, kind in kinds.items():
        tally = Tally()
        tally.add("1", [Verdict("numpy", kind)])
        state.add(task, tally)
    assert set(State(tmp_path / "state.json", {}).done) == {"models a", "models c"}


def test_verdicts_are_of_the_compiler_and_the_programs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(differential.report, "ROOT", tmp_path)
    names = ("heatc/api.py", "passes/a/b.py", "bench/support/differential/models.py")
    judge = "bench/support/differential/judge.py"
    for name in (*names, judge):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = [differential.sources()]
    (tmp_path / judge).write_text("mended")
    assert differential.sources() == found[0]
    for name in names:
        (tmp_path / name).write_text("changed")
        found.append(differential.sources())
    assert len(set(found)) == 4
