"""Whatever the ranks of its tensors: an op is verified or refused, and no verifier fails by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdsl.dialects.builtin import DYNAMIC_INDEX, TensorType
from xdsl.ir import Operation, SSAValue
from xdsl.parser import Parser
from xdsl.utils.exceptions import ParseError, VerifyException

from heatc.api import make_context

FOLDERS = ("dialects", "passes")
SHAPES = ((), (3,), (0,), (DYNAMIC_INDEX,), (2, 3), (1, 1, 1), (2, 3, 4, 5), (2,) * 6)
FILES = sorted(p for f in FOLDERS for p in (Path(__file__).parents[1] / f).glob("*.mlir"))


def operations(path: Path) -> Iterator[Operation]:
    """An op of each kind and number of operands, of all parts of a file that can be parsed."""
    seen: set[tuple[str, int]] = set()
    for text in path.read_text().split("// -----"):
        try:
            module = Parser(make_context(), text).parse_module()
        except (ParseError, VerifyException, ValueError):
            continue
        for op in module.walk():
            kind = (op.name, len(op.operands))
            if kind not in seen and op.dialect_name() not in ("builtin", "func"):
                seen.add(kind)
                yield op


def tensors(op: Operation) -> list[SSAValue]:
    """The operands and results that are tensors, each once."""
    values = dict.fromkeys((*op.operands, *op.results))
    return [value for value in values if isinstance(value.type, TensorType)]


def verify(op: Operation) -> None:
    """Alone: what its operands come from is as odd as it may be."""
    with contextlib.suppress(VerifyException):
        op.verify(verify_nested_ops=False)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_tensor_of_another_rank(path: Path):
    for op in operations(path):
        for value in tensors(op):
            kept = value.type
            assert isinstance(kept, TensorType)
            for shape in SHAPES:
                value._type = TensorType(kept.element_type, shape)
                verify(op)
            value._type = kept
