"""Where figures come from: command, commit, versions, processor, day."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heatc.tuning.evaluate.program import sha256_of
from heatc.version import VERSION

_PACKAGES = ("numpy", "scipy", "safetensors", "xdsl", "torch", "transformers", "tokenizers")
_ROOT = Path(__file__).resolve().parents[3]


def provenance(command: Sequence[str], data: Path, jobs: int, seed: int) -> dict[str, Any]:
    """The object `provenance` of eval.json; `data` is the file that was read."""
    return {
        "command": " ".join(command),
        "commit": _commit(),
        "versions": {"heatc": VERSION, "python": platform.python_version(), **_versions()},
        "cpu": _cpu(),
        "cores": cores(),
        "jobs": cores() if jobs < 0 else jobs,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "seed": seed,
        "data": {"file": str(data), "sha256": sha256_of([data])},
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _versions() -> dict[str, str]:
    """Of the packages that are there."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit of heatc's own sources; None where they are no checkout, or git is missing."""
    if not (_ROOT / ".git").exists():
        return None
    git = ["git", "-C", str(_ROOT)]
    try:
        found = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.decode().strip()[:12] + ("-dirty" if changed else "")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or sys.platform
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()
