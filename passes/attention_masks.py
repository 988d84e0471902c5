"""
What the masks of an attention say on the machine: which scores are visible, and a bias.

`insert-hdp` asks. Truth values that fill with `HIDDEN` or less hide; so do numbers of `HIDDEN` or less
that are added. All other numbers are a bias, in float64 and divided by the attention's scale, since
the machine adds it before it scales.

Masks that no input decides are computed here, each once, and become weights of one value for every
axis along which nothing changes. All others stay ops of the host. An expansion of one is taken off,
so that no axis is multiplied in memory.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import TensorType, f32, i1
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, nn
from heatc.dialects.attn_masks import mask_type
from heatc.dialects.einsum import WeightOp
from heatc.passes.analysis.constants import evaluate
from heatc.passes.analysis.masks import is_bias
from heatc.passes.analysis.ports import mark_hiding
from heatc.passes.least_hidden import FAR, HIDDEN, SWALLOWED, least_hidden
from heatc.passes.rewriting import at, insert_before
from heatc.weights import WeightStore

Array = NDArray[Any]


class Rest(NamedTuple):
    """What is done to scores behind what is visible: biases are added, and others are hidden."""

    biases: tuple[SSAValue, ...]
    visible: SSAValue
    keyless: str


class ScoreMasks(NamedTuple):
    """
    What the masks of one attention say.

    Each of `visible` (i1, a score is visible where all are) and `biases` (in units of scores) is
    (B, heads, S, S) with axes of extent 1. `keyless` is that of `attn.hide_scores`. `rest` is there
    where different numbers hide (`heatc.passes.least_hidden`).
    """

    visible: tuple[SSAValue, ...] = ()
    biases: tuple[SSAValue, ...] = ()
    keyless: str = "zero"
    rest: Rest | None = None


class MaskReader:
    """Reads the masks of attentions; what several of them have is made once."""

    def __init__(self, store: Callable[[], WeightStore]):
        self._store = store
        self._arrays: dict[tuple[Operation, str, tuple[int, ...], int], SSAValue] = {}
        self._values: dict[SSAValue, Array | None] = {}
        self._computed: dict[tuple[Any, ...], ScoreMasks] = {}

    def read(self, op: attn.SdpaOp) -> ScoreMasks:
        """The masks of an attention; `PassFailedException` for those that are neither of both."""
        if not op.masks:
            return ScoreMasks()
        for mask, fill in zip(op.masks, op.fills):
            _mark_given(mask)
            if nn.element_of(mask) == i1 and not fill <= HIDDEN:
                raise PassFailedException(
                    f"{at(op)}hdp attention takes masks of truth values that hide, with a fill of "
                    f"{HIDDEN:g} or less; this one makes scores {fill:g}: use --target numpy"
                )
        key = (*op.masks, op.fills, op.keyless, op.scale, _packs(op))
        if key not in self._computed:
            self._computed[key] = self._read(op)
        return self._computed[key]

    def _read(self, op: attn.SdpaOp) -> ScoreMasks:
        """Masks that are known together, and each of the others."""
        arrays = [(self._constant(mask), mask, fill) for mask, fill in zip(op.masks, op.fills)]
        known = [(array, fill) for array, _, fill in arrays if array is not None]
        others = [(mask, fill) for array, mask, fill in arrays if array is None]
        if (others or _has_blind_row(op, known)) and self._mixes(op):
            if not _packs(op):
                return self._least(op)
            return self._read_apart(op, known, others)._replace(keyless="refuse")
        return self._read_apart(op, known, others)

    def _read_apart(
        self,
        op: attn.SdpaOp,
        known: Sequence[tuple[Array, float]],
        others: Sequence[tuple[SSAValue, float]],
    ) -> ScoreMasks:
        found = self._of_inputs(op, others)
        return self._of_constants(op, known, found) if known else found

    def _mixes(self, op: attn.SdpaOp) -> bool:
        """
        Whether scores may be hidden by different numbers: in a row that sees no key, the highest of
        them decides. Hidden more than once, a score is lower than one that is hidden once. Of a row
        of weak fills a bias decides.
        """
        hiding = self._hiding(op)
        if not hiding or all(levels == frozenset((-math.inf,)) for _, levels in hiding):
            return False
        truths = all(truth for truth, _ in hiding)
        first = hiding[0][1]
        alike = first is not None and all(levels == first for _, levels in hiding)
        if not alike or len(first or ()) > 1 or (len(hiding) > 1 and not truths):
            return True
        weak = any(_is_weak_fill(mask, fill) for mask, fill in zip(op.masks, op.fills))
        return len(hiding) < len(op.masks) and weak

    def _hiding(self, op: attn.SdpaOp) -> list[tuple[bool, frozenset[float] | None]]:
        """Of each mask that hides, whether it is of truth values, and the numbers that hide."""
        found: list[tuple[bool, frozenset[float] | None]] = []
        for mask, fill in zip(op.masks, op.fills):
            truth = nn.element_of(mask) == i1
            levels = frozenset((fill,)) if truth else self._levels(mask)
            if levels is None or levels:
                found.append((truth, levels))
        return found

    def _levels(self, mask: SSAValue) -> frozenset[float] | None:
        """The numbers by which a mask that is added hides, None where they are not known."""
        if self._is_bias(mask):
            return frozenset()
        values = self._possible(mask)
        return None if values is None else frozenset(float(x) for x in values if x <= HIDDEN)

    def _is_bias(self, mask: SSAValue) -> bool:
        """Whether numbers that are computed hide nothing: they are as scores are."""
        return self._constant(mask) is None and is_bias(mask, self._is_small)

    def _is_small(self, weight: WeightOp) -> bool:
        array = self._constant(weight.result)
        return array is not None and bool((np.abs(array) < -HIDDEN).all())

    def _constant(self, mask: SSAValue) -> Array | None:
        """The values of a mask that no input decides."""
        if mask not in self._values:
            try:
                self._values[mask] = np.asarray(evaluate(mask, _Lazily(self._store)))
            except KeyError:
                self._values[mask] = None
        return self._values[mask]

    # -- masks that are known ----------------------------------------------------------------

    def _of_constants(
        self, op: attn.SdpaOp, masks: Sequence[tuple[Array, float]], others: ScoreMasks
    ) -> ScoreMasks:
        visible, bias, lowest = _combined(op, masks)
        keyless: Array = ~np.any(visible, axis=-1, keepdims=True)
        mode = _keyless(op, lowest)
        if others.visible:
            # What the others hide decides with these whether a row sees a key.
            mode = mode if mode == others.keyless or lowest == 0.0 else "refuse"
            mode = others.keyless if lowest == 0.0 else mode
        elif mode == "all" and keyless.any():
            visible, bias = _shifted(visible, bias, keyless, [array for array, _ in masks])
            mode = "zero"
        if mode == "refuse" and keyless.any() and not _packs(op):
            raise PassFailedException(
                f"{at(op)}a query sees no key, which gives NaN: use --target numpy for this model"
            )
        shown = () if visible.all() else (self._weight(op, "visible", visible, i1),)
        scaled = (bias / op.scale.value.data).astype(np.float32)
        added = (self._weight(op, "bias", scaled, f32),) if scaled.any() else ()
        return ScoreMasks((*shown, *others.visible), (*added, *others.biases), mode)

    def _weight(self, op: attn.SdpaOp, kind: str, values: Array, element: Attribute) -> SSAValue:
        """A constant of the program, once for equal values."""
        array = np.ascontiguousarray(_narrowed(values))
        function = _function(op)
        key = (function, kind, array.shape, zlib.crc32(array.view(np.uint8).data))
        if key not in self._arrays:
            store, shape = self._store(), "x".join(map(str, array.shape))
            name, number = f"attention.{kind}:{shape}", 1
            while name in store:
                name, number = f"attention.{kind}:{shape}.{number}", number + 1
            store.add(name, array)
            weight = WeightOp([name], TensorType(element, array.shape))
            first = function.body.block.first_op
            assert first is not None
            weight.location = op.location
            insert_before(first, weight)
            weight.result.name_hint = kind
            self._arrays[key] = weight.result
        return self._arrays[key]

    # -- scores that different numbers hide --------------------------------------------------

    def _least(self, op: attn.SdpaOp) -> ScoreMasks:
        """What rows see, and the least hidden scores of those that see no key."""
        masks = [
            pair for mask, fill in zip(op.masks, op.fills) for pair in self._split(op, mask, fill)
        ]
        weak = [i for i, (mask, fill) in enumerate(masks) if _is_weak_fill(mask, fill)]
        biases = [i for i, (mask, _) in enumerate(masks) if self._hides_nothing(mask)]
        # A fill takes the place of a score and of what was added to it, not of what comes behind.
        before = [i for i in biases if not weak or i < weak[0]]
        behind = [i for i in biases if weak and i > weak[-1]]
        if weak and not (self._swallows(op) and len(before) + len(behind) == len(biases)):
            raise PassFailedException(
                f"{at(op)}masks of this attention fill hidden scores with {masks[weak[0]][1]:g} and add "
                "numbers that are not known to be far lower: a query that sees no key would have "
                "scores of both kinds; fill with -1e9, or use --target numpy"
            )
        hiding = [pair for i, pair in enumerate(masks) if i not in biases]
        found = least_hidden(op, hiding, bool(weak))
        levels = [found.bias] if self._has_levels(found.total) else []
        keyless = "refuse" if op.keyless == "nan" else "zero"
        late = (*(masks[i][0] for i in behind), *levels)
        rest = Rest(tuple(self._scaled(op, bias) for bias in late), found.least, keyless)
        early = tuple(self._scaled(op, masks[i][0]) for i in before)
        return ScoreMasks((found.visible,), early, "mean", rest)

    def _swallows(self, op: attn.SdpaOp) -> bool:
        """Whether all that masks add to hide a score leaves nothing of it."""
        added = [levels for truth, levels in self._hiding(op) if not truth]
        return all(levels is not None and max(levels) <= SWALLOWED for levels in added)

    def _split(self, op: attn.SdpaOp, mask: SSAValue, fill: float) -> list[tuple[SSAValue, float]]:
        """A mask with four axes; a known one as weights, minus infinity as truth values."""
        array = self._constant(mask)
        if array is None:
            return [(_spread(op, mask), fill)]
        array = np.broadcast_to(array, np.broadcast_shapes((1, 1, 1, _length(op)), array.shape))
        if array.dtype == np.bool_:
            return [(self._weight(op, "visible", array, i1), fill)]
        _expect_numbers(op, array)
        finite = array > -math.inf
        parts = [(self._weight(op, "mask", np.where(finite, array, np.float32(0.0)), f32), 0.0)]
        if not finite.all():
            parts.append((self._weight(op, "visible", finite, i1), -math.inf))
        return parts

    def _hides_nothing(self, mask: SSAValue) -> bool:
        return nn.element_of(mask) != i1 and self._levels(mask) == frozenset()

    def _has_levels(self, total: SSAValue) -> bool:
        """Whether what masks make of a score may be another number than 0 where it is looked at."""
        values = self._possible(total)
        if values is None:
            return True
        hidden = np.sort(values[values <= FAR])
        return bool(values[values > FAR].any() or (np.diff(hidden) < -FAR).any())

    # -- masks that inputs decide ------------------------------------------------------------

    def _of_inputs(self, op: attn.SdpaOp, masks: Sequence[tuple[SSAValue, float]]) -> ScoreMasks:
        """Comparisons and choices for the host."""
        visible: list[SSAValue] = []
        biases: list[SSAValue] = []
        modes: set[str] = set()
        for mask, fill in masks:
            value = _spread(op, mask)
            if nn.element_of(mask) == i1:
                visible.append(value)
                modes.add(_keyless(op, fill))
                continue
            if self._is_bias(mask):
                biases.append(self._scaled(op, value))
                continue
            values = self._possible(mask)
            modes.add("refuse" if values is None else _keyless(op, float(values.min())))
            visible.append(self._visible(op, value))
            shown = None if values is None else values[values > HIDDEN]
            if shown is None or shown.any():
                biases.append(self._bias(op, value, shown))
        mode = modes.pop() if len(modes) == 1 else "refuse" if modes else "zero"
        return ScoreMasks(tuple(visible), tuple(biases), mode)

    def _visible(self, op: attn.SdpaOp, mask: SSAValue, limit: float = HIDDEN) -> SSAValue:
        """Where numbers are above a limit, as those that do not hide are."""
        number = _number(op, limit, nn.element_of(mask))
        visible = nn.CompareOp(mask, number, "gt", TensorType(i1, nn.shape_of(mask)))
        insert_before(op, visible)
        return visible.result

    def _bias(self, op: attn.SdpaOp, mask: SSAValue, shown: Array | None) -> SSAValue:
        """
        What numbers add where they do not hide; their test is the host's, the other the attention's.

        A test near the numbers that may be `shown` gives what is added a bound, and with it fine codes.
        """
        limit = HIDDEN if shown is None else max(HIDDEN, float(shown.min()) - 1.0)
        visible = self._visible(op, mask, limit)
        element, shape = nn.element_of(mask), nn.shape_of(mask)
        none = _number(op, 0.0, element)
        bias = nn.WhereOp(visible, mask, none, TensorType(element, shape))
        insert_before(op, bias)
        return self._scaled(op, bias.result)

    def _scaled(self, op: attn.SdpaOp, bias: SSAValue) -> SSAValue:
        """A bias in units of scores."""
        scale = _number(op, 1.0 / op.scale.value.data, nn.element_of(bias))
        scaled = nn.MulOp(bias, scale, bias.type)
        insert_before(op, scaled)
        return scaled.result

    def _possible(self, value: SSAValue) -> Array | None:
        """All numbers that elements of a mask can be, if that is known and they are few."""
        if nn.element_of(value) == i1:
            return np.array([0.0, 1.0])
        found, owner = self._constant(value), value.owner
        if found is None and isinstance(owner, _MOVES):
            found = self._possible(owner.x)
        elif found is None and isinstance(owner, nn.FullOp):
            found = np.array([owner.value.value.data])
        elif found is None and isinstance(owner, nn.WhereOp):
            found = self._joined(np.append, owner.lhs, owner.rhs)
        elif found is None and isinstance(owner, nn.AddOp | nn.SubOp | nn.MulOp):
            found = self._joined(_ARITHMETIC[type(owner)], owner.lhs, owner.rhs)
        if found is None:
            return None
        # Numbers that differ by less than float32 holds are one: -1e9 + 1 is -1e9.
        rounded = found.astype(np.float32) if nn.element_of(value) == f32 else found
        values = np.unique(rounded.astype(np.float64))
        return values if 0 < len(values) <= _MOST_VALUES else None

    def _joined(
        self, function: Callable[[Array, Array], Array], lhs: SSAValue, rhs: SSAValue
    ) -> Array | None:
        left, right = self._possible(lhs), self._possible(rhs)
        if left is None or right is None:
            return None
        return function(left[:, None], right)


_MOST_VALUES = 1 << 10
_MOVES = (nn.ReshapeOp, nn.ExpandOp, nn.SliceOp, nn.TransposeOp, nn.CastOp)


def _times(a: Array, b: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.where((a == 0.0) | (b == 0.0), 0.0, a * b)


_ARITHMETIC: dict[type[Operation], Callable[[Array, Array], Array]] = {
    nn.AddOp: np.add,
    nn.SubOp: np.subtract,
    nn.MulOp: _times,
}


class _Lazily(WeightStore):
    """The weights of the context, which are asked for when a mask reads one."""

    def __init__(self, store: Callable[[], WeightStore]):
        super().__init__({})
        self._given = store

    def __getitem__(self, name: str) -> Any:
        return self._given()[name]


def _packs(op: attn.SdpaOp) -> bool:
    """Whether padding was taken out of an attention, so that its rows may see fewer keys."""
    packing = None if op.packing is None else op.packing.owner
    return isinstance(packing, attn.PackingOp) and packing.mask is not None


def _function(op: Operation) -> FuncOp:
    while not isinstance(op, FuncOp):
        parent = op.parent_op()
        assert parent is not None
        op = parent
    return op


def _keyless(op: attn.SdpaOp, lowest: float) -> str:
    """What a row without a key gives, if `lowest` is the least that stands for a hidden score."""
    if lowest == -math.inf:
        return "refuse" if op.keyless == "nan" else "zero"
    if _packs(op):
        # The model looks at padding there, which is gone.
        return "refuse"
    truths = {nn.element_of(mask) == i1 for mask in op.masks}
    if lowest <= SWALLOWED or truths == {True}:
        return "mean"
    # What is added to a fill that it does not vanish beside decides, and no score does.
    return "refuse" if True in truths else "all"


def _mark_given(mask: SSAValue) -> None:
    """Let an input that is nothing but a mask hold numbers that hide, whatever its range."""
    while isinstance(mask.owner, _MOVES):
        mask = mask.owner.x
    if isinstance(mask, BlockArgument) and nn.element_of(mask) != i1 and _is_mask_alone(mask):
        function = mask.owner.parent_op()
        assert isinstance(function, FuncOp)
        mark_hiding(function, mask, HIDDEN)


def _is_mask_alone(value: SSAValue) -> bool:
    """Whether nothing but attentions reads a value, as numbers that are added to scores."""
    return all(
        (isinstance(use.operation, attn.SdpaOp) and use.index > 3)
        or (isinstance(use.operation, _MOVES) and _is_mask_alone(use.operation.results[0]))
        for use in value.uses
    )


def _is_weak_fill(mask: SSAValue, fill: float) -> bool:
    """Whether a mask fills hidden scores with a number that another one beside it is not lost in."""
    return nn.element_of(mask) == i1 and fill > SWALLOWED


def _has_blind_row(op: attn.SdpaOp, masks: Sequence[tuple[Array, float]]) -> bool:
    """Whether masks that are known leave a row without a key."""
    return bool(masks) and not bool(_combined(op, masks)[0].any(axis=-1).all())


def _length(op: attn.SdpaOp) -> int:
    return attn.packing_of(op.packing).length.data if op.packing is not None else 1


def _expect_numbers(op: attn.SdpaOp, mask: Array) -> None:
    if np.isnan(mask).any() or (mask == np.inf).any():
        raise PassFailedException(f"{at(op)}a mask that is added holds NaN or infinity")


def _combined(op: attn.SdpaOp, masks: Sequence[tuple[Array, float]]) -> tuple[Array, Array, float]:
    """Visible scores, the bias of these, and the least number that hides one; four axes each."""
    shape = np.broadcast_shapes((1, 1, 1, _length(op)), *(mask.shape for mask, _ in masks))
    visible, bias, lowest = np.ones(shape, np.bool_), np.zeros(shape), 0.0
    for mask, fill in masks:
        if mask.dtype == np.bool_:
            visible = visible & mask
            lowest = lowest if mask.all() else min(lowest, fill)
            continue
        _expect_numbers(op, mask)
        hides = mask <= HIDDEN
        visible, lowest = visible & ~hides, min(lowest, float(mask.min(where=hides, initial=0.0)))
        bias = bias + np.where(hides, 0.0, mask)
    return visible, np.where(visible, bias, 0.0), lowest


def _shifted(
    visible: Array, bias: Array, keyless: Array, masks: Sequence[Array]
) -> tuple[Array, Array]:
    """In rows that see no key the numbers that are added decide, however low they are."""
    total = np.zeros(visible.shape)
    for mask in masks:
        total = total + mask
    above = total - total.max(axis=-1, keepdims=True)
    seen = np.where(keyless, above > HIDDEN, visible)
    return seen, np.where(keyless & seen, above, bias)


def _narrowed(values: Array) -> Array:
    """One entry for each of the first three axes along which nothing changes."""
    for axis in range(3):
        first = values.take([0], axis=axis)
        if values.shape[axis] > 1 and (values == first).all():
            values = first
    return values


def _spread(op: attn.SdpaOp, mask: SSAValue) -> SSAValue:
    """A mask with four axes, without the expansions that only repeat it, and with all keys."""
    while isinstance(mask.owner, nn.ExpandOp):
        mask = mask.owner.x
    shape = mask_type(nn.element_of(mask), nn.shape_of(mask)).get_shape()
    if shape != nn.shape_of(mask):
        reshape = nn.ReshapeOp(mask, shape)
        insert_before(op, reshape)
        mask = reshape.result
    length = _length(op) if op.packing is not None else shape[-1]
    if shape[-1] != length:
        expand = nn.ExpandOp(mask, (*shape[:-1], length))
        insert_before(op, expand)
        mask = expand.result
    return mask


def _number(op: Operation, value: float, element: Attribute) -> SSAValue:
    full = nn.FullOp(value, TensorType(element, ()))
    insert_before(op, full)
    return full.result
