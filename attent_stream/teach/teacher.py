"""The teacher: decides how many of a window's candidates become lessons, by what, and which."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.base.empty import is_known
from attent_stream.base.errors import TeacherError
from attent_stream.base.gather import ALONE, Pick, RankGroup, Steps, summed
from attent_stream.base.schedule import Interval, Phases, ShareSchedule
from attent_stream.base.span import Clock, Span
from attent_stream.memory.ledger import Ledger
from attent_stream.teach.position import Chosen
from attent_stream.teach.teacher_settings import TeacherSettings
from attent_stream.window.choice import Choice, Window
from attent_stream.window.decision import ALL, RANDOM, REMEMBERED, SCORED, Decision
from attent_stream.window.layout import lesson_count, lesson_lanes
from attent_stream.window.selection import below_ceiling, select_lanes

_SOME = 4096  # samples that are looked at to estimate how much is remembered

# Sample ids of this rank, shape (n, batch_size) -> scores of all ranks, (ranks, n, batch_size)
FirstScores = Callable[[NDArray[np.int64]], NDArray[np.float32]]
# Such ids, arrangements, the decision, and which candidates of a row -> their features, (n, m, d)
FirstFeatures = Callable[[NDArray[np.int64], Arrangements, Decision, Pick], NDArray[np.float16]]
# (lessons until then, epoch, share of the epoch's rows before it) -> the time it will be
ClockReader = Callable[[int, int, float], Clock]


class Teacher:
    """Chooses windows. Every rank that is given the same scores chooses the same.

    Args:
        settings: What to do.
        clock: Tells the time of what is to come.
        total: Length of training, or None if it is not known.
        ledger: Remembered scores, or None.
        scoring: Whether candidates may be scored. If not, a window is chosen by the ledger or
            kept whole.
        first: Scores the first window of an epoch before anything is trained on; all ranks call it
            together. None: that window is kept whole, unless its scores are remembered.
        first_features: Reads the features of that window likewise. None: it is not arranged by
            them.
    """

    # Whether the number of lessons follows from the settings alone.
    predictable = True

    def __init__(
        self,
        settings: TeacherSettings,
        *,
        clock: ClockReader,
        total: Span | None = None,
        ledger: Ledger | None = None,
        scoring: bool = True,
        first: FirstScores | None = None,
        first_features: FirstFeatures | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.total = total
        self.ledger = ledger
        self.scoring, self.first, self.first_features = scoring, first, first_features
        self.selector = settings.chosen
        self.arrangements = settings.arrangements

    @property
    def uses_scores(self) -> bool:
        """Whether it ever chooses by scores."""
        return self.selector.needs_scores and self.settings.keep.some

    @property
    def most_candidates(self) -> int:
        """Candidate rows that are read for a lesson row, at most; 0 if they are never read."""
        reads = (self.uses_scores and self.scoring) or self.arrangements.reads
        return math.ceil(1 / self.settings.keep.least) if reads else 0

    @property
    def foreseeable(self) -> bool:
        """Whether the number of an epoch's lessons can be told before the epoch.

        The number of samples and tokens to come is not known. Nor is, without scoring, which
        windows will be remembered.
        """
        settings = self.settings
        if not self.predictable or (self.uses_scores and not self.scoring):
            return False
        spans = [
            span for span in (settings.phases.warmup, settings.phases.anneal) if span.value > 0
        ]
        if settings.keep.start != settings.keep.end:
            spans.append(settings.keep.over)
        total = self.total.unit if self.total else None
        return all((total if span.unit == "dur" else span.unit) in ("ep", "ba") for span in spans)

    @property
    def memorized(self) -> float:
        """Share by which scores of samples that come again are lower; 0 if it is not known."""
        return getattr(self.ledger, "memorized", 0.0)  # only one of samples tells

    @property
    def memorizes(self) -> bool:
        """Whether the model has memorized too much of the samples to choose by their scores."""
        return self.memorized > self.settings.most_memorized

    def scoring_costs(self, cost: float) -> None:
        """Take note of the cost of scoring a candidate, in forwards of the model."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``'s state."""

    def teaching(self, clock: Clock) -> bool:
        """Whether a time is after the warm-up and before the anneal."""
        return self.settings.phases.teaching(clock, self.total)

    def know(self, arrangements: str) -> None:
        """Know the arrangements of a checkpoint, too, for windows that were arranged by them.

        Raises:
            ValueError: See ``Arrangements.of_checkpoint``.
        """
        self.arrangements = self.arrangements.of_checkpoint(arrangements)

    def stop_arranging(self, name: str) -> None:
        """Arrange no more windows in this way; all ranks call this together."""
        self.arrangements = self.arrangements.without(name)

    def keep(self, clock: Clock) -> float:
        """Share of rows to keep at a time: 1 in the warm-up and the anneal."""
        return self.settings.keep.at(clock) if self.teaching(clock) else 1.0

    def expected_keep(self, clock: Clock, first: bool, remembered: bool) -> float:
        """Expected share of a window's rows to be kept, as far as it can be told long before.

        Args:
            clock: Time at which the window begins.
            first: Whether it is an epoch's first.
            remembered: Whether the scores of its samples will be remembered.
        """
        if not self.uses_scores or remembered:
            return self.keep(clock)
        whole = (first and self.first is None) or not self.scoring
        return 1.0 if whole else self.keep(clock)

    def remembers_most(self, clock: Clock) -> bool:
        """Whether a window of random samples would be chosen by the ledger at a time."""
        if self.ledger is None:
            return False
        count = len(self.ledger)
        some = np.linspace(0, count - 1, min(count, _SOME)).astype(np.int64)
        return self._known(some, clock)

    def will_remember(self, recorded: bool) -> bool:
        """Whether the samples of one epoch will have remembered scores in the next.

        Args:
            recorded: Whether the losses of training forwards are remembered.
        """
        outlasts = self.settings.interval.outlasts_an_epoch
        return self.ledger is not None and outlasts and (recorded or self.scoring)

    def decide(self, window: Window, ahead: int) -> Decision:
        """Decide how a window will be chosen.

        Args:
            window: The window.
            ahead: Lessons that will be trained on before its first.
        """
        decision = self.by(window, self.clock(ahead, window.epoch, window.share))
        end = self.clock(ahead + decision.lessons, window.epoch, window.until)
        reads_first = self.first_features is not None
        return self.arrangements.decided(decision, window, end, reads_first=reads_first)

    def by(self, window: Window, clock: Clock) -> Decision:
        """Decide by what a window that begins at a time is chosen, and how many lessons it has."""
        rows = len(window.ids)
        lessons = lesson_count(rows, self.keep(clock))
        if lessons == rows:
            return Decision(by=ALL, lessons=rows)
        if not self.selector.needs_scores:
            return Decision(by=RANDOM, lessons=lessons)
        if self._known(window.ids, clock):
            if self.memorizes:
                return Decision(by=ALL, lessons=rows)
            return self.by_remembered(window, lessons)
        # Nothing of this epoch was trained on while its first window could be scored.
        if (window.index == 0 and self.first is None) or not self.scoring:
            return Decision(by=ALL, lessons=rows)
        return self.by_scores(window, lessons)

    def by_remembered(self, window: Window, lessons: int) -> Decision:
        """Decide about a window whose scores are remembered."""
        return Decision(by=REMEMBERED, lessons=lessons)

    def by_scores(self, window: Window, lessons: int) -> Decision:
        """Decide about a window that can be scored."""
        return Decision(by=SCORED, lessons=lessons)

    def can_carry_out(self, decision: Decision, window: Window) -> bool:
        """Whether this teacher can choose by a decision of before a resume, whose settings may have
        been others.
        """
        if decision.by == ALL:
            return True
        if not self.settings.keep.some or (decision.by == RANDOM) == self.selector.needs_scores:
            return False
        if decision.by != REMEMBERED:
            return decision.by == RANDOM or self.scoring
        return self.ledger is not None and self._enough(is_known(self.ledger.recall(window.ids)))

    def chooses_apart(self, decision: Decision) -> bool:
        """Whether a choice by given scores depends on nothing that changes while training goes on,
        and ranks share nothing but what ``choosing`` yields, so that a thread may make it.
        """
        pure = type(self) is Teacher and not self.selector.checked
        arrangements = self.arrangements
        return pure and arrangements.foreseeable and arrangements.in_steps(decision)

    def choose(
        self,
        window: Window,
        decision: Decision,
        scores: NDArray | None,
        features: NDArray[np.float16] | None = None,
        group: RankGroup = ALONE,
    ) -> Choice:
        """Choose a window's lessons.

        Args:
            window: The window.
            decision: What ``decide`` returned for it.
            scores: Scores of its candidates, float of shape (C, row_size), if ``decision.by`` is
                ``SCORED``, or ``recalled`` before. None: nothing, or what is remembered now.
            features: Features of its candidates, float16 of shape (C, len(slots), units * d), if
                ``decision.features``; see ``Arrangements.slots``. Without them lessons stay in
                stream order.
            group: Ranks that choose together, each with the same arguments but features.
        """
        return summed(self.choosing(window, decision, scores, features, group), group)

    def choosing(
        self,
        window: Window,
        decision: Decision,
        scores: NDArray | None,
        features: NDArray[np.float16] | None,
        group: RankGroup,
    ) -> Steps[Choice]:
        """``choose`` in steps: what it yields is summed over all ranks."""
        if decision.by == REMEMBERED:
            scores = self.recalled(window) if scores is None else scores
        elif decision.by != SCORED:
            scores = None
        choice = self.selected(window, decision, scores)
        return (yield from self.arrangements.arranging(choice, features, self.settings.seed, group))

    def selected(self, window: Window, decision: Decision, scores: NDArray | None) -> Choice:
        """Select a window's lessons, whole samples in stream order."""
        if scores is None:
            return self._select(window, decision, None, self.settings.select)
        below = below_ceiling(scores, window.lanes, self.settings.ceiling)
        return replace(self._select(window, decision, below, self.settings.select), scores=scores)

    def recover(self, window: Window, chosen: Chosen) -> Choice:
        """A choice that was made before, from what a checkpoint kept of it. It has no scores."""
        kept = chosen.kept.astype(np.float64)
        choice = replace(self._select(window, chosen.decision, kept, "hard"), scores=None)
        choice = self.arrangements.arranged(choice, None, self.settings.seed)
        places = choice.places if chosen.places is None else chosen.places.astype(np.int64)
        weights = np.ones(places.shape, np.float32)
        if chosen.weights is not None:
            weights = chosen.weights.astype(np.float32)
        return replace(choice, weights=weights, places=places)

    def time(self, epoch: int) -> float:
        """The time now, in the unit in which scores age."""
        return self._age(self.clock(0, epoch, 0.0))

    def remember(self, ids: NDArray[np.int64], scores: NDArray, time: float) -> None:
        """Put scores of a time into the ledger, if there is one."""
        if self.ledger is not None:
            self.ledger.record(ids, scores, time)

    def recalled(self, window: Window) -> NDArray[np.float32]:
        """Remembered scores of a window. Unknown ones get the highest of them: a sample that is not
        trained on would never become known.
        """
        if self.ledger is None:
            raise TeacherError(
                f"expected remembered scores for window {window.index}, got no ledger"
            )
        scores = self.ledger.recall(window.ids)
        known = is_known(scores)
        if known.all():
            return scores
        return np.where(known, scores, scores[known].max(initial=0.0)).astype(np.float32)

    def _select(
        self, window: Window, decision: Decision, scores: NDArray | None, select: str
    ) -> Choice:
        settings = self.settings
        if decision.by == ALL:
            places = np.arange(window.ids.size).reshape(window.ids.shape)
            weights = np.ones(places.shape, np.float32)
        else:
            offset = np.random.default_rng([settings.seed, window.epoch, window.index]).random()
            places, weights = select_lanes(
                scores,
                window.lanes,
                lesson_lanes(window.lanes, decision.lessons, window.unit, offset),
                select=select,
                temperature=settings.temperature,
                seed=settings.seed,
                epoch=window.epoch,
                window=window.index,
            )
        return Choice(
            decision=decision, places=places, weights=weights, scores=scores, window=window
        )

    def _known(self, ids: NDArray[np.int64], clock: Clock) -> bool:
        """Whether a window of these samples would be chosen by the ledger at a time."""
        if self.ledger is None:
            return False
        age = self.settings.interval.at(clock)
        return self._enough(self.ledger.known(ids, self._age(clock), age))

    def _enough(self, known: NDArray[np.bool_]) -> bool:
        return bool(known.mean() >= self.settings.enough)

    def _age(self, clock: Clock) -> float:
        elapsed = clock.elapsed(self.settings.interval.unit)
        return float(np.floor(elapsed)) if self.settings.interval.unit == "ep" else elapsed


def untaught(seed: int) -> Teacher:
    """A teacher that keeps everything, for what is left of a taught epoch without AtteNT."""
    settings = TeacherSettings(
        keep=ShareSchedule(start=1.0, end=1.0),
        select="random",
        temperature=1.0,
        interval=Interval(),
        phases=Phases(),
        seed=seed,
    )
    return Teacher(
        settings,
        clock=lambda ahead, epoch, share: Clock(ep=epoch + share, ba=0, sp=0, tok=0, dur=0),
    )
