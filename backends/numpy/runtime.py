"""
The text of the helpers that an emitted program defines, each once and only where it is used.

They are kept here as source text, in the order in which they are written; `HELPERS` maps a
helper to the helpers it calls. `select` returns the text of a set of helpers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from heatc.kinds import OUTPUTS

UNNAMED = 'PROGRAM = ""'
"""A line of the prelude, which gets a digest of the text it stands in."""

PRELUDE = '''\
def _prefer_avx512() -> None:
    """
    Let OpenBLAS take its AVX-512 kernels where the CPU has them.

    It does not know newer AMD cores and falls back to AVX2 there. It reads the variable when
    NumPy is loaded, so this has no effect in a process that imported NumPy before.
    """
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line.split() for line in file if line.startswith("flags")), [])
    except OSError:
        return
    if {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"} <= set(flags):
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")


if "numpy" not in sys.modules:
    _prefer_avx512()

import numpy as np  # noqa: E402

WEIGHTS = os.path.splitext(os.path.abspath(__file__))[0] + ".safetensors"
DTYPES = {
    "F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
    "BOOL": "?",
}
PROGRAM = ""  # the weights name the program that they belong to


@functools.cache
def weights():
    """The arrays of the safetensors file beside this one by name, mapped, not read."""
    with open(WEIGHTS, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    if header.pop("__metadata__", {}).get("program") != PROGRAM:
        raise ValueError(f"{WEIGHTS} has the weights of another program: compile this one again")
    data = np.asarray(np.memmap(WEIGHTS, np.uint8, "r", offset=8 + size))
    arrays = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        arrays[name] = data[start:stop].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays
'''

_WORKERS = '''\
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
'''

_BUFFERS = '''\
_buffers = {}


def _buffer(key, rows, tokens):
    size = rows * tokens
    flat = _buffers.get(key)
    if flat is None or flat.size < size:
        flat = _buffers[key] = np.empty(size, np.float32)
    return flat[:size].reshape(rows, tokens)


def matrix(name, rows, tokens):
    """The (rows, tokens) buffer `name`, kept from call to call."""
    return _buffer((name, rows), rows, tokens)


def tile(name, rows, tokens):
    """A (rows, tokens) matrix in the place of the last one that was called `name`."""
    return _buffer(name, rows, tokens)


_local = threading.local()


def scratch(name, shape):
    """A buffer of the calling thread's own."""
    size = math.prod(shape)
    flat = getattr(_local, name, None)
    if flat is None or flat.size < size:
        flat = np.empty(size, np.float32)
        setattr(_local, name, flat)
    return flat[:size].reshape(shape)
'''

_TRANSPOSED = '''\
def transposed(x, out):
    """(tokens, width) as (width, tokens), copied into `out`."""
    np.copyto(out, x.T)
    return out
'''

_PACKING = '''\
class Packing:
    """
    The rows of a batch: of each sequence its keys, then the masked positions that are read.

    `real` (batch, length) is true where a token is real, which makes it a key; `reads` are the
    positions that something reads, also where they are masked. `columns` are the rows of each
    sequence, `keys` those of its keys, `positions` the flat positions of all rows in the batch.
    """

    def __init__(self, real, reads=()):
        self.mask = real
        read = np.zeros(real.shape, np.bool_)
        read[:, list(reads)] = True
        read &= ~real
        keys, extra = real.sum(axis=1), read.sum(axis=1)
        for row in np.flatnonzero((keys == 0) & (extra > 0)):
            raise ValueError(f"row {row} has no real token, and an output depends on it")
        self.positions = np.flatnonzero(real | read)
        length = real.shape[1]
        if extra.any():
            behind = read.reshape(-1)[self.positions] + self.positions // length
            self.positions = self.positions[np.argsort(self.positions + length * behind)]
        self.real_rows = real.reshape(-1)[self.positions] if extra.any() else slice(None)
        self.tokens = len(self.positions)
        ends = np.cumsum(keys + extra).tolist()
        self.columns = [slice(a, b) for a, b in zip([0, *ends], ends)]
        self.keys = [slice(c.start, c.start + n) for c, n in zip(self.columns, keys.tolist())]

    def places(self, number):
        """The positions in their sequence of the rows of sequence `number`."""
        return self.positions[self.columns[number]] - number * self.mask.shape[1]


def pack(x, packing):
    """(batch, length, ...) to (tokens, ...): the rows of the packing."""
    return x.reshape(-1, *x.shape[2:])[packing.positions]


