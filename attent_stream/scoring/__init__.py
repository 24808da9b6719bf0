"""Per-sample importance: the mathematics (``reference``) and how to get it from a model (``scorer``)."""

from attent_stream.scoring.batch import ScoreError, batch_length, split_batch
from attent_stream.scoring.scorer import Scorer, build_scorer, score_batch
from attent_stream.scoring.scores import SCORES

__all__ = ["SCORES", "ScoreError", "Scorer", "batch_length", "build_scorer", "score_batch", "split_batch"]
