"""Scoring in microbatches that fit into memory."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

from attent_stream.base.errors import AttentError
from attent_stream.base.watch import here
from attent_stream.model.batch import split_batch
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.device_memory import out_of_memory
from attent_stream.model.reading import Reading
from attent_stream.model.wrapping import is_sharded
from attent_stream.score.scorer import Scorer

log = logging.getLogger(__name__)


def score_batch(
    scorer: Scorer,
    model: Module,
    batch: Any,
    microbatch: int | None,
    draw: tuple[int, ...] = (),
    split: Callable[[Any, int], list[Any]] = split_batch,
) -> Tensor:
    """Score a batch without gradients, ``microbatch`` samples in a forward.

    The caller sets eval mode and the precision context. All ranks must call this equally often.

    Args:
        scorer: The scorer.
        model: The model, wrapped as in training.
        batch: On the model's device. It is not changed.
        microbatch: Samples in a forward. None: all.
        draw: Seeds what the scorer draws at random.
        split: Splits a batch into microbatches of at most so many samples.

    Returns:
        Float32, shape (B,), on the outputs' device.

    Raises:
        ScoreError: See ``Scorer.from_outputs``.
    """
    # Not inference_mode: FSDP could not train on the parameters that it gathers inside.
    with torch.no_grad():
        microbatches = [batch] if microbatch is None else split(batch, microbatch)
        return torch.cat([scorer.scores(model, part, draw) for part in microbatches])


class MicrobatchScorer:
    """Scores batches of a model in training, in microbatches that fit into memory.

    When memory runs out, it halves the microbatch for the rest of the run. The ranks of a sharded
    model would then make different numbers of forwards and wait for each other, so there it raises.

    Args:
        scorer: The scorer.
        model: The model, wrapped as in training.

    Attributes:
        sharded: Whether a forward of the model needs the other ranks.
        limit: Most samples in a forward since memory ran out. None before.
    """

    def __init__(self, scorer: Scorer, model: Module) -> None:
        self.sharded = is_sharded(model)
        self.limit: int | None = None
        self._scorer = scorer
        self._form = BatchForm()
        self._model = scored_module(scorer, model)

    def read_by(self, reading: Reading | None, form: BatchForm) -> None:
        """Use this reading of the model's outputs and this form of batches from now on."""
        self._scorer, self._form = self._scorer.read_by(reading, form.rows), form

    def __call__(self, batch: Any, microbatch: int, draw: tuple[int, ...] = ()) -> Tensor:
        """Score a batch with at most ``microbatch`` samples in a forward; see ``score_batch``.

        Raises:
            ScoreError: See ``Scorer.from_outputs``.
            AttentError: Memory ran out, and the model is sharded or a single sample does not fit.
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
            # After the except block, as the error's frames hold what did not fit
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
                f"of a sharded model must score alike: set score_batch to less than {size}, or "
                "device_train_microbatch_size where score_batch is not set"
            ) from error
        if size == 1:
            raise AttentError(
                f"scoring ran out of memory with a single sample on {here()} (score_batch is 1 by "
                "now): training needs more memory than there is, or score holds on to what it "
                "computes"
            ) from error
        return size // 2


def scored_module(scorer: Scorer, model: Module) -> Module:
    """The module to forward: the ComposerModel inside DDP, whose own forward only adds to it.

    Composer compiles the forward of DDP's wrapper, so a compiled wrapper is forwarded itself
    (``untouched`` prevents its collectives). A user's function always gets the ComposerModel.
    """
    if not isinstance(model, DistributedDataParallel):
        return model
    compiled = "forward" in vars(model)
    return model if compiled and scorer.reads_outputs else model.module
