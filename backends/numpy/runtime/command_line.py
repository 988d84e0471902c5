# pyright: basic
"""`prog.py in.npz out.npz`, what every program ends with."""

import os
import sys
import zipfile

import numpy as np

from heatc.backends.numpy.runtime.declared import INPUTS, main
from heatc.backends.numpy.runtime.prelude import WEIGHTS

MARK = ""


def _save(path, outputs):
    """Write an .npz file whole or not at all; devices and pipes are written directly."""
    path = os.path.realpath(path)
    whole = os.path.isfile(path) or not os.path.exists(path)
    part = f"{path}.{os.getpid()}.part" if whole else path
    try:
        with open(part, "wb") as file:
            np.savez(file, **outputs)
        if whole:
            # heatc replaces no file that it does not know as its own.
            with zipfile.ZipFile(part, "a") as archive:
                archive.comment = MARK.encode()
            os.replace(part, path)
    finally:
        if whole and os.path.exists(part):
            os.remove(part)


def _command_line(arguments):
    """`prog.py in.npz out.npz`."""
    if len(arguments) != 2:
        sys.exit(f"usage: {os.path.basename(sys.argv[0])} in.npz out.npz")
    try:
        for name, path in (("inputs", arguments[0]), ("program", __file__), ("weights", WEIGHTS)):
            if os.path.exists(arguments[1]) and os.path.samefile(arguments[1], path):
                raise ValueError(f"the output would overwrite the {name}")
        with np.load(arguments[0], allow_pickle=False) as archive:
            missing = [name for name in INPUTS if name not in archive.files]
            if missing:
                raise ValueError(f"no {', '.join(missing)} in {arguments[0]}")
            inputs = [archive[name] for name in INPUTS]
        outputs = main(*inputs)
        _save(arguments[1], outputs)
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    _command_line(sys.argv[1:])
