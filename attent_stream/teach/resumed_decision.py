"""Decisions from a checkpoint's position, under the teacher's current settings."""

from dataclasses import replace

from attent_stream.teach.position import Position
from attent_stream.teach.teacher import Teacher
from attent_stream.window.choice import Window
from attent_stream.window.decision import ALL, SCORED, Decision


def resumed_decision(
    teacher: Teacher, window: Window | None, position: Position
) -> Decision | None:
    """Return the decision about the next window, or a new one if the teacher cannot apply it.

    Args:
        teacher: The teacher of this run.
        window: The window that is chosen next, or None after the last one.
        position: The checkpoint's position.

    Raises:
        ValueError: See ``checked``.
    """
    if position.next is None or window is None:
        return None
    # Some candidates may have been read already, so no arrangement can be added.
    planned = teacher.arrangements.kept(checked(teacher, position.next))
    if teacher.can_carry_out(planned, window):
        return planned
    ahead = -position.lesson
    for chosen in (position.current, position.following):
        ahead += chosen.decision.lessons if chosen else 0
    fresh = teacher.decide(window, ahead)
    # Some candidates may have been read already, and would not be scored.
    by, lessons = (ALL, len(window.ids)) if fresh.by == SCORED else (fresh.by, fresh.lessons)
    return replace(planned, by=by, lessons=lessons)


def checked(teacher: Teacher, decision: Decision) -> Decision:
    """Return a checkpoint's decision.

    Raises:
        ValueError: Its notes contradict its other fields.
    """
    if teacher.arrangements.noted(decision, decision.notes) != decision:
        raise ValueError(f"the checkpoint's teaching position is damaged: {decision}")
    return decision
