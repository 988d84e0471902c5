"""
Hostile IR: changes that stay parseable, made on the ops of a module, and damage to its text.

A change of operands, types or attributes is printed again and so is text that the parser takes;
what verifiers and passes make of it is what is asked.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    ModuleOp,
    StringAttr,
    TensorType,
    f16,
    f32,
    f64,
    i1,
    i32,
    i64,
)
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.printer import Printer
from xdsl.rewriter import Rewriter

from bench.support.fuzz import lines, octets, trees
from bench.support.fuzz.corpus import Corpus

ELEMENTS = (f32, f64, f16, i1, i32, i64, IntegerType(8), IntegerType(16))
EXTENTS = (-1, 0, 1, 2, 3, 4, 6, 8, 12, 16, 64, 1 << 20, 1 << 31, 1 << 40, 1 << 62)

_NEWLY = re.compile(r"(%[\w#]+)")


def text(rng: Random, corpus: Corpus, name: str) -> bytes:
    """A hostile form of a module of the corpus."""
    way = rng.randrange(10)
    if way < 6:
        module = parsed(corpus, name)
        if module is not None:
            return _structural(rng, module).encode(errors="surrogatepass")
    if way == 9:
        return octets.damage(rng, corpus.bytes(name))
    if way == 8:
        return lines.change(rng, corpus.text(name)).encode(errors="surrogatepass")
    return _textual(rng, corpus.text(name)).encode(errors="surrogatepass")


def parsed(corpus: Corpus, name: str) -> ModuleOp | None:
    """A module of the corpus, None where it is a piece that no parser takes."""
    return corpus.keep("module", name, lambda: parse(corpus.bytes(name), name))


def parse(data: bytes, name: str) -> ModuleOp | None:
    """The module of a text, None where it is none."""
    from heatc.api import make_context
    from heatc.errors import HeatcError
    from heatc.parsing import parse_module

    try:
        return parse_module(make_context(), data, name)
    except HeatcError:
        return None


# ---- changes of ops -----------------------------------------------------------------------------


def _structural(rng: Random, module: ModuleOp) -> str:
    """The text of a module with one to four of its ops changed."""
    new = module.clone()
    for _ in range(1 + min(3, int(rng.expovariate(1.0)))):
        ops = [op for op in new.walk() if op is not new]
        if not ops:
            break
        op = rng.choice(ops)
        rng.choice(_EDITS)(rng, op, ops)
    return printed(new)


def printed(module: ModuleOp) -> str:
    """The text of a module that may break every rule."""
    from io import StringIO

    stream = StringIO()
    try:
        Printer(stream, print_debuginfo=True).print_op(module)
    # A custom form may not be able to print what no verifier would let through.
    except Exception:
        stream = StringIO()
        Printer(stream, print_generic_format=True).print_op(module)
    return stream.getvalue() + "\n"


def _operand(rng: Random, op: Operation, ops: Sequence[Operation]) -> None:
    """Another value as an operand, most often of the same type."""
    if not op.operands:
        return
    at = rng.randrange(len(op.operands))
    known = _values(op, ops)
    alike = [v for v in known if v.type == op.operands[at].type]
    pool = alike if alike and rng.random() < 0.7 else known
    if pool:
        op.operands[at] = rng.choice(pool)


def _values(op: Operation, ops: Sequence[Operation]) -> list[SSAValue]:
    """The values that stand in front of an op, or anywhere where that is none."""
    found: list[SSAValue] = []
    for other in ops:
        found += [value for region in other.regions for b in region.blocks for value in b.args]
        if other is op:
            break
        found += other.results
    return found


def _operands(rng: Random, op: Operation, _ops: Sequence[Operation]) -> None:
    """An operand too many, one too few, or two that change places."""
    operands = list(op.operands)
    if not operands:
        return
    edit = rng.randrange(3)
    if edit == 0:
        operands.append(rng.choice(operands))
    elif edit == 1:
        operands.pop(rng.randrange(len(operands)))
    else:
        rng.shuffle(operands)
    op.operands = operands


def _type(rng: Random, op: Operation, ops: Sequence[Operation]) -> None:
    """Another type of a result or of a block's argument."""
    values: list[SSAValue] = [*op.results]
    values += [value for region in op.regions for block in region.blocks for value in block.args]
    if not values:
        return
    value = rng.choice(values)
    others = [v.type for other in ops for v in other.results]
    new = other_type(rng, value.type)
    if others and rng.random() < 0.4:
        new = rng.choice(others)
    Rewriter.replace_value_with_new_type(value, new)


