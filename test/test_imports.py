"""Imports point one way: no circles, and the contract of pyproject.toml has every module."""

from __future__ import annotations

import sys

import pytest

from bench.support.house.imports import Imports, circles, imports_of, layered_names, outside
from bench.support.report import ROOT


@pytest.fixture(scope="module")
def imports() -> Imports:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT), *sys.path])
        return imports_of(ROOT)


def test_no_circles(imports: Imports):
    assert list(circles(imports)) == []


def test_every_module_has_a_layer(imports: Imports):
    assert outside(imports, layered_names(ROOT)) == []


def test_imports_in_functions_and_for_types_count(imports: Imports):
    """The two circles' hiding places: `heatc.api` imports these in a method, and for types alone."""
    assert imports["heatc.api"] >= {"heatc.execute_each", "heatc.verify.programs"}


def test_a_circle_is_found():
    found = {"a": {"b"}, "b": {"c"}, "c": {"b", "a"}, "d": {"a"}}
    assert [set(circle) for circle in circles(found)] in (
        [{"b", "c"}, {"a", "b", "c"}],
        [{"a", "b", "c"}, {"b", "c"}],
    )


def test_a_module_without_a_layer_is_found():
    found = {"heatc": set[str](), "heatc.api": set[str](), "heatc.new.room": set[str]()}
    assert outside(found, {"api"}) == ["heatc.new.room"]