def unpack(x, packing, read=False):
    """(tokens, ...) to (batch, length, ...), zeros where a token is masked, and not `read`."""
    out = np.zeros((packing.mask.size, *x.shape[1:]), x.dtype)
    rows = slice(None) if read else packing.real_rows
    out[packing.positions[rows]] = x[rows]
    return out.reshape(*packing.mask.shape, *x.shape[1:])
'''

_REAL = '''\
def real_tokens(name, mask, real, masked):
    """Where a mask says that a token is real; ValueError for a value that is no mask's."""
    kept, hidden = (
        np.any([(mask >= low) & (mask <= high) for low, high in some], axis=0)
        for some in (real, masked)
    )
    for at in np.argwhere(~(kept | hidden)):
        raise ValueError(
            f"{name}{at.tolist()} is {mask[tuple(at)]}, which is no value of this mask: "
            f"real is one of {real}, masked one of {masked} (both ends in it)"
        )
    return kept
'''

_TOKEN = '''\
def token(x, packing, position):
    """(tokens, ...) to (batch, ...): the row at one position of each sequence, 0 without one."""
    rows = np.full(packing.mask.size, -1)
    rows[packing.positions] = np.arange(packing.tokens)
    rows = rows.reshape(packing.mask.shape)[:, position]
    out = np.zeros((len(rows), *x.shape[1:]), x.dtype)
    out[rows >= 0] = x[rows[rows >= 0]]
    return out
'''

_EMBEDDING = '''\
def embedding(table, ids, name="", packing=None):
    """Rows of `table` by `ids`, those of input `name` at the rows of a packing; or ValueError."""
    if ids.size and not 0 <= ids.min() <= ids.max() < len(table):
        at = tuple(np.argwhere((ids < 0) | (ids >= len(table)))[0].tolist())
        place = at
        if packing is not None:
            place = np.unravel_index(packing.positions[at[0]], packing.mask.shape)
        where = f"{name}{[int(i) for i in place]} is {ids[at]}: " if name else ""
        raise ValueError(f"{where}an id is outside 0..{len(table) - 1}")
    return table[ids]
'''

_GELU = '''\
# x Phi(x) = max(x, 0) - |x| Phi(-|x|), and Phi(-a) = exp(p(a)) with this polynomial, fitted so
# that a Phi(-a) is off by 4.4e-7 at most; constant first.
GELU = [
    np.float32(c)
    for c in (
        -0.6931732623361733,
        -0.797665334799351,
        -0.3188424949813825,
        -0.035923982783416145,
        0.004910635165991625,
        -0.0003280725620786767,
    )
]


def gelu(x, out):
    """out = x Phi(x), the exact (erf) GELU, to 1e-6; `out` may be `x`."""
    a, p = scratch("gelu_a", x.shape), scratch("gelu_p", x.shape)
    np.abs(x, out=a)
    np.multiply(a, GELU[-1], out=p)
    for c in GELU[-2:0:-1]:
        np.add(p, c, out=p)
        np.multiply(p, a, out=p)
    np.add(p, GELU[0], out=p)
    np.exp(p, out=p)
    np.multiply(a, p, out=a)
    np.maximum(x, np.float32(0), out=out)
    np.subtract(out, a, out=out)
'''

_GELU_TANH = '''\
def gelu_tanh(x, out):
    """out = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x ** 3))); `out` may be `x`."""
    t = scratch("gelu_a", x.shape)
    np.multiply(x, x, out=t)
    np.multiply(t, np.float32(0.044715 * math.sqrt(2 / math.pi)), out=t)
    np.add(t, np.float32(math.sqrt(2 / math.pi)), out=t)
    np.multiply(t, x, out=t)
    np.tanh(t, out=t)
    np.add(t, np.float32(1), out=t)
    np.multiply(t, np.float32(0.5), out=t)
    np.multiply(x, t, out=out)
'''

_RELU = '''\
def relu(x, out):
    """out = max(x, 0); `out` may be `x`."""
    np.maximum(x, np.float32(0), out=out)
