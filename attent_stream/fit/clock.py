"""Composer's time as a clock that can look ahead, and what follows from it for a run."""

import logging
from collections.abc import Mapping

from composer import State
from composer.utils import dist
from torch import Tensor

from attent_stream.base.duration import share_of_training
from attent_stream.base.span import Clock, Span
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.teach.teacher import ClockReader

log = logging.getLogger(__name__)


def state_clock(state: State, loader: TeachingDataLoader) -> ClockReader:
    """Return a clock over a Trainer's state.

    Future samples and tokens are estimated by the run's mean for a batch so far. Epochs are
    measured in rows of the order, so a schedule over epochs does not depend on what it kept. They
    are counted from the start of this run, not of the data set.
    """
    epochs_before = loader.dataset.coming_epoch - int(state.timestamp.epoch)

    def read(ahead: int, epoch: int, share: float) -> Clock:
        now = state.timestamp
        batches = int(now.batch)
        per_batch = (loader.dataset.row_size, 0.0)
        if batches:
            per_batch = (int(now.sample) / batches, int(now.token) / batches)
        elapsed = {
            "ep": epoch - epochs_before + share,
            "ba": float(batches + ahead),
            "sp": int(now.sample) + ahead * per_batch[0],
            "tok": int(now.token) + ahead * per_batch[1],
        }
        return Clock(**elapsed, dur=share_of_training(state, elapsed))

    return read


def single_pass(length: float | None, loader: TeachingDataLoader) -> bool:
    """Whether training of this length is known to see no sample twice.

    Streams that are repeated within an epoch are.

    Args:
        length: See ``passes``.
        loader: The train loader.
    """
    return length is not None and length <= 1 and not loader.dataset.repeats


def passes(total: Span | None, loader: TeachingDataLoader) -> float | None:
    """Epochs of plain training that a run is as long as; None if that is not known.

    A length in tokens is known for packed text only. All ranks must call this together.
    """
    if total is None:
        return None
    epoch: dict[str, float] = {
        "ep": 1,
        "ba": loader.plain_batches,
        "sp": max(loader.dataset.epoch_size, loader.plain_batches * loader.dataset.row_size),
    }
    if total.unit == "tok":
        length = packed_length(loader)
        return None if length is None else total.value / (epoch["sp"] * length)
    return total.value / epoch[total.unit] if total.unit in epoch else None


def packed_length(loader: TeachingDataLoader) -> int | None:
    """Return the number of tokens in each sample of packed text, or None if it is not known.

    All ranks must call this together.
    """
    if not loader.packed:
        return None
    length = None
    try:
        batch = loader.glance()
        ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
        length = ids.shape[1] if isinstance(ids, Tensor) and ids.ndim == 2 else None
    except Exception as error:  # so few samples cannot always be collated
        log.debug("The length of samples is not known: %s", error)
    # All ranks must return the same.
    lengths = set(dist.all_gather_object(length))
    return length if len(lengths) == 1 else None
