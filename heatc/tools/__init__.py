"""
The command-line tools.

What a process that is one of them needs before anything else is imported: the handling of signals,
then the fast kernels of NumPy's BLAS.
"""

import os
import sys

from heatc.stopping import own_process

COMMANDS = ("heatc", "heatc-opt", "heatc-tune", "hdp-as", "hdp-objdump", "hdp-run")


def _command() -> str:
    """The command that this process is, by its script or by `python -m`; empty for others."""
    name = os.path.basename(sys.argv[0]).removesuffix(".exe") if sys.argv else ""
    if name == "-m" and any(word.startswith("heatc.tools.") for word in sys.orig_argv):
        return "heatc"
    return name if name in COMMANDS else ""


if _name := _command():
    own_process(_name)

from heatc.blas import set_up  # noqa: E402

set_up()
