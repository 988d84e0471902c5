"""NumPy programs that heatc wrote: run in this process, on all cores, and timed."""

from __future__ import annotations

import ast
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from heatc.backends.numpy.program import LoadedProgram
from heatc.errors import HeatcError
from heatc.files import from_os_error
from heatc.names import weights_file
from heatc.tuning.evaluate.program import Arrays, Port, Ran, Run

_AGAIN = "compile the model again: heatc MODEL -o x.py"


@dataclass(frozen=True)
class NumpyProgram:
    """A `.py` file with its weights beside it."""

    path: Path
    runs: str = "NumPy program"
    is_parallel: bool = False
    hardware: None = None

    @property
    def files(self) -> list[Path]:
        """The program and its weights."""
        return [self.path, weights_file(self.path)]

    @property
    def ports(self) -> Mapping[str, Port]:
        """The inputs by name, see `Program`."""
        return self._ports

    @cached_property
    def _ports(self) -> Mapping[str, Port]:
        """
        The inputs by name: the table `INPUTS` of the program, which is read and not run.

        Raises `HeatcError` where there is none, or no file of weights.
        """
        try:
            tree = ast.parse(self.path.read_text(encoding="utf-8"))
            tables = [
                ast.literal_eval(node.value)
                for node in tree.body
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INPUTS"
            ]
            found = {
                str(name): Port(tuple(map(int, shape)), np.dtype(dtype))
                for name, (dtype, shape) in tables[0].items()
            }
            weights_file(self.path).stat()
        except OSError as error:
            raise from_os_error(error) from error
        # What another hand changed fails anywhere.
        except (AttributeError, IndexError, SyntaxError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise HeatcError(
                f"the program has no readable table INPUTS: {reason}",
                place=str(self.path),
                notes=[_AGAIN],
            ) from None
        return found

    @contextmanager
    def opened(self) -> Generator[Run]:
        """See `Program`; the code of the file runs."""
        with self._failing(), LoadedProgram(self.path) as program:
            is_warm = False

            def run(inputs: Arrays) -> Ran:
                nonlocal is_warm
                with self._failing():
                    if not is_warm:
                        program(inputs)
                        is_warm = True
                    begun = time.perf_counter()
                    outputs = program(inputs)
                    return Ran(outputs, {"cpu_seconds": time.perf_counter() - begun})

            yield run

    @contextmanager
    def _failing(self) -> Generator[None]:
        """Whatever a program raises is said in one message."""
        try:
            yield
        except (HeatcError, MemoryError):
            raise
        except OSError as error:
            raise from_os_error(error, self.path) from error
        except Exception as error:
            reason = str(error).splitlines()[0][:200] if str(error) else "no reason given"
            raise HeatcError(
                f"the program failed: {type(error).__name__}: {reason}", place=str(self.path)
            ) from error
