"""``TeachingDataset``: a StreamingDataset whose samples a teacher may choose."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from filelock import FileLock
from numpy.typing import NDArray
from streaming import StreamingDataset
from torch import Tensor
from torch import distributed as dist
from torch.utils.data import get_worker_info

from attent_stream.base.epoch_number import tell_epoch
from attent_stream.base.errors import TeacherError
from attent_stream.base.gather import Pick, gather_ranks
from attent_stream.base.node_memory import meet
from attent_stream.base.open_files import leave_when_out_of_files
from attent_stream.base.watch import leave_with_parent, open_files_named
from attent_stream.data.board_samples import board_samples
from attent_stream.data.plain_samples import plain_samples
from attent_stream.data.resumable import ResumableDataset
from attent_stream.data.sample_cache import SampleCache
from attent_stream.data.tagged import Tagged
from attent_stream.order.open_order import open_order, order_kind
from attent_stream.order.order import AUTO, LAZY, ORDERS, SHARING, Order
from attent_stream.store import cache, index
from attent_stream.store.index_check import CheckedStreams
from attent_stream.store.open_shards import OpenShards
from attent_stream.store.shared_memory import ClosesMemory
from attent_stream.store.spans import searched_spans
from attent_stream.teach.board import Board

WINDOW = 32  # rows

log = logging.getLogger(__name__)


class EpochStart(NamedTuple):
    """The order of an epoch that starts or resumes, and the first row of its first window."""

    order: Order
    first_row: int


class TeachingDataset(ResumableDataset, CheckedStreams, ClosesMemory, StreamingDataset):
    """A StreamingDataset whose samples a teacher may choose, window by window.

    Without a teacher it yields exactly what StreamingDataset does, except with a lazy order. All of
    StreamingDataset's arguments are accepted and passed on by keyword. So a subclass of this and
    another StreamingDataset works: ``class Mine(TeachingDataset, TheirText)``.

    If a subclass has ``set_epoch``, it is called before each epoch, in the training process and in
    the workers. While a TeachingDataLoader reads, the global generators of torch, numpy and Python
    are seeded by ``shuffle_seed``, the epoch and the batch's samples only. Random transforms and
    collate functions draw from them.

    Args:
        window: Candidate rows (global batches) in a window; at least 2. None: 32, or more where a
            teacher asks for it.
        gap: Lesson batches at the end of a window without candidates between them. The next
            window's first lessons are prefetched during them. Best at least ``num_workers *
            prefetch_factor``; at most a quarter of the lessons is used. It affects training only
            by the age of the weights that score.
        require_teacher: Raise an error if iterated without a teacher.
        order: ``streaming`` for exactly StreamingDataset's order. ``lazy`` for one of the same
            distribution that is computed only where it is read. ``auto`` for ``lazy`` from
            ``LAZY_FROM`` samples in an epoch.
        **kwargs: Arguments of StreamingDataset and other bases.

    Raises:
        ValueError: ``window`` or ``gap`` is out of range, ``order`` is unknown, an index.json is
            invalid, or StreamingDataset raises it.
        StoreError: An index cannot be fetched, or the cached one is of older data.
        OpenFilesError: The process is out of file descriptors.
    """

    def __init__(
        self,
        *,
        window: int | None = None,
        gap: int = 8,
        require_teacher: bool = False,
        order: str = AUTO,
        **kwargs: Any,
    ) -> None:
        given = window is not None
        window = WINDOW if window is None else window
        if isinstance(window, bool) or not isinstance(window, int) or window < 2:
            raise ValueError(
                f"window must be an integer of at least 2 (rows per window), got {window!r}"
            )
        if isinstance(gap, bool) or not isinstance(gap, int) or gap < 0:
            raise ValueError(f"gap must be an integer of at least 0 (lesson batches), got {gap!r}")
        if order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
        begin = time.time()
        with open_files_named():
            index.fetch_indices(kwargs)
            rank = int(os.environ.get("RANK", "0"))
            with index.index_errors_named(kwargs.get("remote"), rank), searched_spans():
                super().__init__(**kwargs)
        cache.take_over(self, begin)
        self.window, self.window_given = window, given
        self.gap = gap
        self.require_teacher = require_teacher
        self.order = order_kind(order, self.epoch_size)
        if self.order == LAZY and self._unique_rank_world.rank == 0:
            log.warning(
                "order: lazy (%s, %d samples in an epoch) shuffles as Streaming does, but not in "
                "the same sequence. order: streaming does, with 46 bytes of memory for each sample "
                "while it is built.",
                "as set" if order == LAZY else "auto",
                self.epoch_size,
            )
        # Board and collate function of the TeachingDataLoader that iterates, if any.
        self._board: Board | None = None
        self._collate: Callable | None = None
        # Number of the loader's iteration that this process reads for. A persistent worker is asked
        # to iterate once for each, perhaps late. So it counts them itself.
        self._generation = 0
        self._iterated = False
        self._teacher_timeout = 3600.0
        self._samples: SampleCache | None = None  # in a taught iteration
        self._open_shards = OpenShards()

    def get_item(self, sample_id: int, retry: int = 7) -> Any:
        """Read a sample as Streaming does, or return one that was read of late."""
        if self._samples is None:
            return self._read(sample_id, retry)
        sample = self._samples.get(sample_id)
        if sample is None:
            sample = self._read(sample_id, retry)
            self._samples.put(sample_id, sample)
        elif self.cache_limit is not None:  # its shard is in use, and not to be evicted yet
            self._shard_access_times[self.spanner[sample_id][0]] = time.time_ns()
        return sample

    def _read(self, sample_id: int, retry: int) -> Any:
        """Read a sample whose shard is in the cache, as it nearly always is, without Streaming's
        bookkeeping. Only a cache with a limit needs to know when a shard was used.
        """
        if self.cache_limit is None:
            shard, index_in_shard = self.spanner[sample_id]
            try:
                return self._open_shards.get_item(self.shards, shard, index_in_shard)
            except FileNotFoundError:
                pass  # Streaming fetches it
        return super().get_item(sample_id, retry)

    @property
    def shared_prefix(self) -> int:
        """Streaming's number of this data set on the node, used in names of shared memory."""
        return self._shm_prefix_int

    @property
    def rank(self) -> int:
        """This rank's number among those that read different samples."""
        return self._parallel_rank_world.rank

    @property
    def num_ranks(self) -> int:
        """Number of ranks that read different samples."""
        return self._parallel_rank_world.num_ranks

    def gathered(self, values: Tensor, pick: Pick | None = None) -> NDArray:
        """Gather values of all ranks that read different samples, which call this together.

        Args:
            values: This rank's, where torch.distributed can gather them; see ``gather_ranks``.
            pick: See there.

        Returns:
            Shape (num_ranks, *values.shape) without ``pick``.
        """
        return gather_ranks(
            values, ranks=self.num_ranks, replication=self.replication or 1, pick=pick
        )

    @property
    def row_size(self) -> int:
        """Samples in a global batch."""
        return self.num_ranks * self.batch_size

    @property
    def repeats(self) -> bool:
        """Whether an epoch may have a sample twice, because a stream is upsampled."""
        sizes = zip(self.streams, self.samples_per_stream, strict=True)
        return any(stream.choose > samples for stream, samples in sizes)

    def begin_iteration(
        self, board: Board, taught: bool, epoch: int, collate: Callable, timeout: float
    ) -> int:
        """Announce a loader's iteration in the main process, before its workers iterate.

        Returns:
            The iteration's number on the board.
        """
        self._board, self._collate, self._teacher_timeout = board, collate, timeout
        tell_epoch(epoch, collate, self)
        self._generation = board.begin(taught, epoch)
        return self._generation

    def end_iteration(self, board: Board, generation: int) -> None:
        """Become a plain data set again, unless another iteration has begun."""
        if self._board is board and self._generation == generation:
            self._board = self._collate = None

    def begin_epoch(self) -> EpochStart:
        """Advance to the next epoch and build its order.

        The main processes of all ranks must call this together.

        Raises:
            AttentError: There are several ranks, but torch.distributed is not initialized.
        """
        unique, world = self._unique_rank_world, self._parallel_rank_world
        epoch, sample_in_epoch = self._resume(world, self.next_epoch)
        if unique.num_ranks > 1 and dist.is_available() and dist.is_initialized():
            # All ranks of the node must read the counter before its leader changes it.
            meet(SHARING)
        if unique.is_local_leader:
            self.next_epoch = epoch + 1
        order = open_order(self, world, unique.is_local_leader, unique.ranks_per_node, epoch)
        return EpochStart(order, -(-sample_in_epoch // self.row_size))

    def prepare_shard(self, shard_id: int, blocking: bool = True) -> None:
        """Prepare a shard as Streaming does, but verified and with bounded waits; see ``cache.py``.

        Raises:
            StoreError: The shard cannot be fetched. Subclasses say why.
        """
        cache.prepare_shard(self, shard_id, blocking)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over this worker's samples: plain ones, or ``Tagged`` ones in a taught epoch."""
        if get_worker_info() is not None:
            if not self._iterated:
                leave_with_parent()
                leave_when_out_of_files()
            self._generation += self._iterated
            self._iterated = True
            # A lock that is held open must not be shared by forks.
            self._shared_barrier.lock = FileLock(self._shared_barrier.filelock_path)
            if self._board is not None:  # a persistent worker has its own objects
                tell_epoch(self._board.epoch(self._generation), self._collate, self)
        if self._board is not None and self._board.taught(self._generation):
            return self._from_board(self._board)
        return self._plain()

    def _from_board(self, board: Board) -> Iterator[Tagged]:
        world = self._unique_rank_world.detect_workers()
        self._samples = SampleCache()
        try:
            yield from board_samples(
                self,
                board,
                generation=self._generation,
                worker=world.worker_of_rank,
                workers=world.workers_per_rank,
                timeout=self._teacher_timeout,
            )
        finally:
            self._samples = None
            self._open_shards.close()

    def _plain(self) -> Iterator[Any]:
        if self._board is None and self.coming_position is not None:
            raise TeacherError(
                "this data set has loaded the state of a taught run: iterate it with a "
                "TeachingDataLoader, as a plain loader would repeat samples"
            )
        self._unique_worker_world = self._unique_rank_world.detect_workers()
        self._parallel_worker_world = self._parallel_rank_world.detect_workers()
        epoch, sample_in_epoch = self._resume_incr_epoch()
        # Only a TeachingDataLoader restores training's random states.
        seeded = self._board is not None
        try:
            yield from plain_samples(self, epoch, sample_in_epoch, seeded=seeded)
        finally:
            self._open_shards.close()
