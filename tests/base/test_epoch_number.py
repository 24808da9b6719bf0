"""The epoch's number, and the search for objects that take it."""

import functools

import pytest

from attent_stream.base import epoch_number
from attent_stream.base.epoch_number import EpochNumber, tell_epoch, varying_by_epoch


class Told:
    def __init__(self):
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


class Holder:
    def __init__(self, inner):
        self.inner = inner

    def collate(self, samples):
        return samples


def closure(inner):
    return lambda samples: inner and samples


FORMS = {
    "itself": lambda told: told,
    "partial": lambda told: functools.partial(print, told),
    "keyword": lambda told: functools.partial(print, file=told),
    "method": lambda told: Holder(told).collate,
    "closure": closure,
    "list": lambda told: closure([1, told]),
    "attribute": Holder,
}


@pytest.mark.parametrize("form", FORMS)
def test_each_is_told_once(form):
    told = Told()
    tell_epoch(5, FORMS[form](told), FORMS[form](told))
    assert told.epochs == [5]


def test_what_is_not_searched():
    told = Told()
    assert varying_by_epoch(Holder(Holder(told)), closure([0] * 64 + [told]), Told, pytest) == []
    assert varying_by_epoch(Holder([told])) == [told]
    outer = Told()
    outer.inner = told
    assert varying_by_epoch(outer) == [outer]  # which passes it on itself


def test_a_loader_worker_does_not_set_it(monkeypatch):
    number = EpochNumber()
    number.set(3)
    monkeypatch.setattr(epoch_number, "get_worker_info", lambda: object())
    number.set(7)
    assert number.get() == 3
