"""The epoch's order without the epoch: the ids of any rows from the seed, the epoch and the rows'
numbers.

How often each stream and shard is read, how samples are cut over nodes and ranks, and what a batch
is made of are Streaming's own; which sample stands where is another draw of the same kind of
shuffle (see ``lazy_samples.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from attent_stream.order.lazy_samples import Samples, Shuffle, Units
from attent_stream.order.partition import Partition
from attent_stream.order.permutation import keyed
from attent_stream.order.stream_counts import shard_counts
from attent_stream.order.turns import Turns
from attent_stream.window.layout import Layout, canonical_slots, rank_slots

_ROW_TURNS, _DEVICE_TURNS = 101, 102  # what a key is for


class Rows(Protocol):
    """What one batching method makes of the streams' samples."""

    full: int  # rows without a -1
    total: int  # of all rows; those behind ``full`` have some

    def between(self, begin: int, end: int) -> NDArray[np.int64]:
        """Rows ``[begin, end)`` in canonical slot order, int64 of shape (end - begin, row_size), -1
        for no sample.
        """

    def some(self, numbers: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Some slots of some rows, ascending and not too far apart, int64 of shape (len(numbers),
        len(slots)).
        """


@dataclass(frozen=True, kw_only=True)
class LazyOrder:
    """One epoch's order, computed where it is looked at.

    Args:
        epoch: Which epoch.
        rows: What its batching method makes of the streams.
        layout: Where slots go now.
        origin: Layout in which the rows are laid out (see ``order.StreamingOrder``).
        stream_starts: First sample id of each stream, shape (num_streams,).
    """

    epoch: int
    rows: Rows
    layout: Layout
    origin: Layout
    stream_starts: NDArray[np.int64]
    kind = "lazy"

    def __post_init__(self) -> None:
        # A window is looked at several times: when it is read ahead, its candidates are read, and
        # it is chosen.
        object.__setattr__(self, "_recent", lru_cache(maxsize=4)(self._window))

    @property
    def full(self) -> int:
        """How many rows at the front have no -1."""
        return self.rows.full

    def window(self, begin: int, end: int) -> NDArray[np.int64]:
        """Sample ids of rows ``[begin, end)`` in canonical slot order, read-only int64 of shape
        (end - begin, row_size).
        """
        if not 0 <= begin <= end <= self.full:
            raise IndexError(
                f"rows [{begin}, {end}) are not among the {self.full} full rows of epoch "
                f"{self.epoch}"
            )
        return self._recent(begin, end)

    def _window(self, begin: int, end: int) -> NDArray[np.int64]:
        ids = self.rows.between(begin, end)
        ids.flags.writeable = False
        return ids

    def of_rank(self, ids: NDArray, rank: int) -> NDArray:
        """The part of canonical rows ``(n, row_size)`` that ``rank`` reads, shape (n,
        batch_size).
        """
        return ids[:, rank_slots(self.layout, self.origin, rank)]

    def rows_of_rank(self, numbers: NDArray[np.int64], rank: int) -> NDArray[np.int64]:
        """What ``rank`` reads of some full rows, ascending, shape (len(numbers), batch_size): no
        others' ids are computed.
        """
        return self.rows.some(numbers, rank_slots(self.layout, self.origin, rank))

    def tail(self, rank: int) -> list[NDArray[np.int64]]:
        """What ``rank`` reads after the full rows: one array of ids a step, each of 1 to batch_size
        ids.
        """
        rest = self.rows.between(self.full, self.rows.total)
        part = rest[:, canonical_slots(self.origin)].reshape(
            len(rest), self.layout.ranks, self.layout.batch_size
        )[:, rank]
        return [row[row >= 0] for row in part if (row >= 0).any()]


def lazy_order(dataset, now: Layout, origin: Layout, epoch: int) -> LazyOrder:
    """A data set's order for an epoch.

    Args:
        dataset: A StreamingDataset whose canonical nodes and block size are set.
        now: Where slots go.
        origin: In which layout Streaming would lay them out.
        epoch: Which epoch.

    Raises:
        ValueError: Settings that Streaming refuses too.
    """
    rows = _BATCHING[dataset.batching_method](dataset, origin, epoch)
    starts = np.asarray(dataset.sample_offset_per_stream, np.int64)
    return LazyOrder(epoch=epoch, rows=rows, layout=now, origin=origin, stream_starts=starts)


def lazy_steps(
    order: LazyOrder, rank: int, first_row: int, worker: int, workers: int, read_ahead: int = 2048
) -> Iterator[tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]]:
    """What a worker of a rank reads of an epoch without a teacher: ``read_ahead`` samples at a
    time, and those that follow them.

    A DataLoader asks its workers in turns, so a worker has every ``workers``-th batch, counted from
    ``first_row``.
    """

    def stretches() -> Iterator[list[NDArray[np.int64]]]:
        span = workers * max(1, read_ahead // order.layout.batch_size)
        for begin in range(first_row, order.full, span):
            yield list(
                order.rows_of_rank(
                    np.arange(begin + worker, min(begin + span, order.full), workers), rank
                )
            )
        if first_row <= order.full:
            yield [
                ids
                for step, ids in enumerate(order.tail(rank), order.full - first_row)
                if step % workers == worker
            ]

    coming = stretches()
    now = next(coming, None)
    while now is not None:
        ahead = next(coming, None)
        if now:
            yield now, ahead or []
        now = ahead


def stream_units(dataset, stream: int, epoch: int) -> Units:
    """What an epoch reads of a stream's shards, as ``StreamingDataset.resample_streams`` has it."""
    begin = int(dataset.shard_offset_per_stream[stream])
    shards = slice(begin, begin + int(dataset.shards_per_stream[stream]))
    samples = dataset.samples_per_shard[shards]
    seed = dataset.shuffle_seed + epoch
    counts = shard_counts(
        samples,
        int(dataset.streams[stream].choose),
        dataset.sampling_granularity,
        seed if dataset.epoch_seed_change else dataset.shuffle_seed,
    )
    chosen = seed if dataset.sampling_method == "balanced" else dataset.shuffle_seed
    return Units.of_shards(dataset.sample_offset_per_shard[shards], samples, counts, chosen)


def _shuffle(dataset, epoch: int, block_size: int) -> Shuffle | None:
    if not dataset.shuffle:
        return None
    return Shuffle(
        algo=dataset.shuffle_algo, seed=dataset.shuffle_seed, epoch=epoch, block_size=block_size
    )


def _stream_samples(dataset, epoch: int) -> list[Samples]:
    """Of each stream by itself: its share of the block size, as in Streaming."""
    made = []
    for number, stream in enumerate(dataset.streams):
        shuffle = _shuffle(
            dataset, epoch, max(1, int(dataset.shuffle_block_size * stream.proportion))
        )
        made.append(
            Samples(stream_units(dataset, number, epoch), dataset.num_canonical_nodes, shuffle)
        )
    return made


def _turns_key(dataset, epoch: int, *purpose: int) -> int:
    seed = dataset.shuffle_seed + epoch if dataset.epoch_seed_change else dataset.shuffle_seed
    return int(keyed(seed, *purpose)[0])


class _Random:
    """Every row of all streams together."""

    def __init__(self, dataset, layout: Layout, epoch: int) -> None:
        units = Units.joined(
            [stream_units(dataset, number, epoch) for number in range(len(dataset.streams))]
        )
        shuffle = _shuffle(dataset, epoch, dataset.shuffle_block_size)
        self._samples = Samples(units, dataset.num_canonical_nodes, shuffle)
        self._rows = _Cut(
            self._samples,
            _partition(self._samples, dataset, layout.nodes, layout.ranks_per_node),
            layout,
        )
        self.full, self.total, self._size = self._rows.full, self._rows.total, layout.row_size

    def between(self, begin: int, end: int) -> NDArray[np.int64]:
        return self._rows.rows(np.arange(begin, end), np.arange(self._size))

    def some(self, numbers: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._rows.rows(numbers, slots)


class _OfStreams(ABC):
    """What is of each stream by itself: a few slots of it cost as much as all."""

    @abstractmethod
    def between(self, begin: int, end: int) -> NDArray[np.int64]:
        """See ``Rows``."""

    def some(self, numbers: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(numbers):
            return np.empty((0, len(slots)), np.int64)
        first = int(numbers[0])
        return self.between(first, int(numbers[-1]) + 1)[np.ix_(numbers - first, slots)]


class _PerStream(_OfStreams):
    """Every row of one stream."""

    def __init__(self, dataset, layout: Layout, epoch: int) -> None:
        self._streams = [
            _Cut(samples, _partition(samples, dataset, layout.nodes, layout.ranks_per_node), layout)
            for samples in _stream_samples(dataset, epoch)
        ]
        self._turns = Turns(
            counts=tuple(cut.full for cut in self._streams),
            key=_turns_key(dataset, epoch, _ROW_TURNS),
        )
        _check_counts(self._turns.counts, f"a batch of {layout.row_size} samples (of all ranks)")
        self.full = self.total = self._turns.total
        self._size = layout.row_size

    def between(self, begin: int, end: int) -> NDArray[np.int64]:
        streams, places = self._turns.between(begin, end)
        ids, slots = np.empty((end - begin, self._size), np.int64), np.arange(self._size)
        for stream in np.unique(streams):
            ids[streams == stream] = self._streams[stream].rows(places[streams == stream], slots)
        return ids


class _Stratified(_OfStreams):
    """Every row of all streams in the same proportions."""

    def __init__(self, dataset, layout: Layout, epoch: int) -> None:
        proportions = np.array([stream.proportion for stream in dataset.streams])
        self._portions = stratified_portions(proportions, layout.row_size)
        self._samples = _stream_samples(dataset, epoch)
        self._partitions = [
            _partition(samples, dataset, 1, layout.ranks_per_node) for samples in self._samples
        ]
        self.full = self.total = min(
            part.per_node // portion
            for part, portion in zip(self._partitions, self._portions, strict=True)
        )

    def between(self, begin: int, end: int) -> NDArray[np.int64]:
        columns = []
        for samples, partition, portion in zip(
            self._samples, self._partitions, self._portions, strict=True
        ):
            turn = np.arange(begin * portion, end * portion)
            columns.append(
                samples.ids(partition.places(np.zeros_like(turn), turn)).reshape(
                    end - begin, portion
                )
            )
        return np.concatenate(columns, axis=1)


class _DevicePerStream(_OfStreams):
    """Every rank's part of a row of one stream."""

    def __init__(self, dataset, layout: Layout, epoch: int) -> None:
        canonical, nodes = dataset.num_canonical_nodes, layout.nodes
        if canonical % nodes:
            raise ValueError(
                "for device_per_stream batching num_canonical_nodes must be divisible by the "
                f"nodes, got {canonical} and {nodes}"
            )
        self._layout = layout
        self._samples = _stream_samples(dataset, epoch)
        self._cuts = [
            _partition(samples, dataset, canonical, layout.ranks_per_node)
            for samples in self._samples
        ]
        self._canonical = canonical // nodes  # of a node
        counts = tuple(cut.per_node * self._canonical // layout.batch_size for cut in self._cuts)
        _check_counts(counts, f"a rank's batch of {layout.batch_size} samples")
        self._turns = [
            Turns(counts=counts, key=_turns_key(dataset, epoch, _DEVICE_TURNS, node))
            for node in range(nodes)
        ]
        self._batches = sum(counts)  # of a node
        self.full, self.total = (
            self._batches // layout.ranks_per_node,
            -(-self._batches // layout.ranks_per_node),
        )

    def between(self, begin: int, end: int) -> NDArray[np.int64]:
        layout = self._layout
        ranks, size = layout.ranks_per_node, layout.batch_size
        ids = np.full(((end - begin) * ranks, layout.nodes, size), -1, np.int64)
        first, last = begin * ranks, min(end * ranks, self._batches)
        for node, turns in enumerate(self._turns):
            streams, places = turns.between(first, last)
            for stream in np.unique(streams):
                mine = np.flatnonzero(streams == stream)
                taken = places[mine][:, None] * size + np.arange(size)
                # A node's canonical ones take turns, each with a sample of every rank.
                canonical = node * self._canonical + taken // ranks % self._canonical
                turn = taken // (ranks * self._canonical) * ranks + taken % ranks
                ids[mine, node] = self._samples[stream].ids(
                    self._cuts[stream].places(canonical, turn)
                )
        return ids.reshape(end - begin, layout.row_size)


class _Cut:
    """A sequence cut over nodes and ranks, as rows in canonical slot order."""

    def __init__(self, samples: Samples, partition: Partition, layout: Layout) -> None:
        self._samples, self._partition, self._layout = samples, partition, layout
        per_rank = partition.per_node // layout.ranks_per_node
        self.full, self.total = per_rank // layout.batch_size, -(-per_rank // layout.batch_size)

    def rows(self, numbers: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """These slots of these rows, int64 of shape (len(numbers), len(slots)), -1 behind
        the end.
        """
        nodes = self._layout.nodes
        flat = (numbers[:, None] * self._layout.row_size + slots).reshape(-1)
        node, turn = flat % nodes, flat // nodes
        ids = np.full(len(flat), -1, np.int64)
        there = turn < self._partition.per_node
        ids[there] = self._samples.ids(self._partition.places(node[there], turn[there]))
        return ids.reshape(len(numbers), len(slots))


def _partition(samples: Samples, dataset, nodes: int, ranks_per_node: int) -> Partition:
    return Partition(
        samples=samples.total,
        canonical_nodes=dataset.num_canonical_nodes,
        nodes=nodes,
        ranks_per_node=ranks_per_node,
    )


def stratified_portions(proportions: NDArray[np.float64], row_size: int) -> list[int]:
    """Samples of each stream in a row of ``stratified`` batching, as Streaming rounds them.

    Raises:
        ValueError: A stream has none.
    """
    portions = (proportions * row_size).astype(np.int64)
    missing = row_size - int(portions.sum())
    if missing:
        portions[np.flip(np.argsort(row_size * proportions - portions))[:missing]] += 1
    if (portions <= 0).any():
        stream = int(np.argmin(portions))
        raise ValueError(
            f"stream {stream} has a share of {proportions[stream]:.3g}, which is no sample of a "
            f"batch of {row_size} (of all "
            f"ranks): raise the batch size or the stream's proportion"
        )
    return portions.tolist()


def _check_counts(counts: tuple[int, ...], what: str) -> None:
    if 0 in counts:
        raise ValueError(f"stream {counts.index(0)} has not enough samples for {what}")


_BATCHING: dict[str, Callable[..., Rows]] = {
    "random": _Random,
    "per_stream": _PerStream,
    "stratified": _Stratified,
    "device_per_stream": _DevicePerStream,
}
