"""The matrix buffers of a program, and what lives in them while its statements are written."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from xdsl.ir import SSAValue


@dataclass(frozen=True)
class Buffer:
    """A matrix buffer of the program."""

    name: str
    rows: int

    @property
    def text(self) -> str:
        """The expression that gives the buffer."""
        return f'matrix("{self.name}", {self.rows}, tokens)'


def _letters(number: int) -> str:
    """a to z, aa, ab ... for 1, 2 ..."""
    letters = ""
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("a") + digit) + letters
    return letters


class Buffers:
    """
    The buffers of a program and what lives in them.

    A buffer is free when nothing lives in it and it is not pinned. Of the free ones with the rows
    wanted the first that was made is taken; `_free` finds it, and may hold some that are free no more.
    """

    def __init__(self) -> None:
        self._made: dict[int, list[Buffer]] = defaultdict(list)
        self._free: dict[int, list[int]] = defaultdict(list)
        self._place: dict[Buffer, int] = {}
        self._users: dict[Buffer, set[SSAValue]] = {}
        self._pinned: set[Buffer] = set()

    def take(self, rows: int) -> Buffer:
        """A buffer in which nothing lives; it stays free until something does."""
        made, free = self._made[rows], self._free[rows]
        while free:
            buffer = made[free[0]]
            if not self._users[buffer] and buffer not in self._pinned:
                return buffer
            heapq.heappop(free)
        buffer = Buffer(_letters(len(made) + 1), rows)
        self._place[buffer] = len(made)
        made.append(buffer)
        self._users[buffer] = set()
        self._offer(buffer)
        return buffer

    def _offer(self, buffer: Buffer) -> None:
        if not self._users[buffer]:
            heapq.heappush(self._free[buffer.rows], self._place[buffer])

    def hold(self, buffer: Buffer, value: SSAValue) -> None:
        """Let a value live in a buffer."""
        self._users[buffer].add(value)

    def release(self, buffer: Buffer, value: SSAValue) -> None:
        """A value that is read no more."""
        self._users[buffer].discard(value)
        self._offer(buffer)

    def others(self, buffer: Buffer, values: Collection[SSAValue]) -> bool:
        """Whether anything but some values lives in a buffer."""
        return not self._users[buffer] <= set(values)

    def pin(self, buffer: Buffer) -> None:
        """Keep a buffer from being taken or overwritten."""
        self._pinned.add(buffer)

    def is_pinned(self, buffer: Buffer | None) -> bool:
        """Whether a buffer is kept."""
        return buffer in self._pinned

    def empty(self, buffer: Buffer) -> None:
        """Whatever lived in a buffer is no more; it is pinned no more."""
        self._users[buffer] = set()
        self._pinned.discard(buffer)
        self._offer(buffer)

    def keep_only(self, values: Collection[SSAValue]) -> None:
        """Nothing lives anywhere but some values."""
        for buffer, users in self._users.items():
            users.intersection_update(values)
            self._offer(buffer)
