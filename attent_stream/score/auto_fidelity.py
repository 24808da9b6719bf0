"""``fidelity: auto``: measures which cheap ways agree with the full score, and uses the cheapest.

The first scored window is scored in full, and a slice of its candidates in every way. When the
window is chosen, a way is chosen for the windows that follow. Later windows measure a slice again.
All candidates of a window are scored in one way, so that their scores compare. Cost is counted and
not timed (``cost``), and all ranks see the same scores of the slice. So all ranks make the same
decision, and a resumed run goes on with it.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attent_stream.base.errors import ScoreError
from attent_stream.base.stopwatch import Stopwatch
from attent_stream.model.batch_form import BatchForm
from attent_stream.model.reading import Reading
from attent_stream.score.agreement import kept_overlap, spearman
from attent_stream.score.cost import ModelCost
from attent_stream.score.early_exit import Blocks
from attent_stream.score.fidelity import FULL, AutoFidelity, Fidelity, Tokens
from attent_stream.score.microbatches import MicrobatchScorer

log = logging.getLogger(__name__)

_FEWEST = 32  # finite scores in a slice that a decision needs


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One way of scoring, measured on a slice of candidates.

    Args:
        way: The way.
        spearman: Rank correlation with the full score. NaN where the way does not work.
        overlap: Share of the samples kept by the full score that it keeps too.
        cost: Counted cost over that of the full score.
        time: Measured time over that of the full score, on this rank. For logs only.
    """

    way: Fidelity
    spearman: float
    overlap: float
    cost: float
    time: float


