# pyright: basic
"""One thread a core."""

import ctypes
import os
import queue
import threading

import numpy as np

from heatc.backends.numpy.runtime.constants import AVX512_KERNELS


def _core_count() -> int:
    """The cores to use: what OPENBLAS_NUM_THREADS or OMP_NUM_THREADS says, else all."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _openblas():
    """NumPy's OpenBLAS: (get, set) of its thread count and its kernels' name; None without it."""
    package = os.path.dirname(np.__file__)
    for folder in (package + ".libs", os.path.join(package, ".dylibs")):
        for file in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if "openblas" not in file:
                continue
            library = ctypes.CDLL(os.path.join(folder, file))
            for head, tail in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
                names = ("get_num_threads", "set_num_threads", "get_corename")
                names = [f"{head}openblas_{name}{tail}" for name in names]
                if all(hasattr(library, name) for name in names):
                    get, set_, kernels = (getattr(library, name) for name in names)
                    kernels.restype = ctypes.c_char_p
                    return get, set_, kernels()
    return None


class Workers:
    """
    One thread a core; the calling thread is the first of them.

    A step of the program splits its rows, heads or tokens over the workers, so that products
    and the elementwise work that follows them run on all cores without a thread of OpenBLAS's
    own (`with workers:` keeps those quiet). Without OpenBLAS the library threads the products.
    """

    def __init__(self):
        self.blas = _openblas()
        self.count = 1 if self.blas is None else _core_count()
        self.small_products = self.blas is not None and self.blas[2] in AVX512_KERNELS
        self.reset()

    def reset(self):
        """Forget the threads; a forked child has none of them."""
        self.lock = threading.Lock()
        self.inboxes = []
        self.outbox = queue.SimpleQueue()

    def __enter__(self):
        self.lock.acquire()
        if self.blas is not None:
            self.threads_before = self.blas[0]()
            self.blas[1](1)

    def __exit__(self, *_):
        if self.blas is not None:
            self.blas[1](self.threads_before)
        self.lock.release()

    def _serve(self, inbox):
        while (task := inbox.get()) is not None:
            function, start, stop = task
            try:
                function(start, stop)
                self.outbox.put(None)
            except BaseException as error:
                self.outbox.put(error)

    def run(self, function, count, grain=1):
        """Call `function(start, stop)` on parts of range(count), multiples of `grain`."""
        step = -(-count // (self.count * grain)) * grain
        if step >= count:
            function(0, count)
            return
        starts = range(step, count, step)
        while len(self.inboxes) < len(starts):
            inbox = queue.SimpleQueue()
            threading.Thread(target=self._serve, args=(inbox,), daemon=True).start()
            self.inboxes.append(inbox)
        for inbox, start in zip(self.inboxes, starts):
            inbox.put((function, start, min(start + step, count)))
        errors = []
        try:
            function(0, step)
        finally:
            errors = [self.outbox.get() for _ in starts]
        for error in filter(None, errors):
            raise error


workers = Workers()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=workers.reset)
