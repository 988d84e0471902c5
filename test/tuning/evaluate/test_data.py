"""`heatc-tune data`: text files as inputs of a model, and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from heatc.errors import HeatcError
from heatc.readers.npz import open_npz
from heatc.tools import tune
from heatc.tuning.evaluate.data import Data
from heatc.tuning.evaluate.program import Port

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.torch

TABLE = 'text,label\nGood film,positive\n"a, very bad film",negative\nthe film,positive\n'
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "very", "film", "a", "the"]
PAD, UNK, CLS, SEP = range(4)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the vocabulary `WORDS` and a configuration that names two labels."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    config = {"model_type": "bert", "label2id": {"negative": 1, "positive": 0}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def ids(text: str) -> list[int]:
    """A sentence by the vocabulary, word by word, with its two special tokens."""
    words = text.lower().replace(",", " ,").split()
    return [CLS, *(WORDS.index(w) if w in WORDS else UNK for w in words), SEP]


def padded(rows: list[list[int]], length: int) -> list[list[int]]:
    return [row + [PAD] * (length - len(row)) for row in rows]


@pytest.fixture
def here(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with train.csv and the tokenizer's folder `tok`, which is where commands run."""
    (tmp_path / "tok").symlink_to(tokenizer)
    (tmp_path / "train.csv").write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(*words: str, text: str = "train.csv") -> dict[str, Any]:
    """The arrays that the command writes."""
    argv = ["data", "--text", text, "--tokenizer", "tok", "-o", "x.npz", "-q", *words]
    assert tune.main(argv) == 0
    file = open_npz("x.npz")
    return {name: np.array(file[name]).tolist() for name in file}


def test_text_becomes_the_inputs_of_the_model(here: Path):
    found = made("--length", "8")
    sentences = ["good film", "a, very bad film", "the film"]
    assert found["input_ids"] == padded([ids(s) for s in sentences], 8)
    assert found["attention_mask"] == padded([[1] * len(ids(s)) for s in sentences], 8)
    assert set(found) == {"input_ids", "attention_mask", "labels"}


def test_labels_are_in_the_order_of_the_model(here: Path, capsys: Capture):
    """Its label2id says positive = 0, negative = 1."""
    assert made()["labels"] == [0, 1, 0]
    assert json.loads((here / "x.labels.json").read_text())["names"] == ["positive", "negative"]
    assert "positive = 0, negative = 1" in capsys.readouterr().err


def test_other_labels_are_sorted(here: Path, capsys: Capture):
    (here / "t.csv").write_text("text,label\na,zebra\na,ant\na,ape\n")
    assert made(text="t.csv")["labels"] == [2, 0, 1]
    assert "labels by sorted names: ant = 0, ape = 1, zebra = 2" in capsys.readouterr().err


def test_labels_are_in_the_order_that_is_given(here: Path):
    assert made("--label-names", "neutral,negative,positive")["labels"] == [2, 1, 2]


def test_numbers_are_classes(here: Path):
    (here / "t.tsv").write_text('text\tlabel\na "good\t3\nbad\t0\n')
    assert made(text="t.tsv")["labels"] == [3, 0]


