"""Numbers of a choice against numpy on masks."""

import numpy as np

from attent_stream.window.choice import Choice, Window
from attent_stream.window.decision import SCORED, Decision
from attent_stream.window.metrics import choice_metrics


def test_choice_metrics():
    ids = np.arange(12).reshape(3, 4)
    scores = np.linspace(0, 1, 12).reshape(3, 4)
    scores[0, 1] = np.nan
    window = Window(
        epoch=0, index=1, ids=ids, lanes=np.zeros_like(ids), unit=4, share=0.5, until=0.75
    )
    places = np.array([[8, 9, 10, 11]])
    decision = Decision(by=SCORED, lessons=1)
    choice = Choice(
        decision=decision,
        places=places,
        weights=np.ones((1, 4), np.float32),
        scores=scores,
        window=window,
        metrics={"imbalance": 0.5},
    )
    metrics, counts = choice_metrics(choice, np.array([0, 6]))
    assert metrics["keep"] == 4 / 12 and metrics["imbalance"] == 0.5
    assert metrics["kept_q50"] == np.median(scores[2])
    assert metrics["dropped_q90"] == np.quantile(np.delete(scores.reshape(-1)[:8], 1), 0.9)
    assert (metrics["stream_0_candidates"], metrics["stream_1_kept"]) == (0.5, 1.0)
    assert counts == {"candidates": 12, "lessons": 4, "dropped": 8, "nonfinite": 1, "empty": 0}
    scores[0, 2] = -np.inf  # a sample without a label is known, and none of the quantiles'
    again, counts = choice_metrics(choice, np.array([0, 6]))
    assert (counts["nonfinite"], counts["empty"]) == (1, 1) and np.isfinite(again["dropped_q10"])
    np.testing.assert_array_equal(choice.ids, places)
