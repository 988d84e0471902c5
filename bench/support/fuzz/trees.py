"""Changes of JSON values: what stays a tree, with something in it that no one expects."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

INTEGERS = (
    *(0, 1, -1, 2, 3, 7, 16, 64, 127, 128, 255, 256, 4095, 32767, 65535, 10_000_000),
    *(1 << 30, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 40, 1 << 53, 1 << 62),
    *((1 << 63) - 1, 1 << 63, 1 << 64, 10**30, -(1 << 31), -(1 << 63), 10**400),
)
FLOATS = (0.0, -0.0, 0.5, 1.5, -1.0, 1e-320, 1e308, math.inf, -math.inf, math.nan)
TEXTS = (
    *("", "a", " ", "NaN", "null", "0", "-1", "1e999", "é", "\u0000", "\ud800", "\U0001f600"),
    *("../../x", "/etc/passwd", ".", "..", "/dev/null", "a/b", "a\nb", "x" * 5000, "%s", "{}"),
)
OTHERS = (None, True, False, [], {}, [[]], [None], {"": None}, [0] * 1000)

Paths = Sequence[Any]


class Twice(dict[str, Any]):
    """An object that is written with one of its keys standing twice."""

    def items(self) -> Any:
        """What the writer of JSON goes through."""
        pairs = list(super().items())
        return pairs + pairs[:1]


def change(rng: Random, tree: Any, most: int = 3) -> Any:
    """A tree with one to `most` changes; the given one stays as it is."""
    for _ in range(min(most, 1 + int(rng.expovariate(1.2)))):
        tree = _change_at(rng, tree, tree)
    return tree


def numbers(rng: Random, tree: Any, share: float = 0.1) -> Any:
    """A tree of the same form in which about `share` of the numbers are others that are likely."""
    if isinstance(tree, dict):
        return {key: numbers(rng, child, share) for key, child in tree.items()}
    if isinstance(tree, list):
        return [numbers(rng, child, share) for child in tree]
    if isinstance(tree, bool) or not isinstance(tree, int | float) or rng.random() > share:
        return tree
    if isinstance(tree, float):
        return rng.choice((tree / 2, -tree, 0.0, 1.0, 0.999, -0.5, 2.0))
    return rng.choice((tree + 1, max(tree - 1, 0), 2 * tree, tree // 2, rng.choice(INTEGERS[:10])))


def write(rng: Random, tree: Any) -> bytes:
    """The text of a tree, now and then in a form that JSON does not have, or nested very deep."""
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5)
    form = rng.randrange(60)
    if form == 0:
        text = "[" * 100_000 + text
    elif form == 1:
        text = '{"a":' * 3000 + text + "}" * 3000
    elif form == 2:
        text = "\ufeff" + text
    elif form == 3:
        text = text.replace(",", ",,", 1)
    elif form == 4:
        text = text.replace('"', "'", 2)
    elif form == 5:
        text = text.replace("0", "9" * 5000, 1)
    return text.encode(errors="surrogatepass")


def hostile(rng: Random) -> Any:
    """A value that stands for nothing."""
    pool: Sequence[Any] = rng.choice((INTEGERS, INTEGERS, FLOATS, TEXTS, OTHERS))
    return rng.choice(pool)


def near(rng: Random, value: float) -> Any:
    """A number near a number, or one that is much larger."""
    try:
        return rng.choice(
            (value + 1, value - 1, 2 * value, -value, value // 2, value + 0.5, value * 10**6)
        )
    except (OverflowError, ValueError):
        return 0


def _change_at(rng: Random, tree: Any, whole: Any) -> Any:
    """Goes down by chance and changes what it comes to; containers on the way are copied."""
    if isinstance(tree, dict | list) and tree and rng.random() < 0.9:
        keys: Sequence[Any] = list(tree) if isinstance(tree, dict) else range(len(tree))
        key = rng.choice(keys)
        copy = tree.copy()
        copy[key] = _change_at(rng, tree[key], whole)
        return copy
    return _changed(rng, tree, whole)


def _changed(rng: Random, value: Any, whole: Any) -> Any:
    chance = rng.random()
    if chance < 0.15:
        return hostile(rng)
    if chance < 0.25:
        return _part(rng, whole)
    if isinstance(value, bool) or value is None:
        return rng.choice((not value, 1, "true", hostile(rng)))
    if isinstance(value, int | float):
        return rng.choice((near, _any_number, _as_text))(rng, value)
    if isinstance(value, str):
        return _text(rng, value)
    if isinstance(value, list):
        return _list(rng, value)
    if isinstance(value, dict):
        return _object(rng, value)
    return value


def _any_number(rng: Random, _value: float) -> Any:
    return rng.choice((*INTEGERS, *FLOATS))


def _as_text(_rng: Random, value: float) -> Any:
    return str(value)


def _part(rng: Random, tree: Any) -> Any:
    """Some part of a tree."""
    while isinstance(tree, dict | list) and tree and rng.random() < 0.85:
        tree = rng.choice(list(tree.values()) if isinstance(tree, dict) else tree)
    return tree


def _text(rng: Random, value: str) -> str:
    at = rng.randint(0, len(value))
    return rng.choice(
        (
            rng.choice(TEXTS),
            value + rng.choice(TEXTS),
            value[:at],
            value[:at] + chr(rng.choice((0, 10, 32, 46, 47, 48, 57, 65, 955))) + value[at:],
            value.upper(),
            value * 2,
        )
    )


def _list(rng: Random, value: list[Any]) -> list[Any]:
    new = list(value)
    at = rng.randint(0, max(len(new) - 1, 0))
    edits: tuple[Callable[[], Any], ...] = (
        lambda: new.append(hostile(rng)),
        lambda: new.extend(new[:1] * rng.choice((1, 2, 100))),
        lambda: new.reverse(),
        lambda: new.insert(at, [*new]),
        lambda: new[at : at + 1].clear(),
    )
    rng.choice(edits)()
    if new == value and new:
        del new[at]
    return new


def _object(rng: Random, value: dict[str, Any]) -> dict[str, Any]:
    new = dict(value)
    keys = list(new)
    if not keys:
        return {rng.choice(TEXTS): hostile(rng)}
    key, other = rng.choice(keys), rng.choice(keys)
    edit = rng.randrange(6)
    if edit == 0:
        del new[key]
    elif edit == 1:
        new[rng.choice((key + "_", key[:-1], *TEXTS))] = new.pop(key)
    elif edit == 2:
        new[rng.choice(TEXTS)] = hostile(rng)
    elif edit == 3:
        new[key], new[other] = new[other], new[key]
    elif edit == 4:
        return Twice(new)
    else:
        new[key] = hostile(rng)
    return new
