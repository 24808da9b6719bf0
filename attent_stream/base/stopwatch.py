"""Seconds spent in blocks of code, on the CPU or on the GPU's own clock."""

import time

import torch


class Stopwatch:
    """Adds up the time of ``with`` blocks, without making the GPU wait while they run.

    Args:
        gpu: Whether what is timed runs on the GPU.
    """

    def __init__(self, gpu: bool = False) -> None:
        self._gpu = gpu
        self._seconds = 0.0
        self._begin = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> "Stopwatch":
        self._begin = time.perf_counter()
        if self._gpu:
            self._events.append(
                (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            )
            self._events[-1][0].record()
        return self

    def __exit__(self, *_: object) -> None:
        if self._gpu:
            self._events[-1][1].record()
        else:
            self._seconds += time.perf_counter() - self._begin

    def take(self, wait: bool = True) -> float:
        """Seconds within the blocks since the last call, then starts from 0.

        Args:
            wait: For blocks that the GPU has not done yet; else they are left for the next call.
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
