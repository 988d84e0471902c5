"""
Quantities with their units, as hardware files write them: "64 KiB", "500 MHz", "25.6 GB/s".

Every quantity is exact: a text is a rational number of its base unit (bytes, hertz, seconds).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

_NUMBER = re.compile(r"(\d{1,18}(?:\.\d{1,18})?(?:[eE][+-]?\d{1,2})?)\s*(\S.*)?")

_SIZE = re.compile(r"([1-9]\d{0,3})x([1-9]\d{0,3})")


@dataclass(frozen=True)
class Unit:
    """
    A kind of quantity: what it is called, an example, and the size of each of its units.

    `scales` are in the order in which `render` tries them, the largest first.
    """

    what: str
    example: str
    scales: tuple[tuple[str, Fraction], ...]

    def parse(self, text: str) -> Fraction:
        """The value in the base unit; `ValueError` says what was expected."""
        match = _NUMBER.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"expected {self.what} such as {self.example!r}")
        number, unit = Fraction(match[1]), (match[2] or "")
        for name, scale in self.scales:
            if name == unit:
                return number * scale
        units = ", ".join(name for name, _ in self.scales)
        found = f"the unit {unit!r} is unknown" if unit else "the unit is missing"
        raise ValueError(f"expected {self.what} such as {self.example!r}; {found} (one of {units})")

    def render(self, value: int | Fraction) -> str:
        """A short text that `parse` reads back as exactly `value`, a multiple of the last unit."""
        for name, scale in self.scales:
            number = Fraction(value) / scale
            if number >= 1 and (number * 1000).denominator == 1:
                return f"{_decimal(number)} {name}"
        name, scale = self.scales[-1]
        return f"{_decimal(Fraction(value) / scale)} {name}"


@dataclass(frozen=True)
class Switch(Unit):
    """What is on or off: 1 or 0, written as YAML's booleans."""

    def parse(self, text: str) -> Fraction:
        """1 or 0; `ValueError` says what was expected."""
        if text not in ("true", "false"):
            raise ValueError("expected true or false")
        return Fraction(text == "true")

    def render(self, value: int | Fraction) -> str:
        """The text that `parse` reads back."""
        return "true" if value else "false"


@dataclass(frozen=True)
class Blocks(Unit):
    """Sizes of blocks, (rows, columns) each: `1x1, 2x2`."""

    def parse_sizes(self, text: str) -> tuple[tuple[int, int], ...]:
        """The sizes in the order of the text; `ValueError` says what was expected."""
        words = [word.strip() for word in text.split(",")]
        found = [_SIZE.fullmatch(word) for word in words]
        if not all(found) or len(set(words)) < len(words):
            raise ValueError(f"expected {self.what} such as {self.example!r}, each once")
        return tuple((int(match[1]), int(match[2])) for match in found if match)

    def render_sizes(self, sizes: Sequence[tuple[int, int]]) -> str:
        """The text that `parse_sizes` reads back."""
        return ", ".join(f"{rows}x{columns}" for rows, columns in sizes)


def _decimal(number: Fraction) -> str:
    whole, thousandths = divmod(int(number * 1000), 1000)
    return f"{whole}.{thousandths:03}".rstrip("0").rstrip(".")


def _decimals(base: str, letters: str) -> tuple[tuple[str, Fraction], ...]:
    """Decimal multiples of `base`: `letters` are the prefixes wanted, such as "GMk"."""
    powers = {"T": 12, "G": 9, "M": 6, "k": 3, "": 0, "m": -3, "u": -6, "n": -9}
    return tuple((p + base, Fraction(10) ** powers[p]) for p in [*letters, ""])


_BINARY = tuple((f"{p}iB", Fraction(1024) ** n) for n, p in ((3, "G"), (2, "M"), (1, "K")))

BYTES = Unit("a size in bytes", "64 KiB", (*_BINARY, *_decimals("B", "GMk")))
FREQUENCY = Unit("a frequency", "500 MHz", _decimals("Hz", "GMk"))
BANDWIDTH = Unit("a bandwidth", "25.6 GB/s", _decimals("B/s", "TGMk"))
OPERATIONS = Unit("a rate of operations", "15 Gop/s", _decimals("op/s", "TGMk"))
BYTES_PER_CYCLE = Unit("bytes a cycle", "128 B/cycle", (("B/cycle", Fraction(1)),))


def _small(
    base: str, per: str, scales: tuple[tuple[str, int], ...]
) -> tuple[tuple[str, Fraction], ...]:
    """Scales of a unit with prefixes, each `base` followed by `per`."""
    return tuple((f"{prefix}{base}{per}", Fraction(scale)) for prefix, scale in scales)


_ATTO = tuple((p, 10 ** (18 - 3 * n)) for n, p in enumerate(("", "m", "u", "n", "p", "f", "a")))
_NANO = tuple((p, 10 ** (9 - 3 * n)) for n, p in enumerate(("", "m", "u", "n")))
_SQUARES = (("m", 10**12), ("u", 10**6), ("n", 1))

# Base units: attojoule, nanowatt, square nanometre.
ENERGY = Unit("an energy", "0.25 pJ", _small("J", "", _ATTO))
ENERGY_PER_BYTE = Unit("an energy a byte", "0.31 pJ/B", _small("J", "/B", _ATTO))
POWER = Unit("a power", "12 mW", _small("W", "", _NANO))
POWER_PER_MIB = Unit("a power a MiB", "248 mW/MiB", _small("W", "/MiB", _NANO))
AREA = Unit("an area", "0.3 mm2", _small("m2", "", _SQUARES))
AREA_PER_MIB = Unit("an area a MiB", "0.3 mm2/MiB", _small("m2", "/MiB", _SQUARES))
WIDTH = Unit("a width in bits", "16 bit", (("bit", Fraction(1)),))
TIME = Unit(
    "a time",
    "100 ns",
    (
        ("s", Fraction(1)),
        ("ms", Fraction(1, 10**3)),
        ("us", Fraction(1, 10**6)),
        ("ns", Fraction(1, 10**9)),
        ("ps", Fraction(1, 10**12)),
    ),
)
CYCLES = Unit("a number of cycles", "50 cycles", (("cycles", Fraction(1)),))
SWITCH = Switch("a switch", "true", ())
BLOCKS = Blocks("sizes of blocks", "1x1, 2x2", ())
