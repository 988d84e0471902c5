"""Results of tasks, kept in files as they come, so that an interrupted search goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from heatc.files import atomic_write, make_folder
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.common.workers import Json, Workers


@dataclass(frozen=True)
class ResultCache:
    """Results as JSON files of one folder, whole or not at all; what cannot be read is not there."""

    folder: Path

    def read(self, name: str) -> Json | None:
        """What was kept under a name, None if nothing."""
        try:
            return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def write(self, name: str, value: Json) -> None:
        """Keep a value under a name."""
        make_folder(self.folder)
        with atomic_write(self.folder / f"{name}.json", "w") as stream:
            json.dump(value, stream)

    def results(
        self,
        workers: Workers,
        function: Callable[..., Json],
        tasks: Mapping[str, tuple[Any, ...]],
        what: str,
        progress: ProgressCallback,
    ) -> dict[str, Json]:
        """The result of every task by its name, those that are kept already without running it."""
        found = {name: self.read(name) for name in tasks}
        missing = [name for name in tasks if found[name] is None]
        progress(what, len(tasks) - len(missing), len(tasks))

        def done(number: int, result: Json) -> None:
            name = missing[number]
            self.write(name, result)
            found[name] = result
            progress(what, len(tasks) - len(missing) + number + 1, len(tasks))

        workers.run(function, [tasks[name] for name in missing], done)
        return found


@cache
def code_digest(*parts: str) -> str:
    """Of heatc's own source, or of some of its folders: what other code computed is not used."""
    digest, root = sha256(), Path(__file__).resolve().parents[2]
    # `rglob` does not walk into the links that dialects, passes and backends may be.
    folders = [root / part for part in parts or sorted(p.name for p in root.iterdir())]
    for folder in folders:
        for file in sorted(folder.resolve().rglob("*.py")):
            digest.update(f"{folder.name}/{file.name}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:24]
