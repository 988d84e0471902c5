"""Names of other packages: found, loaded when asked for, refused where they are broken or taken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heatc.errors import HeatcError
from heatc.extensions import Registry
from heatc.heat.formats import FORMATS, REGISTRY
from heatc.rules import RULE_NAMES, RULES
from heatc.targets import find_target, target_names

ROOT = Path(__file__).resolve().parent.parent

MODULE = """
BELL = "ding"
class Named:
    name = "other"
NAMED = Named()
"""


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a package of some entry points, as far as Python's metadata tell."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bells.py").write_text(MODULE)
    (tmp_path / "broken_bells.py").write_text("import no_such_module")

    def bring(package: str, group: str = "test.bells", **entries: str) -> None:
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        (folder / "METADATA").write_text(metadata)
        lines = [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
        (folder / "entry_points.txt").write_text("\n".join(lines))

    return bring


def registry(**kinds: Any) -> Registry[str]:
    own = {"gong": lambda: "GONG"}
    return Registry("test.bells", "the bell", str, own, lambda bell: f"sounds {bell}", **kinds)


def test_own_and_foreign_names(brought: Callable[..., None]):
    brought("heatc-bells", small="bells:BELL")
    bells = registry()
    assert bells.names == ("gong", "small")
    assert (bells.find("gong"), bells.find("small"), bells.find("large")) == ("GONG", "ding", None)
    assert [tuple(row) for row in bells.rows()] == [
        ("gong", "sounds GONG", "heatc"),
        ("small", "sounds ding", "heatc-bells 1.0"),
    ]


def test_nothing_is_imported_before_it_is_asked_for(brought: Callable[..., None]):
    brought("heatc-bells", small="broken_bells:BELL")
    bells = registry()
    assert bells.names == ("gong", "small")
    assert bells.find("gong") == "GONG"
    assert "broken_bells" not in sys.modules


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("broken_bells:BELL", "cannot be loaded: ModuleNotFoundError: No module named 'no_such"),
        ("bells:HORN", "cannot be loaded: AttributeError"),
        ("bells:NAMED", "is no str, but <bells.Named"),
    ],
)
def test_a_broken_package_is_named(brought: Callable[..., None], value: str, problem: str):
    brought("heatc-bells", small=value)
    with pytest.raises(HeatcError) as error:
        registry().find("small")
    assert f"the bell 'small' of the package heatc-bells 1.0 {problem}" in error.value.message
    assert error.value.place == f"entry point test.bells: small = {value}"
    assert error.value.notes == ("repair the package heatc-bells, or uninstall it",)
    assert registry().rows()[1].summary.startswith("error: the bell 'small' of the package")


def test_a_thing_of_another_name(brought: Callable[..., None]):
    brought("heatc-bells", small="bells:NAMED")
    things: Registry[object] = Registry("test.bells", "the bell", object, {}, str)
    with pytest.raises(HeatcError, match="calls itself 'other'"):
        things.find("small")
    things = Registry("test.bells", "the bell", object, {}, str, is_named=False)
    assert things.find("small") is not None


@pytest.mark.parametrize("name", ["small", "gong"])
def test_one_name_of_two_packages(brought: Callable[..., None], name: str):
    brought("heatc-bells", **{name: "bells:BELL"})
    if name == "small":
        brought("other-bells", small="bells:BELL")
    both = (
        "heatc-bells 1.0 and by other-bells 1.0"
        if name == "small"
        else "heatc and by heatc-bells 1.0"
    )
    bells = registry()
    with pytest.raises(HeatcError, match=f"the bell '{name}' is brought by {both}"):
        bells.find(name)
    assert len(bells.rows()) == len(bells.names)


def test_what_fails_later_is_blamed_on_its_package(brought: Callable[..., None]):
    brought("heatc-bells", small="bells:BELL")
    bells = registry()
    with (
        pytest.raises(HeatcError, match="fails: KeyError"),
        bells.blamed("small"),
    ):
        raise KeyError("x")
    with pytest.raises(HeatcError, match="no"), bells.blamed("small"):
        raise HeatcError("no")
    with pytest.raises(KeyError), bells.blamed("gong"):
        raise KeyError("x")


def test_every_own_thing_has_its_name_and_a_summary():
    assert RULES.names[: len(RULE_NAMES)] == RULE_NAMES
    assert REGISTRY.names[: len(FORMATS)] == FORMATS
    for registry_ in (RULES, REGISTRY):
        for name in registry_.own:
            found = registry_.find(name)
            assert found is not None
            assert found.name == name
            assert 10 < len(found.summary) < 90
    targets = [find_target(name) for name in target_names()]
    assert [target and target.name for target in targets] == list(target_names())


UNIVERSES = """
from xdsl.universe import Universe
from xdsl.passes import ModulePass

class RingPass(ModulePass):
    "It rings."
    name = "ring"

    def apply(self, ctx, op):
        pass

OWN = Universe(all_passes={"ring": lambda: RingPass})
TAKEN = Universe(all_passes={"cse": lambda: RingPass})
"""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("bell_passes:OWN", ""),
        ("bell_passes:TAKEN", "the pass 'cse' is brought by xdsl and by heatc-bells 1.0"),
        ("no_such_module:OWN", "the universe 'bells' of the package heatc-bells 1.0 cannot"),
    ],
)
def test_universes(brought: Callable[..., None], tmp_path: Path, value: str, message: str):
    """They are loaded for a name that heatc has not, and only then."""
    brought("heatc-bells", "xdsl.universe", bells=value)
    (tmp_path / "bell_passes.py").write_text(UNIVERSES)
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "from heatc.errors import HeatcError\n"
        "from heatc.pipeline import build\n"
        "build('cse,raise-einsum')\n"
        "assert 'bell_passes' not in sys.modules\n"
        "try:\n"
        "    print(build('ring')[0].name)\n"
        "except HeatcError as error:\n"
        "    print(error.message)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith(message or "ring")
