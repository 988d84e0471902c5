"""
The command-line tools.

What a process that is one of them needs before anything else is imported: the handling of signals,
then the fast kernels of NumPy's BLAS.
"""

import os
import signal
import sys

COMMANDS = (
    "heatc",
    "heatc-export",
    "heatc-opt",
    "heatc-report",
    "heatc-tune",
    "hdp-as",
    "hdp-objdump",
    "hdp-run",
)


def _command() -> str:
    """The command that this process is, by its script or by `python -m`; empty for others."""
    name = os.path.basename(sys.argv[0]).removesuffix(".exe") if sys.argv else ""
    if name == "-m" and any(word.startswith("heatc.tools.") for word in sys.orig_argv):
        return "heatc"
    return name if name in COMMANDS else ""


if _name := _command():
    # Signals wait for whoever handles them.
    _mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    from heatc.stopping import own_process

    own_process(_name, _mask)

from heatc.blas import set_up  # noqa: E402

set_up()