def usual_ways(
    *, text: bool, blocks: Blocks | None, patches: bool, images: bool
) -> tuple[Fidelity, ...]:
    """The ways that are tried by default.

    Args:
        text: Whether samples are token sequences.
        blocks: The model's equal blocks, or None.
        patches: Whether it is a ViT with patches that can be left out.
        images: Whether it takes images.
    """
    count = 0 if blocks is None else len(blocks)
    if text:
        early = sorted({1, 2, count // 4, count // 2} & set(range(1, count)))
        shares = [Tokens(share=share) for share in (0.125, 0.25, 0.5)]
        return tuple(
            [Fidelity(layers=n, tokens=tokens) for n in early for tokens in (*shares[:2], None)]
            + [Fidelity(tokens=tokens) for tokens in shares]
        )
    early = sorted({count // 2, 3 * count // 4} & set(range(1, count)))
    shares = (0.25, 0.5) if patches else ()
    return tuple(
        [Fidelity(layers=n) for n in early]
        + [Fidelity(patches=share) for share in shares]
        + [Fidelity(layers=n, patches=share) for n in early for share in shares]
        + [Fidelity(resolution=share) for share in ((0.5, 0.75) if images else ())]
    )


def decide(measured: list[Measured], agreement: float) -> Measured | None:
    """Choose the cheapest way with at least this rank correlation, the first among equals.

    None means the full score.
    """
    good = [one for one in measured if one.spearman >= agreement and one.cost < 1.0]
    return min(good, key=lambda one: one.cost, default=None)


class AutoScorer:
    """Scores candidates in the cheapest way that is good enough.

    Args:
        settings: What is good enough, and how often it is measured.
        full: The full scorer.
        ways: The scorer of every other way.
        cost: Cost of the model.
        gather: Gathers this rank's values from all ranks, as ``gather_ranks`` does.
        ranks: Number of ranks that score different samples.
        gpu: Whether scoring runs on a GPU.
    """

    def __init__(
        self,
        settings: AutoFidelity,
        full: MicrobatchScorer,
        ways: Mapping[Fidelity, MicrobatchScorer],
        cost: ModelCost,
        *,
        gather: Callable[[Tensor], NDArray],
        ranks: int,
        gpu: bool = False,
    ) -> None:
        self._settings, self._cost, self._gather, self._ranks = settings, cost, gather, ranks
        self._scorers = {FULL: full, **ways}
        self._watches = {way: Stopwatch(gpu=gpu) for way in self._scorers}
        self._way = FULL
        self._form = BatchForm()
        self._windows = 0  # number of scored and chosen windows
        self._slice = np.zeros((len(self._scorers), 0), np.float32)
        self._length = 0  # tokens in the slice's longest sample

    @property
    def way(self) -> Fidelity:
        """The way in which candidates are scored now."""
        return self._way

    @property
    def cost(self) -> float:
        """Counted cost of scoring a candidate now, in full forwards."""
        return self._cost.of(self._way, self._length)

    @property
    def sharded(self) -> bool:
        """Whether a forward of the model needs the other ranks."""
        return self._scorers[FULL].sharded

    def read_by(self, reading: Reading | None, form: BatchForm) -> None:
        """See ``MicrobatchScorer.read_by``."""
        self._form = form
        for scorer in self._scorers.values():
            scorer.read_by(reading, form)

    @property
    def measuring(self) -> bool:
        """Whether the window's next candidates are scored in every way."""
        due = self._windows % self._settings.every == 0
        return due and self._slice.shape[1] < self._settings.samples

    def __call__(self, batch: Any, microbatch: int, draw: tuple[int, ...] = ()) -> Tensor:
        """Score a batch, float32 of shape (B,); see ``MicrobatchScorer``.

        All ranks must call this equally often.
        """
        if self.measuring:
            self._measure(batch, microbatch, draw)
        return self._scorers[self._way](batch, microbatch, draw)

    def window_chosen(self, keep: float) -> list[Measured]:
        """Note that a scored window was chosen, and choose the way for the next windows.

        Args:
            keep: Share of its candidates that was kept.

        Returns:
            What was measured in the window. Empty where nothing was.
        """
        due = self._windows % self._settings.every == 0
        self._windows += 1
        values = self._slice
        self._slice = values[:, :0]
        if not due:
            return []
        finite = int(np.isfinite(values[0]).sum())
        if finite < _FEWEST:
            log.warning(
                "Fidelity auto measured %d candidates with a finite score, fewer than %d: going on "
                "with %s.",
                finite,
                _FEWEST,
                self._way.name,
            )
            return []
        seconds = [watch.take() for watch in self._watches.values()]
        measured = [
            Measured(
                way=way,
                spearman=spearman(values[i], values[0]),
                overlap=kept_overlap(values[i], values[0], keep),
                cost=self._cost.of(way, self._length),
                time=seconds[i] / max(seconds[0], 1e-9),
            )
            for i, way in enumerate(self._scorers)
            if way != FULL
        ]
        best = decide(measured, self._settings.agreement)
        self._way = FULL if best is None else best.way
        if best is None:
            found = [one.spearman for one in measured if not math.isnan(one.spearman)]
            told = (
                f"none of {len(measured)} ways reaches a rank correlation of "
                f"{self._settings.agreement:g} (the best: {max(found, default=math.nan):.3f})"
            )
        else:
            told = (
                f"{best.cost:.3f} of a full score's cost (timed: {best.time:.3f}), rank correlation"
                f" {best.spearman:.3f} and {100 * best.overlap:.0f} % of the kept in common"
            )
        count = values.shape[1]
        log.info("Fidelity: %s from now on: %s, on %d candidates.", self._way.name, told, count)
        return measured

    def state_dict(self) -> dict[str, Any]:
        """The decision and the measured slice; the same on all ranks."""
        return {
            "ways": [way.name for way in self._scorers],
            "way": self._way.name,
            "windows": self._windows,
            "slice": torch.from_numpy(self._slice.copy()),
            "length": self._length,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned. A state of other ways is ignored."""
        names = {way.name: way for way in self._scorers}
        if list(names) != list(state["ways"]):
            log.warning(
                "Fidelity auto has other ways than the checkpoint: it begins with the full score "
                "and measures anew."
            )
            self._windows = 0
            return
        self._windows = int(state["windows"])
        self._way = names[state["way"]]
        self._slice = state["slice"].cpu().numpy().copy()
        self._length = int(state["length"])

    def _measure(self, batch: Any, microbatch: int, draw: tuple[int, ...]) -> None:
        missing = self._settings.samples - self._slice.shape[1]
        size = min(self._form.rows(batch), -(-missing // self._ranks))
        measured = self._form.split(batch, size)[0]
        rows = []
        for way, scorer in self._scorers.items():
            with self._watches[way]:
                rows.append(self._scored(way, scorer, measured, min(size, microbatch), draw))
        labels = measured.get("labels") if isinstance(measured, Mapping) else None
        length = labels.shape[1] if isinstance(labels, Tensor) and labels.ndim == 2 else 1
        device = rows[0].device
        rows.append(torch.full((size,), float(length), device=device))
        everyone = self._gather(torch.stack([row.to(device) for row in rows]))
        everyone = everyone.transpose(1, 0, 2).reshape(len(rows), -1)
        self._length = max(self._length if self._slice.shape[1] else 0, int(everyone[-1].max()))
        self._slice = np.concatenate([self._slice, everyone[:-1].astype(np.float32)], axis=1)

    def _scored(
        self,
        way: Fidelity,
        scorer: MicrobatchScorer,
        batch: Any,
        microbatch: int,
        draw: tuple[int, ...],
    ) -> Tensor:
        try:
            return scorer(batch, microbatch, draw).float()
        except ScoreError as error:
            if way == FULL or self._settings.ways is not None:
                raise
            log.warning("Fidelity auto leaves %s out: %s.", way.name, error)
            return torch.full((self._form.rows(batch),), math.nan)
