"""An arrangement: what becomes of a window's selected samples before they are trained on.

It may order them, or cut them into pieces. One arrangement is one class in one file, registered
by name in ``arrangements.ARRANGEMENTS`` or named as ``package.module:Class``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attent_stream.base.gather import ALONE, RankGroup, Steps
from attent_stream.base.span import Clock
from attent_stream.window.choice import Window


@dataclass(frozen=True, kw_only=True)
class Selected:
    """A window's selected units, as an arrangement finds them.

    Args:
        window: The window.
        places: Flat index of each unit among all units of the window's candidates, int64 of shape
            (L, S), in lesson slots.
        units: Pieces that each sample is cut into.
        features: Features of the units of the candidates in the slots that ``Arrangement.slots``
            gives, shape (C, len(slots) * units, d), whole numbers in float16; None if they are not
            known.
        rng: Random numbers of this window and note.
        group: Ranks that share the work: all have the same arguments and call together.
    """

    window: Window
    places: NDArray[np.int64]
    units: int
    features: NDArray[np.float16] | None
    rng: np.random.Generator
    group: RankGroup = ALONE

    @property
    def lanes(self) -> NDArray[np.int64]:
        """Lane of each unit, shape (L, S). A unit must stay within the slots of its lane."""
        return self.window.lanes.reshape(-1)[self.places // self.units]


class Arrangement:
    """Base class of arrangements. As it is, it changes nothing.

    A rank's main process calls ``decide`` and ``arrange``. Loader workers call ``features`` and
    ``lesson``, on an arrangement of their own that ``parse`` made from the same settings.
    """

    cuts: ClassVar[bool] = False  # changes the number of units; such arrangements come first
    reads: ClassVar[bool] = False  # needs features of candidates
    reads_first: ClassVar[bool] = False  # also those of an epoch's first window, before training
    foreseeable: ClassVar[bool] = False  # ``decide`` looks at no sample ids or lanes of a window
    largest: ClassVar[int | None] = None  # units of the largest window that it arranges
    # A thread may run ``arranging``: it yields once if it reads features, else never, and shares
    # nothing between ranks in another way
    in_steps: ClassVar[bool] = False

    @classmethod
    def parse(cls, value: Any) -> "Arrangement":
        """Make one from its setting in YAML.

        Raises:
            ValueError: A bad setting.
        """
        make: Callable[..., Arrangement] = cls  # subclasses take arguments
        if value is None:
            return make()
        return make(**value) if isinstance(value, Mapping) else make(value)

    def check(self, batch: Any) -> None:
        """Raise ScoreError if samples like those of a collated batch cannot be arranged."""

    def decide(self, window: Window, end: Clock, units: int) -> int:
        """A note for this window: 0 to leave it alone, or what the other methods need to know.

        Args:
            window: The window.
            end: Time at its end.
            units: Pieces of a sample after the arrangements before this one.
        """
        return 0

    @property
    def most_units(self) -> int:
        """Most pieces that it ever cuts a sample into."""
        return 1

    def units(self, note: int) -> int:
        """Pieces that a sample is cut into, a power of 2 up to ``cutting.MOST``."""
        return 1

    def slots(self, window: Window, units: int, group: RankGroup) -> NDArray[np.int64] | None:
        """Slots of a row whose features a rank is given, ascending; None for all.

        Args:
            window: The candidates.
            units: Pieces of a sample.
            group: The rank, and those that arrange the window with it.
        """
        return None

    def features(self, batch: Any, units: int) -> Tensor:
        """Features of a collated batch of whole candidates: whole numbers in float16.

        Args:
            batch: The batch of B samples.
            units: Pieces of a sample.

        Returns:
            Shape (B, units * d).
        """
        raise NotImplementedError

    def lesson(self, batch: Any, pieces: Sequence[int], note: int) -> Any:
        """Change a collated batch of lessons, which may keep one piece of each sample."""
        return batch

    def arrange(self, selected: Selected, note: int) -> tuple[NDArray[np.int64], dict[str, float]]:
        """Put the selected units into another order within their lanes, or cut them.

        Returns:
            Places, int64 of shape (L, S), or of shape (L, S * units) after a cut; and metrics by
            name.
        """
        return selected.places, {}

    def arranging(
        self, selected: Selected, note: int
    ) -> Steps[tuple[NDArray[np.int64], dict[str, float]]]:
        """``arrange`` in steps: what it yields is summed over all ranks."""
        yield from ()
        return self.arrange(selected, note)
