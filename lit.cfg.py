"""lit configuration: needs no LLVM binary, only `lit` and `filecheck` from PyPI."""

import os
import sys
from pathlib import Path

import lit.formats

root = Path(__file__).resolve().parent

config.name = "heatc"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
# "heatc" holds links to folders that are walked already, "extending" inputs of packages.
config.excludes = ["Inputs", "build", "heatc", ".venv", "extending"]
# The root, not root / "test": else `lit test` finds no test.
config.test_source_root = str(root)
config.test_exec_root = str(root / "build" / "lit")

# The checkout is tested, installed or not, by the Python that runs lit.
config.environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
config.environment["PYTHONPATH"] = str(root)
# What a command prints does not depend on how long it takes.
config.environment["HEATC_PROGRESS"] = "off"
for name in ("OMP_WAIT_POLICY", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    if name in os.environ:
        config.environment[name] = os.environ[name]

# %roundtrip comes before the tools that it names: each substitution is applied once, in order.
config.substitutions.append(
    ("%roundtrip", "heatc-opt %s | heatc-opt --print-op-generic | heatc-opt | filecheck %s")
)
TOOLS = {
    "heatc-opt": "opt",
    "heatc": "main",
    "hdp-run": "run",
    "hdp-objdump": "objdump",
    "hdp-as": "assemble",
}
for name, module in TOOLS.items():
    word = rf"(?<![\w./-]){name}(?![\w./-])"
    config.substitutions.append((word, f"{sys.executable} -m heatc.tools.{module}"))
config.substitutions.append((r"(?<![\w./-])python(?![\w./-])", sys.executable))

# Needs psutil. In lit 23, `lit_config.maxIndividualTestTime = x` is an error.
if lit_config.maxIndividualTestTimeIsSupported[0]:
    config.maxIndividualTestTime = 120
