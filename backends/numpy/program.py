"""An emitted program in this process, for a short while: what checks it needs no second Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Observe = Callable[[str, Any], None]

_COMMENT = re.compile(r"^( +)# (\S.*)$")
_OBSERVE = "_heatc_observe"


class LoadedProgram:
    """
    A program under a private name; call it with the inputs by name, leave it to free what it holds.

    `weights` is the file of its weights where that is not beside it yet. `observe` is told every
    array that the program binds to a name, under the module path in the comment above.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        weights: str | PathLike[str] | None = None,
        observe: Observe | None = None,
    ):
        text = Path(path).read_text(encoding="utf-8")
        tree = ast.parse(text, str(path))
        # A hook for forked children would keep the program for as long as this process lives.
        tree.body = [n for n in tree.body if not _is_fork_hook(n)]
        if observe is not None:
            tree = ast.fix_missing_locations(_Observed(text).visit(tree))
        self._module = ModuleType("heatc_loaded_program")
        self._module.__file__ = str(path)
        exec(compile(tree, str(path), "exec"), self._module.__dict__)
        if observe is not None:
            setattr(self._module, _OBSERVE, observe)
        if weights is not None:
            self._module.__dict__["WEIGHTS"] = str(weights)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        workers = self._module.__dict__.get("workers")
        for inbox in () if workers is None else workers.inboxes:
            inbox.put(None)
        self._module.__dict__.clear()

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """The outputs by name, copied: the program reuses its buffers."""
        # The names of parameters may differ from those of inputs, their order does not.
        arguments = [inputs[name] for name in self._module.__dict__["INPUTS"]]
        outputs = self._module.__dict__["main"](*arguments)
        return {name: np.array(value) for name, value in outputs.items()}


def _is_fork_hook(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "register_at_fork" in ast.unparse(node.test)


class _Observed(ast.NodeTransformer):
    """Adds a call after every assignment of the functions that follow the model."""

    def __init__(self, text: str):
        self._lines = text.splitlines()
        self._layer = False
        self._model = False

    def visit_Module(self, node: ast.Module) -> ast.AST:
        """Only what comes after the table of inputs is the model's own."""
        for part in node.body:
            if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "INPUTS":
                self._model = True
            if self._model and isinstance(part, ast.FunctionDef) and part.name != "_command_line":
                names = {n.id for n in ast.walk(part) if isinstance(n, ast.Name)}
                self._layer = "layer" in names
                self.generic_visit(part)
        return node

    def visit_Assign(self, node: ast.Assign) -> list[ast.stmt]:
        """`name = value` and then `observe(path, name)`."""
        path, target = self._path(node), node.targets[0]
        if not path or not isinstance(target, ast.Name):
            return [node]
        key: ast.expr = ast.Constant(path)
        if self._layer:
            key = ast.BinOp(ast.Name("layer", ast.Load()), ast.Add(), key)
        call = ast.Call(ast.Name(_OBSERVE, ast.Load()), [key, ast.Name(target.id, ast.Load())], [])
        return [node, ast.Expr(call)]

    def _path(self, node: ast.Assign) -> str:
        """The last comment above an assignment that is indented as it is."""
        for line in reversed(self._lines[: node.lineno - 1]):
            found = _COMMENT.match(line)
            if found and len(found[1]) == node.col_offset:
                return found[2]
            if line.lstrip().startswith("def "):
                return ""
        return ""
