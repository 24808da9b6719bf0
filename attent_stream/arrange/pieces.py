"""Short pieces of samples: the sequence length is warmed up by cutting samples, not the batch.

A young model learns as much from a short context as from a long one, and more from a batch whose
tokens come from more samples. So while training is young each sample is cut into equal pieces.
These are mixed over their window and trained on as samples of their own: sequence length warm-up
(Li et al., "The stability-efficiency dilemma", NeurIPS 2022). Pouransari et al., "Dataset
decomposition", NeurIPS 2024, rewrite the corpus for this; here the stream stays as it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attent_stream.arrange.arrangement import Arrangement, Selected
from attent_stream.arrange.cutting import MOST, cuttable, together
from attent_stream.base.schedule import ShareSchedule, parse_share
from attent_stream.base.span import Clock
from attent_stream.window.choice import Window
from attent_stream.window.selection import by_lane

SETTING = "arrange.pieces"


@dataclass(frozen=True, kw_only=True)
class Pieces(Arrangement):
    """Cuts samples into pieces and mixes these within each lane.

    Args:
        share: Share of a sample's positions that a piece has, over training.

    Raises:
        ValueError: A share below 1 that never cuts a sample.
    """

    share: ShareSchedule
    cuts: ClassVar[bool] = True
    foreseeable: ClassVar[bool] = True
    in_steps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.share.some and pieces_at(self.share.least) == 1:
            raise ValueError(
                f"{SETTING} must be 1, or below 0.7 at some time to cut samples in two or more, "
                f"got at least {self.share.least}"
            )

    @classmethod
    def parse(cls, value: Any) -> "Pieces":
        """From a share in (0, 1], or a schedule ``{schedule, from, to, over, stages}``."""
        return cls(share=parse_share(value, SETTING))

    def check(self, batch: Any) -> None:
        """See ``Arrangement``."""
        cuttable(batch, pieces_at(self.share.least))

    def decide(self, window: Window, end: Clock, units: int) -> int:
        """See ``Arrangement``. By the window's end, so that the last stage is trained on
        in full.
        """
        pieces = pieces_at(self.share.at(end))
        return pieces if pieces > 1 else 0

    @property
    def most_units(self) -> int:
        """See ``Arrangement``."""
        return pieces_at(self.share.least)

    def units(self, note: int) -> int:
        """See ``Arrangement``."""
        return note

    def lesson(self, batch: Any, pieces: Sequence[int], note: int) -> Any:
        """See ``Arrangement``."""
        return together(batch, pieces, note)

    def arrange(self, selected: Selected, note: int) -> tuple[NDArray[np.int64], dict[str, float]]:
        """See ``Arrangement``."""
        lanes = selected.lanes.repeat(note, axis=1)
        return mixed(cut(selected.places, note), lanes, selected.rng), {}


def pieces_at(share: float) -> int:
    """Number of pieces that each have about a share of a sample's positions.

    Args:
        share: In (0, 1].

    Returns:
        A power of 2, at most ``MOST``.
    """
    return min(MOST, 2 ** round(-math.log2(share)))


def cut(places: NDArray[np.int64], pieces: int) -> NDArray[np.int64]:
    """The pieces of samples, side by side.

    Args:
        places: Index of each sample, shape (L, S).
        pieces: Pieces of a sample.

    Returns:
        ``place * pieces + piece``, int64 of shape (L, S * pieces).
    """
    return (places[..., None] * pieces + np.arange(pieces)).reshape(len(places), -1)


def mixed(
    places: NDArray[np.int64], lanes: NDArray[np.integer], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Shuffle within each lane.

    Args:
        places: Shape (L, S).
        lanes: Lane of each, non-negative ints of the same shape.
        rng: Random numbers.

    Returns:
        The same places, each within the slots of its lane, int64 of shape (L, S).
    """
    flat = places.reshape(-1)
    _, starts, _, slots = by_lane(lanes)
    out = flat.copy()
    for lane in np.split(slots, starts[1:]):
        out[lane] = flat[rng.permutation(lane)]
    return out.reshape(places.shape)
