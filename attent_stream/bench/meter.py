"""Record held-out measures and the cost of training, with teaching and without evaluations."""

from collections import Counter
from typing import Any, Protocol, runtime_checkable

from composer import State
from composer.loggers import InMemoryLogger, Logger

from attent_stream.base.training_time import TrainingTime
from attent_stream.bench.flops import Shape
from attent_stream.bench.record import Point
from attent_stream.model.batch import batch_length
from attent_stream.model.vision import image_sides


class Meter(TrainingTime):
    """Record a ``Point`` for each round of evaluations.

    Args:
        metric: Composer's name of the measure.
        memory: The run's logger, which holds AtteNT's metrics.
        shape: The model's shape, for FLOPs.
        side: Full height of images in pixels; None for text.
    """

    def __init__(
        self, metric: str, memory: InMemoryLogger, shape: Shape, side: int | None = None
    ) -> None:
        super().__init__()
        self.points: list[Point] = []
        self._metric = metric
        self._memory = memory
        self._shape = shape
        self._side = side
        # Trained samples by their share of the full positions.
        self._trained: Counter[float] = Counter()

    def after_forward(self, state: State, logger: Logger) -> None:
        """Count the micro-batch's samples by their size, which AtteNT may have reduced before."""
        if self._side is None:
            share = state.batch["input_ids"].shape[1] / self._shape.positions
        else:
            share = (image_sides(state.batch)[0] / self._side) ** 2
        self._trained[share] += batch_length(state.batch)

    def eval_after_all(self, state: State, logger: Logger) -> None:
        """Record the evaluations, then resume timing."""
        candidates = int(max(self._logged("candidates"), default=0)) * self._shape.positions
        extra = 0 if self._side is None else 1
        trained = [
            (shape := self._shape.at(share, extra), samples * shape.positions)
            for share, samples in self._trained.items()
        ]
        head = _head_share(state)
        self.points.append(
            Point(
                step=int(state.timestamp.batch),
                tokens=sum(tokens for _, tokens in trained),
                candidates=candidates,
                seconds=self.seconds,
                cpu_seconds=self.cpu_seconds,
                teaching_seconds=sum(self._logged("seconds")),
                flops=self._shape.run(0, candidates)
                + sum(shape.run(tokens, 0, head=head) for shape, tokens in trained),
                measures={
                    label: float(metrics[self._metric].compute())
                    for label, metrics in state.eval_metrics.items()
                },
            )
        )
        super().eval_after_all(state, logger)

    def _logged(self, name: str) -> list[float]:
        return [float(value) for _, value in self._memory.data.get(f"attent/{name}", [])]


@runtime_checkable
class UsesPartOfHead(Protocol):
    """An algorithm that gives the output head a share of the positions only."""

    @property
    def head_share(self) -> float:
        """The share, in (0, 1]."""


def _head_share(state: State) -> float:
    """Share of the positions that the head is given, ignoring a short warm-up and anneal."""
    found = [one.head_share for one in state.algorithms if isinstance(one, UsesPartOfHead)]
    return found[0] if found else 1.0


def memory_of(trainer: Any) -> InMemoryLogger:
    """Return the run's in-memory logger."""
    return next(found for found in trainer.logger.destinations if isinstance(found, InMemoryLogger))
