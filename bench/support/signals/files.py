"""Files of a folder, compared: what a run left, and whether two runs left the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

UNFINISHED = (".tmp", ".part")

VARYING = ("seconds", "reused", "resumed", "samples per second", "threads")
"""Keys of reports that tell how a run went, not what it found."""


_STORED = re.compile(r"\d+ stored results of an earlier run were used")


Tree = Mapping[str, bytes]


def tree(folder: Path, names: Sequence[str] = ()) -> dict[str, bytes]:
    """The files of a folder, or of some of its entries, by name."""
    roots = [folder / name for name in names] or [folder]
    found: dict[str, bytes] = {}
    for root in roots:
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.is_file():
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def same(name: str, one: bytes | None, other: bytes | None) -> bool:
    """Whether two files say the same; reports also tell how long things took."""
    if one == other:
        return True
    read = _READERS.get(Path(name).suffix)
    if one is None or other is None or read is None:
        return False
    try:
        return _lasting(read(one)) == _lasting(read(other))
    except ValueError:
        return False


def _remarks(data: bytes) -> list[Any]:
    """The remarks of a run but that of the check, which says how long it took."""
    found = map(json.loads, data.splitlines())
    return [remark for remark in found if remark.get("pass") != "verify"]


_READERS: Mapping[str, Callable[[bytes], Any]] = {".json": json.loads, ".jsonl": _remarks}


def _lasting(value: Any) -> Any:
    """A report without what tells how a run went."""
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if k not in VARYING}
    if isinstance(value, list):
        return [_lasting(item) for item in value if not _STORED.fullmatch(str(item))]
    return value


def unfinished(folder: Path) -> list[str]:
    """Temporary files below a folder."""
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.suffix in UNFINISHED or path.name.startswith(".heatc-")
    ]


def write(place: Path, files: Tree) -> None:
    """The files of a tree, in a folder."""
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
