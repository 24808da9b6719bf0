"""The user's collate function, with the step around it. Oracles: the same function on the same
samples; rows that are no samples.
"""

import functools
import logging

import pytest
import torch
from corpora import write_ids
from loaders import data_of, difficulty_of
from taught import make_loader
from torch.utils.data import default_collate

from attent_stream import TeachingDataLoader, TeachingDataset
from attent_stream.arrange.arrangements import Arrangements
from attent_stream.base.errors import CollateError
from attent_stream.data.tagged import Tagged, Task
from attent_stream.data.tagged_collate import TaggedCollate
from attent_stream.window.decision import ALL, Decision


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_ids(tmp_path_factory.mktemp("ids") / "data", 64)


class Packs:
    """Two rows of whatever it is given."""

    def __call__(self, samples: list) -> dict:
        batch = default_collate(samples)
        return {name: value.reshape(2, -1) for name, value in batch.items()}


class LeavesOut:
    """All but a broken sample."""

    def __call__(self, samples: list) -> dict:
        return default_collate([sample for sample in samples if sample["id"] != 37])


@pytest.mark.parametrize(
    ("workers", "collate", "name", "rows"),
    [
        (0, Packs(), "Packs", 2),
        (1, LeavesOut(), "LeavesOut", 3),
        (0, functools.partial(LeavesOut()), "LeavesOut", 3),
    ],
)
def test_other_rows_than_samples_are_not_taught(folder, workers, collate, name, rows):
    loader = make_loader(
        data_of(folder, shuffle=False),
        {"num_workers": workers, "collate_fn": collate},
        {"keep": 1.0},
    )
    trained = []
    with pytest.raises(
        CollateError,
        match=rf"'{name}' made {rows} rows of 4 samples on rank 0 .* for samples \d+, .*shard",
    ):
        for batch in loader:
            loader.teach(difficulty_of)
            trained += batch["id"].tolist()
    assert trained == ([] if name == "Packs" else list(range(36)))


@pytest.mark.parametrize(
    ("collate", "told"), [(Packs(), 1), (LeavesOut(), 1), (default_collate, 0)]
)
def test_plain_streaming_warns_once(folder, caplog, collate, told):
    loader = TeachingDataLoader(
        TeachingDataset(**data_of(folder)), batch_size=4, collate_fn=collate
    )
    with caplog.at_level(logging.WARNING):
        assert len([batch for _ in range(2) for batch in loader]) == 32
    assert (
        sum(
            "A resume within an epoch will start at the wrong sample" in record.getMessage()
            for record in caplog.records
        )
        == told
    )


@pytest.fixture
def dataset(folder):
    return TeachingDataset(**data_of(folder, shuffle=False))


def tagged(dataset, ids, notes: dict | None = None, lesson: bool = True) -> list[Tagged]:
    arrangements = Arrangements.parse({"pieces": 0.5})
    decision = arrangements.noted(Decision(by=ALL, lessons=0), (notes or {}).items())
    task = Task(arrangements=arrangements, decision=decision, lesson=lesson)
    size = task.units
    return [
        Tagged(5, [dataset[i] for i in ids[at : at + size]], ids[at : at + size], [0] * size, task)
        for at in range(0, len(ids), size)
    ]


def test_it_sees_nothing_but_samples(dataset):
    seen = []

    def collate(samples):
        seen.append([type(sample) for sample in samples])
        return default_collate(samples)

    made = TaggedCollate(collate, dataset)(tagged(dataset, [3, 17, 4]))
    assert (made.step, made.fault, made.features) == (5, "", None)
    assert made.batch["id"].tolist() == [3, 17, 4]
    assert all(kind is dict for kinds in seen for kind in kinds)


def by_difficulty(samples: list) -> dict:
    return default_collate(sorted(samples, key=lambda sample: sample["id"] % 5))


def test_an_order_of_its_own_is_a_fault_of_every_batch(dataset):
    collate = TaggedCollate(by_difficulty, dataset)
    for ids in ([3, 17, 4], [5, 10, 15]):  # of the second nothing shows
        assert "'by_difficulty' reorders rows" in collate(tagged(dataset, ids)).fault


class Counts:
    """Keeps how often it was called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, samples):
        self.calls += 1
        return default_collate(samples)


def test_it_is_tried_on_a_copy(dataset):
    counts = Counts()
    collate = TaggedCollate(counts, dataset)
    collate(tagged(dataset, [1, 2]))
    collate(tagged(dataset, [3, 4]))
    assert counts.calls == 2


def test_what_it_raises_is_told_with_the_samples(dataset):
    def collate(samples):
        raise KeyError("label")

    with pytest.raises(CollateError, match="raised KeyError on rank 0 .* for samples 3, 17"):
        TaggedCollate(collate, dataset)(tagged(dataset, [17, 3]))
    with pytest.raises(CollateError, match="arrange.pieces needs input_ids .* for samples 1, 2"):
        TaggedCollate(default_collate, dataset)(tagged(dataset, [1, 2], {"pieces": 2}))


def test_pieces_of_samples_are_put_together(dataset):
    def text(samples):
        ids = torch.tensor([[sample["id"]] for sample in samples])
        return {"input_ids": 8 * ids + torch.arange(8)}

    some = tagged(dataset, [1, 2, 3, 4], {"pieces": 2})
    some[1] = some[1]._replace(pieces=[1, 0])
    made = TaggedCollate(text, dataset)(some)
    assert made.fault == "" and made.batch["input_ids"].tolist() == [
        [8, 9, 10, 11, 16, 17, 18, 19],
        [28, 29, 30, 31, 32, 33, 34, 35],
    ]
    # Candidates are whole
    whole = TaggedCollate(text, dataset)(tagged(dataset, [1, 2], {"pieces": 2}, lesson=False))
    assert whole.batch["input_ids"].shape == (2, 8)
