"""The teacher: decides how many of a window's candidates become lessons, by what, and which."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attent_stream.arrange.balance import LARGEST, balance_lanes, imbalance
from attent_stream.arrange.pieces import cut, mixed, pieces_at
from attent_stream.base.empty import is_known
from attent_stream.base.gather import ALONE, RankGroup
from attent_stream.base.schedule import Interval, Phases, ShareSchedule
from attent_stream.base.span import Clock, Span
from attent_stream.experimental.payoff import Payoff, best_design
from attent_stream.memory.ledger import Ledger
from attent_stream.teach.position import Chosen
from attent_stream.window.choice import ALL, RANDOM, REMEMBERED, SCORED, Choice, Decision, Window
from attent_stream.window.layout import lesson_count, lesson_lanes
from attent_stream.window.selection import below_ceiling, lane_weights, select_lanes
from attent_stream.window.selectors import NEEDS_SCORES, SELECTORS

AUTO = "auto"  # a select: by the design that pays most, and not at all while none pays
# Known, so that a window is not read and forwarded for the few that an epoch left out or that had
# no score
_ENOUGH = 0.9
_HALF = 0.5  # where nothing is forwarded to learn the rest
_SOME = 4096  # samples, by which it is told how much is remembered
_SAMPLE = 24  # scores, from which the spread of a window's is estimated

# (lessons until then, epoch, share of the epoch's rows behind) -> the time it will be
ClockReader = Callable[[int, int, float], Clock]


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """What a teacher does.

    Args:
        keep: Share of a window's rows to keep, over time.
        select: Name of a selector, or ``auto``.
        temperature: For selectors that draw: towards 0 is hard, towards infinity random; positive.
        interval: How long a remembered score is good.
        phases: When to teach.
        seed: Of every draw.
        ceiling: Share of the highest scores, of each lane of a window, that are taken for noise.
        again: With ``auto`` the selector of windows whose scores are remembered, whatever its
            predicted gain; None: by the design that pays.
        balance: By which features, a name in ``FEATURES``, a window's lessons are ordered so that
            its batches are alike, or None.
        seq_len: Share of a sample's positions that a lesson has, over time (``pieces.pieces_at``).

    Raises:
        ValueError: A selector that is none, a temperature not positive, a negative seed, a ceiling
            out of [0, 1).
    """

    keep: ShareSchedule
    select: str
    temperature: float
    interval: Interval
    phases: Phases
    seed: int
    ceiling: float = 0.0
    again: str | None = None
    balance: str | None = None
    seq_len: ShareSchedule = ShareSchedule(start=1.0, end=1.0, setting="seq_len")

    def __post_init__(self) -> None:
        if self.select not in (AUTO, *SELECTORS):
            raise ValueError(
                f"select must be one of {sorted([AUTO, *SELECTORS])}, got {self.select!r}"
            )
        if self.again is not None and (self.select != AUTO or self.again not in SELECTORS):
            raise ValueError(
                f"again must be None or, with select {AUTO!r}, one of {sorted(SELECTORS)}, got "
                f"{self.again!r}"
            )
        if not self.temperature > 0 or not np.isfinite(self.temperature):
            raise ValueError(f"temperature must be a positive number, got {self.temperature!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be an integer of at least 0, got {self.seed!r}")
        number = isinstance(self.ceiling, (int, float)) and not isinstance(self.ceiling, bool)
        if not number or not 0 <= self.ceiling < 1:
            raise ValueError(f"ceiling must be a share in [0, 1), got {self.ceiling!r}")


class Teacher:
    """Chooses windows; the same on every rank that is given the same scores.

    Args:
        settings: What to do.
        clock: Tells what time it will be.
        total: Length of training, or None where it is not known.
        ledger: Memory of scores, or None to remember nothing.
        payoff: Says when ``auto`` teaches.
        forwards: Whether candidates may be forwarded to score them; else they are chosen by the
            ledger or all kept.
    """

    def __init__(
        self,
        settings: TeacherSettings,
        *,
        clock: ClockReader,
        total: Span | None = None,
        ledger: Ledger | None = None,
        payoff: Payoff | None = None,
        forwards: bool = True,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.total = total
        self.ledger = ledger
        self.payoff = payoff or Payoff(cost=1.0)
        self.forwards = forwards

    @property
    def scores(self) -> bool:
        """Whether it ever asks for scores."""
        return self.settings.select == AUTO or self.settings.select in NEEDS_SCORES

    @property
    def weighs(self) -> bool:
        """Whether it may come to give lessons weights by its own choice (``auto``, by the design
        that pays).
        """
        return self.settings.select == AUTO and self.settings.keep.some

    @property
    def _by_prediction(self) -> bool:
        """Whether windows whose scores are remembered are taught only where that pays by
        prediction.
        """
        return self.settings.select == AUTO and self.settings.again is None

    @property
    def foreseeable(self) -> bool:
        """Whether the number of lessons of an epoch can be told before it: what samples and tokens
        will be is not known, nor which windows ``auto`` will teach, nor, where nothing is forwarded
        to score it, which will be remembered.
        """
        settings = self.settings
        if settings.select == AUTO or not self.forwards:
            return False
        spans = [
            span for span in (settings.phases.warmup, settings.phases.anneal) if span.value > 0
        ]
        if settings.keep.start != settings.keep.end:
            spans.append(settings.keep.over)
        total = self.total.unit if self.total else None
        return all((total if span.unit == "dur" else span.unit) in ("ep", "ba") for span in spans)

    def teaching(self, clock: Clock) -> bool:
        """Whether it is neither warm-up nor anneal."""
        return self.settings.phases.teaching(clock, self.total)

    def stop_scoring(self) -> None:
        """Ask for no scores of candidates any more; all ranks call this together."""
        self.forwards = False

    def stop_pieces(self) -> None:
        """Cut no samples any more; all ranks call this together."""
        self.settings = replace(
            self.settings, seq_len=ShareSchedule(start=1.0, end=1.0, setting="seq_len")
        )

    def keep(self, clock: Clock) -> float:
        """Share of rows to keep at a time: 1 outside of teaching."""
        if not self.teaching(clock):
            return 1.0
        return self.settings.keep.at(clock)

    def expected_keep(self, clock: Clock, first: bool, remembered: bool) -> float:
        """Share of a window's rows that is likely to be kept, by what can be told long before.

        Args:
            clock: When it begins.
            first: Whether it is an epoch's first.
            remembered: Whether its samples' scores will be.
        """
        if not self.scores:
            return self.keep(clock)
        if remembered:
            return 1.0 if self._by_prediction else self.keep(clock)
        return (
            1.0 if first or not self.forwards or self.settings.select == AUTO else self.keep(clock)
        )

    def remembers_most(self, clock: Clock) -> bool:
        """Whether a window of any of its samples would be chosen at a time by what is remembered
        now.
        """
        if self.ledger is None:
            return False
        some = np.linspace(0, len(self.ledger) - 1, min(len(self.ledger), _SOME)).astype(np.int64)
        return self._known(some, clock)

    def will_remember(self, recorded: bool) -> bool:
        """Whether what an epoch has will have remembered scores in those behind it.

        Args:
            recorded: Whether training forwards are; candidates are scored anyway, but by ``auto``
                only where that pays.
        """
        settings = self.settings
        return (
            self.ledger is not None
            and settings.interval.outlasts_an_epoch
            and (recorded or settings.select != AUTO)
        )

    def decide(self, window: Window, ahead: int) -> Decision:
        """Say how a window will be chosen.

        Args:
            window: The window.
            ahead: Lessons that will be trained on before its first.
        """
        decision = self._decide(window, ahead)
        # By the end of the window: what is to be trained on in full is.
        end = self.clock(ahead + decision.lessons, window.epoch, window.until)
        pieces = pieces_at(self.settings.seq_len.at(end))
        # An epoch's first window is there before any of its candidates could be read.
        balanced = (
            self.settings.balance is not None
            and window.index > 0
            and window.ids.size * pieces <= LARGEST
        )
        return replace(decision, balanced=balanced, pieces=pieces)

    def _decide(self, window: Window, ahead: int) -> Decision:
        clock = self.clock(ahead, window.epoch, window.share)
        rows = len(window.ids)
        lessons = lesson_count(rows, self.keep(clock))
        if lessons == rows:
            return Decision(by=ALL, lessons=rows)
        if not self.scores:
            return Decision(by=RANDOM, lessons=lessons)
        if self._known(window.ids, clock):
            if self._by_prediction and not self._pays(window, lessons):
                return Decision(by=ALL, lessons=rows)
            return Decision(by=REMEMBERED, lessons=lessons)
        if window.index == 0 or not self.forwards:
            # Nothing of this epoch has been trained on while it could be scored
            return Decision(by=ALL, lessons=rows)
        if self.settings.select == AUTO and not self.payoff.scores(lessons / rows):
            # Scored and kept whole, to see what it would gain, or not even scored.
            return Decision(
                by=SCORED if self.payoff.probes(window.index, window.share) else ALL, lessons=rows
            )
        return Decision(by=SCORED, lessons=lessons)

    def stands(self, decision: Decision, window: Window) -> bool:
        """Whether a decision made before a resume is one that this teacher, perhaps of other
        settings, can carry out.
        """
        if decision.by == ALL:
            return True
        if not self.settings.keep.some or (decision.by == RANDOM) == self.scores:
            # Where all is kept now, nothing is dropped; with scores not at random, without them not
            # by them
            return False
        if decision.by != REMEMBERED:
            return True
        return self.ledger is not None and self._enough(is_known(self.ledger.recall(window.ids)))

    def choose(
        self,
        window: Window,
        decision: Decision,
        scores: NDArray | None,
        features: NDArray | None = None,
        group: RankGroup = ALONE,
    ) -> Choice:
        """Choose a window's lessons.

        Args:
            window: The window.
            decision: What ``decide`` said of it.
            scores: Its candidates' scores, float of shape (C, row_size), if ``decision.by`` is
                ``SCORED``.
            features: Those of their pieces, side by side, float16 of shape (C, row_size, pieces *
                d), if ``decision.balanced``; without, lessons stay in stream order, and pieces in
                one drawn.
            group: Ranks that choose it together, each with the same arguments.
        """
        choice, pieces = self._chosen(window, decision, scores), decision.pieces
        balanced = decision.balanced and features is not None
        if not balanced and pieces == 1:
            return choice
        positions, off = self._in_pieces(choice), None
        if balanced:
            known = features.reshape(len(window.ids), window.ids.shape[1] * pieces, -1)
            lanes = window.lanes.reshape(-1)[choice.positions].repeat(pieces, axis=1)
            positions = balance_lanes(positions, lanes, known, group)
            off = imbalance(positions, known) if group.rank == 0 else None  # for the log
        weights = np.ones(window.ids.size, np.float32)
        weights[choice.positions] = choice.weights
        return replace(
            choice, positions=positions, weights=weights[positions // pieces], imbalance=off
        )

    def _chosen(self, window: Window, decision: Decision, scores: NDArray | None) -> Choice:
        if decision.by == REMEMBERED:
            scores = self._recalled(window)
        elif decision.by != SCORED:
            scores = None
        if scores is None:
            return replace(
                self._choice(window, decision, None, self.settings.select),
                gain=self._seen_again(window, decision),
            )
        raw, scores = scores, below_ceiling(scores, window.lanes, self.settings.ceiling)
        select = (decision.by == REMEMBERED and self.settings.again) or self.settings.select
        if select != AUTO:
            return replace(self._choice(window, decision, scores, select), scores=raw)
        rows, lessons = len(window.ids), decision.lessons
        if lessons == rows:  # a probe: what would it be, were it taught?
            lessons = lesson_count(rows, self.keep(self.clock(0, window.epoch, window.share)))
        design = best_design(scores, lessons * window.ids.shape[1], self.settings.temperature)
        if decision.by == SCORED and lessons < rows:
            self.payoff.see(design.gain)
        return replace(
            self._choice(window, decision, scores, design.name), scores=raw, gain=design.gain
        )

    @property
    def promising(self) -> bool:
        """Whether, by what it has seen last, ``auto`` would teach a window whose scores are
        remembered.
        """
        return self.payoff.gain is not None and self.payoff.pays(
            self.payoff.gain, 1.0, scored=False
        )

    def recover(self, window: Window, chosen: Chosen) -> Choice:
        """A choice that was made before, from what was kept of it; it has no scores."""
        decision = chosen.decision
        choice = self._choice(window, decision, chosen.kept.astype(np.float64), "hard")
        positions = (
            self._in_pieces(choice)
            if chosen.positions is None
            else chosen.positions.astype(np.int64)
        )
        weights = (
            np.ones(positions.shape, np.float32)
            if chosen.weights is None
            else chosen.weights.astype(np.float32)
        )
        return replace(choice, scores=None, weights=weights, positions=positions)

    def _in_pieces(self, choice: Choice) -> NDArray[np.int64]:
        """Where a choice's samples are cut, their pieces' positions, mixed within each lane; else
        theirs.
        """
        window, pieces = choice.window, choice.decision.pieces
        if pieces == 1:
            return choice.positions
        lanes = window.lanes.reshape(-1)[choice.positions].repeat(pieces, axis=1)
        rng = np.random.default_rng([self.settings.seed, window.epoch, window.index, pieces])
        return mixed(cut(choice.positions, pieces), lanes, rng)

    def time(self, epoch: int) -> float:
        """Now, in the unit in which scores age."""
        return self._time(self.clock(0, epoch, 0.0))

    def remember(self, ids: NDArray[np.int64], scores: NDArray, time: float) -> None:
        """Put scores given at a time into the ledger, if there is one."""
        if self.ledger is not None:
            self.ledger.record(ids, scores, time)

    def _seen_again(self, window: Window, decision: Decision) -> float | None:
        """The gain that ``auto`` predicts for a window that it keeps whole, from those samples of
        it that are remembered.
        """
        if decision.by != ALL or not self._by_prediction or self.ledger is None:
            return None
        lessons = lesson_count(
            len(window.ids), self.keep(self.clock(0, window.epoch, window.share))
        )
        scores = self.ledger.recall(window.ids)
        known = scores[np.isfinite(scores)]
        if lessons == len(window.ids) or len(known) < _SAMPLE:
            return None
        gain = best_design(
            known, round(len(known) * lessons / len(window.ids)), self.settings.temperature
        ).gain
        self.payoff.see(gain)
        return gain

    def _choice(
        self, window: Window, decision: Decision, scores: NDArray | None, select: str
    ) -> Choice:
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
        weights = lane_weights(
            scores, window.lanes, positions, select=select, temperature=settings.temperature
        )
        return Choice(
            decision=decision, positions=positions, weights=weights, scores=scores, window=window
        )

    def _known(self, ids: NDArray[np.int64], clock: Clock) -> bool:
        """Whether a window of these samples would be chosen at a time by what is remembered now."""
        if self.ledger is None:
            return False
        age = self.settings.interval.at(clock)
        return self._enough(self.ledger.known(ids, self._time(clock), age))

    def _enough(self, known: NDArray[np.bool_]) -> bool:
        """Whether a window can be chosen by what is known of it."""
        return bool(known.mean() >= (_ENOUGH if self.forwards else _HALF))

    def _recalled(self, window: Window) -> NDArray[np.float32]:
        """Remembered scores; what is not known has the highest of them, or it would never be
        trained on and become known.
        """
        scores = self.ledger.recall(window.ids)
        known = is_known(scores)
        return (
            scores
            if known.all()
            else np.where(known, scores, scores[known].max(initial=0.0)).astype(np.float32)
        )

    def _pays(self, window: Window, lessons: int) -> bool:
        scores = below_ceiling(self._recalled(window), window.lanes, self.settings.ceiling)
        design = best_design(scores, lessons * window.ids.shape[1], self.settings.temperature)
        return self.payoff.pays(design.gain, lessons / len(window.ids), scored=False)

    def _time(self, clock: Clock) -> float:
        elapsed = clock.elapsed(self.settings.interval.unit)
        return float(np.floor(elapsed)) if self.settings.interval.unit == "ep" else elapsed


def untaught(seed: int) -> Teacher:
    """A teacher that keeps everything and needs no scores: what a taught epoch goes on with when
    AtteNT is taken away.
    """
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
