"""Scoring in the memory there is."""

import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

from attent_stream.base.errors import AttentError
from attent_stream.base.watch import here
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.reading import Reading
from attent_stream.model.wrapping import is_sharded
from attent_stream.score.scorer import Scorer, score_batch

log = logging.getLogger(__name__)


class MicrobatchScorer:
    """Scores batches of a model in training; when memory runs out, with half as many samples at
    once from then on.

    The ranks of a sharded model would then disagree on the number of forwards and wait for each
    other for ever, so there it raises instead.

    Args:
        scorer: How to score.
        model: The model as training has it (wrapped).

    Attributes:
        sharded: Whether a forward of the model needs the other ranks.
        limit: Most samples forwarded at once since memory ran out, None before.
    """

    def __init__(self, scorer: Scorer, model: Module) -> None:
        self.sharded = is_sharded(model)
        self.limit: int | None = None
        self._scorer = scorer
        self._form = BatchForm()
        self._model = scored_module(scorer, model)

    def read_by(self, reading: Reading | None, form: BatchForm) -> None:
        """Score by this reading of the model's outputs from now on, and split batches in
        this way.
        """
        self._scorer, self._form = self._scorer.read_by(reading, form.rows), form

    def __call__(self, batch: Any, microbatch: int, draw: tuple[int, ...] = ()) -> Tensor:
        """Scores of a batch, ``microbatch`` samples at a time or fewer; see ``score_batch``.

        Raises:
            ScoreError: See ``Scorer.from_outputs``.
            AttentError: Out of memory, and the model is sharded or even a single sample does not
                fit.
        """
        asked = size = min(microbatch, self._form.rows(batch), self.limit or microbatch)
        while True:
            try:
                scores = score_batch(self._scorer, self._model, batch, size, draw, self._form.parts)
                break
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                size = self._smaller(size, error)
            # And not within except: the error's frames hold what did not fit
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if size < asked:
            self.limit = size
            log.warning(
                "Scoring ran out of memory with %d samples at once: %d from now on (score_batch: "
                "%d starts so).",
                asked,
                size,
                size,
            )
        return scores

    def _smaller(self, size: int, error: RuntimeError) -> int:
        if self.sharded:
            raise AttentError(
                f"scoring ran out of memory with {size} samples at once on {here()}, and all ranks "
                "of a sharded model must score "
                f"alike: set score_batch to less than {size}, or device_train_microbatch_size "
                "where score_batch is not set"
            ) from error
        if size == 1:
            raise AttentError(
                f"scoring ran out of memory with a single sample on {here()} (score_batch is 1 by "
                "now): training needs more "
                "memory than there is, or score holds on to what it computes"
            ) from error
        return size // 2


def scored_module(scorer: Scorer, model: Module) -> Module:
    """What to forward: the ComposerModel itself where that is the same, as DDP's own forward only
    adds to it.

    Composer compiles the forward of DDP's wrapper, not the one inside: there the wrapper is needed
    (``untouched`` keeps it quiet). A user's callable always gets the ComposerModel.
    """
    if not isinstance(model, DistributedDataParallel):
        return model
    compiled = "forward" in vars(model)
    return model if compiled and scorer.reads_outputs else model.module
