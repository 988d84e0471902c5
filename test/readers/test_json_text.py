"""JSON: bounded before it is built, and nothing that JSON does not have."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatc.errors import HeatcError
from heatc.readers.json_text import DEEPEST, MOST_VALUES, parse_json, read_json


def message(data: bytes) -> str:
    with pytest.raises(HeatcError) as caught:
        parse_json(data, "x.json", ["what to do"])
    assert caught.value.place.startswith("x.json")
    assert "\n" not in caught.value.message
    return caught.value.message


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), VALUES), st.booleans())
def test_what_python_writes_reads_back(value: dict[str, object], ascii_only: bool):
    text = json.dumps(value, ensure_ascii=ascii_only)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return
    assert parse_json(data, "x") == value


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "expected a JSON object, got an array"),
        (b"null", "expected a JSON object, got null"),
        (b'"' + b"[" * 100 + b'"', "expected a JSON object, got a string"),
        (b'{"a": 1, "a": 1}', "key 'a' stands twice"),
        (b'{"b": {"a": 1, "c": 2, "a": 1}}', "key 'a' stands twice"),
        (b'{"a": NaN}', "NaN is no number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number of JSON"),
        (b'{"a": 1e999}', "1e999 is too large a number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON: Exceeds the limit"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"\\udc00x": 1}', "surrogates not allowed"),
        (b'{"a": "\x01"}', "Invalid control character"),
        (b"\xff\xfe{\0}\0", "not UTF-8 text: byte 0xff"),
        ('{"a": 1}'.encode("utf-16-le"), "not JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "not JSON: Unexpected UTF-8 BOM"),
        (b'{"a":' + b"[" * 100_000, f"nested more than {DEEPEST} deep"),
        (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), "nested more than"),
        (b'{"a": [' + b"1," * MOST_VALUES + b"1]}", f"more than {MOST_VALUES} values"),
    ],
)
def test_what_is_refused(data: bytes, expected: str):
    assert expected in message(data)


def test_pairs_of_surrogates_are_characters():
    assert parse_json(b'{"a": "\\ud83d\\ude00"}', "x") == {"a": "\U0001f600"}


def test_as_deep_as_allowed():
    deep = b'{"a":' * DEEPEST + b"1" + b"}" * DEEPEST
    assert parse_json(deep, "x")["a"]
    # Brackets in strings are no levels.
    many = json.dumps({"a": "[{" * 1000, "b": ["\\", '"[[[[', "[" * 99]}).encode()
    assert parse_json(many, "x")["a"] == "[{" * 1000


def test_a_format_may_have_more_numbers():
    assert parse_json(b'{"a": [Infinity, NaN]}', "x", finite=False)["a"][0] == float("inf")


def test_nothing_is_built_of_what_is_refused():
    data = b'{"a": [' + b"[]," * MOST_VALUES + b"[]]}"
    tracemalloc.start()
    try:
        assert "values" in message(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_file_is_bounded(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": 1}))
    assert read_json(path, "a plan", 100) == {"a": 1}
    path.write_text(json.dumps({"a": "x" * 100}))
    with pytest.raises(HeatcError, match="a plan has at most 100 bytes"):
        read_json(path, "a plan", 100)
