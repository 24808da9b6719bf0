"""One forward with gradients of every lesson, the backward of the microbatches with the largest
losses only.

After Jiang et al., Accelerating Deep Learning by Focusing on the Biggest Losers (arXiv 1910.00762),
who compare each loss with those of late; there (and in Composer's SelectiveBackprop) what is chosen
is forwarded a second time. A backward is two thirds of a step, so at a share of a half a batch
costs two thirds of one that is trained on whole.

A microbatch's graph is kept or freed before the next one's forward, so memory is that of plain
training. All ranks decide alike, by the mean of their losses, and each batch has as many kept
microbatches as every other; its last microbatch is always among them, for
``DistributedDataParallel`` exchanges gradients in its backward.
"""

from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from composer import State
from torch import Tensor
from torch import distributed as dist

from attent_stream.base.watch import collective

HISTORY = 64  # microbatches of late that a loss is compared with


class KeptBackward:
    """Decides on one microbatch after the other.

    Args:
        share: Of a batch's microbatches that go backward, in (0, 1); rounded to whole ones, at
            least one.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._late: deque[float] = deque(maxlen=HISTORY)
        self._total = self._kept = self._done = 0  # microbatches of this batch

    def begin_batch(self, microbatches: int) -> None:
        """Before a batch's first forward, also where one that failed begins anew.

        Args:
            microbatches: Of the batch; one alone is kept.
        """
        self._total, self._kept, self._done = microbatches, 0, 0

    def loss_done(self, state: State) -> None:
        """Once a microbatch's loss is there: leave its numbers as they are, and scale its gradients
        to stand for the whole batch, or cut it from the graph and let that go, together with what
        else holds it.

        Args:
            state: With ``loss``, a tensor or several in a sequence or mapping, of which Composer
                takes the sum of the means (or ``total``), and ``outputs``.
        """
        quota = min(self._total, max(1, round(self._share * self._total)))
        keep = self._decide(self._mean(state.loss), quota)
        self._done += 1
        self._kept += keep
        if keep:
            factor = self._total / quota
            state.loss = _mapped(state.loss, lambda one: one + (factor - 1) * (one - one.detach()))
        else:
            state.loss = _mapped(state.loss, _cut)
            _let_go(state.outputs)
            state.outputs = _mapped(state.outputs, Tensor.detach)

    def state(self) -> list[float]:
        """The losses of late: plain numbers."""
        return list(self._late)

    def load(self, state: list[float] | None) -> None:
        """Go on from ``state``'s."""
        self._late = deque(state or (), maxlen=HISTORY)

    def _decide(self, mean: float, quota: int) -> bool:
        left, wanted = self._total - self._done, quota - self._kept
        threshold = np.quantile(self._late, 1 - self._share) if self._late else -np.inf
        if np.isfinite(mean):
            self._late.append(mean)
        if left <= 1 or wanted >= left:
            return True
        return wanted > 1 and not mean < threshold

    def _mean(self, loss: Any) -> float:
        """Of all ranks' microbatches, the same on each."""
        parts = [loss["total"]] if isinstance(loss, Mapping) and "total" in loss else _tensors(loss)
        mean = torch.stack([part.detach().float().mean() for part in parts]).sum()
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            with collective("the choice of microbatches to go backward"):
                dist.all_reduce(mean)
            mean /= dist.get_world_size()
        return mean.item()


def _cut(loss: Tensor) -> Tensor:
    """The same number, behind which no model stands; not a leaf, for Composer scales it in
    place.
    """
    return loss.detach() + torch.zeros_like(loss, requires_grad=True)


def _let_go(outputs: Any) -> None:
    """Leave out what nobody reads and holds the graph: the keys and values that a language model
    gives back.
    """
    if isinstance(outputs, MutableMapping) and outputs.get("past_key_values") is not None:
        outputs["past_key_values"] = None


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same structure, of other tensors; a mapping is changed in place, for it may be of a class
    of its own.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, MutableMapping):
        for name, part in value.items():
            value[name] = _mapped(part, function)
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(part, function) for part in value)
    return value


def _tensors(loss: Any) -> list[Tensor]:
    if isinstance(loss, Tensor):
        return [loss]
    return [
        part
        for one in (loss.values() if isinstance(loss, Mapping) else loss)
        for part in _tensors(one)
    ]
