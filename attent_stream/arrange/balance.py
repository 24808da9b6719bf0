"""Balanced batches: a window's lessons, ordered so that every stretch of them has nearly the
window's mean features.

The order is greedy herding (Welling, "Herding dynamical weights to learn", ICML 2009; as an order
of training samples: Lu et al., "GraB: Finding provably better data permutations than random
reshuffling", NeurIPS 2022, algorithm 1). What lessons have in common then cancels out of the noise
of a batch's gradient, and more so out of an optimizer's momentum. Nothing is dropped or weighted.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attent_stream.arrange.arrangement import Arrangement, Selected
from attent_stream.arrange.cutting import apart, by_position, cuttable
from attent_stream.arrange.features import FEATURES
from attent_stream.arrange.panels import Panels
from attent_stream.base.gather import RankGroup, Steps, summed
from attent_stream.base.span import Clock
from attent_stream.window.choice import Window
from attent_stream.window.selection import by_lane

BLOCK = 1024  # samples ordered together: the work grows with its square, the gain hardly
CHAIN = 8  # blocks that are ordered one after the other; ranks share out the chains
SECTION = 32  # batches of a longer window over which blocks are spread
PANEL = 1 << 16  # samples whose features a rank holds for each of its panels, a kilobyte each
_AT_ONCE = 1 << 24  # numbers
_EXACT = 1 << 23  # float32 is exact up to twice this, and no product exceeds the largest square


@dataclass(frozen=True, kw_only=True)
class Balance(Arrangement):
    """Orders the lessons of every window but an epoch's first.

    Args:
        by: A name in ``features.FEATURES``.

    Raises:
        ValueError: An unknown name.
    """

    by: str = "tokens"
    reads: ClassVar[bool] = True
    foreseeable: ClassVar[bool] = True
    in_steps: ClassVar[bool] = True
    largest: ClassVar[int | None] = 1 << 23  # one rank alone holds a kilobyte of features a unit

    def __post_init__(self) -> None:
        FEATURES.get(self.by)

    @classmethod
    def parse(cls, value: Any) -> "Balance":
        """From a name in ``features.FEATURES``."""
        return cls(by=value)

    def check(self, batch: Any) -> None:
        """See ``Arrangement``."""
        FEATURES.get(self.by)(batch)

    def decide(self, window: Window, end: Clock, units: int) -> int:
        """See ``Arrangement``."""
        return 1

    def slots(self, window: Window, units: int, group: RankGroup) -> NDArray[np.int64] | None:
        """See ``Arrangement``: those of the rank's panels."""
        panels = Panels.of(window.lanes, units, PANEL)
        return None if panels.count == 1 else panels.slots(group)

    def features(self, batch: Any, units: int) -> Tensor:
        """See ``Arrangement``."""
        if units > 1:
            # Lessons are cut, not candidates: what else is in their batch does not matter.
            batch = by_position(batch)
            cuttable(batch, units)
            batch = apart(batch, units, len(batch["input_ids"]))
        counted = FEATURES.get(self.by)(batch)
        return counted.reshape(len(counted) // units, -1)

    def arrange(self, selected: Selected, note: int) -> tuple[NDArray[np.int64], dict[str, float]]:
        """See ``Arrangement``. Without features the order stays as it is."""
        return summed(self.arranging(selected, note), selected.group)

    def arranging(
        self, selected: Selected, note: int
    ) -> Steps[tuple[NDArray[np.int64], dict[str, float]]]:
        """See ``Arrangement``."""
        group, window = selected.group, selected.window
        if selected.features is None:
            return selected.places, {}
        known = selected.features.reshape(-1, selected.features.shape[-1])
        panels = Panels.of(window.lanes, selected.units, PANEL)
        lanes = selected.lanes * panels.count + panels.of_slot[_slots(selected.places, selected)]
        own = balance_lanes(
            selected.places,
            lanes,
            known,
            _rows(selected.places, selected, panels),
            panels.share(group),
        )
        places = yield own
        # One rank logs, of its own panels.
        if group.rank:
            return places, {}
        return places, {"imbalance": imbalance(_rows(places, selected, panels), known)}


def herded(
    features: NDArray,
    batches: NDArray[np.int64] | None = None,
    left: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Order samples so that the mean of any that follow each other is near the mean of all.

    Args:
        features: Shape (blocks, n, d), whole numbers up to 2^20 of any dtype. Sums of their
            products are then exact, so every machine finds the same order.
        batches: Batch that each place is in, ascending from 0, shape (blocks, n). Needed with
            ``left``.
        left: What these samples should make up for: what others have until the end of each batch
            beyond their mean, shape (blocks, number of batches, d). None: nothing.

    Returns:
        The samples of each block in their new order, as indices, int64 of shape (blocks, n). Ties
        go to the earlier sample, so samples that are all alike keep their order.
    """
    blocks, n, _ = features.shape
    wide = features.astype(np.float32)
    if np.einsum("bnd,bnd->bn", wide, wide).max(initial=0) >= _EXACT:
        wide = features.astype(np.float64)
    gram = wide @ wide.swapaxes(1, 2)
    sums = 2 * gram.sum(axis=2, dtype=np.float64)
    # The next sample x minimises |sum + x|^2 = |sum|^2 + 2 <sum, x> + |x|^2, where features are
    # less their mean. This is n times that, in whole numbers, less what is the same for all.
    longer = n * np.diagonal(gram, axis1=1, axis2=2).astype(np.float64) - sums
    order, every = np.empty((blocks, n), np.int64), np.arange(blocks)
    if batches is None or left is None:
        batches, beyond = np.zeros((blocks, n), np.int64), np.zeros((blocks, 1, n))
    else:
        beyond = _products(features, left)
    longer += beyond[every, batches[:, 0]]
    changes = (batches[:, 1:] != batches[:, :-1]).any(axis=0).tolist()
    for place, changed in enumerate([False, *changes]):
        if changed:
            longer += beyond[every, batches[:, place]] - beyond[every, batches[:, place - 1]]
        best = longer.argmin(axis=1)
        order[:, place] = best
        longer += np.multiply(gram[every, best], 2 * n, dtype=np.float64)
        longer -= sums
        longer[every, best] = np.inf
    return order


def _products(features: NDArray, left: NDArray[np.float64]) -> NDArray[np.float64]:
    """``2 n <left, x>`` for each sample, in whole numbers: (blocks, m, n)."""
    whole = np.rint(features.shape[1] * left)
    return 2 * (whole @ features.astype(np.float64).swapaxes(1, 2))


def _beyond(features: NDArray, batches: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """What ordered samples have beyond their mean until the end of each batch.

    Args:
        features: Shape (blocks, n, d), in order.
        batches: See ``herded``.
        count: Number of batches.

    Returns:
        Shape (blocks, count, d).
    """
    wide = features.astype(np.float64)
    sums = np.concatenate([np.zeros_like(wide[:, :1]), wide.cumsum(axis=1)], axis=1)
    until = (batches[:, None] <= np.arange(count)[:, None]).sum(axis=2)  # (blocks, count)
    mean = sums[:, -1:] / wide.shape[1]
    return np.take_along_axis(sums, until[..., None], axis=1) - until[..., None] * mean


def _slots(places: NDArray[np.int64], selected: Selected) -> NDArray[np.int64]:
    """Slot of the candidate that each unit is of."""
    return places // selected.units % selected.window.ids.shape[1]


def _rows(places: NDArray[np.int64], selected: Selected, panels: Panels) -> NDArray[np.int64]:
    """Row of each unit among all features that this rank has; -1 for units of other ranks."""
    if panels.count == 1:
        return places
    size, units, slots = len(panels.of_slot), selected.units, panels.slots(selected.group)
    column = np.full(size, -1)
    column[slots] = np.arange(len(slots))
    of_slot = column[_slots(places, selected)]
    rows = (places // (units * size) * len(slots) + of_slot) * units + places % units
    return np.where(of_slot < 0, -1, rows)


def balance_lanes(
    places: NDArray[np.int64],
    lanes: NDArray[np.integer],
    features: NDArray,
    rows: NDArray[np.int64] | None = None,
    share: tuple[int, int] = (0, 1),
) -> NDArray[np.int64]:
    """Order a window's lessons, each within its lane, up to ``BLOCK`` of a lane at a time.

    A block is spread over ``SECTION`` batches, or the more that it has units of, so each of these
    has its share of it. Were it a stretch of the lane, large batches would be whole blocks, and as
    unlike as random ones. ``CHAIN`` blocks are ordered one after the other, and each makes up for
    what those before have left.

    Args:
        places: Flat index of each lesson among the window's candidates, shape (L, S).
        lanes: Lane of each lesson, non-negative ints of the same shape.
        features: Features, shape (..., d); see ``herded``.
        rows: Row of each lesson among all features, shape (L, S); -1 for the lessons of a lane that
            others order. None: ``places``.
        share: This caller's number, and the number of those that order the same lanes. Each orders
            some of their chains.

    Returns:
        The same places, each within the slots of its lane, int64 of shape (L, S); 0 in the slots
        that others order. So the sum over all callers is the order.
    """
    flat, known = places.reshape(-1), features.reshape(-1, features.shape[-1])
    row_of = flat if rows is None else rows.reshape(-1)
    out, width = np.zeros_like(flat), places.shape[1]
    alike: dict[tuple[int, ...], list[list[NDArray[np.int64]]]] = {}
    for chain in _chains(lanes, row_of >= 0)[share[0] :: share[1]]:
        alike.setdefault(tuple(map(len, chain)), []).append(chain)
    for sizes, chains in alike.items():
        step = max(1, _AT_ONCE // (max(sizes) * max(*sizes, known.shape[1])))
        for first in range(0, len(chains), step):
            some = chains[first : first + step]
            begin = np.array([chain[0][0] // width for chain in some])[:, None]
            end = np.array([max(block[-1] for block in chain) // width for chain in some])[:, None]
            left: NDArray[np.float64] | None = None
            for blocks in zip(*some, strict=True):
                slots = np.array(blocks)
                of, batches = known[row_of[slots]], slots // width - begin
                order = herded(of, batches, left)
                out[slots] = np.take_along_axis(flat[slots], order, axis=1)
                if len(sizes) > 1:
                    of = np.take_along_axis(of, order[..., None], axis=1)
                    beyond = _beyond(of, batches, (end - begin).max() + 1)
                    left = beyond if left is None else left + beyond
    return out.reshape(places.shape)


def _chains(lanes: NDArray[np.integer], own: NDArray[np.bool_]) -> list[list[NDArray[np.int64]]]:
    """The own slots of each block, by chain."""
    which = np.flatnonzero(own)
    _, starts, sizes, order = by_lane(lanes.reshape(-1)[which])
    slots, chains = which[order], []
    for lane, size in zip(np.split(slots, starts[1:]), sizes, strict=True):
        for section in np.array_split(lane, min(-(-len(lanes) // SECTION), -(-size // BLOCK))):
            count = -(-len(section) // BLOCK)
            blocks = [section[first::count] for first in range(count)]
            chains += [blocks[first : first + CHAIN] for first in range(0, count, CHAIN)]
    return chains


def imbalance(rows: NDArray[np.int64], features: NDArray) -> float:
    """Squared distance of the batches' mean features from the window's, over what random batches
    have on average.

    Args:
        rows: Row of each lesson among all features, shape (L, S); a row is a batch. -1 for those
            that are not looked at.
        features: Shape (..., d).

    Returns:
        0 if all batches are alike, 1 for random batches, and 1 if there is nothing to balance.
    """
    known = features.reshape(-1, features.shape[-1])
    batches = [known[row[row >= 0]].astype(np.float32) for row in rows if (row >= 0).any()]
    sizes = np.array([len(of) for of in batches])
    means = np.array([of.mean(axis=0, dtype=np.float64) for of in batches])
    every = sizes.sum()
    mean = sizes @ means / every
    squares = sum(np.einsum("sd,sd->s", of, of).sum(dtype=np.float64) for of in batches)
    spread = squares / every - (mean**2).sum()
    if len(batches) < 2 or spread <= 1e-6 * (mean**2).sum():
        return 1.0
    # Without replacement a batch's mean spreads by (N - n) / (N - 1) less.
    expected = (spread / sizes * (every - sizes) / (every - 1)).sum()
    return float(((means - mean) ** 2).sum() / expected)
