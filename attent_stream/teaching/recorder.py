"""The recorder: per-sample scores of the training forwards, on their way into the ledger at no extra pass."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import Module, functional

from attent_stream.dataloader import TeachingDataLoader
from attent_stream.errors import AttentError
from attent_stream.gather import gather_ranks
from attent_stream.scoring.batch import batch_length
from attent_stream.scoring.saved import saved_losses
from attent_stream.scoring.scorer import Scorer
from attent_stream.teaching.choice import ALL
from attent_stream.teaching.teacher import Teacher

THRIFTY_EVERY = 8  # batches, of which one is recorded to see the spread of scores


class Recorder:
    """Scores lessons by their own training forwards, and gathers all ranks' once a window.

    Args:
        scorer: Scores outputs.
        loader: Says which samples a batch has.
        teacher: Remembers.
        always: Whether lessons of taught windows are recorded too, or only of those that are kept whole.
        thrifty: Whether one batch in ``THRIFTY_EVERY`` is enough while teaching does not promise to pay.
    """

    def __init__(
        self, scorer: Scorer, loader: TeachingDataLoader, teacher: Teacher, *, always: bool, thrifty: bool = False
    ) -> None:
        self._scorer, self._loader, self._teacher = scorer, loader, teacher
        self._always, self._thrifty = always, thrifty
        self._agrees: dict[int, bool] = {}  # microbatch's size -> whether what its loss has saved are its samples' losses
        self._records = True  # this batch
        self._micro: list[torch.Tensor] = []  # this batch's scores, a tensor a microbatch
        self._pending: list[torch.Tensor] = []  # (3, batch_size * pieces) ids, scores and times of lessons not yet in the ledger

    def begin_batch(self) -> None:
        """Before a batch's first forward, also where one that failed begins anew."""
        self._micro = []
        if self._thrifty:
            batches = self._teacher.clock(0, self._loader.dataset.coming_epoch, 0.0).ba
            self._records = batches % THRIFTY_EVERY == 0 or self._teacher.promising

    def loss_done(self, model: Module, outputs: Any, batch: Any, loss: Any) -> None:
        """After a microbatch's forward and loss, before its backward."""
        epoch = self._loader.epoch
        if epoch is None or not self._records:
            return
        choice = epoch.segment.choice  # None: what follows the last full row, of which all is kept
        if self._always or choice is None or choice.decision.by == ALL:
            with torch.no_grad():
                self._micro.append(self._scores(model, outputs, batch, loss))

    def _scores(self, model: Module, outputs: Any, batch: Any, loss: Any) -> torch.Tensor:
        """From the loss where it has them, once it was seen that they are those of the outputs; else from these."""
        size = batch_length(batch)
        saved = saved_losses(loss, size) if self._agrees.get(size, self._scorer.name == "loss") else None
        if size not in self._agrees or saved is None:
            scores = self._scorer.from_outputs(model, outputs, batch)
            self._agrees[size] = saved is not None and torch.allclose(saved, scores, rtol=1e-4, atol=1e-5, equal_nan=True)
            if not self._agrees[size]:  # and if so, a run that is resumed here goes on as one that was not
                return scores
        return saved

    def end_batch(self) -> None:
        """After a batch's last.

        Raises:
            AttentError: The forwards did not score each of its lessons.
        """
        if not self._micro:
            return
        ids, scores = self._loader.epoch.lesson[0], torch.cat(self._micro)
        if len(scores) != len(ids):
            raise AttentError(
                f"record needs a score for each of the batch's {len(ids)} lessons and the training forward gave {len(scores)}: "
                f"leave away the algorithm that changes batches, or set record to never"
            )
        row = torch.full((3, self._loader.batch_size * self._loader.epoch.pieces), -1.0, dtype=torch.float64, device=scores.device)
        row[0, : len(ids)] = torch.from_numpy(ids).to(row.device)
        row[1, : len(ids)] = scores
        row[2] = self._teacher.time(self._loader.epoch.order.epoch)
        self._pending.append(row)
        self._micro = []

    def flush(self) -> None:
        """Put what all ranks have recorded into the ledger; they call this together."""
        if not self._pending:
            return
        dataset = self._loader.dataset
        width = max(row.shape[1] for row in self._pending)  # the same on all ranks
        pending = torch.stack([functional.pad(row, (0, width - row.shape[1]), value=-1.0) for row in self._pending])
        rows = gather_ranks(pending, ranks=dataset.num_ranks, replication=dataset.replication or 1)
        self._pending = []
        for batch in rows.swapaxes(0, 1):  # (ranks, 3, batch_size), all of one time
            ids, scores, times = batch.swapaxes(0, 1).reshape(3, -1)
            real = ids >= 0
            self._teacher.remember(*_means(ids[real].astype(np.int64), scores[real]), times[0])


def _means(ids: NDArray[np.int64], scores: NDArray) -> tuple[NDArray[np.int64], NDArray]:
    """Of pieces of one sample the mean; of each sample once they are as they were."""
    once, which, counts = np.unique(ids, return_inverse=True, return_counts=True)
    if len(once) == len(ids):
        return ids, scores
    return once, np.bincount(which, scores, len(once)) / counts
