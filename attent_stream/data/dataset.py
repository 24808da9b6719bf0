"""``TeachingDataset``: a StreamingDataset that reads what its rank publishes."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from streaming import StreamingDataset
from torch import distributed as dist
from torch.utils.data import get_worker_info

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.base.batch_seed import seed_batch
from attent_stream.base.epoch_number import tell_epoch
from attent_stream.base.errors import TeacherError
from attent_stream.base.node_memory import meet
from attent_stream.base.open_files import leave_when_out_of_files
from attent_stream.base.watch import leave_with_parent, open_files_named
from attent_stream.data.tagged import Tagged, Task
from attent_stream.order.lazy_order import lazy_order, lazy_steps
from attent_stream.order.open_order import check_same_kind, layouts, open_order, order_kind
from attent_stream.order.order import AUTO, LAZY, ORDERS, SHARING, STREAMING, Order
from attent_stream.store import cache, index
from attent_stream.store.index_check import CheckedStreams
from attent_stream.store.shards import ShardFetcher
from attent_stream.store.shared_memory import ClosesMemory
from attent_stream.store.spans import searched_spans
from attent_stream.teach.board import Board, BoardClosed, Posting
from attent_stream.teach.epoch import TaughtEpoch
from attent_stream.teach.position import Position
from attent_stream.window.decision import ALL, SCORED
from attent_stream.window.layout import CANDIDATE, LESSON

log = logging.getLogger(__name__)


class EpochStart(NamedTuple):
    """An epoch that begins or is gone on with: its order, and the row at which its first window
    starts.
    """

    order: Order
    first_row: int


class TeachingDataset(CheckedStreams, ClosesMemory, StreamingDataset):
    """A StreamingDataset whose samples a teacher may choose, window by window.

    Without a teacher it yields exactly what StreamingDataset does (unless its order is lazy). All
    of StreamingDataset's arguments are kept and passed on by keyword, so a subclass of this and
    another StreamingDataset works: ``class Mine(TeachingDataset, TheirText)``.

    A subclass that has ``set_epoch`` is told the epoch before each, in the training process and in
    the workers. What a transform or a collate function draws from the global generators of torch,
    numpy or Python, while a TeachingDataLoader reads, depends on ``shuffle_seed``, the epoch and
    the batch's samples alone.

    Args:
        window: Candidate rows (global batches) per window; at least 2.
        gap: Lesson batches at the end of a window with no candidate between them, in which the next
            window's first lessons are read ahead (at most a quarter of them); best at least
            ``num_workers * prefetch_factor``. It changes what is trained on only by how old the
            model is when it scores.
        require_teacher: Whether iterating without a teacher is an error.
        order: ``streaming`` for the very order that StreamingDataset has; ``lazy`` for one drawn
            alike, of which only what is read next is ever computed; ``auto`` for ``lazy`` from
            ``order.LAZY_FROM`` samples an epoch on.
        **kwargs: StreamingDataset's (and any other base's) arguments.

    Raises:
        ValueError: ``window`` or ``gap`` out of range, an unknown ``order``, an index.json that
            can't be trusted, or what StreamingDataset raises.
        StoreError: An index cannot be had, or the cached one is of older data than the store's.
        OpenFilesError: The process is out of file descriptors.
    """

    next_epoch: int

    def __init__(
        self,
        *,
        window: int = 32,
        gap: int = 8,
        require_teacher: bool = False,
        order: str = AUTO,
        **kwargs: Any,
    ) -> None:
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
        self.window = window
        self.gap = gap
        self.require_teacher = require_teacher
        self.order = order_kind(order, self.epoch_size)
        if self.order == LAZY and self._unique_rank_world.rank == 0:
            log.warning(
                f"order: lazy ({'asked for' if order == LAZY else 'auto'}, {self.epoch_size} "
                "samples an epoch): shuffled as Streaming "
                "does it, but not in its very sequence; order: streaming has that, for 46 bytes a "
                "sample while it is made"
            )
        self._board: Board | None = None  # of the TeachingDataLoader that iterates, if one does
        # Which iteration over that loader this process reads for. A worker that persists is asked
        # to iterate once for each of the loader's iterations, and may be late: it counts for
        # itself, so as not to take a new one for the old.
        self._generation = 0
        self._iterated = False
        self._teacher_timeout = 3600.0
        self._collate: Callable | None = None  # that loader's
        # Only in the main process:
        self._taught: TaughtEpoch | None = None
        self._loaded: dict[str, Any] | None = None  # the state that was loaded last

    @property
    def shared_prefix(self) -> int:
        """Number that Streaming gave this data set on this node, part of the names of its shared
        memory.
        """
        return self._shm_prefix_int

    @property
    def rank(self) -> int:
        """This rank among those that read different samples."""
        return self._parallel_rank_world.rank

    @property
    def num_ranks(self) -> int:
        """Ranks that read different samples."""
        return self._parallel_rank_world.num_ranks

    @property
    def row_size(self) -> int:
        """Samples in a global batch."""
        return self.num_ranks * self.batch_size

    @property
    def repeats(self) -> bool:
        """Whether an epoch has some sample more than once: a stream that is repeated or chosen
        beyond its size.
        """
        sizes = zip(self.streams, self.samples_per_stream, strict=True)
        return any(stream.choose > samples for stream, samples in sizes)

    @property
    def coming_epoch(self) -> int:
        """Number of the epoch that is iterated next."""
        return self.next_epoch

    @property
    def coming_position(self) -> Position | None:
        """Where the next iteration goes on within a taught epoch: a loaded state's position, None
        to start one.

        Raises:
            ValueError: A position of another version.
        """
        loaded = self._to_resume
        text = None if loaded is None else loaded.get("attent")
        return Position.load(text) if text and text != LAZY else None

    @property
    def resumes(self) -> bool:
        """Whether the next iteration goes on from a loaded state: no other has yet."""
        return self._to_resume is not None

    @property
    def _to_resume(self) -> dict[str, Any] | None:
        loaded = self._loaded
        return loaded if loaded is not None and self.next_epoch <= loaded["epoch"] else None

    def begin_iteration(
        self, board: Board, taught: bool, epoch: int, collate: Callable, timeout: float
    ) -> int:
        """Announce an iteration over a loader, in the main process, before its workers are told to
        iterate.

        Returns:
            Its number on that board.
        """
        self._board, self._collate, self._teacher_timeout = board, collate, timeout
        tell_epoch(epoch, collate, self)
        self._generation = board.begin(taught, epoch)
        return self._generation

    def end_iteration(self, board: Board, generation: int) -> None:
        """Be a plain data set again to whoever iterates it next, unless another iteration has begun
        already.
        """
        if self._board is board and self._generation == generation:
            self._board = self._collate = None

    def begin_epoch(self) -> EpochStart:
        """Move on to the next epoch and build its order; called in the main process of every rank
        at the same time.

        Raises:
            AttentError: Several ranks, but torch.distributed is not initialised.
        """
        unique, world = self._unique_rank_world, self._parallel_rank_world
        epoch, sample_in_epoch = self._resume(world, self.next_epoch)
        if unique.num_ranks > 1 and dist.is_available() and dist.is_initialized():
            # All ranks of the node have read the counter before its leader moves it on
            meet(SHARING)
        if unique.is_local_leader:
            self.next_epoch = epoch + 1
        order = open_order(self, world, unique.is_local_leader, unique.ranks_per_node, epoch)
        return EpochStart(order, -(-sample_in_epoch // self.row_size))

    def follow(self, taught: TaughtEpoch | None) -> None:
        """Tell the state of this taught epoch from now on (called by TeachingDataLoader)."""
        self._taught = taught

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        """Where training stands; reading it changes nothing.

        Beside Streaming's own entries there is ``attent``: a :class:`Position` as a JSON string;
        where no taught epoch is under way, it is empty, or ``lazy`` within an epoch of that order.
        At the end of an epoch this is the start of the next one (Streaming's own state would repeat
        the finished epoch's order).

        Args:
            num_samples: Samples trained on, by all ranks.
            from_beginning: Whether these are counted from the start of the epoch, or of this
                process's part of it.
        """
        loaded, to_resume = self._loaded, self._to_resume
        taught = self._taught if to_resume is None else None
        epoch, offset, text = self.next_epoch - 1, 0, ""
        known = {
            "num_canonical_nodes": self.num_canonical_nodes or self._default_canonical_nodes,
            "shuffle_seed": self.shuffle_seed,
            "initial_physical_nodes": self.initial_physical_nodes
            or self._parallel_rank_world.num_nodes,
        }
        if taught is not None:
            epoch = taught.order.epoch
        if loaded is not None and loaded["epoch"] >= epoch:
            epoch, offset = loaded["epoch"], loaded["sample_in_epoch"]
            known = {name: loaded.get(name) or value for name, value in known.items()}
        samples = num_samples if from_beginning else offset + num_samples
        if samples == 0 and (taught is None or taught.started):
            epoch = self.coming_epoch
        elif taught is not None:
            text = taught.position.dump() if samples else ""
        elif to_resume is not None and samples == offset:
            text = to_resume.get("attent", "")
        return {
            "epoch": epoch,
            "sample_in_epoch": samples,
            **known,
            "attent": text or self._order_mark(samples),
        }

    def _order_mark(self, samples: int) -> str:
        return LAZY if samples and self.order == LAZY else ""

    @property
    def _default_canonical_nodes(self) -> int:
        """As Streaming sets it when a first epoch begins, in the processes that iterate."""
        nodes = self._parallel_rank_world.num_nodes
        return 64 * nodes if self.shuffle_algo in ("py1s", "py2s") else nodes

    def continue_epoch(self, num_samples: int) -> None:
        """Let the next iteration go on in the epoch under way, after ``num_samples`` of it: another
        fit in this process.
        """
        self.load_state_dict(self.state_dict(num_samples, True))

    def start_at(self, epoch: int, num_samples: int) -> None:
        """Let the next iteration start in ``epoch`` after ``num_samples`` of its order, as a plain
        run's checkpoint would.
        """
        self.next_epoch = epoch
        self.load_state_dict(
            {
                **self.state_dict(num_samples, True),
                "epoch": epoch,
                "attent": self._order_mark(num_samples),
            }
        )

    def return_to_loaded(self, num_samples: int) -> bool:
        """Let the next iteration go on from the state that was loaded last, whatever has been
        iterated since.

        A look at the loader before a fit takes up a loaded state; the fit has to start there all
        the same.

        Args:
            num_samples: Samples of the epoch that the run has trained on.

        Returns:
            Whether there is such a state, and it tells the same number of samples.
        """
        if self._loaded is None or self._loaded["sample_in_epoch"] != num_samples:
            return False
        super().load_state_dict(
            {key: value for key, value in self._loaded.items() if key != "attent"}
        )
        self.next_epoch = self._loaded["epoch"]
        return True

    def load_state_dict(self, obj: dict[str, Any] | None) -> None:
        """Go on from ``state_dict``'s state, or from one of plain Streaming, when next iterated.

        Unlike Streaming, which takes the state of an epoch that this process has left behind for
        stale, this goes back to it.

        Raises:
            ValueError: A position of another version, or within an epoch of the other order.
        """
        if obj is None:
            return  # of a run whose data set had no state
        text = obj.get("attent")
        if text and text != LAZY:
            check_same_kind(Position.load(text).identity.get("order kind") or STREAMING, self.order)
        elif obj["epoch"] >= 0 and obj["sample_in_epoch"]:
            check_same_kind(text or STREAMING, self.order)
        elif "attent" not in obj and obj["sample_in_epoch"] == 0:
            # Plain Streaming tells the epoch that it has finished
            obj = {**obj, "epoch": obj["epoch"] + 1}
        super().load_state_dict({key: value for key, value in obj.items() if key != "attent"})
        self._loaded = dict(obj)
        self.next_epoch = obj["epoch"]

    def prepare_shard(self, shard_id: int, blocking: bool = True) -> None:
        """As Streaming's, but what arrives is checked, every wait ends, and what fails has a name
        (see ``cache.py``).

        Raises:
            StoreError: The shard cannot be had; its kinds say why.
        """
        cache.prepare_shard(self, shard_id, blocking)

    def __getstate__(self) -> dict[str, Any]:
        """What a spawned worker gets: not what belongs to the main process."""
        return {**super().__getstate__(), "_taught": None}

    def __iter__(self) -> Iterator[Any]:
        """The samples of this worker: as Streaming partitions them, or ``Tagged`` ones as the board
        says.
        """
        if get_worker_info() is not None:
            if not self._iterated:
                leave_with_parent()
                leave_when_out_of_files()
            self._generation += self._iterated
            self._iterated = True
            # One held open is not for forks
            self._shared_barrier.lock = FileLock(self._shared_barrier.filelock_path)
            if self._board is not None:  # a worker that persists has objects of its own
                tell_epoch(self._board.epoch(self._generation), self._collate, self)
        if self._board is not None and self._board.taught(self._generation):
            return self._from_board(self._board, self._generation)
        return self._plain()

    def _plain(self) -> Iterator[Any]:
        if self._board is None and self.coming_position is not None:
            raise TeacherError(
                "this data set was loaded with the state of a taught run, which only a "
                "TeachingDataLoader can go on from: a "
                "plain loader would count its lessons as places in the order and repeat samples"
            )
        self._unique_worker_world = self._unique_rank_world.detect_workers()
        self._parallel_worker_world = self._parallel_rank_world.detect_workers()
        epoch, sample_in_epoch = self._resume_incr_epoch()
        # else somebody reads who does not keep training's random numbers apart
        seeded = self._board is not None
        if self.order == LAZY:
            yield from self._plain_lazy(epoch, -(-sample_in_epoch // self.row_size), seeded)
            return
        ids = self._get_work(epoch, sample_in_epoch)
        ids = ids[ids != -1]
        fetcher = ShardFetcher(self, self.predownload)
        try:
            fetcher.expect(ids)
            for begin in range(0, len(ids), self.batch_size):
                batch = ids[begin : begin + self.batch_size]
                fetcher.advance(len(batch))
                if seeded:
                    seed_batch(self.shuffle_seed, epoch, batch)
                yield from map(self.__getitem__, batch.tolist())
        finally:
            fetcher.close()

    def _plain_lazy(self, epoch: int, first_row: int, seeded: bool) -> Iterator[Any]:
        world = self._parallel_worker_world
        order = lazy_order(self, *layouts(self, world), epoch)
        steps = lazy_steps(
            order, self.rank, first_row, world.worker_of_rank, world.workers_per_rank
        )
        fetcher = ShardFetcher(self, self.predownload)
        try:
            for batches, ahead in steps:
                fetcher.expect(np.concatenate([*batches, *ahead]))
                for batch in batches:
                    fetcher.advance(len(batch))
                    if seeded:
                        seed_batch(self.shuffle_seed, epoch, batch)
                    yield from map(self.__getitem__, batch.tolist())
        finally:
            fetcher.close()

    def _from_board(self, board: Board, generation: int) -> Iterator[Tagged]:
        world = self._unique_rank_world.detect_workers()
        worker, workers = world.worker_of_rank, world.workers_per_rank
        index, epoch = 0, board.epoch(generation)
        arrangements: Arrangements | None = None
        fetcher = ShardFetcher(self, self.predownload)
        try:
            while True:
                posting = board.wait(generation, index, self._teacher_timeout)
                if arrangements is None:
                    arrangements = Arrangements.load(board.arrangements)
                steps = np.arange(len(posting.ids)) + posting.first_step
                mine = steps % workers == worker
                tasks = _tasks(posting, arrangements)
                fetcher.expect(_reading_list(posting, mine, tasks[LESSON].units, worker, workers))
                for step in np.flatnonzero(mine).tolist():
                    task = tasks[int(posting.roles[step])]
                    wanted = posting.ids[step][posting.ids[step] >= 0]
                    ids, pieces = (wanted // task.units).tolist(), (wanted % task.units).tolist()
                    fetcher.advance(len(ids))
                    seed_batch(self.shuffle_seed, epoch, wanted, task.units)
                    # A DataLoader's batch has as many samples as ever: pieces go together as one.
                    for first in range(0, len(ids), task.units):
                        some = slice(first, first + task.units)
                        samples = [self[sample_id] for sample_id in ids[some]]
                        number = int(steps[step])
                        yield Tagged(number, samples, ids[some], pieces[some], task)
                if posting.last:
                    return
                index += 1
        except BoardClosed:
            return
        finally:
            fetcher.close()


def _tasks(posting: Posting, arrangements: Arrangements) -> dict[int, Task]:
    """What is made of the batches of each role."""
    lesson = arrangements.from_vector(ALL, posting.lesson_notes)
    by = SCORED if posting.scored else ALL
    candidate = arrangements.from_vector(by, posting.candidate_notes)
    return {
        LESSON: Task(arrangements=arrangements, decision=lesson, lesson=True),
        CANDIDATE: Task(
            arrangements=arrangements, decision=candidate, lesson=False, scored=posting.scored
        ),
    }


def _reading_list(
    posting: Posting, mine: NDArray[np.bool_], units: int, worker: int, workers: int
) -> NDArray[np.int64]:
    """What a worker reads of a posting, and after it its share of what will be needed then."""
    per_sample = np.where(posting.roles == LESSON, units, 1)
    own = posting.ids[mine] // per_sample[mine, None]  # -1 stays -1
    return np.concatenate([own[own >= 0], posting.ahead[worker::workers]])
