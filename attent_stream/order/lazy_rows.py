"""The rows of each batching method, computed by row number."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from streaming import StreamingDataset

from attent_stream.order.lazy_samples import Shuffle
from attent_stream.order.merge import Merge
from attent_stream.order.partition import Partition
from attent_stream.order.permutation import keyed
from attent_stream.order.stream_reads import StreamReads, samples_of
from attent_stream.window.layout import Layout

_ROW_MERGE, _DEVICE_MERGE = 101, 102  # purposes of keys


class SampleSequence(Protocol):
    """An epoch's sequence of samples: ``Samples`` or ``RangedSamples``."""

    total: int

    def ids(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sample ids at positions in ``[0, total)``, int64 of the same shape."""


class Rows(Protocol):
    """The rows that a batching method makes of the streams' samples.

    Attributes:
        full: Number of rows without a -1.
        total: Number of all rows; those after ``full`` have a -1.
    """

    full: int
    total: int

    def between(self, begin: int, end: int) -> NDArray[np.int64]:
        """Compute rows ``[begin, end)`` in canonical slot order.

        Returns:
            int64 of shape (end - begin, row_size), -1 for no sample.
        """

    def some(self, numbers: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Compute some slots of some rows.

        Args:
            numbers: Row numbers, ascending; the cost may grow with the range that they span.
            slots: Slots in canonical order.

        Returns:
            int64 of shape (len(numbers), len(slots)).
        """


def _shuffle(dataset: StreamingDataset, epoch: int, block_size: int) -> Shuffle | None:
    if not dataset.shuffle:
        return None
    return Shuffle(
        algo=dataset.shuffle_algo, seed=dataset.shuffle_seed, epoch=epoch, block_size=block_size
    )


def _stream_samples(dataset: StreamingDataset, epoch: int) -> list[SampleSequence]:
    """Make each stream's sequence of samples, with its share of the block size as in Streaming."""
    made: list[SampleSequence] = []
    for number, stream in enumerate(dataset.streams):
        block_size = max(1, int(dataset.shuffle_block_size * stream.proportion))
        reads = StreamReads.of_epoch(dataset, number, epoch)
        shuffle = _shuffle(dataset, epoch, block_size)
        made.append(samples_of([reads], dataset.num_canonical_nodes, shuffle))
    return made


def _merge_key(dataset: StreamingDataset, epoch: int, *purpose: int) -> int:
    seed = dataset.shuffle_seed + epoch if dataset.epoch_seed_change else dataset.shuffle_seed
    return int(keyed(seed, *purpose)[0])


class _Random:
    """Rows of all streams, mixed."""

    def __init__(self, dataset: StreamingDataset, layout: Layout, epoch: int) -> None:
        streams = range(len(dataset.streams))
        reads = [StreamReads.of_epoch(dataset, number, epoch) for number in streams]
        shuffle = _shuffle(dataset, epoch, dataset.shuffle_block_size)
        self._samples = samples_of(reads, dataset.num_canonical_nodes, shuffle)
        cut = _partition(self._samples, dataset, layout.nodes, layout.ranks_per_node)
        self._rows = _Cut(self._samples, cut, layout)
        self.full, self.total, self._size = self._rows.full, self._rows.total, layout.row_size

    def between(self, begin: int, end: int) -> NDArray[np.int64]:
        return self._rows.rows(np.arange(begin, end), np.arange(self._size))

    def some(self, numbers: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._rows.rows(numbers, slots)


class _OfStreams(ABC):
    """Rows made of each stream by itself: a few slots cost as much as all."""

    @abstractmethod
    def between(self, begin: int, end: int) -> NDArray[np.int64]:
        """See ``Rows``."""

    def some(self, numbers: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(numbers):
            return np.empty((0, len(slots)), np.int64)
        first = int(numbers[0])
        return self.between(first, int(numbers[-1]) + 1)[np.ix_(numbers - first, slots)]


class _PerStream(_OfStreams):
    """Rows of one stream each."""

    def __init__(self, dataset: StreamingDataset, layout: Layout, epoch: int) -> None:
        self._streams = [
            _Cut(samples, _partition(samples, dataset, layout.nodes, layout.ranks_per_node), layout)
            for samples in _stream_samples(dataset, epoch)
        ]
        counts = tuple(cut.full for cut in self._streams)
        self._merge = Merge(counts=counts, key=_merge_key(dataset, epoch, _ROW_MERGE))
        _check_counts(counts, f"a global batch of {layout.row_size} samples")
        self.full = self.total = self._merge.total
        self._size = layout.row_size

    def between(self, begin: int, end: int) -> NDArray[np.int64]:
        streams, positions = self._merge.between(begin, end)
        ids, slots = np.empty((end - begin, self._size), np.int64), np.arange(self._size)
        for stream in np.unique(streams):
            mine = streams == stream
            ids[mine] = self._streams[stream].rows(positions[mine], slots)
        return ids


class _Stratified(_OfStreams):
    """Rows of all streams in fixed proportions."""

    def __init__(self, dataset: StreamingDataset, layout: Layout, epoch: int) -> None:
        proportions = np.array([stream.proportion for stream in dataset.streams])
        self._portions = stratified_portions(proportions, layout.row_size)
        self._samples = _stream_samples(dataset, epoch)
        self._partitions = [
            _partition(samples, dataset, 1, layout.ranks_per_node) for samples in self._samples
        ]
        self.full = self.total = min(
            cut.per_node // portion
            for cut, portion in zip(self._partitions, self._portions, strict=True)
        )

    def between(self, begin: int, end: int) -> NDArray[np.int64]:
        columns = []
        for samples, partition, portion in zip(
            self._samples, self._partitions, self._portions, strict=True
        ):
            nth = np.arange(begin * portion, end * portion)
            ids = samples.ids(partition.positions(np.zeros_like(nth), nth))
            columns.append(ids.reshape(end - begin, portion))
        return np.concatenate(columns, axis=1)


class _DevicePerStream(_OfStreams):
    """Rows in which each rank's batch is of one stream."""

    def __init__(self, dataset: StreamingDataset, layout: Layout, epoch: int) -> None:
        canonical, nodes = dataset.num_canonical_nodes, layout.nodes
        if canonical % nodes:
            raise ValueError(
                "device_per_stream batching needs num_canonical_nodes divisible by the number of "
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
        self._merges = [
            Merge(counts=counts, key=_merge_key(dataset, epoch, _DEVICE_MERGE, node))
            for node in range(nodes)
        ]
        self._batches = sum(counts)  # of a node
        self.full = self._batches // layout.ranks_per_node
        self.total = -(-self._batches // layout.ranks_per_node)

    def between(self, begin: int, end: int) -> NDArray[np.int64]:
        layout = self._layout
        ranks, size = layout.ranks_per_node, layout.batch_size
        ids = np.full(((end - begin) * ranks, layout.nodes, size), -1, np.int64)
        first, last = begin * ranks, min(end * ranks, self._batches)
        for node, merge in enumerate(self._merges):
            streams, positions = merge.between(first, last)
            for stream in np.unique(streams):
                mine = np.flatnonzero(streams == stream)
                taken = positions[mine][:, None] * size + np.arange(size)
                # A node reads its canonical nodes round-robin, a sample for every rank from each.
                canonical = node * self._canonical + taken // ranks % self._canonical
                nth = taken // (ranks * self._canonical) * ranks + taken % ranks
                ids[mine, node] = self._samples[stream].ids(
                    self._cuts[stream].positions(canonical, nth)
                )
        return ids.reshape(end - begin, layout.row_size)


class _Cut:
    """A sequence partitioned over nodes and ranks, as rows in canonical slot order."""

    def __init__(self, samples: SampleSequence, partition: Partition, layout: Layout) -> None:
        self._samples, self._partition, self._layout = samples, partition, layout
        per_rank = partition.per_node // layout.ranks_per_node
        self.full, self.total = per_rank // layout.batch_size, -(-per_rank // layout.batch_size)

    def rows(self, numbers: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return some slots of some rows, as ``Rows.some``; -1 after the end."""
        nodes = self._layout.nodes
        flat = (numbers[:, None] * self._layout.row_size + slots).reshape(-1)
        node, nth = flat % nodes, flat // nodes
        ids = np.full(len(flat), -1, np.int64)
        exists = nth < self._partition.per_node
        ids[exists] = self._samples.ids(self._partition.positions(node[exists], nth[exists]))
        return ids.reshape(len(numbers), len(slots))


def _partition(
    samples: SampleSequence, dataset: StreamingDataset, nodes: int, ranks_per_node: int
) -> Partition:
    return Partition(
        samples=samples.total,
        canonical_nodes=dataset.num_canonical_nodes,
        nodes=nodes,
        ranks_per_node=ranks_per_node,
    )


def stratified_portions(proportions: NDArray[np.float64], row_size: int) -> list[int]:
    """Return each stream's samples in a row of ``stratified`` batching, rounded as in Streaming.

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
            f"stream {stream} has a proportion of {proportions[stream]:.3g}, less than one sample "
            f"of a global batch of {row_size}: raise the batch size or the stream's proportion"
        )
    return portions.tolist()


def _check_counts(counts: tuple[int, ...], what: str) -> None:
    if 0 in counts:
        raise ValueError(f"stream {counts.index(0)} has too few samples for {what}")


BATCHING: dict[str, Callable[..., Rows]] = {
    "random": _Random,
    "per_stream": _PerStream,
    "stratified": _Stratified,
    "device_per_stream": _DevicePerStream,
}
