"""Metrics and counts of a choice."""

import numpy as np
from numpy.typing import NDArray

from attent_stream.base.empty import is_empty, is_known
from attent_stream.window.choice import Choice
from attent_stream.window.decision import SCORED

QUANTILES = (0.1, 0.5, 0.9)
COUNTS = ("candidates", "lessons", "dropped", "nonfinite", "empty")


def choice_metrics(
    choice: Choice, stream_starts: NDArray[np.int64]
) -> tuple[dict[str, float], dict[str, int]]:
    """Return the metrics of a choice, and what it adds to the run's counts.

    Args:
        choice: The choice.
        stream_starts: First sample id of each stream, shape (num_streams,).

    Returns:
        Metrics by name: ``keep``, ``Choice.metrics``, ``kept_q10`` ... ``dropped_q90`` (score
        quantiles, if there are scores), and ``stream_0_candidates``, ``stream_0_kept`` ... (shares,
        if there are several streams). Counts by name: ``candidates`` (samples that were scored),
        ``lessons``, ``dropped``, ``nonfinite`` and ``empty`` (samples without a label).
    """
    kept = choice.kept
    metrics = {"keep": kept.mean().item(), **choice.metrics}
    nonfinite = empty = 0
    if choice.scores is not None:
        finite = np.isfinite(choice.scores)
        nonfinite, empty = int((~is_known(choice.scores)).sum()), int(is_empty(choice.scores).sum())
        for name, mask in (("kept", kept & finite), ("dropped", ~kept & finite)):
            if mask.any():
                values = np.quantile(choice.scores[mask], QUANTILES)
                metrics |= {
                    f"{name}_q{int(100 * q)}": float(v)
                    for q, v in zip(QUANTILES, values, strict=True)
                }
    if len(stream_starts) > 1:
        streams = np.searchsorted(stream_starts, choice.window.ids, side="right") - 1
        for stream in range(len(stream_starts)):
            of_stream = streams == stream
            metrics[f"stream_{stream}_candidates"] = of_stream.mean().item()
            metrics[f"stream_{stream}_kept"] = of_stream[kept].mean().item()
    counts = {
        "candidates": kept.size if choice.decision.by == SCORED else 0,
        "lessons": int(kept.sum()),
        "dropped": int((~kept).sum()),
        "nonfinite": nonfinite,
        "empty": empty,
    }
    return metrics, counts
