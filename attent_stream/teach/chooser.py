"""Chooses the windows of an epoch, one after the other, at once or in a thread."""

import copy
from dataclasses import replace
from typing import NamedTuple

from attent_stream.base.errors import TeacherError
from attent_stream.base.gather import RankGroup
from attent_stream.order.order import Order
from attent_stream.teach.choice_thread import ChoiceThread
from attent_stream.teach.publisher import Publisher
from attent_stream.teach.segment import Segment
from attent_stream.teach.segments import Segments
from attent_stream.teach.teacher import Teacher
from attent_stream.teach.upcoming import Upcoming
from attent_stream.window.choice import Choice, Window
from attent_stream.window.decision import REMEMBERED, Decision
from attent_stream.window.metrics import choice_metrics

# Units of a window from which on it is chosen in a thread, while training goes on, if that can be.
# Below, it takes a few milliseconds, or some tens where features are compared.
LARGE = 1 << 16
COMPARED = 1 << 11


class Made(NamedTuple):
    """A choice, and the segment that was published for it.

    Args:
        choice: The choice.
        segment: Its segment.
        apart: Whether the choice is told when its segment begins, as a thread may have made it.
    """

    choice: Choice
    segment: Segment
    apart: bool


class Chooser:
    """Chooses windows and publishes their segments.

    Args:
        order: The epoch's order.
        teacher: Chooses the windows.
        segments: The epoch's windows and segments.
        publisher: Publishes segments.

    Attributes:
        next: The window that is chosen next; None after the last one.
        after: How the window after that will be chosen, if that was decided already.
    """

    def __init__(
        self, order: Order, teacher: Teacher, segments: Segments, publisher: Publisher
    ) -> None:
        self.next: Upcoming | None = None
        self.after: Decision | None = None
        self._order, self._teacher = order, teacher
        self._segments, self._publisher = segments, publisher
        self._thread: ChoiceThread[tuple[Made, Upcoming | None]] = ChoiceThread()
        self._share_at = 0  # lesson at which ranks sum their parts of what the thread makes

    @property
    def busy(self) -> bool:
        """Whether a thread has begun a choice that was not taken."""
        return self._thread.busy

    @property
    def shares(self) -> bool:
        """Whether the thread waits for ``share``."""
        return self._thread.shares

    @property
    def scheduled(self) -> Upcoming:
        """The window that is chosen next.

        Raises:
            TeacherError: None is left.
        """
        if self.next is None:
            raise TeacherError(f"epoch {self._order.epoch} has no window left to be chosen")
        return self.next

    def choose(
        self, segment: Segment, lesson: int, first_step: int, group: RankGroup
    ) -> Made | None:
        """Choose the next window.

        All ranks of a group must call this together. A window of at least ``LARGE`` units, or
        ``COMPARED`` where features are, is chosen in a thread, if the choice depends on nothing
        that changes meanwhile.

        Args:
            segment: The current segment.
            lesson: Its current lesson.
            first_step: Number of the first step after it.
            group: The ranks that choose together.

        Returns:
            None if a thread chooses: see ``settle``, and ``share``.

        Raises:
            TeacherError: No window is left.
        """
        coming, teacher = self.scheduled, self._teacher
        window, decision = coming.window, coming.decision
        remaining = len(segment.lessons) - lesson
        shares = decision.features and coming.features is not None and group.ranks > 1
        large = COMPARED if decision.features else LARGE
        apart = window.ids.size * decision.units >= large and teacher.chooses_apart(decision)
        # What is shared is summed at a later lesson of this segment
        if apart and (remaining > 1 or not shares):
            self._begin(coming, segment, lesson, first_step, group, shares)
            return None
        choice = teacher.choose(window, decision, coming.scores, coming.features, group)
        after, self.after = self.after, None
        made = self.compose(choice, segment.index + 1, remaining, after)
        self.publish(made, first_step)
        return Made(choice, made, apart)

    def share(self, lesson: int) -> None:
        """Sum what ranks share of a choice that a thread makes, halfway to its first lesson.

        All ranks must call this together at each lesson.
        """
        if self._thread.shares and lesson >= self._share_at:
            self._thread.share()

    def settle(self) -> Made | None:
        """Wait for the choice that a thread makes; None if none does."""
        taken = self._thread.take()
        if taken is None:
            return None
        made, self.next = taken
        self.after = None
        return made

    def close(self) -> None:
        """Wait until nothing more is published."""
        self._thread.close()

    def compose(
        self, choice: Choice, index: int, remaining: int, decision: Decision | None = None
    ) -> Segment:
        """Build the segment of a choice, and decide about the window after it.

        Args:
            choice: The choice.
            index: Number of the segment.
            remaining: Lessons until it begins.
            decision: How the window after it is chosen. None: the teacher decides.
        """
        window = self._segments.window(index + 1)
        if window is not None:
            decision = decision or self._teacher.decide(window, remaining + len(choice.places))
        self.next = self._upcoming(window, decision)
        return self._segments.of_choice(choice, index, window, decision)

    def tail(self, index: int) -> Segment:
        """Build a segment of what follows the last full row. No window is chosen after it."""
        self.next = None
        return self._segments.of_tail(index)

    def publish(self, segment: Segment, first_step: int, skip: int = 0) -> None:
        """Publish a segment, after which ``next`` is chosen; see ``Publisher``."""
        number = self._publisher.reserve()
        self._publisher.publish(number, segment, self.next, first_step, skip=skip)

    def _begin(
        self,
        coming: Upcoming,
        segment: Segment,
        lesson: int,
        first_step: int,
        group: RankGroup,
        shares: bool,
    ) -> None:
        """Let a thread choose, build the segment and publish it."""
        index, remaining = segment.index + 1, len(segment.lessons) - lesson
        teacher, decision = copy.copy(self._teacher), coming.decision
        remembers = teacher.ledger is not None
        if decision.by == REMEMBERED and coming.scores is None:
            coming.scores = teacher.recalled(coming.window)  # they change while training goes on
        steps = teacher.choosing(coming.window, decision, coming.scores, coming.features, group)
        # A decision looks at what is remembered of a window, or else at its shape alone.
        window_of = self._segments.window if remembers else self._segments.outline
        window, following = window_of(index + 1), self.after
        if following is None and window is not None:
            following = teacher.decide(window, remaining + decision.lessons)
        likely = following is not None and following.by == REMEMBERED and not following.reads
        recalled = teacher.recalled(window) if window is not None and likely else None

        def finish(choice: Choice) -> tuple[Made, Upcoming | None]:
            choice = replace(choice, measured=choice_metrics(choice, self._order.stream_starts))
            whole = window if remembers else self._segments.window(index + 1)
            after = self._upcoming(whole, following)
            made = self._segments.of_choice(choice, index, whole, following)
            self._publisher.publish(number, made, after, first_step, recalled=recalled)
            return Made(choice, made, True), after

        self.after = following
        due, last = segment.due, len(segment.lessons) - 1
        self._share_at = max(lesson + 1, due + max(1, (last - due + 1) // 2))
        number = self._publisher.reserve()
        self._thread.begin(steps, finish, group=group, shares=shares)

    def _upcoming(self, window: Window | None, decision: Decision | None) -> Upcoming | None:
        if window is None or decision is None:
            return None
        return Upcoming(window, decision, layout=self._order.layout, origin=self._order.origin)
