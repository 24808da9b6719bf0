"""The data set: its epoch is told to what varies by it, and its state is where training stands.
Oracle: an iteration that was never stopped.
"""

import functools

import pytest
import torch
from corpora import write_ids
from loaders import data_of, difficulty_of, ids_data
from streaming import Stream
from taught import make_loader, make_teacher
from torch.utils.data import default_collate

from attent_stream import TeachingDataLoader, TeachingDataset
from attent_stream.base.epoch_number import EpochNumber, varying_by_epoch


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_ids(tmp_path_factory.mktemp("ids") / "data", 64)


class Told:
    """What varies by the epoch, in a plain attribute."""

    def __init__(self) -> None:
        self.epoch, self.calls = -1, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.calls = epoch, self.calls + 1

    def collate(self, samples: list) -> dict:
        batch = default_collate(samples)
        return batch | {"epoch": torch.full_like(batch["id"], self.epoch)}

    def __call__(self, samples: list) -> dict:
        return self.collate(samples)


class Wrapper:
    def __init__(self, inner) -> None:
        self.inner = inner

    def __call__(self, samples: list) -> dict:
        return self.inner(samples)

    def method(self, samples: list) -> dict:
        return self.inner(samples)


def pass_on(samples: list, told: Told, more=None) -> dict:
    return told(samples)


GLOBAL = Told()


def by_global(samples: list) -> dict:
    return GLOBAL(samples)


def decorated(told: Told):
    @functools.wraps(told)
    def collate(samples: list) -> dict:
        return told(samples)

    return collate


FORMS = {
    "itself": lambda told: told,
    "bound method": lambda told: told.collate,
    "partial": lambda told: functools.partial(told),
    "argument": lambda told: functools.partial(pass_on, told=told),
    "nested": lambda told: functools.partial(functools.partial(pass_on, more=1), told=told.collate),
    "closure": lambda told: lambda samples: told(samples),
    "decorated": decorated,
    "attribute": Wrapper,
    "method of a wrapper": lambda told: Wrapper(told).method,
}


@pytest.mark.parametrize("form", FORMS)
def test_all_that_has_set_epoch_is_found_once(form):
    told = Told()
    assert varying_by_epoch(FORMS[form](told), told) == [told]
    assert varying_by_epoch(by_global) == [GLOBAL]
    assert varying_by_epoch(default_collate, Told, functools.partial(Told), len) == []


class Epochal(TeachingDataset):
    epoch, calls = -1, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.calls = epoch, self.calls + 1

    def __getitem__(self, at):
        return super().__getitem__(at) | {"of data": self.epoch}


SPAWNED = {"num_workers": 1, "persistent_workers": True, "multiprocessing_context": "spawn"}


@pytest.mark.parametrize(
    ("workers", "taught"),
    [
        *(({}, taught) for taught in (False, True)),
        *(({"num_workers": 2}, taught) for taught in (False, True)),
        *(({"num_workers": 2, "persistent_workers": True}, taught) for taught in (False, True)),
        pytest.param(SPAWNED, True, marks=pytest.mark.slow),
    ],
)
def test_workers_know_the_epoch(folder, workers, taught):
    told = Told()
    collate = (
        functools.partial(pass_on, told=told)
        if workers is SPAWNED
        else lambda samples: told(samples)
    )
    loader = TeachingDataLoader(
        Epochal(**data_of(folder)), batch_size=4, collate_fn=collate, **workers
    )
    if taught:
        loader.attach(make_teacher(keep=0.5))
    for epoch in range(3):
        seen = set()
        for batch in loader:
            loader.teach(difficulty_of)
            seen |= {
                tuple(pair)
                for pair in zip(batch["epoch"].tolist(), batch["of data"].tolist(), strict=True)
            }
        assert seen == {(epoch, epoch)}
        assert told.calls == loader.dataset.calls == epoch + 1  # here: once each, workers or not


class EpochOf:
    """A collate function that puts the epoch it was told of into every batch."""

    def __init__(self) -> None:
        self.number = EpochNumber()

    def set_epoch(self, epoch: int) -> None:
        self.number.set(epoch)

    def __call__(self, samples: list) -> dict:
        batch = default_collate(samples)
        return batch | {"epoch": torch.full_like(batch["id"], self.number.get())}


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("workers", [{}, {"num_workers": 2, "persistent_workers": True}])
def test_collate_functions_are_told_the_epoch(tmp_path, taught, workers):
    data = ids_data(tmp_path, 64, window=4)
    loader = make_loader(data, workers | {"collate_fn": EpochOf()}, {"select": "hard", "keep": 0.5})
    if not taught:
        loader.attach(None)
    epochs = []
    for _ in range(3):
        for batch in loader:
            loader.teach(lambda b: b["difficulty"])
            epochs.append(set(batch["epoch"].tolist()))
    assert sorted(map(tuple, epochs)) == [(e,) for e in range(3) for _ in range(len(epochs) // 3)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"window": 1}, "window must be an integer of at least 2 .*, got 1"),
        ({"window": 0}, "window must be an integer of at least 2 .*, got 0"),
        ({"window": -3}, "window must be an integer of at least 2 .*, got -3"),
        ({"window": 2.5}, "window must be an integer of at least 2 .*, got 2.5"),
        ({"window": True}, "window must be an integer of at least 2 .*, got True"),
        ({"gap": -1}, "gap must be an integer of at least 0 .*, got -1"),
        ({"gap": 1.0}, "gap must be an integer of at least 0 .*, got 1.0"),
        ({"order": "lasy"}, "order must be one of auto, .*, got 'lasy'"),
    ],
)
def test_bad_settings_are_refused(folder, given, message):
    with pytest.raises(ValueError, match=message):
        TeachingDataset(**data_of(folder) | given)


def test_empty_stream(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "index.json").write_text('{"shards": [], "version": 2}')
    with pytest.raises(RuntimeError, match="Stream contains no samples"):
        TeachingDataset(local=str(folder), batch_size=4)


def test_repeats_are_known(folder):
    assert not TeachingDataset(**data_of(folder)).repeats
    for stream, repeats in (
        (Stream(local=folder, repeat=2), True),
        (Stream(local=folder, choose=65), True),
        (Stream(local=folder, choose=40), False),
    ):
        data = {k: v for k, v in data_of(folder).items() if k != "local"}
        assert TeachingDataset(**data, streams=[stream]).repeats == repeats


def ids_of(loader) -> list[list[int]]:
    return [batch["id"].tolist() for batch in loader]


def plain(folder: str, **more) -> TeachingDataLoader:
    return TeachingDataLoader(TeachingDataset(**data_of(folder, **more)), batch_size=4)