def other_type(rng: Random, old: Attribute) -> Attribute:
    """A type like another one, with another extent, rank or element."""
    if not isinstance(old, TensorType):
        return rng.choice((f32, i64, i1, TensorType(f32, (2, 8))))
    shape = list(old.get_shape())
    element: Any = old.element_type
    edit = rng.randrange(5)
    if edit == 0:
        element = rng.choice(ELEMENTS)
    elif edit == 1 and shape:
        shape[rng.randrange(len(shape))] = rng.choice(EXTENTS)
    elif edit == 2:
        shape.insert(rng.randint(0, len(shape)), rng.choice((1, 2, 8, -1)))
    elif edit == 3 and shape:
        shape.pop(rng.randrange(len(shape)))
    else:
        rng.shuffle(shape)
    return TensorType(element, shape)


def _attribute(rng: Random, op: Operation, ops: Sequence[Operation]) -> None:
    """Another value of an attribute or property, the one of another op, or none."""
    table = op.properties if op.properties and rng.random() < 0.8 else op.attributes
    if not table:
        return
    name = rng.choice(sorted(table))
    others = [t[name] for o in ops for t in (o.properties, o.attributes) if name in t]
    chance = rng.random()
    if chance < 0.08:
        del table[name]
    elif chance < 0.3 and others:
        table[name] = rng.choice(others)
    elif chance < 0.35:
        table[name] = rng.choice(_ANY)
    else:
        table[name] = other_attribute(rng, table[name])


_ANY: tuple[Attribute, ...] = (
    StringAttr("x"),
    IntegerAttr(1, 64),
    FloatAttr(0.5, f64),
    ArrayAttr([]),
    DictionaryAttr({}),
    f32,
)


def other_attribute(rng: Random, old: Attribute) -> Attribute:
    """An attribute of the same kind with another value."""
    if isinstance(old, IntegerAttr):
        return _integer(rng, old)
    if isinstance(old, FloatAttr):
        return FloatAttr(rng.choice((*trees.FLOATS, old.value.data * 2)), old.type)
    if isinstance(old, StringAttr):
        return StringAttr(_string(rng, old.data))
    if isinstance(old, DenseArrayBase) and len(old):
        return _array(rng, old)
    if isinstance(old, ArrayAttr):
        return _list(rng, old)
    if isinstance(old, DictionaryAttr) and old.data:
        name = rng.choice(sorted(old.data))
        return DictionaryAttr({**old.data, name: other_attribute(rng, old.data[name])})
    if isinstance(old, TensorType):
        return other_type(rng, old)
    return old


def _integer(rng: Random, old: IntegerAttr[Any]) -> Attribute:
    values = (*(v for v in trees.INTEGERS if abs(v) < 1 << 63), old.value.data + 1)
    value = rng.choice((*values, old.value.data - 1, -old.value.data, old.value.data * 2))
    try:
        return IntegerAttr(value, old.type)
    except ValueError:
        return IntegerAttr(rng.choice((0, 1)), old.type)
    except Exception:
        return old


def _string(rng: Random, old: str) -> str:
    chosen = rng.choice((*trees.TEXTS, old[::-1], old + old, old[:-1], old.replace(",", "->", 1)))
    return chosen.replace("\0", "0").replace("\ud800", "?")


def _array(rng: Random, old: DenseArrayBase[Any]) -> Attribute:
    values: list[Any] = list(old.get_values())
    edit = rng.randrange(4)
    at = rng.randrange(len(values))
    if edit == 0:
        values.pop(at)
    elif edit == 1:
        values.append(values[at])
    elif edit == 2:
        rng.shuffle(values)
    else:
        values[at] = rng.choice((0, 1, -1, 7, 1 << 30, values[at] + 1))
    try:
        return DenseArrayBase.from_list(old.elt_type, values)
    except Exception:
        return old


