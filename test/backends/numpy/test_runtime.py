"""The text that programs get of the runtime's files."""

from __future__ import annotations

import builtins
import dis
import os
import subprocess
import sys
from types import CodeType

import pytest

from heatc.backends.numpy.runtime import HELPERS, MODULES, imports, needed, prelude, select


@pytest.mark.parametrize("name", HELPERS)
def test_a_helper_comes_with_all_that_it_reads(name: str):
    """Pyflakes' idea, by the compiler itself: every global name of its code is there."""
    text = "\n\n".join([prelude(), *select([name])])
    code = compile(imports(text) + text, "program.py", "exec")
    defined = {*code.co_names, *dir(builtins), *MODULES, "np", "__file__"}
    assert not {n for n in _globals(code) if n not in defined}


def _globals(code: object) -> set[str]:
    assert isinstance(code, CodeType)
    found = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _globals(constant)
    return found


def test_what_is_not_needed_is_not_there():
    assert needed(["relu"]) == {"relu"}
    assert needed(["apply"]) == {"apply", "workers", "constants"}
    assert "class Workers" not in "".join(select(["relu"]))


def test_no_text_has_a_name_of_this_package():
    text = "\n\n".join([prelude(), *select(HELPERS)])
    assert "heatc.backends" not in text
    assert "fmt:" not in text


def test_the_files_are_not_imported_when_heatc_emits():
    """They start threads and choose kernels: of the program's process, not of heatc's."""
    script = (
        "import sys\n"
        "from heatc.backends.numpy import emit\n"
        "print([m for m in sys.modules if m.startswith('heatc.backends.numpy.runtime.')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
