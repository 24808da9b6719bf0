"""Whether a loss is the mean over predicted tokens, and does not change where padding is cut off.

It is measured on two samples, of which one has a single predicted token.
"""

from collections.abc import Callable
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import torch

from attent_stream.arrange.sort import cut_to, rows_by_length
from attent_stream.base.errors import ScoreError, in_words
from attent_stream.model.batch import predicted, taken, tokens_of
from attent_stream.model.reference import IGNORED

Loss = Callable[[Any], float]
_APART = 4  # times the tolerance, by which what is told apart must differ
_TRIED = 4  # labels, to find one whose loss differs


class LossForm(NamedTuple):
    """What is known of a causal language model's loss.

    Args:
        uneven: Why it is not known to be the mean over predicted tokens; empty if it is.
        uncut: Why padding at the end of samples cannot be cut off; empty if it can.
    """

    uneven: str
    uncut: str


def loss_form(batch: Any, loss: Loss, *, training: Loss, tolerance: float) -> LossForm:
    """Measure the form of a loss.

    Args:
        batch: At least two samples with ``input_ids`` and ``labels``, ints of shape (B, T).
        loss: Returns the loss of a batch.
        training: Does so in training mode, in which some models need a certain width.
        tolerance: Relative error of a loss.
    """
    try:
        pair, each = _pair(batch, loss)
        both = loss(pair)
        found = predicted(pair)
        assert found is not None
        uneven = _uneven(each, both, found.tolist(), tolerance)
    except Exception as error:  # of the user's model; plain training will tell
        return LossForm(in_words(error), in_words(error))
    return LossForm(uneven, _uncut(pair, each, loss, training, tolerance))


def _pair(batch: Any, loss: Loss) -> tuple[Any, list[float]]:
    """The longest and the shortest sample, this one with a single label, and their losses.

    The label is the one, of a few, whose loss differs most from that of the other sample.
    """
    tokens, present = tokens_of(batch, "leaving out padding")
    found = predicted(batch)
    if found is None or batch["labels"].shape != tokens.shape:
        raise ScoreError(f"its batches have no labels of shape {tuple(tokens.shape)}")
    known = [row for row, count in enumerate(found.tolist()) if count]
    rows = sorted(known, key=lambda row: -int(present[row].sum()))
    if len(rows) < 2 or found[rows[0]] < 2:
        raise ScoreError("the first samples have too few labels to see what its loss is")
    pair = taken(batch, np.array([rows[0], rows[-1]]), len(tokens))
    first, labels = loss(_row(pair, 0)), pair["labels"]
    places = (labels[1, 1:] != IGNORED).nonzero().flatten() + 1
    tried = []
    for place in places[torch.linspace(0, len(places) - 1, min(_TRIED, len(places))).long()]:
        single = torch.full_like(labels[1], IGNORED)
        single[place] = labels[1, place]
        made = {**pair, "labels": torch.stack([labels[0], single])}
        tried.append((made, loss(_row(made, 1))))
    made, second = max(tried, key=lambda one: abs(one[1] - first))
    return made, [first, second]


def _row(pair: Any, row: int) -> Any:
    return taken(pair, np.array([row]), 2)


def _uneven(each: list[float], both: float, counts: list[int], tolerance: float) -> str:
    if not all(map(isfinite, (*each, both))):
        return f"its loss of the first samples is {both}"
    error = tolerance * max(1e-6, abs(both))
    mean = sum(n * one for n, one in zip(counts, each, strict=True)) / sum(counts)
    if abs(both - mean) > error:
        return (
            f"its loss of two samples is {both:.5g}, and the mean over their tokens is {mean:.5g}"
        )
    if abs(sum(each) / 2 - mean) < _APART * error:
        return "its losses of the first samples are too alike to see what it is the mean of"
    return ""


def _uncut(pair: Any, each: list[float], loss: Loss, training: Loss, tolerance: float) -> str:
    try:
        rows = rows_by_length(pair).unsorted
        widths = [rows.width_of(row, row + 1) for row in (0, 1)]
        narrow = [cut_to(_row(pair, row), widths[row]) for row in (0, 1)]
        # All before any is judged: each may need the other ranks
        cut = [loss(one) for one in narrow]
        for one in (*narrow, cut_to(_row(pair, 1), rows.multiple)):
            training(one)
    except Exception as error:  # of the user's model; it may need a certain width
        return in_words(error)
    for found, known in zip(cut, each, strict=True):
        if not abs(found - known) <= tolerance * max(1e-6, abs(known)):
            return f"without padding its loss is {found:.5g}, and {known:.5g} with it"
    return ""
