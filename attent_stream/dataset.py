"""``TeachingDataset``: a StreamingDataset that reads what its rank publishes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from streaming import StreamingDataset
from streaming.base.dataset import _ShardState
from torch import distributed as dist
from torch.utils.data import get_worker_info

from attent_stream.board import Board, BoardClosed, Posting
from attent_stream.epoch import TaughtEpoch
from attent_stream.order import Order, open_order
from attent_stream.position import Position
from attent_stream.shards import ShardFetcher


class Tagged(NamedTuple):
    """A sample or batch with the number of the step it belongs to, so that nothing of ours is inside the batch."""

    step: int
    value: Any


class TeachingDataset(StreamingDataset):
    """A StreamingDataset whose samples a teacher may choose, window by window.

    Without a teacher it yields exactly what StreamingDataset does. All of StreamingDataset's arguments are kept and passed
    on by keyword, so a subclass of this and another StreamingDataset works: ``class Mine(TeachingDataset, TheirText)``.

    Args:
        window: Candidate rows (global batches) per window; at least 2.
        gap: Lesson batches at the end of a window with no candidate between them, in which the next window's first
            lessons are read ahead (at most a quarter of them); best at least ``num_workers * prefetch_factor``. It changes what
            is trained on only by how old the model is when it scores.
        require_teacher: Whether iterating without a teacher is an error.
        **kwargs: StreamingDataset's (and any other base's) arguments.

    Raises:
        ValueError: ``window`` or ``gap`` out of range, or what StreamingDataset raises.
    """

    def __init__(self, *, window: int = 32, gap: int = 8, require_teacher: bool = False, **kwargs: Any) -> None:
        if isinstance(window, bool) or not isinstance(window, int) or window < 2:
            raise ValueError(f"window must be an integer of at least 2 (rows per window), got {window!r}")
        if isinstance(gap, bool) or not isinstance(gap, int) or gap < 0:
            raise ValueError(f"gap must be an integer of at least 0 (lesson batches), got {gap!r}")
        super().__init__(**kwargs)
        self.window = window
        self.gap = gap
        self.require_teacher = require_teacher
        self._board: Board | None = None
        # Which iteration over the loader this process reads for. A worker that persists is asked to iterate once for each
        # of the loader's iterations, and may be late: it counts for itself, so as not to take a new one for the old.
        self._generation = 0
        self._iterated = False
        self._teacher_timeout = 3600.0
        # Only in the main process:
        self._taught: TaughtEpoch | None = None
        self._position: Position | None = None  # loaded from a checkpoint, not yet gone on from
        self._loaded: dict[str, Any] | None = None  # the state that was loaded last

    @property
    def shared_prefix(self) -> int:
        """Number that Streaming gave this data set on this node, part of the names of its shared memory."""
        return self._shm_prefix_int

    @property
    def rank(self) -> int:
        """This rank among those that read different samples."""
        return self._parallel_rank_world.rank

    @property
    def row_size(self) -> int:
        """Samples in a global batch."""
        return self._parallel_rank_world.num_ranks * self.batch_size

    @property
    def coming_epoch(self) -> int:
        """Number of the epoch that is iterated next: a loaded state's, unless it is stale."""
        return max(self.next_epoch, self._loaded["epoch"] if self._loaded else 0)

    def connect(self, board: Board, timeout: float) -> None:
        """Read from this board whenever a taught epoch is under way on it (called by TeachingDataLoader)."""
        self._board = board
        self._teacher_timeout = timeout

    def begin_iteration(self, taught: bool) -> None:
        """Announce an iteration over the loader, in the main process, before its workers are told to iterate."""
        self._generation = self._board.begin(taught)

    def begin_epoch(self) -> tuple[Order, int, Position | None]:
        """Move on to the next epoch and build its order; called in the main process of every rank at the same time.

        Returns:
            The order, the row to start at, and the position to go on from, if a checkpoint was loaded that has one.

        Raises:
            AttentError: Several ranks, but torch.distributed is not initialised.
        """
        unique, world = self._unique_rank_world, self._parallel_rank_world
        epoch, sample_in_epoch = self._resume(world, self.next_epoch)
        if unique.num_ranks > 1 and dist.is_available() and dist.is_initialized():
            dist.barrier()  # all ranks of the node have read the counter before its leader moves it on
        if unique.is_local_leader:
            self.next_epoch = epoch + 1
        order = open_order(self, world, unique.is_local_leader, unique.ranks_per_node, epoch)
        position, self._position = self._position, None
        if position is not None and position.epoch != epoch:
            position = None
        return order, -(-sample_in_epoch // self.row_size), position

    def follow(self, taught: TaughtEpoch | None) -> None:
        """Tell the state of this taught epoch from now on (called by TeachingDataLoader)."""
        self._taught = taught

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        """Where training stands; reading it changes nothing.

        Beside Streaming's own entries there is ``attent``: a :class:`Position` as a JSON string, empty where no taught
        epoch is under way. At the end of an epoch this is the start of the next one (Streaming's own state would repeat
        the finished epoch's order).

        Args:
            num_samples: Samples trained on, by all ranks.
            from_beginning: Whether these are counted from the start of the epoch, or of this process's part of it.
        """
        taught, loaded = self._taught, self._loaded
        epoch, offset = self.next_epoch - 1, 0
        known = {
            "num_canonical_nodes": self.num_canonical_nodes or self._default_canonical_nodes,
            "shuffle_seed": self.shuffle_seed,
            "initial_physical_nodes": self.initial_physical_nodes or self._parallel_rank_world.num_nodes,
        }
        if loaded is not None and loaded["epoch"] >= epoch:
            epoch, offset = loaded["epoch"], loaded["sample_in_epoch"]
            known = {name: loaded.get(name) or value for name, value in known.items()}
        samples = num_samples if from_beginning else offset + num_samples
        if samples == 0:
            epoch = self.coming_epoch if taught is None or taught.started else taught.order.epoch
            taught = None
        text = "" if taught is None else taught.position.dump()
        return {"epoch": epoch, "sample_in_epoch": samples, **known, "attent": text}

    @property
    def _default_canonical_nodes(self) -> int:
        """As Streaming sets it when a first epoch begins, in the processes that iterate."""
        nodes = self._parallel_rank_world.num_nodes
        return 64 * nodes if self.shuffle_algo in ("py1s", "py2s") else nodes

    def continue_epoch(self, num_samples: int) -> None:
        """Let the next iteration go on in the epoch under way, after ``num_samples`` of it: another fit in this process."""
        state = self.state_dict(num_samples, True)
        self.next_epoch = state["epoch"]
        self.load_state_dict(state)

    def load_state_dict(self, obj: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s state, or from one of plain Streaming, when next iterated.

        Raises:
            ValueError: A position of another version.
        """
        text = obj.get("attent", "")
        self._position = Position.load(text) if text else None
        self._loaded = dict(obj)
        super().load_state_dict({key: value for key, value in obj.items() if key != "attent"})

    def prepare_shard(self, shard_id: int, blocking: bool = True) -> None:
        """As Streaming's, but a shard that could not be fetched is left as not fetched.

        Streaming leaves it as being fetched, and every other reader on the node waits for it for ever.
        """
        try:
            super().prepare_shard(shard_id, blocking)
        except BaseException:
            if self._shard_states[shard_id] == _ShardState.PREPARING:
                self._shard_states[shard_id] = _ShardState.REMOTE
            raise

    def __getstate__(self) -> dict[str, Any]:
        """What a spawned worker gets: not what belongs to the main process."""
        return {**self.__dict__, "_taught": None, "_position": None}

    def __iter__(self) -> Iterator[Any]:
        """The samples of this worker: as Streaming partitions them, or ``Tagged`` ones as the board says."""
        if get_worker_info() is not None:
            self._generation += self._iterated
            self._iterated = True
        if self._board is not None and self._board.taught(self._generation):
            return self._from_board(self._board, self._generation)
        return self._plain()

    def _plain(self) -> Iterator[Any]:
        self._unique_worker_world = self._unique_rank_world.detect_workers()
        self._parallel_worker_world = self._parallel_rank_world.detect_workers()
        epoch, sample_in_epoch = self._resume_incr_epoch()
        ids = self._get_work(epoch, sample_in_epoch)
        ids = ids[ids != -1]
        fetcher = ShardFetcher(self, self.predownload)
        try:
            fetcher.expect(ids)
            for begin in range(0, len(ids), self.batch_size):
                batch = ids[begin : begin + self.batch_size]
                fetcher.advance(len(batch))
                yield from map(self.__getitem__, batch.tolist())
        finally:
            fetcher.close()

    def _from_board(self, board: Board, generation: int) -> Iterator[Tagged]:
        world = self._unique_rank_world.detect_workers()
        worker, workers = world.worker_of_rank, world.workers_per_rank
        index = 0
        fetcher = ShardFetcher(self, self.predownload)
        try:
            while True:
                posting = board.wait(generation, index, self._teacher_timeout)
                steps = np.arange(len(posting.ids)) + posting.first_step
                mine = steps % workers == worker
                fetcher.expect(_reading_list(posting, mine, worker, workers))
                for step, ids in zip(steps[mine].tolist(), posting.ids[mine], strict=True):
                    wanted = ids[ids >= 0]
                    fetcher.advance(len(wanted))
                    for sample_id in wanted.tolist():
                        yield Tagged(step, self[sample_id])
                if posting.last:
                    return
                index += 1
        except BoardClosed:
            return
        finally:
            fetcher.close()


def _reading_list(posting: Posting, mine: NDArray[np.bool_], worker: int, workers: int) -> NDArray[np.int64]:
    """What a worker reads of a posting, and after it its share of what will be wanted then."""
    own = posting.ids[mine].reshape(-1)
    return np.concatenate([own[own >= 0], posting.ahead[worker::workers]])
