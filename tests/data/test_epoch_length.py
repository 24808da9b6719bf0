"""How many batches epochs to come have."""

import pytest
from corpora import write_ids
from loaders import data_of, lessons_of
from taught import make_teacher

from attent_stream import TeachingDataLoader, TeachingDataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_ids(tmp_path_factory.mktemp("ids") / "data", 64)


def ids_of(loader: TeachingDataLoader) -> list[list[int]]:
    return [batch["id"].tolist() for batch in loader]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [4, 5, 30])
def test_its_length_is_that_of_an_iteration(folder, batch_size, drop_last):
    data = data_of(folder, batch_size=batch_size)
    loader = TeachingDataLoader(TeachingDataset(**data), batch_size=batch_size, drop_last=drop_last)
    assert len(ids_of(loader)) == len(loader) == loader.plain_batches
    assert loader.expect(3) == 3 * len(loader)
    loader.attach(make_teacher(keep=0.5, select="random"))
    assert loader.forecast() == len(loader) == len(lessons_of(loader, 1))
    loader.attach(None)
    assert len(loader) == loader.plain_batches


def test_expected_epochs_are_those_that_come(folder):
    loader = TeachingDataLoader(TeachingDataset(**data_of(folder)), batch_size=4)
    loader.attach(make_teacher(keep=0.5, select="random", warmup="1ep"))
    assert loader.expect(0) == 0
    expected = loader.expect(3)
    assert expected == len(lessons_of(loader, 3)) == 16 + 2 * 8
