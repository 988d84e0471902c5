"""Hostile inputs: a minute of them, and that a judge which sees something wrong says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import planted_tool

from bench import hostile
from bench.support.fuzz import archives, containers, faults, ir, judge, references, trees, words
from bench.support.fuzz.case import Case, Kind
from bench.support.fuzz.corpus import OLD, Corpus
from bench.support.fuzz.kinds import KINDS
from bench.support.fuzz.pool import Pool
from bench.support.fuzz.state import State, StateError, read
from bench.support.fuzz.worker import Setting
from heatc.backends.hdp.container import open_program
from heatc.errors import HeatcError

SEED = 3


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    pytest.importorskip("transformers", reason="the corpus has a Hugging Face folder")
    return hostile.made_corpus(tmp_path_factory.mktemp("hostile") / "corpus", OLD[-1])


# ---- a minute -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.torch
def test_a_moment(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep, state = tmp_path / "faults", tmp_path / "state.json"
    command = ["--cases", "300", "--least", "4", "--corpus", str(corpus.folder)]
    code = hostile.main([*command, "--keep", str(keep), "--state", str(state)])
    found = json.loads(state.read_text())
    assert not found["faults"], capsys.readouterr().err
    assert code == 0
    assert set(found["kinds"]) == set(KINDS)
    assert all(sum(k["codes"].values()) >= 4 for k in found["kinds"].values())


# ---- the judge ----------------------------------------------------------------------------------

EXPECTED = {
    "raise": (judge.TRACEBACK, "LookupError"),
    "print traceback": (judge.TRACEBACK, "KeyError"),
    "exit 70": (judge.INTERNAL, ""),
    "exit 9": (judge.CODE, "exit 9"),
    "silent": (judge.SILENT, ""),
    "hang": (judge.HANG, "_hang"),
    "sleep": (judge.HANG, "_sleep"),
    "hog": (judge.MEMORY, "_hog"),
    "brief hog": (judge.MEMORY, ""),
    "crash": (judge.CRASH, "string_at"),
    "overwrite": (judge.CHANGED, ""),
    "leave": (judge.LEFT, ".tmp"),
    "accept": (judge.LENIENT, "safetensors"),
    "old": (judge.VERSION, ""),
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> State:
    """Two cases of every deed, run as hostile inputs are."""
    place = tmp_path_factory.mktemp("planted")
    (place / "corpus").mkdir()
    workers = place / "workers"
    setting = Setting(workers, place / "corpus", SEED, 2.0, 1 << 28, False, "planted_kinds", ())
    state, goals = State({}), {f"planted: {deed}": 2 for deed in planted_tool.DEEDS}
    with pytest.MonkeyPatch.context() as patch:
        for deed in planted_tool.DEEDS:
            # Here the name counts.
            patch.setitem(KINDS, f"planted: {deed}", Kind("planted", deed, 1, _never))
        Pool(goals, state, setting, 2, lambda *_: None).run()
    return state


def _never(_rng: Random, _corpus: Corpus) -> Case:
    raise AssertionError("only workers make cases")


@pytest.mark.slow
@pytest.mark.parametrize("deed", list(EXPECTED))
def test_the_judge_sees(planted: State, deed: str) -> None:
    what, part = EXPECTED[deed]
    seen = [s for s in planted.faults.values() if (f"planted: {deed}", 0) in s.cases]
    assert [s.fault.what for s in seen] == [what]
    assert part in seen[0].fault.place
    assert planted.tallies[f"planted: {deed}"].done == 2


@pytest.mark.slow
def test_the_judge_lets_pass(planted: State) -> None:
    wrong = {kind for seen in planted.faults.values() for kind, _ in seen.cases}
    assert not {"planted: good", "planted: refuse"} & wrong
    assert planted.tallies["planted: good"].codes == {"0": 2}
    assert planted.tallies["planted: refuse"].codes == {"1": 2}
    assert set(EXPECTED) | {"good", "refuse"} == set(planted_tool.DEEDS)
    rows = {row.what.rpartition(": ")[2]: row for row in hostile.rows(planted)}
    assert [name for name, row in rows.items() if row.holds] == []


def test_a_place_is_the_innermost_frame_of_the_project() -> None:
    root = Path(hostile.__file__).parent.parent
    text = (
        "Traceback (most recent call last):\n"
        f'  File "{root}/heatc/tools/run.py", line 7, in _run\n    x = f()\n'
        '  File "/usr/lib/python3/site-packages/numpy/core.py", line 9, in take\n    y = x\n'
        "        ^^^\n"
        "IndexError: out of it\nheatc: error: internal error\nnote: a bug\n"
    )
    run = judge.Run(70, "", text, root / "test" / "bench")
    (fault,) = judge.judge(Case(()), run)
    assert fault.signature == (
        "exit 70 | IndexError at heatc/tools/run.py:_run > numpy/core.py:take"
    )
    assert (fault.line, fault.message) == ("heatc/tools/run.py:7 _run", "IndexError: out of it")


# ---- the inputs ---------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("name", list(KINDS))
def test_a_seed_gives_the_same_input_again(corpus: Corpus, name: str) -> None:
    other = Corpus(corpus.folder)
    # What was made before has no influence.
    KINDS[name].case(SEED, 11, other)
    cases = [KINDS[name].case(SEED, number, corpus) for number in range(6)]
    assert cases == [KINDS[name].case(SEED, number, other) for number in range(6)]
    if name != "hdp-run: old programs":
        assert cases[0] != KINDS[name].case(SEED + 1, 0, corpus)


@pytest.mark.torch
def test_inner_decoders_are_reached(corpus: Corpus, tmp_path: Path) -> None:
    """Checksums are mended: most programs are refused for what they say, or not at all."""
    sections = containers.parse(corpus.bytes("hdp/hdp-edge-ours.hdp"))
    frame = 0
    for number in range(200):
        path = tmp_path / "x.hdp"
        path.write_bytes(containers.change(Random(number), sections))
        try:
            open_program(path)
        except HeatcError as error:
            frame += "checksum" in error.message or "damaged" in error.message
    assert frame < 40


@pytest.mark.torch
def test_structural_changes_of_ir_stay_parseable(corpus: Corpus) -> None:
    names = corpus.names("ir/ours/*.mlir")
    texts = [ir.text(Random(number), corpus, names[number % len(names)]) for number in range(100)]
    parsed = [ir.parse(text, "x.mlir") is not None for text in texts]
    assert sum(parsed) >= 50
    assert len(set(texts)) > 90


@pytest.mark.torch
def test_programs_of_random_words_decode(corpus: Corpus) -> None:
    good = words.parse(corpus.bytes("hdp/hdp-edge-ours.bin"))
    for number in range(50):
        rng = Random(number)
        program = rng.choice((words.change, words.invent))(rng, good)
        assert words.parse(words.program_bytes(program)) == program


@pytest.mark.torch
@pytest.mark.parametrize(
    ("reader", "name"),
    [
        ("safetensors", "tiny.safetensors"),
        ("npz", "in.npz"),
        ("zip", "tiny.pt2"),
        ("pt2", "tiny.pt2"),
        ("hdp", "hdp/hdp-edge-none.hdp"),
        ("json", "rules.json"),
        ("yaml", "some.yaml"),
        ("pt", "bert/state.pt"),
    ],
)
def test_reference_readers(corpus: Corpus, reader: str, name: str) -> None:
    data = corpus.bytes(name)
    assert references.refusal(reader, data) == ""
    # Of archives the first byte is replaced: one in front is allowed.
    text = reader in ("json", "yaml")
    assert references.refusal(reader, b"{" + (data if text else data[1:]))
    if reader in ("zip", "pt2", "hdp", "npz"):
        members = archives.parse(data)
        content = max(members.values(), key=len)
        at = data.find(content) + len(content) // 2
        assert references.refusal(reader, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_a_key_can_stand_twice() -> None:
    text = trees.write(Random(1), trees.Twice(a=1, b=2))
    assert text.count(b'"a"') == 2


# ---- the command --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.torch
def test_a_run_goes_on(corpus: Corpus, tmp_path: Path) -> None:
    """Two halves give what one whole gives, and another seed is refused."""
    common = ["--only", "hdp-as: text", "--processes", "1", "--corpus", str(corpus.folder)]
    halves, whole = tmp_path / "halves.json", tmp_path / "whole.json"
    for cases in ("60", "120"):
        hostile.main([*common, "--cases", cases, "--state", str(halves)])
    hostile.main([*common, "--cases", "120", "--state", str(whole)])
    found = [json.loads(p.read_text())["kinds"]["hdp-as: text"] for p in (halves, whole)]
    assert found[0]["next"] == 120
    assert found[0]["codes"] == found[1]["codes"]
    assert hostile.main([*common, "--seed", "1", "--state", str(whole)]) == 1


def test_a_state_is_of_one_key(tmp_path: Path) -> None:
    state = State({"seed": 1})
    state.tally("a").next = 10
    state.note("a", 3, judge.Fault("exit 70", "here", "", "x"))
    state.write(tmp_path / "s.json", {"a": [(4, 7)]})
    again = read(tmp_path / "s.json", {"seed": 1})
    assert again.tallies["a"].open == [(4, 7)]
    assert again.faults["exit 70 | here"].cases == [("a", 3)]
    with pytest.raises(StateError):
        read(tmp_path / "s.json", {"seed": 2})


@pytest.mark.torch
def test_faults_are_kept_with_their_inputs(corpus: Corpus, tmp_path: Path) -> None:
    case = Case(("x.hdp", "--inputs", "../base/in.npz"), {"x.hdp": b"1"}, stdin=b"2")
    fault = judge.Fault("exit 70", "here", "", "x")
    faults.write(tmp_path / "f", "hdp-run", case, corpus, fault)
    assert (tmp_path / "f" / "case" / "x.hdp").read_bytes() == b"1"
    assert (tmp_path / "f" / "base" / "in.npz").read_bytes() == corpus.bytes("in.npz")
    assert json.loads((tmp_path / "f" / "fault.json").read_text())["argv"] == list(case.argv)
