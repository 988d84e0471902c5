"""YAML: bounded before it is built, without aliases and keys that stand twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from heatc.errors import HeatcError
from heatc.readers.yaml_text import MOST_NODES, read_yaml, values

BILLION = "\n".join(
    ["a0: &a0 [x, x]", *(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, 40))]
)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BILLION, "x.yaml:2: an alias (*name), write the value itself"),
        ("a: 1\nb: 2\na: 3\n", "x.yaml:3: the key 'a' is given twice"),
        ("a:\n- {b: 1,\n   b: 2}\n", "x.yaml:3: the key 'b' is given twice"),
        ("[1]: 2\n", "x.yaml:1: a key is a plain text"),
        ("a: [[[[[1]]]]]\n", "x.yaml:1: nested more than 4 deep"),
        ("a: [1\n", "not YAML"),
        (b"a: \xff\n", "not YAML"),
        (b"a: \0\n", "not YAML"),
        ("a: " + "1, " * 400, "a test file has at most 1000 bytes"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str | bytes, expected: str):
    most = 1 << 20 if text == BILLION else 1000
    with pytest.raises(HeatcError) as caught:
        read_yaml(written(tmp_path, text), "a test file", most, 4)
    assert expected in caught.value.render()
    assert "\n" not in caught.value.message


def test_so_many_values_at_most(tmp_path: Path):
    path = written(tmp_path, "a: [" + "1," * MOST_NODES + "]\n")
    with pytest.raises(HeatcError, match=f"more than {MOST_NODES} values"):
        read_yaml(path, "a test file", 1 << 24, 4)


def test_values_are_those_of_the_safe_loader(tmp_path: Path):
    text = "a: [1, 2.5, x, true, null, '3']\nb: {c: 1e3, d: 2026-01-01}\n"
    path = written(tmp_path, text)
    node = read_yaml(path, "a test file", 1000, 4)
    assert node is not None
    assert values(node, "x") == yaml.safe_load(text)
    assert read_yaml(written(tmp_path, ""), "a test file", 1000, 4) is None


@pytest.mark.parametrize(
    "text", ["a: !!bool x\n", "a: !!python/name:os.system\n", "a: 2026-99-99\n"]
)
def test_values_that_are_none(tmp_path: Path, text: str):
    node = read_yaml(written(tmp_path, text), "a test file", 1000, 4)
    assert node is not None
    with pytest.raises(HeatcError, match="not YAML"):
        values(node, "x.yaml")
