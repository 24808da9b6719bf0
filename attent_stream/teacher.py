"""The teacher: decides how many of a window's candidates become lessons, by what, and which."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attent_stream.ledger import Ledger
from attent_stream.plan import lesson_count, lesson_lanes
from attent_stream.position import Chosen
from attent_stream.schedule import Clock, Interval, KeepSchedule, Phases, Span
from attent_stream.selection import NEEDS_SCORES, SELECTORS, select_lanes

# How a window is chosen.
ALL = "all"  # everything is kept: before the warm-up is over, in the anneal, at keep 1, and the first window of an epoch
RANDOM = "random"  # no score is asked for
SCORED = "scored"  # its candidates are read and forwarded
REMEMBERED = "remembered"  # the ledger knows every one of its samples

# (lessons until then, epoch, share of the epoch's rows behind) -> the time it will be
ClockReader = Callable[[int, int, float], Clock]


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """What a teacher does.

    Args:
        keep: Share of a window's rows to keep, over time.
        select: Name of a selector.
        temperature: For selectors that draw: towards 0 is hard, towards infinity random; positive.
        interval: How long a remembered score is good.
        phases: When to teach.
        seed: Of every draw.

    Raises:
        ValueError: A selector that is none, a temperature not positive, a negative seed.
    """

    keep: KeepSchedule
    select: str
    temperature: float
    interval: Interval
    phases: Phases
    seed: int

    def __post_init__(self) -> None:
        if self.select not in SELECTORS:
            raise ValueError(f"select must be one of {sorted(SELECTORS)}, got {self.select!r}")
        if not self.temperature > 0 or not np.isfinite(self.temperature):
            raise ValueError(f"temperature must be a positive number, got {self.temperature!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be an integer of at least 0, got {self.seed!r}")


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window as the teacher sees it.

    Args:
        epoch: Which epoch.
        index: Which window of it.
        ids: Sample ids of its rows, canonical slots, int64 of shape (C, row_size).
        lanes: Their lanes, same shape.
        unit: Slots that must stay of one stream together.
        share: Share of the epoch's rows that lie before it, in [0, 1].
    """

    epoch: int
    index: int
    ids: NDArray[np.int64]
    lanes: NDArray[np.int64]
    unit: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """How a window will be chosen: made one segment ahead, so that its candidates can be read in time."""

    by: str
    lessons: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A window's selection.

    Args:
        decision: How it was chosen.
        positions: Which candidates, as flat positions in the window, int64 of shape (L, row_size).
        weights: Of each lesson's loss, float32 of the same shape.
        scores: Of all candidates, float of shape (C, row_size), or None where none was asked for.
        window: What was chosen from.
    """

    decision: Decision
    positions: NDArray[np.int64]
    weights: NDArray[np.float32]
    scores: NDArray | None
    window: Window

    @property
    def ids(self) -> NDArray[np.int64]:
        """Sample ids of the lessons, shape (L, row_size)."""
        return self.window.ids.reshape(-1)[self.positions]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which candidates are kept, shape (C, row_size)."""
        kept = np.zeros(self.window.ids.size, bool)
        kept[self.positions.reshape(-1)] = True
        return kept.reshape(self.window.ids.shape)


class Teacher:
    """Chooses windows; the same on every rank that is given the same scores.

    Args:
        settings: What to do.
        clock: Tells what time it will be.
        total: Length of training, or None where it is not known.
        ledger: Memory of scores, or None to remember nothing.
    """

    def __init__(
        self, settings: TeacherSettings, *, clock: ClockReader, total: Span | None = None, ledger: Ledger | None = None
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.total = total
        self.ledger = ledger

    @property
    def scores(self) -> bool:
        """Whether it ever asks for scores."""
        return self.settings.select in NEEDS_SCORES

    def keep(self, clock: Clock) -> float:
        """Share of rows to keep at a time: 1 outside of teaching."""
        if not self.settings.phases.teaching(clock, self.total):
            return 1.0
        return self.settings.keep.at(clock)

    def decide(self, window: Window, ahead: int) -> Decision:
        """Say how a window will be chosen.

        Args:
            window: The window.
            ahead: Lessons that will be trained on before its first.
        """
        clock = self.clock(ahead, window.epoch, window.share)
        rows = len(window.ids)
        lessons = lesson_count(rows, self.keep(clock))
        if lessons == rows:
            return Decision(by=ALL, lessons=rows)
        if not self.scores:
            return Decision(by=RANDOM, lessons=lessons)
        if self._known(window, clock):
            return Decision(by=REMEMBERED, lessons=lessons)
        if window.index == 0:
            return Decision(by=ALL, lessons=rows)  # nothing of this epoch has been trained on while it could be scored
        return Decision(by=SCORED, lessons=lessons)

    def choose(self, window: Window, decision: Decision, scores: NDArray | None) -> Choice:
        """Choose a window's lessons.

        Args:
            window: The window.
            decision: What ``decide`` said of it.
            scores: Its candidates' scores, float of shape (C, row_size), if ``decision.by`` is ``SCORED``.
        """
        if decision.by == REMEMBERED:
            scores = self.ledger.recall(window.ids)
        elif decision.by != SCORED:
            scores = None
        return self._choice(window, decision, scores, self.settings.select)

    def recover(self, window: Window, chosen: Chosen) -> Choice:
        """A choice that was made before, from what was kept of it; it has no scores."""
        decision = Decision(by=chosen.by, lessons=chosen.lessons)
        choice = self._choice(window, decision, chosen.kept.astype(np.float64), "hard")
        return replace(choice, scores=None)

    def time(self, epoch: int) -> float:
        """Now, in the unit in which scores age."""
        return self._time(self.clock(0, epoch, 0.0))

    def remember(self, ids: NDArray[np.int64], scores: NDArray, time: float) -> None:
        """Put scores given at a time into the ledger, if there is one."""
        if self.ledger is not None:
            self.ledger.record(ids, scores, time)

    def _choice(self, window: Window, decision: Decision, scores: NDArray | None, select: str) -> Choice:
        settings = self.settings
        if decision.by == ALL:
            positions = np.arange(window.ids.size).reshape(window.ids.shape)
        else:
            offset = np.random.default_rng([settings.seed, window.epoch, window.index]).random()
            positions = select_lanes(
                scores,
                window.lanes,
                lesson_lanes(window.lanes, decision.lessons, window.unit, offset),
                select=select,
                temperature=settings.temperature,
                seed=settings.seed,
                epoch=window.epoch,
                window=window.index,
            )
        weights = np.ones(positions.shape, np.float32)
        return Choice(decision=decision, positions=positions, weights=weights, scores=scores, window=window)

    def _known(self, window: Window, clock: Clock) -> bool:
        if self.ledger is None:
            return False
        age = self.settings.interval.at(clock)
        return bool(self.ledger.known(window.ids, self._time(clock), age).all())

    def _time(self, clock: Clock) -> float:
        elapsed = clock.elapsed(self.settings.interval.unit)
        return float(np.floor(elapsed)) if self.settings.interval.unit == "ep" else elapsed
