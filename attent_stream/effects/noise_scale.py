"""Measures the noise of gradients: how large a batch is whose gradient is half noise.

The simple noise scale of McCandlish et al., "An empirical model of large-batch training" (2018,
arXiv 1812.06162, equation 2.9): the variance of a token's gradient, summed over its coordinates,
over the squared length of the mean gradient.

The squared length of a batch's gradient contains its noise. The inner product of the gradients of
two batches does not. These two are a step's first micro-batch and the rest of the step. Where a
step is one micro-batch, or its micro-batches are sorted by length, they are two steps that follow
each other. What the weights move between these counts as noise, so the scale is then too large: by
a third to a half, and more while the learning rate ends (docs/log.md, 2026-11-29, third).
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from composer import Event, State, Timestamp
from composer.loggers import Logger
from composer.utils import dist
from torch import Tensor

from attent_stream.base.errors import ScoreError
from attent_stream.base.stopwatch import Stopwatch
from attent_stream.base.watch import collective
from attent_stream.effects.effect import Effect
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.gradient_sample import gradient_sample
from attent_stream.model.wrapping import is_sharded

EVERY = 16  # batches between two measurements
_KEPT = 0.9  # share of the running means that a measurement leaves
_FEWEST = 4  # measurements, before one is told


class NoiseScale(Effect):
    """Logs ``attent/noise_scale``, in tokens of text or samples of other data.

    Args:
        form: Counts the samples of batches.
        spent: Measures the time it takes.
        at_random: Tells whether the current batch's micro-batches are random parts of it. If not,
            two steps are compared.

    Attributes:
        value: The scale; None while it is not known, infinite where no signal is seen.
        batch: Size of a batch in the same unit; None while it is not known.
    """

    def __init__(
        self, form: BatchForm, spent: Stopwatch, at_random: Callable[[], bool] = lambda: True
    ) -> None:
        self._form, self._spent, self._at_random = form, spent, at_random
        self._count = 0
        # Running means of the squared length of a batch's gradient, and of that without noise
        self._total = self._signal = 0.0
        self.batch: float | None = None
        self._began = Timestamp()
        self._rows = self._seen = 0  # samples of the batch, and of its micro-batches so far
        self._share = 1.0  # of the batch that is its first micro-batch
        self._first: Tensor | None = None  # gradient of the first micro-batch, times its share
        self._last: Tensor | None = None  # gradient of the batch
        self._before: Tensor | None = None  # of the batch before

    @property
    def value(self) -> float | None:
        """See the class."""
        if self._count < _FEWEST or self.batch is None:
            return None
        noise = max(0.0, self._total - self._signal)
        return self.batch * noise / self._signal if self._signal > 0 else float("inf")

    def idle(self, event: Event, state: State) -> bool:
        """Gradients are looked at in two batches of ``EVERY``."""
        done = event is Event.BATCH_END  # the timestamp is that of the next batch
        return (state.timestamp.batch.value - done) % EVERY >= 2

    def batch_start(self, state: State, logger: Logger) -> None:
        """Note when the batch began."""
        self._began, self._rows = state.timestamp, -1

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Begin with a batch, perhaps anew, as Composer does where memory ran out."""
        self._first = self._last = None
        self._seen = 0
        if self._rows >= 0:  # after one that failed, Composer leaves a micro-batch in its place
            return
        try:
            self._rows = self._form.rows(state.batch)
        except ScoreError:  # what cannot be counted is one micro-batch
            self._rows = 0

    def after_backward(self, state: State, logger: Logger) -> None:
        """Take a sample of the gradient, if it is that of the first micro-batch or the last."""
        rows = self._form.rows(state.batch) if self._rows else 0
        first, self._seen = not self._seen, self._seen + rows
        last = self._seen >= self._rows
        if not last and not (first and self._at_random()):
            return
        with self._spent, torch.no_grad():
            params = [
                param
                for optimizer in state.optimizers
                for group in optimizer.param_groups
                for param in group["params"]
            ]
            sample = gradient_sample(params)
        if last:
            self._last = sample
        else:
            self._first, self._share = sample, rows / self._rows

    def batch_end(self, state: State, logger: Logger) -> None:
        """Measure, and log."""
        which = (int(state.timestamp.batch) - 1) % EVERY
        if which == 1:
            with self._spent, torch.no_grad():
                self._measure(state)
        self._before = self._last if which == 0 else None
        self._first = self._last = None
        if which == 1 and self.value is not None and np.isfinite(self.value):
            logger.log_metrics({"attent/noise_scale": self.value})

    def state_dict(self) -> dict[str, float]:
        """The running means."""
        return {"count": self._count, "total": self._total, "signal": self._signal}

    def load_state_dict(self, state: Mapping[str, float] | None) -> None:
        """Go on from ``state_dict``'s state."""
        if state is not None:
            self._count = int(state["count"])
            self._total, self._signal = float(state["total"]), float(state["signal"])

    def _measure(self, state: State) -> None:
        found = self._squares(state)
        if found is None:
            return
        total, signal = found
        if not np.isfinite(found).all() or total <= 0:  # a step left out, or without a gradient
            return
        kept = _KEPT if self._count else 0.0
        self._total = kept * self._total + (1 - kept) * total
        self._signal = kept * self._signal + (1 - kept) * signal
        self._count += 1
        now, began = state.timestamp, self._began
        self.batch = float(int(now.token) - int(began.token) or int(now.sample) - int(began.sample))

    def _squares(self, state: State) -> tuple[float, float] | None:
        """Squared lengths of the batch's gradient and of the gradient without noise, times one
        factor; None where a rank has no two gradients to compare.

        All ranks call this together, and have the same.
        """
        first, before, last = self._first, self._before, self._last
        ranks = dist.get_world_size()
        there = [one is not None for one in (last, first, before)]
        agreed = self._summed(torch.tensor([*there, self._share], dtype=torch.float64), state)
        has_last, has_first, has_before, share = (float(one) / ranks for one in agreed)
        if has_last < 1 or max(has_first, has_before) < 1:
            return None
        other = first if has_first == 1 else before
        assert last is not None and other is not None
        sharded = is_sharded(state.model)
        if ranks > 1 and not sharded:  # a micro-batch's gradient is of this rank
            both = self._summed(torch.stack([last, other]), state) / ranks
            last, other = both[0], both[1]
        if has_first == 1:
            other, rest = other / share, (last - other) / (1 - share)
        else:
            rest = last
        squares = torch.stack([last.square().sum(), (other * rest).sum()]).double()
        if ranks > 1 and sharded:  # each rank has other coordinates
            squares = self._summed(squares, state)
        total, signal = squares.tolist()
        return total, signal

    def _summed(self, values: Tensor, state: State) -> Tensor:
        """The sum over all ranks."""
        if dist.get_world_size() == 1:
            return values
        values = state.device.tensor_to_device(values)
        with collective("the measuring of the noise scale"):
            dist.all_reduce(values, reduce_operation="SUM")
        return values
