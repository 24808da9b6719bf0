"""The samples that a loader worker reads from the board in a taught epoch."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from streaming import StreamingDataset

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.base.batch_seed import seed_batch
from attent_stream.data.tagged import Tagged, Task
from attent_stream.store.shards import ShardFetcher
from attent_stream.teach.board import Board, BoardClosed, Posting
from attent_stream.window.decision import ALL, SCORED
from attent_stream.window.layout import CANDIDATE, LESSON


def board_samples(
    dataset: StreamingDataset,
    board: Board,
    *,
    generation: int,
    worker: int,
    workers: int,
    timeout: float,
) -> Iterator[Tagged]:
    """Read a worker's share of every posting, until the epoch ends.

    Args:
        dataset: Where samples are read from.
        board: Where the rank's main process publishes.
        generation: Number of the iteration on the board.
        worker: Index of this worker among the rank's.
        workers: Number of the rank's workers.
        timeout: Longest time to wait for a posting, in seconds.

    Raises:
        TeacherError: A posting did not come in time.
    """
    index, epoch = 0, board.epoch(generation)
    arrangements: Arrangements | None = None
    view = ""
    fetcher = ShardFetcher(dataset, dataset.predownload)
    try:
        while True:
            posting = board.wait(generation, index, timeout)
            if arrangements is None:
                arrangements, view = Arrangements.load(board.arrangements), board.view
            steps = np.arange(len(posting.ids)) + posting.first_step
            mine = steps % workers == worker
            tasks = _tasks(posting, arrangements, view)
            fetcher.expect(_reading_list(posting, mine, tasks[LESSON].units, worker, workers))
            for step in np.flatnonzero(mine).tolist():
                task = tasks[int(posting.roles[step])]
                wanted = posting.ids[step][posting.ids[step] >= 0]
                ids, pieces = (wanted // task.units).tolist(), (wanted % task.units).tolist()
                fetcher.advance(len(ids))
                seed_batch(dataset.shuffle_seed, epoch, wanted, task.units)
                # The DataLoader expects batch_size items, so the pieces of a row are one item.
                for first in range(0, len(ids), task.units):
                    some = slice(first, first + task.units)
                    samples = [dataset[sample_id] for sample_id in ids[some]]
                    yield Tagged(int(steps[step]), samples, ids[some], pieces[some], task)
            if posting.last:
                return
            index += 1
    except BoardClosed:
        return
    finally:
        fetcher.close()


def _tasks(posting: Posting, arrangements: Arrangements, view: str) -> dict[int, Task]:
    """Tasks by role."""
    lesson = arrangements.from_vector(ALL, posting.lesson_notes)
    by = SCORED if posting.scored else ALL
    candidate = arrangements.from_vector(by, posting.candidate_notes)
    return {
        LESSON: Task(arrangements=arrangements, decision=lesson, lesson=True),
        CANDIDATE: Task(
            arrangements=arrangements,
            decision=candidate,
            lesson=False,
            scored=posting.scored,
            view=view,
        ),
    }


def _reading_list(
    posting: Posting, mine: NDArray[np.bool_], units: int, worker: int, workers: int
) -> NDArray[np.int64]:
    """Sample ids that a worker reads of a posting, then its share of those needed after it."""
    per_sample = np.where(posting.roles == LESSON, units, 1)
    own = posting.ids[mine] // per_sample[mine, None]  # -1 stays -1
    return np.concatenate([own[own >= 0], posting.ahead[worker::workers]])
