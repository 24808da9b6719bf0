"""The interface of an epoch's order, and its kinds.

An order is every sample id of an epoch in reading order, as rows. It is either Streaming's own
(``streaming_order.py``) or computed where it is read (``lazy_order.py``).
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from attent_stream.window.layout import Layout

AUTO, LAZY, STREAMING = "auto", "lazy", "streaming"
ORDERS = (AUTO, LAZY, STREAMING)
SHARING = "the sharing of an epoch's order"  # names the collective at an epoch's start in errors


class Order(Protocol):
    """One epoch's order."""

    @property
    def kind(self) -> str:
        """``STREAMING`` or ``LAZY``."""

    @property
    def epoch(self) -> int:
        """The epoch's number."""

    @property
    def full(self) -> int:
        """Number of rows at the front that have a sample for every rank and slot."""

    @property
    def layout(self) -> Layout:
        """The current layout of slots."""

    @property
    def origin(self) -> Layout:
        """The layout in which the rows were made.

        It differs from ``layout`` only after a resume on a number of nodes that does not divide the
        canonical nodes.
        """

    @property
    def stream_starts(self) -> NDArray[np.int64]:
        """First sample id of each stream, shape (num_streams,)."""

    def window(self, begin: int, end: int) -> NDArray[np.int64]:
        """Return the ids of rows ``[begin, end)`` in canonical slot order.

        Returns:
            int64 of shape (end - begin, row_size).

        Raises:
            IndexError: They are not all full rows.
        """

    def of_rank(self, ids: NDArray, rank: int) -> NDArray:
        """Select what ``rank`` reads of canonical rows ``(n, row_size)``, shape (n, batch_size)."""

    def tail(self, rank: int) -> list[NDArray[np.int64]]:
        """Return the ids that ``rank`` reads after the full rows.

        Returns:
            One array for each step, of 1 to batch_size ids.
        """


def check_window(order: Order, begin: int, end: int) -> None:
    """Raise IndexError unless rows ``[begin, end)`` are full rows of an order."""
    if not 0 <= begin <= end <= order.full:
        raise IndexError(
            f"expected rows among the {order.full} full rows of epoch {order.epoch}, got "
            f"[{begin}, {end})"
        )
