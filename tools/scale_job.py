"""The job that simulate_scale.py simulates: its data, order, scores and teacher."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from streaming.base.world import World
from synthetic import SyntheticDataset

from attent_stream.arrange.arrangement import Selected
from attent_stream.arrange.arrangements import ARRANGEMENTS, Arrangements
from attent_stream.arrange.balance import Balance
from attent_stream.base.gather import RankGroup
from attent_stream.base.schedule import Phases, parse_interval, parse_share
from attent_stream.base.span import Clock, Span
from attent_stream.order.open_order import layouts
from attent_stream.order.streaming_order import StreamingOrder, generate_rows
from attent_stream.teach.teacher import Teacher
from attent_stream.teach.teacher_settings import TeacherSettings

SHARD = 4096  # Samples in a shard.
# Streaming's default number of canonical nodes per node.
CANONICAL = {"py1e": 1, "py1br": 1, "py1s": 64, "py2s": 64, "naive": 1}


@dataclass(frozen=True, kw_only=True)
class Job:
    """The simulated job: nodes, ranks of a node, samples of a rank and step, window rows, ..."""

    nodes: int
    ranks: int
    batch_size: int
    shuffle_algo: str
    window: int
    windows: int
    gap: int
    keep: float
    select: str
    probes: int
    shards: int
    pieces: float
    balance: bool

    @property
    def arrange(self) -> dict[str, Any]:
        """The arrangements by name."""
        cut = {"pieces": self.pieces} if self.pieces < 1 else {}
        return cut | ({ONE_OF_MANY: "tokens"} if self.balance else {})

    @property
    def row(self) -> int:
        """Samples in a global batch."""
        return self.nodes * self.ranks * self.batch_size

    @property
    def samples(self) -> int:
        """Samples of full windows, a short one and a partial batch without repeated samples."""
        rest = self.batch_size // 2 * self.nodes * self.ranks
        rest -= rest % self.canonical_nodes
        return self.row * (self.window * (self.windows - 1) + self.window // 2) + rest

    @property
    def canonical_nodes(self) -> int:
        """Streaming's default number for the shuffle."""
        return CANONICAL[self.shuffle_algo] * self.nodes

    def data(self) -> SyntheticDataset:
        """The job's samples, of one stream."""
        return SyntheticDataset(
            self.samples,
            shard=SHARD,
            canonical_nodes=self.canonical_nodes,
            batch_size=self.batch_size,
            shuffle_algo=self.shuffle_algo,
        )


class OneOfManyRanks(Balance):
    """Balances as one rank does. What other ranks order stays as it is."""

    def arranging(self, selected: Selected, note: int) -> Any:
        """See ``Arrangement``."""
        if selected.features is None:
            return selected.places, {}
        steps = super().arranging(selected, note)
        own = next(steps)
        yield own
        places = np.where(own == 0, selected.places, own)
        # The first unit is 0, too: if it was moved, what was in its new slot is there twice.
        twice = np.flatnonzero(np.bincount(places.reshape(-1)) == 2)
        places[(own == 0) & np.isin(places, twice)] = 0
        return places, {}


class OneOfMany(RankGroup):
    """A rank without the others."""

    def total(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this rank's part."""
        return values


ONE_OF_MANY = "one_of_many"
ARRANGEMENTS.known[ONE_OF_MANY] = OneOfManyRanks
KNOWN = np.random.default_rng(0).integers(0, 20, (1 << 12, 512)).astype(np.float16)


def make_order(data: SyntheticDataset, world: World) -> StreamingOrder:
    """Build Streaming's order of the job, as ``open_order`` does on a node."""
    with warnings.catch_warnings():
        # Streaming warns of blocks smaller than a shard.
        warnings.simplefilter("ignore")
        rows = generate_rows(data, world, 0).astype(np.int32)
    partial = np.flatnonzero(rows.min(axis=1) < 0)
    now, origin = layouts(data, world)
    full = int(partial[0]) if len(partial) else len(rows)
    return StreamingOrder(
        epoch=0,
        rows=rows,
        full=full,
        layout=now,
        origin=origin,
        stream_starts=np.zeros(1, np.int64),
    )


def make_teacher(job: Job) -> Teacher:
    """Build a teacher with a constant keep from the first lesson on."""
    settings = TeacherSettings(
        keep=parse_share(job.keep),
        select=job.select,
        temperature=1.0,
        interval=parse_interval("dense"),
        phases=Phases(warmup=Span.parse("0ba"), anneal=Span.parse("0ba")),
        seed=17,
        arrangements=Arrangements.parse(job.arrange),
    )
    return Teacher(
        settings,
        clock=lambda ahead, epoch, share: Clock(ep=epoch + share, ba=ahead, sp=0, tok=0, dur=0),
    )


def score_of(ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return scores in [0, 1) that no shuffle resembles, in the shape of ``ids``."""
    return (ids * 2654435761 % 2**32 / 2**32).astype(np.float32)


def gathered_scores(order: StreamingOrder, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return all ranks' scores of these rows, as ``gather_ranks`` does."""
    layout = order.layout
    mine = np.asarray(order.rows[rows], np.int64).reshape(
        len(rows), layout.ranks, layout.batch_size
    )
    return score_of(mine).swapaxes(0, 1)


def gathered_features(order: StreamingOrder, row: int, units: int) -> NDArray[np.float16]:
    """Return all ranks' features of a row, shape (ranks, batch_size, units * d)."""
    layout = order.layout
    ids = np.asarray(order.rows[row], np.int64).reshape(layout.ranks, layout.batch_size)
    pieces = (ids[..., None] * units + np.arange(units)) * 2654435761 % 2**32 >> 20
    return KNOWN[pieces].reshape(*ids.shape, -1)
