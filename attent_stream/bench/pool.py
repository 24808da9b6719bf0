"""Train several runs of a bench at once, each in a process of its own."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context

from attent_stream.base.watch import leave_with_parent
from attent_stream.bench.plan import Run
from attent_stream.bench.record import Record
from attent_stream.bench.training import Training
from attent_stream.corpus.parallel import available_cores

Job = tuple[Run, str, str]  # a run, its key, and what its lines of progress begin with


def trained(training: Training, jobs: Sequence[Job], processes: int) -> Iterator[Record]:
    """Train runs, and yield the record of each as it ends.

    Args:
        training: Trains a run.
        jobs: The runs.
        processes: Runs at a time. 1: in this process, in their order.

    Raises:
        Exception: Of the first run that failed. No run begins after it, and those that had begun
            are yielded before.
    """
    if processes == 1 or len(jobs) < 2:
        yield from (training.record(*job) for job in jobs)
        return
    processes = min(processes, len(jobs))
    threads = max(1, available_cores() // processes)
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _begin, (training, threads))
    failed: BaseException | None = None
    before = set(active_children())
    try:
        runs = [pool.submit(_train, job) for job in jobs]
        for done in as_completed(runs):
            if done.cancelled():
                continue
            error = done.exception()
            if error is None:
                yield done.result()
                continue
            failed = failed or error
            for run in runs:  # those that have begun go on, and are not lost
                run.cancel()
    except BaseException:  # interrupted, perhaps by SIGTERM: nobody waits for runs of many minutes
        for process in set(active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    if failed is not None:
        raise failed


_TRAINING: list[Training] = []  # of this process, if it is one of the pool


def _begin(training: Training, threads: int) -> None:
    import torch

    leave_with_parent()
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    _TRAINING[:] = [training]


def _train(job: Job) -> Record:
    return _TRAINING[0].record(*job)
