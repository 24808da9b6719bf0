"""Scores of candidates that nobody has asked for: where they cannot be had, the run goes on
without.
"""

from collections.abc import Callable
from typing import Any

import torch
from composer import State
from torch import Tensor

from attent_stream.base.errors import in_words
from attent_stream.fit.candidate_scorer import CandidateScorer


class SparedScorer:
    """Asks a ``CandidateScorer``, and gives infinity for the candidates of a batch that it cannot
    score.

    All ranks gather scores in any case. So each sees by infinity that one of them cannot score, and
    they stop together.

    Args:
        scoring: Scores candidates.
        asked: Whether the user asked for scores by name: what cannot be scored is then an error.

    Attributes:
        fault: Why this rank cannot score, in words; None while it can.
    """

    def __init__(self, scoring: CandidateScorer, *, asked: bool) -> None:
        self.fault: str | None = None
        self._scoring, self._asked = scoring, asked

    def __call__(
        self,
        state: State,
        candidates: Any,
        samples: int,
        prepared: Callable[[Any], Any] = lambda batch: batch,
    ) -> Tensor:
        """Scores of a batch, floating point of shape (B,) on the learner's device.

        Args:
            state: Of the run.
            candidates: As collated.
            samples: How many they are, B.
            prepared: What becomes of a batch on the device before it is trained on.
        """
        try:
            if self.fault is None:
                candidates = prepared(
                    state.device.batch_to_device(self._scoring.transformed(candidates))
                )
        except Exception as error:
            self._spare(error)
        if self.fault is None:
            try:
                return self._scoring(state, candidates)
            except Exception as error:
                self._spare(error)
        else:
            self._scoring.pass_over()
        return state.device.tensor_to_device(torch.full((samples,), torch.inf))

    def _spare(self, error: Exception) -> None:
        # The ranks of a sharded model forward together: those that go on would wait for this one
        # for ever.
        if self._asked or (self._scoring.sharded and not self._scoring.refused):
            raise error
        self.fault = in_words(error)