'''

_APPLY = '''\
def apply(function, x, out):
    """out = function(x) elementwise, a tile at a time on every core."""
    tile = max(1, TILE // max(x.shape[1], 1))

    def part(start, stop):
        for row in range(start, stop, tile):
            rows = slice(row, min(row + tile, stop))
            function(x[rows], out=out[rows])

    workers.run(part, len(x), grain=16)
    return out
'''

_ADD = '''\
def add(x, y, out):
    """out = x + y."""
    workers.run(lambda i, j: np.add(x[i:j], y[i:j], out=out[i:j]), len(x), grain=16)
    return out
'''

_LINEAR = '''\
def product(weight, x, out):
    """
    out = weight @ x, a few rows of `weight` at a time.

    OpenBLAS's AVX-512 kernels multiply without copying the weight into their own order first
    where rows * depth * tokens is at most 10 ** 6. The row counts are the ones that run fast.
    """
    depth, tokens = x.shape
    limit = 10**6 // max(depth * tokens, 1)
    some = next((c for c in (24, 12, 8, 4) if c <= limit), 0)
    if not workers.small_products or not weight.flags.c_contiguous or some < 8 and tokens % 32:
        some = 0
    if some:
        whole = len(weight) // some * some
        parts = weight[:whole].reshape(whole // some, some, depth)
        np.matmul(parts, x, out=out[:whole].reshape(whole // some, some, tokens))
        weight, out = weight[whole:], out[whole:]
    if len(weight):
        np.matmul(weight, x, out=out)


def linear(weight, bias, x, out, activation=None, residual=None):
    """out = activation(weight @ x + bias) + residual, for x (in, tokens)."""

    def part(start, stop):
        product(weight[start:stop], x, out[start:stop])
        finish(out, start, stop, bias, activation, residual)

    workers.run(part, len(weight), grain=16)
    return out
'''

_FINISH = '''\
def finish(out, start, stop, bias, activation, residual):
    """out = activation(out + bias) + residual on rows `start` to `stop`, a tile at a time."""
    tile = max(1, TILE // max(out.shape[1], 1))
    for row in range(start, stop, tile):
        rows = slice(row, min(row + tile, stop))
        y = out[rows]
        if bias is not None:
            np.add(y, bias[rows, None], out=y)
        if activation is not None:
            activation(y, out=y)
        if residual is not None:
            np.add(y, residual[rows], out=y)
'''

_ORIENTED = '''\
@functools.cache
def oriented(name, order, shape):
    """The weight `name` with its axes in another order, then in another shape; copied once."""
    return np.ascontiguousarray(weights()[name].transpose(order)).reshape(shape)
'''

_CONTRACT = '''\
def contract(weight, x, out, lead, rest=(), bias=None, activation=None, residual=None):
    """
    out[lead, n, rest] = weight[lead, rest, n, k] x[lead, k, rest], for x (lead * k * rest, tokens).

    The axes that are summed lie side by side, so that no operand is copied. A weight (n, k) is the
    same everywhere, one without `rest` for all that lies behind. Then out = activation(out + bias)
    + residual.
    """
    n, k = weight.shape[-2:]
    tokens = x.shape[1]
    behind = rest or (len(x) // (math.prod(lead) * k),)
    sides = (x, k), (out, n)
    if not rest and x.flags.c_contiguous and out.flags.c_contiguous:
        # The tokens follow what lies behind: all are columns of one product.
        x, y = (m.reshape(*lead, rows, behind[0] * tokens) for m, rows in sides)
    else:
        sides = (m.reshape(*lead, rows, *behind, tokens) for m, rows in sides)
        x, y = (np.moveaxis(m, len(lead), -2) for m in sides)
        if weight.ndim > 2 and not rest:
            weight = weight[..., None, :, :]
    own = weight.ndim > 2 and len(weight) > 1

    def some(start, stop):
        if lead or rest:
            np.matmul(weight[start:stop] if own else weight, x[start:stop], out=y[start:stop])
        else:
            np.matmul(weight[start:stop], x, out=y[..., start:stop, :])

    def finished(start, stop):
        some(start, stop)
        finish(out, start * rows, stop * rows, bias, activation, residual)

    if lead or not rest:
        count = lead[0] if lead else n
        rows = len(out) // count
        workers.run(finished, count, grain=1 if lead else 16)
        return out
    workers.run(some, rest[0])
    if any(given is not None for given in (bias, activation, residual)):
        workers.run(lambda i, j: finish(out, i, j, bias, activation, residual), len(out), grain=16)
    return out
'''

_SLICES = '''\
def slices(count, size):
    """range(count) in as few slices of at most `size` as there can be, of nearly one length."""
    even = -(-count // max(1, -(-count // size)))
    step = max(1, min(size, -(-even // 16) * 16))
    return [slice(i, min(i + step, count)) for i in range(0, count, step)]
'''

_LAYER_NORM = '''\
def layer_norm(x, weight, bias, eps, out):
    """out = (x - mean) / sqrt(variance + eps) * weight + bias over the rows of each column."""
    average = np.full((1, len(x)), 1 / len(x), np.float32)
    weight, bias, eps = weight[:, None], bias[:, None], np.float32(eps)

    def part(start, stop):
        y, square = out[:, start:stop], scratch("square", (len(x), stop - start))
        np.subtract(x[:, start:stop], average @ x[:, start:stop], out=y)
        np.multiply(y, y, out=square)
        deviation = average @ square
        np.add(deviation, eps, out=deviation)
        np.sqrt(deviation, out=deviation)
        np.divide(y, deviation, out=y)
        np.multiply(y, weight, out=y)
        np.add(y, bias, out=y)

    workers.run(part, x.shape[1], grain=16)
    return out
'''

_MASKED = '''\
def masked(scores, mask, fill):
    """Add a mask to scores in place; one of truth values leaves `fill` where it is false."""
    if mask.dtype == np.bool_:
        np.copyto(scores, np.float32(fill), where=~mask)
    else:
        with np.errstate(over="ignore"):
            np.add(scores, mask, out=scores)
'''

_ATTENTION = '''\
def attention(q, k, v, packing, heads, scale, out, masks=(), safe=True):
    """
    Multi-head attention of every sequence's rows to its keys, for q, k, v (heads * dim, tokens).

    Scores are (heads, keys, queries): then every operand is a view, also of one fused
    product of queries, keys and values. The division by the sums comes after the product
    with v, which has fewer rows than the scores. `masks` are pairs of a mask (batch, heads, length,
    length) and its fill. A row whose scores are all -inf gives 0 if `safe`, else NaN.
    """
    tokens, scale = q.shape[1], np.float32(scale)
    q, k, v, out_heads = (x.reshape(heads, len(x) // heads, tokens) for x in (q, k, v, out))

    def sequence(columns, keys, number, start, stop):
        m, n = columns.stop - columns.start, keys.stop - keys.start
        some = max(1, TILE // (m * n))
        for first in range(start, stop, some):
            h = slice(first, min(first + some, stop))
            scaled = scratch("scaled", (h.stop - first, q.shape[1], m))
            scores = scratch("scores", (h.stop - first, n, m))
            np.multiply(q[h, :, columns], scale, out=scaled)
            np.matmul(k[h, :, keys].transpose(0, 2, 1), scaled, out=scores)
            for mask, fill in masks:
                at = packing.places(number)
                own = mask[number, h][:, at][:, :, at[:n]]
                masked(scores, own.transpose(0, 2, 1), fill)
            highest = scores.max(axis=1, keepdims=True)
            if safe:
                np.maximum(highest, LOWEST, out=highest)
            np.subtract(scores, highest, out=scores)
            np.exp(scores, out=scores)
            sums = scores.sum(axis=1, keepdims=True)
            if safe:
                np.maximum(sums, TINY, out=sums)
            result = out_heads[h, :, columns]
            np.matmul(v[h, :, keys], scores, out=result)
            np.divide(result, sums, out=result)

    def part(start, stop):
        with np.errstate(invalid="warn" if safe else "ignore"):
            for number, (columns, keys) in enumerate(zip(packing.columns, packing.keys)):
                if keys.start < keys.stop:
                    sequence(columns, keys, number, start, stop)

    workers.run(part, heads)
    return out
'''

_SOFTMAX = '''\
def softmax(x, axis, safe=False):
    """Softmax along an axis; nothing but -inf gives NaN, or 0 if `safe`."""
    highest = x.max(axis=axis, keepdims=True, initial=-np.inf)
    if safe:
        highest = np.maximum(highest, LOWEST)
    with np.errstate(invalid="ignore"):
        y = np.exp(x - highest)
        sums = y.sum(axis=axis, keepdims=True)
        return y / (np.maximum(sums, TINY) if safe else sums)
'''

_PADDED_ATTENTION = '''\
def padded_attention(q, k, v, heads, scale, masks=(), safe=True):
    """
    Multi-head attention of all positions to all, on (batch, length, heads * dim).

    `masks` are pairs of a mask, which broadcasts to the scores, and its fill. A row whose scores
    are all -inf gives 0 if `safe`, else NaN.
    """
    batch, length = q.shape[:2]
    q, k, v = (x.reshape(batch, length, heads, -1).transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = (q * np.float32(scale)) @ k.transpose(0, 1, 3, 2)
    for mask, fill in masks:
        masked(scores, mask, fill)
    result = softmax(scores, -1, safe) @ v
    return result.transpose(0, 2, 1, 3).reshape(batch, length, -1)
'''

_SDPA = '''\
def scaled_dot_product(q, k, v, scale, mask=None, causal=False):
    """softmax(q k' * scale + mask) v over the last two axes; 0 for a query that sees no key."""
    scores = (q * np.float32(scale)) @ np.swapaxes(k, -1, -2)
    if mask is not None:
        masked(scores, mask, -np.inf)
    if causal:
        masked(scores, np.tri(*scores.shape[-2:], dtype=np.bool_), -np.inf)
    return softmax(scores, -1, safe=True) @ v
'''

_PLAIN_LAYER_NORM = '''\
def plain_layer_norm(x, weight, bias, eps):
    """Layer norm over the last axis."""
    y = x - x.mean(axis=-1, keepdims=True)
    return y / np.sqrt((y * y).mean(axis=-1, keepdims=True) + np.float32(eps)) * weight + bias
'''

_ELEMENTWISE = '''\
def elementwise(function, x):
    """A new array, function(x)."""
    out = np.empty(x.shape, x.dtype)
    function(np.ascontiguousarray(x), out=out)
    return out
'''

_ARRAY = '''\
def _fits(array, dtype):
    """Whether all of some integers are numbers of a dtype of integers."""
    if array.dtype.kind not in "iu" or np.dtype(dtype).kind not in "iu" or not array.size:
        return False
    limits = np.iinfo(dtype)
    return limits.min <= array.min() and array.max() <= limits.max


def _array(name, value, dtype, shape):
    """The input `name` as an array of its declared type; ValueError if it is not one."""
    array = np.asarray(value)
    if len(array.shape) != len(shape) or any(n not in (None, m) for m, n in zip(array.shape, shape)):
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    if not np.can_cast(array.dtype, dtype, "safe") and not _fits(array, dtype):
        raise ValueError(f"{name} has dtype {array.dtype}, expected {np.dtype(dtype)}")
    return array.astype(dtype, copy=False)
'''

_CONSTANTS = """\
AVX512_KERNELS = {b"SkylakeX", b"Cooperlake", b"SapphireRapids"}
TILE = 65536  # elements of a tile: with its scratch it stays in a core's cache
LOWEST, TINY = np.finfo(np.float32).min, np.finfo(np.float32).tiny
"""

COMMAND_LINE = (
    f'MARK = "{OUTPUTS.mark}"\n\n\n'
    + '''\
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
'''
)

# name: (text, the helpers it calls), in the order of the program.
HELPERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "constants": (_CONSTANTS, ()),
    "workers": (_WORKERS, ("constants",)),
    "matrix": (_BUFFERS, ()),
    "array": (_ARRAY, ()),
    "packing": (_PACKING, ()),
    "real": (_REAL, ()),
    "token": (_TOKEN, ("packing",)),
    "embedding": (_EMBEDDING, ()),
    "transposed": (_TRANSPOSED, ("matrix",)),
    "gelu": (_GELU, ("matrix",)),
    "gelu_tanh": (_GELU_TANH, ("matrix",)),
    "relu": (_RELU, ()),
    "elementwise": (_ELEMENTWISE, ()),
    "apply": (_APPLY, ("workers", "constants")),
    "add": (_ADD, ("workers",)),
    "slices": (_SLICES, ()),
    "oriented": (_ORIENTED, ()),
    "finish": (_FINISH, ("constants",)),
    "linear": (_LINEAR, ("workers", "constants", "matrix", "finish")),
    "contract": (_CONTRACT, ("workers", "matrix", "finish")),
    "layer_norm": (_LAYER_NORM, ("workers", "matrix")),
    "masked": (_MASKED, ()),
    "attention": (_ATTENTION, ("workers", "constants", "matrix", "packing", "masked")),
    "softmax": (_SOFTMAX, ("constants",)),
    "padded_attention": (_PADDED_ATTENTION, ("softmax", "masked")),
    "scaled_dot_product": (_SDPA, ("softmax", "masked")),
    "plain_layer_norm": (_PLAIN_LAYER_NORM, ()),
}

MODULES = ("ctypes", "functools", "json", "math", "os", "queue", "sys", "threading", "zipfile")


def select(used: Iterable[str]) -> list[str]:
    """The texts of the helpers `used` and of all that they call, in order."""
    wanted: set[str] = set()
    pending = list(used)
    while pending:
        name = pending.pop()
        if name not in wanted:
            wanted.add(name)
            pending.extend(HELPERS[name][1])
    return [text for name, (text, _) in HELPERS.items() if name in wanted]


def definitions() -> set[str]:
    """Every name that the prelude or a helper defines."""
    texts = "\n".join([PRELUDE, *(text for text, _ in HELPERS.values())])
    return set(re.findall(r"^(?:def |class )?(\w+)(?:\(| =|:$)", texts, re.MULTILINE))


def imports(text: str) -> str:
    """The import lines of the standard modules that a program's text uses."""
    return "".join(f"import {module}\n" for module in MODULES if f"{module}." in text)
