"""What the tests of capture share: small models, their archives, and looks at a module."""

from __future__ import annotations

import io
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func, FuncOp
from xdsl.parser import Parser
from xdsl.printer import Printer

from heatc.capture import Captured, InputSpec, capture_path
from heatc.dialects.einsum import EINSUM
from heatc.dialects.nn import NN
from heatc.errors import HeatcError

SMALL = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}

MakeBert = Callable[..., Any]

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SPECS = {name: InputSpec((1, 8), "i64") for name in INPUTS}


def bert_inputs(batch: int = 1, length: int = 8) -> dict[str, Any]:
    """Random ids with padding at the end of the last sequence."""
    import torch

    torch.manual_seed(1)
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[-1, length - 3 :] = 0
    return {
        "input_ids": torch.randint(0, 100, (batch, length)),
        "attention_mask": mask,
        "token_type_ids": torch.zeros(batch, length, dtype=torch.int64),
    }


def save(program: Any, path: Path) -> Path:
    """Write an archive, under whatever name."""
    import io

    import torch

    # torch warns about other suffixes, and names the top folder after the file.
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    path.write_bytes(buffer.getvalue())
    return path


def text_of(module: ModuleOp, *, locations: bool = True) -> str:
    stream = io.StringIO()
    Printer(stream, print_debuginfo=locations).print_op(module)
    return stream.getvalue()


def main_of(module: ModuleOp) -> FuncOp:
    (main,) = module.ops
    assert isinstance(main, FuncOp)
    return main


def names_of(captured: Captured) -> tuple[list[str], list[str]]:
    main = main_of(captured.module)
    assert main.arg_attrs is not None
    assert main.res_attrs is not None
    inputs = [attribute.data["heatc.name"] for attribute in main.arg_attrs]
    outputs = [attribute.data["heatc.name"] for attribute in main.res_attrs]
    return [n.data for n in inputs], [n.data for n in outputs]  # pyright: ignore


def count_ops(module: ModuleOp) -> Counter[str]:
    return Counter(op.name for op in main_of(module).walk())


def check_round_trip(module: ModuleOp) -> None:
    context = Context()
    for dialect in (Builtin, Func, NN, EINSUM):
        context.load_dialect(dialect)
    text = text_of(module)
    parsed = Parser(context, text).parse_module()
    parsed.verify()
    assert text_of(parsed) == text


def refuse(path: Path, *, match: str, inputs: Any = None) -> HeatcError:
    with pytest.raises(HeatcError, match=match) as info:
        capture_path(path, inputs)
    assert info.value.exit_code == 1
    assert info.value.place
    assert "\n" not in info.value.message
    return info.value


def damage(
    source: Path, target: Path, suffix: str, change: Callable[[bytearray, Any], None]
) -> Path:
    """Copy an archive with damage at the member whose name ends with `suffix`."""
    data = bytearray(source.read_bytes())
    with zipfile.ZipFile(source) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith(suffix))
    change(data, info)
    target.write_bytes(data)
    return target


def flip_data(data: bytearray, info: Any) -> None:
    name, extra = struct.unpack_from("<2H", data, info.header_offset + 26)
    data[info.header_offset + 30 + name + extra + info.file_size // 2] ^= 1


class Payload:
    """Would create a file if it were unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)
