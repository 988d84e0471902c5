"""
The helpers that an emitted program defines, each once and only where it is used.

The files of this folder are ordinary modules. A program gets the text of their definitions, without
their imports; nothing here is imported when heatc runs, since the prelude sets the kernels of a
process that has no NumPy yet.

| file | what |
|---|---|
| `prelude` | weights, mapped |
| `constants`, `workers`, `buffers` | sizes, threads, matrices that are kept |
| `inputs`, `rows` | inputs as arrays, rows of a padded batch |
| `elementwise`, `products`, `norms`, `attention` | what nodes compute |
| `command_line` | `prog.py in.npz out.npz` |
| `declared` | what a program says of itself: of no program's text |
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from heatc.kinds import OUTPUTS

UNNAMED = 'PROGRAM = ""'
"""A line of the prelude, which gets a digest of the text it stands in."""

_UNMARKED = 'MARK = ""'
"""A line of the command line, which gets the mark of heatc's files of outputs."""

HELPERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "constants": ("constants", ("AVX512_KERNELS", "TILE", "LOWEST")),
    "workers": ("workers", ("_core_count", "_openblas", "Workers", "workers")),
    "matrix": ("buffers", ("_buffers", "_buffer", "matrix", "tile", "_local", "scratch")),
    "array": ("inputs", ("_fits", "_array")),
    "packing": ("rows", ("Packing", "pack", "unpack")),
    "real": ("inputs", ("real_tokens",)),
    "token": ("rows", ("token",)),
    "embedding": ("rows", ("embedding",)),
    "transposed": ("buffers", ("transposed",)),
    "gelu": ("elementwise", ("GELU", "gelu")),
    "gelu_tanh": ("elementwise", ("gelu_tanh",)),
    "gelu_quick": ("elementwise", ("gelu_quick",)),
    "relu": ("elementwise", ("relu",)),
    "sigmoid": ("elementwise", ("sigmoid",)),
    "silu": ("elementwise", ("silu",)),
    "erf": ("elementwise", ("erf",)),
    "elementwise": ("elementwise", ("elementwise",)),
    "apply": ("elementwise", ("apply",)),
    "add": ("products", ("add",)),
    "slices": ("products", ("slices",)),
    "oriented": ("products", ("oriented",)),
    "finish": ("products", ("finish",)),
    "linear": ("products", ("product", "linear")),
    "contract": ("products", ("contract",)),
    "layer_norm": ("norms", ("layer_norm",)),
    "masked": ("attention", ("masked",)),
    "attention": ("attention", ("attention",)),
    "softmax": ("attention", ("softmax",)),
    "padded_attention": ("attention", ("padded_attention",)),
    "scaled_dot_product": ("attention", ("scaled_dot_product",)),
    "plain_layer_norm": ("norms", ("plain_layer_norm",)),
    "rms_norm": ("norms", ("rms_norm",)),
}
"""The file and the definitions of each helper, in the order of a program."""

_FORMATTER = ("# fmt: off", "# fmt: on")
"""Lines that are for the formatter of this folder alone."""

MODULES = ("ctypes", "functools", "json", "math", "os", "queue", "sys", "threading", "zipfile")


class _Definition(NamedTuple):
    """
    A statement at the top of a file: what it defines and reads, and its lines.

    The comments above it belong to it, and so do the next statements that define nothing.
    """

    names: frozenset[str]
    reads: frozenset[str]
    first: int
    last: int


class _File(NamedTuple):
    lines: Sequence[str]
    definitions: Sequence[_Definition]

    def of(self, names: Collection[str]) -> list[_Definition]:
        """The definitions of some names."""
        return [d for d in self.definitions if not d.names.isdisjoint(names)]

    def text(self, definitions: Sequence[_Definition]) -> str:
        """The lines from the first of some definitions to the last."""
        lines = self.lines[definitions[0].first : definitions[-1].last]
        return "".join(f"{line}\n" for line in lines if line not in _FORMATTER)


@cache
def _file(name: str) -> _File:
    text = (files(__name__) / f"{name}.py").read_text("utf-8")
    lines = text.splitlines()
    found: list[_Definition] = []
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Import | ast.ImportFrom) or _is_text(statement):
            continue
        one = _definition(statement, lines)
        if found and not one.names:
            before = found.pop()
            one = _Definition(before.names, before.reads | one.reads, before.first, one.last)
        found.append(one)
    return _File(lines, found)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _definition(statement: ast.stmt, lines: Sequence[str]) -> _Definition:
    first = statement.lineno - 1
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        first = min(n.lineno - 1 for n in (statement, *statement.decorator_list))
    while lines[first - 1].startswith("#"):
        first -= 1
    last = statement.end_lineno or statement.lineno
    return _Definition(_names(statement), _reads(statement), first, last)


def _names(statement: ast.stmt) -> frozenset[str]:
    """What a statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return frozenset([statement.name])
    targets = statement.targets if isinstance(statement, ast.Assign) else ()
    return frozenset(n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))


def _reads(statement: ast.stmt) -> frozenset[str]:
    """What a statement reads that is not its own."""
    found: set[str] = set()
    pending = [symtable.symtable(ast.unparse(statement), "", "exec")]
    while pending:
        scope = pending.pop()
        symbols = [s for s in scope.get_symbols() if s.is_referenced()]
        found.update(s.get_name() for s in symbols if s.is_global() or scope.get_type() == "module")
        pending.extend(scope.get_children())
    return frozenset(found)


# ---- What a program is made of -------------------------------------------------------------------


def prelude() -> str:
    """What a program begins with."""
    return _whole("prelude")


def command_line() -> str:
    """What a program ends with."""
    return _whole("command_line").replace(_UNMARKED, f'MARK = "{OUTPUTS.mark}"', 1)


def _whole(name: str) -> str:
    return _file(name).text(_file(name).definitions)


def select(used: Iterable[str]) -> list[str]:
    """The texts of the helpers `used` and of all that they need, in order."""
    wanted = needed(used)
    return [_file(HELPERS[name][0]).text(_parts(name)) for name in HELPERS if name in wanted]


def needed(used: Iterable[str]) -> set[str]:
    """The helpers `used` and all whose definitions they read."""
    wanted: set[str] = set()
    pending = list(used)
    while pending:
        name = pending.pop()
        if name not in wanted:
            wanted.add(name)
            pending.extend(_read_by(name))
    return wanted


def _parts(helper: str) -> list[_Definition]:
    file, names = HELPERS[helper]
    return _file(file).of(names)


@cache
def _read_by(helper: str) -> list[str]:
    """The helpers whose definitions a helper reads."""
    reads = frozenset[str]().union(*(part.reads for part in _parts(helper)))
    return [name for name, (_, names) in HELPERS.items() if not reads.isdisjoint(names)]


def definitions() -> set[str]:
    """Every name that the prelude or a helper defines."""
    names = ["prelude", *(file for file, _ in HELPERS.values())]
    return {name for file in names for part in _file(file).definitions for name in part.names}


def imports(text: str) -> str:
    """The import lines of the standard modules that a program's text uses."""
    return "".join(f"import {module}\n" for module in MODULES if f"{module}." in text)
