"""Events are passed on to the effects that have something to do. Oracle: a list of what is due."""

from types import SimpleNamespace

from composer import Event

from attent_stream.effects.effect import Effect, Effects


class Noting(Effect):
    def __init__(self, name, told):
        self.name, self.told, self.at_rest = name, told, False

    def idle(self, event, state):
        return self.at_rest and event == Event.BATCH_END

    def batch_end(self, state, logger):
        self.told.append((self.name, Event.BATCH_END))


class AlsoAtStart(Noting):
    def batch_start(self, state, logger):
        self.told.append((self.name, Event.BATCH_START))


def test_events_reach_those_that_have_something_to_do():
    told, state = [], SimpleNamespace()
    first, second = AlsoAtStart("first", told), Noting("second", told)
    effects = Effects([first, second])
    assert list(effects) == [first, second]
    due = {event for event in Event if effects.due(event, state)}
    assert due == {Event.BATCH_START, Event.BATCH_END}
    for event in (Event.BATCH_START, Event.BATCH_END, Event.EPOCH_END):
        effects.run_event(event, state, None)
    assert told == [
        ("first", Event.BATCH_START),
        ("first", Event.BATCH_END),
        ("second", Event.BATCH_END),
    ]
    first.at_rest = True
    told.clear()
    assert effects.due(Event.BATCH_END, state)
    effects.run_event(Event.BATCH_END, state, None)
    assert told == [("second", Event.BATCH_END)]
    second.at_rest = True
    assert not effects.due(Event.BATCH_END, state) and effects.due(Event.BATCH_START, state)