def _list(rng: Random, old: ArrayAttr[Any]) -> Attribute:
    items = list(old.data)
    if not items:
        return ArrayAttr([StringAttr("x")])
    edit = rng.randrange(4)
    at = rng.randrange(len(items))
    if edit == 0:
        items.pop(at)
    elif edit == 1:
        items.append(items[at])
    elif edit == 2:
        rng.shuffle(items)
    else:
        items[at] = other_attribute(rng, items[at])
    return ArrayAttr(items)


def _delete(rng: Random, op: Operation, ops: Sequence[Operation]) -> None:
    """An op less; its results are replaced by values of the same type, or by any."""
    if op.parent is None or isinstance(op.parent_op(), ModuleOp):
        return
    known = [v for v in _values(op, ops) if v.owner is not op]
    for result in op.results:
        alike = [v for v in known if v.type == result.type] or known
        if result.uses and not alike:
            return
        if alike:
            result.replace_all_uses_with(rng.choice(alike))
    op.detach()
    op.erase(safe_erase=False)


def _duplicate(rng: Random, op: Operation, _ops: Sequence[Operation]) -> None:
    """The same op once more, which some of its users take instead."""
    block = op.parent
    if not isinstance(block, Block):
        return
    twin = op.clone()
    block.insert_op_after(twin, op)
    for result, other in zip(op.results, twin.results):
        for use in list(result.uses):
            if use.operation is not twin and rng.random() < 0.5:
                use.operation.operands[use.index] = other


def _swap(rng: Random, op: Operation, ops: Sequence[Operation]) -> None:
    """An op in another place of its block."""
    block = op.parent
    if not isinstance(block, Block) or not op.results:
        return
    places = [o for o in ops if o.parent is block and o is not op]
    if not places:
        return
    op.detach()
    block.insert_op_before(op, rng.choice(places))


_EDITS: tuple[Callable[[Random, Operation, Sequence[Operation]], None], ...] = (
    _operand,
    _operand,
    _operand,
    _operands,
    _type,
    _type,
    _attribute,
    _attribute,
    _attribute,
    _delete,
    _duplicate,
    _swap,
)


# ---- changes of text ----------------------------------------------------------------------------


def _textual(rng: Random, source: str) -> str:
    """A text whose types, names, numbers or lines are others of it."""
    for _ in range(1 + min(3, int(rng.expovariate(1.0)))):
        source = rng.choice(_TEXTUAL)(rng, source)
    return source


def _exchange(pattern: str) -> Callable[[Random, str], str]:
    compiled = re.compile(pattern)

    def exchange(rng: Random, source: str) -> str:
        found = list(compiled.finditer(source))
        if len(found) < 2:
            return source
        one, other = rng.choice(found), rng.choice(found)
        return source[: one.start()] + other[0] + source[one.end() :]

    return exchange


def _deep(rng: Random, source: str) -> str:
    """Something nested deeper than anyone writes."""
    deep = rng.choice((50, 200, 2000, 20_000))
    return rng.choice(
        (
            source.replace("tensor<", "tensor<" * deep, 1),
            source.replace("{", "{a = " * deep, 1),
            "builtin.module {\n" * deep + source + "}\n" * deep,
            source.replace("(", "(" * deep, 1),
            source.replace("array<", "[" * deep + "array<", 1),
        )
    )


def _twice(_rng: Random, source: str) -> str:
    return source + source


_TEXTUAL: tuple[Callable[[Random, str], str], ...] = (
    _exchange(r"![\w.]+<[^<>]*>|tensor<[^<>]*>|memref<[^<>]*>"),
    _exchange(r"tensor<[^<>]*>"),
    _exchange(r"%[\w#]+"),
    _exchange(r"(?<= = )[a-z_]+\.[a-z_]+"),
    _exchange(r'"[^"\n]*"'),
    _exchange(r"-?\d+"),
    _exchange(r"#[\w.]+<[^<>\n]*>"),
    lines.number,
    lines.number,
    lines.number,
    functools.partial(lines.change, most=1),
    _deep,
    _twice,
)
