"""Hostile text: tokens of a text changed for others, lines moved, numbers that fit nowhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

TOKEN = re.compile(r"[A-Za-z_][\w.]*|%[\w#]+|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\s+|[^\w\s]")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")

NUMBERS = (
    *("0", "1", "-1", "2", "7", "63", "64", "255", "256", "65535", "10000000", "1073741824"),
    *("4294967296", "1099511627776", "9223372036854775807", "9223372036854775808", "-2147483649"),
    *("1" + "0" * 40, "9" * 5000, "0x10", "0b1", "1_000", "1e308", "1e999", "nan", "inf", "-inf"),
    *("0.5", "1.0", "-0.0", "1e-320", "٣", "½", "1.5.2", "--1", "+1", "007"),
)
WORDS = ("", "x", "halt", "%0", "None", "true", "é", "\0", "\u2028", "\x0b", "\r", "\t", "😀", "#")
PUNCTUATION = tuple("(){}[]<>:,;=\"'!?*#@/\\|&$ \n")


def change(rng: Random, text: str, most: int = 4) -> str:
    """One to `most` changes of a text."""
    for _ in range(min(most, 1 + int(rng.expovariate(1.0)))):
        text = rng.choice(_CHANGES)(rng, text)[: 1 << 20]
    return text


def number(rng: Random, text: str) -> str:
    """The text with one number changed."""
    found = list(NUMBER.finditer(text))
    if not found:
        return text + rng.choice(NUMBERS)
    match = rng.choice(found)
    return text[: match.start()] + other_number(rng, match[0]) + text[match.end() :]


def other_number(rng: Random, old: str) -> str:
    """A number near another one, or one that fits nowhere."""
    if rng.random() < 0.4:
        return rng.choice(NUMBERS)
    try:
        value = int(old)
    except ValueError:
        return rng.choice(("0.0", "1.0", f"-{old}", f"{old}e10", "1e-30"))
    return str(rng.choice((value + 1, value - 1, 2 * value, -value, 0, 1, value * 1000)))


def _token(rng: Random, text: str) -> str:
    """A token changed for another one of the same text."""
    found = [m for m in TOKEN.finditer(text) if not m[0].isspace()]
    if not found:
        return text
    one, other = rng.choice(found), rng.choice(found)
    return text[: one.start()] + other[0] + text[one.end() :]


def _alike(rng: Random, text: str) -> str:
    """A word changed for another word of the text, or punctuation for other punctuation."""
    found = [m for m in TOKEN.finditer(text) if not m[0].isspace()]
    if not found:
        return text
    one = rng.choice(found)
    like = [m for m in found if m[0][0].isalpha() == one[0][0].isalpha()]
    return text[: one.start()] + rng.choice(like)[0] + text[one.end() :]


def _drop(rng: Random, text: str) -> str:
    found = [m for m in TOKEN.finditer(text) if not m[0].isspace()]
    if not found:
        return text
    one = rng.choice(found)
    return text[: one.start()] + text[one.end() :]


def _add(rng: Random, text: str) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + rng.choice((*WORDS, *PUNCTUATION, *NUMBERS)) + text[at:]


def _line(rng: Random, text: str) -> str:
    rows = text.split("\n")
    at, to = rng.randrange(len(rows)), rng.randrange(len(rows))
    edit = rng.randrange(4)
    if edit == 0:
        del rows[at]
    elif edit == 1:
        rows.insert(to, rows[at])
    elif edit == 2:
        rows[at], rows[to] = rows[to], rows[at]
    else:
        rows = rows[:at]
    return "\n".join(rows)


def _ending(rng: Random, text: str) -> str:
    ending = rng.choice(("\r\n", "\r", "\x0b", "\x85", "\u2028", "\n\n"))
    return text.replace("\n", ending, rng.choice((1, -1)))


def _long(rng: Random, text: str) -> str:
    at = rng.randint(0, len(text))
    part = rng.choice((" ", "(", "[", "a", "9", '"', "\\", "<", "-", text[at : at + 20] or "x"))
    return text[:at] + part * rng.choice((100, 1000, 20_000)) + text[at:]


_CHANGES: tuple[Callable[[Random, str], str], ...] = (
    number,
    number,
    number,
    _token,
    _token,
    _alike,
    _alike,
    _drop,
    _add,
    _line,
    _line,
    _ending,
    _long,
)
