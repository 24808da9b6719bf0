"""Windows and choices without data."""

from types import SimpleNamespace

import numpy as np

from attent_stream.window.choice import Choice, Window
from attent_stream.window.decision import RANDOM, Decision
from attent_stream.window.layout import Layout, rank_slots

LAYOUT = Layout(
    nodes=2, ranks_per_node=1, batch_size=3, canonical_nodes=2, initial_nodes=2, batching="random"
)


class Rows(SimpleNamespace):
    """An order whose row ``i`` has the ids from ``6 i`` on; each rank has a tail."""

    def __init__(self, full: int, tails: tuple = ([], []), **changes) -> None:
        fields = {"kind": "streaming", "epoch": 4, "stream_starts": np.array([0])} | changes
        super().__init__(full=full, layout=LAYOUT, origin=LAYOUT, tails=tails, **fields)

    def window(self, begin: int, end: int) -> np.ndarray:
        return np.arange(6 * begin, 6 * end).reshape(-1, 6)

    def of_rank(self, ids: np.ndarray, rank: int) -> np.ndarray:
        return ids[:, rank_slots(self.layout, self.origin, rank)]

    def tail(self, rank: int) -> list[np.ndarray]:
        return [np.array(ids) for ids in self.tails[rank]]


def window_of(rows: int = 4, size: int = 6, index: int = 1, epoch: int = 4) -> Window:
    """A window of one lane."""
    ids = np.arange(rows * size).reshape(rows, size)
    return Window(
        epoch=epoch, index=index, ids=ids, lanes=np.zeros_like(ids), unit=size, share=0.0, until=0.5
    )


def choice_of(window: Window, lessons: int, units: int = 1, **changes) -> Choice:
    """A random choice from a window, its pieces mixed and with weights."""
    rng = np.random.default_rng(5)
    size = window.ids.shape[1]
    kept = rng.permutation(window.ids.size)[: lessons * size]
    places = (kept[:, None] * units + np.arange(units)).reshape(-1)
    places = rng.permutation(places).reshape(lessons, -1)
    fields = {
        "decision": Decision(by=RANDOM, lessons=lessons, units=units),
        "weights": (1 + places % 8 / 8).astype(np.float32),
    }
    return Choice(**{**fields, **changes}, places=places, scores=None, window=window)
