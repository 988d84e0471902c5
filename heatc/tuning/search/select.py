"""The wish of `--goal`, for which one point of the front is chosen: `edp>=5.7x`, `proxy<=0.05`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from heatc.errors import InfeasibleError, UsageError

Figure = Literal["edp", "proxy"]

EXAMPLES = '"edp>=5.7x" (times less energy x latency than the dense model), "proxy<=0.05"'
_WISH = re.compile(r"\s*(?:(edp)\s*>=\s*(\S+?)x|(proxy)\s*<=\s*(\S+?))\s*")


@dataclass(frozen=True)
class Wish:
    """`edp`: at least so many times less than dense, nearest then; `proxy`: at most, cheapest."""

    figure: Figure
    bound: float

    def __str__(self) -> str:
        return f"edp>={self.bound:g}x" if self.figure == "edp" else f"proxy<={self.bound:g}"

    def choose(self, proxies: Sequence[float], products: Sequence[float], dense: float) -> int:
        """
        The number of the point that fulfils it, of points by ascending energy x latency.

        Raises `InfeasibleError` where none does.
        """
        if self.figure == "edp":
            good = [k for k, product in enumerate(products) if dense / product >= self.bound]
            best = f"edp>={math.floor(1000 * dense / min(products)) / 1000:g}x"
            key = proxies
        else:
            good = [k for k, proxy in enumerate(proxies) if proxy <= self.bound]
            best, key = f"proxy<={min(proxies):g}", products
        if not good:
            raise InfeasibleError(f"no plan reaches {self}", notes=[f"the farthest is {best}"])
        return min(good, key=lambda k: key[k])


def parse_wish(text: str) -> Wish:
    """The wish of `--goal`; raises `UsageError` for anything that is none."""
    match = _WISH.fullmatch(text)
    figure, number = (match[1] or match[3], match[2] or match[4]) if match else ("", "")
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    if not math.isfinite(bound) or bound <= 0:
        raise UsageError(
            f"malformed goal {text[:80]!r}", place="--goal", notes=[f"goals: {EXAMPLES}"]
        )
    return Wish(cast(Figure, figure), bound)
