# pyright: basic
"""The rows that are computed of a padded batch."""

import numpy as np


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


def token(x, packing, position):
    """(tokens, ...) to (batch, ...): the row at one position of each sequence, 0 without one."""
    rows = np.full(packing.mask.size, -1)
    rows[packing.positions] = np.arange(packing.tokens)
    rows = rows.reshape(packing.mask.shape)[:, position]
    out = np.zeros((len(rows), *x.shape[1:]), x.dtype)
    out[rows >= 0] = x[rows[rows >= 0]]
    return out


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
