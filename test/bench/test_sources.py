"""bench/support/sources.py: a cache key holds whatever decides a result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.support import report, sources

MODULES = {
    "heatc/__init__.py": "def __getattr__(name):\n    import heatc.late\n",
    "heatc/start.py": "from heatc import middle\n\ndef later():\n    from heatc.inner.leaf import f\n",
    "heatc/middle.py": "import heatc.deep as deep\nimport numpy\n",
    "heatc/deep.py": "",
    "heatc/late.py": "",
    "heatc/other.py": "",
    "heatc/inner/__init__.py": "",
    "heatc/inner/leaf.py": "f = 1\n",
}
USED = {name for name in MODULES if name not in ("heatc/late.py", "heatc/other.py")}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in MODULES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", MODULES)
def test_a_change_of_what_is_imported_changes_the_digest(root: Path, name: str):
    before = sources.digest("heatc.start")
    (root / name).write_text(MODULES[name] + "# changed\n")
    assert (sources.digest("heatc.start") != before) == (name in USED)


def test_what_is_loaded_is_among_the_files():
    """Python's own list of what was imported, against ours."""
    module = "heatc.machine.machine"
    code = f"import {module}, sys; print(*(m.__file__ for n, m in sys.modules.items() if n[:5] == 'heatc'))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=report.ROOT, check=True, capture_output=True, text=True
    )
    wanted = {Path(name).resolve() for name in loaded.stdout.split()}
    found = {path.resolve() for path in sources.files(module)}
    assert wanted <= found
    assert (report.ROOT / "heatc" / "fixed_point.py").resolve() in found


def test_passes_that_are_imported_by_name_are_among_the_files():
    found = {path.name for path in sources.files("heatc.tools.main")}
    assert {"pack_tokens.py", "attn.py", "raise_attention.py", "hdp-edge.yaml"} <= found
