"""What AtteNT does at the Trainer's events, in parts that are called one after the other."""

from collections.abc import Iterator, Sequence

from composer import Callback, Event, State
from composer.loggers import Logger


class Effect(Callback):
    """A part: it has a method for each event at which it does something."""

    def idle(self, event: Event, state: State) -> bool:
        """Whether its method for an event would do nothing now.

        Composer takes 0.1 ms for an event at which an algorithm is run, so it is worth telling.
        """
        return False


class Effects:
    """Passes events on to the effects that have something to do.

    Args:
        effects: In the order in which they are called.
    """

    def __init__(self, effects: Sequence[Effect]) -> None:
        self._effects = tuple(effects)
        self._of = {event: _listening(effects, event) for event in Event}

    def __iter__(self) -> Iterator[Effect]:
        """Iterate over the effects, in their order."""
        return iter(self._effects)

    def due(self, event: Event, state: State) -> bool:
        """Whether any has something to do at an event."""
        return any(not effect.idle(event, state) for effect in self._of[event])

    def run_event(self, event: Event, state: State, logger: Logger) -> None:
        """Call those that have something to do at an event."""
        for effect in self._of[event]:
            if not effect.idle(event, state):
                effect.run_event(event, state, logger)


def _listening(effects: Sequence[Effect], event: Event) -> tuple[Effect, ...]:
    name = event.value
    default = getattr(Callback, name, None)
    return tuple(effect for effect in effects if getattr(type(effect), name, None) is not default)
