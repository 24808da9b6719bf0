"""A stopwatch for blocks of code on the CPU or the GPU."""

import time

import torch


class Stopwatch:
    """Add up the time of ``with`` blocks without synchronizing the GPU while they run.

    Args:
        gpu: Measure GPU time with CUDA events instead of wall time.
    """

    def __init__(self, gpu: bool = False) -> None:
        self._gpu = gpu
        self._seconds = 0.0
        self._begin = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> "Stopwatch":
        self._begin = time.perf_counter()
        if self._gpu:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._events.append((begin, end))
            begin.record()
        return self

    def __exit__(self, *_: object) -> None:
        if self._gpu:
            self._events[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._begin

    def take(self, wait: bool = True) -> float:
        """Return the seconds since the last call and start again from 0.

        Args:
            wait: Wait for blocks that the GPU has not finished; else the next call counts them.
        """
        seconds, self._seconds = self._seconds, 0.0
        pending = []
        for begin, end in self._events:
            if not wait and not end.query():
                pending.append((begin, end))
                continue
            end.synchronize()
            seconds += begin.elapsed_time(end) / 1000
        self._events = pending
        return seconds