def test_jsonl_and_columns_of_other_names(here: Path):
    rows = [{"review": "bad", "stars": 1}, {"review": "a good film", "stars": 0, "more": None}]
    (here / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("--text-column", "review", "--label-column", "stars", "--padding", "longest")
    found = made(*words, text="t.jsonl")
    assert found["input_ids"] == padded([ids("bad"), ids("a good film")], 5)
    assert found["labels"] == [1, 0]


def test_text_without_labels(here: Path):
    (here / "t.csv").write_text("text,other\na film,x\n")
    assert "labels" not in made(text="t.csv")
    assert not (here / "x.labels.json").exists()


def test_pairs_have_token_types(here: Path):
    (here / "t.csv").write_text("one,two\nbad film,a good film\nbad,bad\n")
    found = made("--text-column", "one,two", "--padding", "longest", text="t.csv")
    first = ids("bad film") + ids("a good film")[1:]
    second = ids("bad") + ids("bad")[1:]
    assert found["input_ids"] == padded([first, second], len(first))
    types = [[0] * 4 + [1] * 4, [0] * 3 + [1] * 2]
    assert found["token_type_ids"] == padded(types, len(first))


def test_long_text_is_cut_and_told(here: Path, capsys: Capture):
    found = made("--length", "4")
    assert found["input_ids"][1] == [CLS, WORDS.index("a"), UNK, SEP]
    assert "1 of 3 samples were cut" in capsys.readouterr().err


def test_samples_are_shuffled_and_limited(here: Path):
    (here / "t.csv").write_text("text,label\n" + "".join(f"film,{n}\n" for n in range(50)))
    assert made("--limit", "5", text="t.csv")["labels"] == [0, 1, 2, 3, 4]
    one, same, other = (
        made("--shuffle", seed, "--limit", "20", text="t.csv")["labels"] for seed in "112"
    )
    assert one == same != other
    assert sorted(set(one)) != one


def test_the_same_text_gives_the_same_bytes(here: Path):
    made()
    first = (here / "x.npz").read_bytes()
    made()
    assert (here / "x.npz").read_bytes() == first


WRONG: dict[str, tuple[str, str, int, str]] = {
    "empty text": ("t.csv", "text,label\na,0\n  ,1\n", 1, "t.csv:3: column 'text' is empty"),
    "empty label": ("t.csv", "text,label\na,0\nb,\n", 1, "t.csv:3: column 'label' is empty"),
    "empty line": ("t.csv", "text,label\na,0\n\nb,1\n", 1, "t.csv:3: the line is empty"),
    "lines in a field": (
        "t.csv",
        'text\n"a\nb"\n" "\n',
        1,
        "t.csv:4: column 'text' is empty",
    ),
    "no column": ("t.csv", "Text,label\na,0\n", 1, "did you mean 'Text'?"),
    "fields": ("t.csv", "text,label\na, b,0\n", 1, "t.csv:2: 3 fields, the header has 2"),
    "header": ("t.csv", "text,text\na,b\n", 1, "t.csv:1: the first line is no header"),
    "nothing": ("t.csv", "", 1, "t.csv: the file has no rows"),
    "no rows": ("t.csv", "text,label\n", 1, "t.csv: the file has no rows"),
    "quotes": ("t.csv", 'text\n"a"b\n', 1, "t.csv:2: "),
    "json": ("t.jsonl", '{"text": "a"}\n{"text": \n', 1, "t.jsonl:2: not a JSON object"),
    "json list": ("t.jsonl", "[1]\n", 1, "t.jsonl:1: expected a JSON object a line"),
    "null": ("t.jsonl", '{"text": null}\n', 1, "t.jsonl:1: column 'text' is empty"),
    "ending": ("t.txt", "a\n", 1, "t.txt: text is read from .csv, .tsv, .jsonl"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_text_is_told_with_its_line(here: Path, capsys: Capture, name: str):
    file, content, code, message = WRONG[name]
    (here / file).write_text(content)
    assert tune.main(["data", "--text", file, "--tokenizer", "tok", "-o", "x.npz", "-q"]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("error: ") == 1
    assert not (here / "x.npz").exists()


def test_text_that_is_no_utf8(here: Path, capsys: Capture):
    (here / "t.csv").write_bytes(b"text\nna\xefve\n")
    argv = ["data", "--text", "t.csv", "--tokenizer", "tok", "-o", "x.npz", "-q"]
    assert tune.main(argv) == 1
    assert "t.csv: the text is no UTF-8" in capsys.readouterr().err


WORDS_WRONG = {
    "-o x.npz --tokenizer tok": (2, "--text is missing"),
    "--text train.csv -o x.npz": (2, "text needs a tokenizer"),
    "--text train.csv --tokenizer tok -o x.csv": (2, "ends in .npz"),
    "--text train.csv --tokenizer tok -o x.npz --text-column a,b,c": (2, "one column or two"),
    "--text train.csv --tokenizer tok -o x.npz --length 1": (2, "--length: 1 is below 2"),
    "--text train.csv --tokenizer tok -o x.npz --label-names a,a": (2, "different names"),
    "--text train.csv --tokenizer tok -o x.npz --label-names a,b": (
        1,
        "'positive' is none of a, b",
    ),
    "--text train.csv --tokenizer tok -o x.npz --label-column no": (1, "no column 'no'"),
    "--text train.csv --tokenizer gone -o x.npz": (1, "gone: no such folder"),
    "--text train.csv --tokenizer . -o x.npz": (1, "finds no tokenizer"),
    "--text gone.csv --tokenizer tok -o x.npz": (1, "gone.csv: cannot open"),
    "--text train.csv --tokenizer tok -o train.csv/x.npz": (1, "there is no folder"),
}


@pytest.mark.parametrize("line", WORDS_WRONG)
def test_wrong_words_are_one_message(here: Path, capsys: Capture, line: str):
    code, message = WORDS_WRONG[line]
    assert tune.main(["data", *line.split(), "-q"]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("error: ") == 1


def test_text_is_evaluated_in_one_go(here: Path, programs: Path, capsys: Capture):
    """The figures are those of the data set that the same options make."""
    made("--length", "12")
    results: list[Any] = []
    for words in (
        ["--data", "x.npz"],
        ["--text", "train.csv", "--tokenizer", "tok", "--length", "12"],
    ):
        subjects = [str(programs / name) for name in ("dense.py", "pruned.hdp")]
        assert tune.main(["eval", *subjects, *words, "-o", "e.json", "-j", "1", "-q"]) == 0
        results.append(json.loads((here / "e.json").read_text()))
    one, other = results
    assert [s["compared"] for s in one["subjects"]] == [s["compared"] for s in other["subjects"]]
    assert one["samples"] == other["samples"] == 3
    assert other["provenance"]["data"]["file"] == "train.csv"


def test_data_without_token_types_are_data_with_zeros():
    ids = np.ones((3, 4), np.int64)
    port = Port((1, 6), np.dtype(np.int64))
    names = ("input_ids", "attention_mask", "token_type_ids")
    program: Any = SimpleNamespace(ports=dict.fromkeys(names, port), files=[Path("p.hdp")])
    given = {"input_ids": ids, "attention_mask": ids}
    found = Data(given, None, "d.npz").fitted(program)
    assert {name: array.shape for name, array in found.items()} == dict.fromkeys(names, (3, 6))
    assert not found["token_type_ids"].any()
    other: Any = SimpleNamespace(
        ports={n: port for n in names if "mask" not in n}, files=program.files
    )
    with pytest.raises(HeatcError, match="no array 'token_type_ids'"):
        Data({"input_ids": ids}, None, "d.npz").fitted(other)
