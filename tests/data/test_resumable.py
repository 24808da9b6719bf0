"""States of a data set: saved, loaded, and gone on from."""

import pytest
from corpora import write_ids
from loaders import data_of, difficulty_of
from streaming import StreamingDataLoader, StreamingDataset
from taught import make_loader

from attent_stream import TeachingDataLoader, TeachingDataset
from attent_stream.base.errors import TeacherError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_ids(tmp_path_factory.mktemp("ids") / "data", 64)


def ids_of(loader) -> list[list[int]]:
    return [batch["id"].tolist() for batch in loader]


def plain(folder: str, **more) -> TeachingDataLoader:
    return TeachingDataLoader(TeachingDataset(**data_of(folder, **more)), batch_size=4)


@pytest.mark.parametrize("order", ["streaming", "lazy"])
def test_a_plain_state_is_gone_on_from(folder, order):
    whole = plain(folder, order=order)
    epochs = [ids_of(whole), ids_of(whole)]
    loader = plain(folder, order=order)
    ids_of(loader)
    next(iter(loader))
    state = loader.dataset.state_dict(20, True)
    assert state["epoch"] == 1 and state["sample_in_epoch"] == 20
    assert state["attent"] == ("lazy" if order == "lazy" else "")
    again = plain(folder, order=order)
    again.dataset.load_state_dict(state)
    assert again.dataset.resumes and again.dataset.state_dict(0, False) == state
    assert ids_of(again) == epochs[1][5:]
    assert not again.dataset.resumes
    # A state of an epoch that was left behind takes it back
    again.dataset.load_state_dict(state)
    assert ids_of(again) == epochs[1][5:]


def test_the_end_of_an_epoch_is_the_start_of_the_next(folder):
    whole = plain(folder)
    epochs = [ids_of(whole), ids_of(whole)]
    loader = plain(folder)
    ids_of(loader)
    again = plain(folder)
    again.dataset.load_state_dict(loader.dataset.state_dict(0, True))
    assert ids_of(again) == epochs[1]


@pytest.mark.parametrize(("samples", "epoch"), [(24, 0), (64, 1)])
def test_a_state_of_stock_streaming_is_gone_on_from(folder, samples, epoch):
    whole = plain(folder)
    epochs = [ids_of(whole), ids_of(whole)]
    data = {k: v for k, v in data_of(folder).items() if k not in ("window", "gap")}
    stock = StreamingDataLoader(StreamingDataset(**data), batch_size=4)
    batches = iter(stock)
    for _ in range(samples // 4):
        next(batches)
    if samples == 64:
        assert next(batches, None) is None
        # As Composer asks for it at the end of an epoch
        state = stock.dataset.state_dict(0, True)
    else:
        state = stock.dataset.state_dict(samples, True)
    loader = plain(folder)
    loader.dataset.load_state_dict(state)
    assert ids_of(loader) == epochs[epoch][samples % 64 // 4 :]


def test_it_starts_at_any_place_of_an_order(folder):
    whole = plain(folder)
    epochs = [ids_of(whole) for _ in range(3)]
    loader = plain(folder)
    loader.dataset.start_at(2, 12)
    assert ids_of(loader) == epochs[2][3:]


def test_it_returns_to_a_loaded_state_after_a_look(folder):
    whole = plain(folder)
    epochs = [ids_of(whole), ids_of(whole)]
    loader = plain(folder)
    assert not loader.dataset.return_to_loaded(8)
    state = loader.dataset.state_dict(0, True) | {"epoch": 1, "sample_in_epoch": 8}
    loader.dataset.load_state_dict(state)
    next(iter(loader))
    assert not loader.dataset.resumes  # the look has taken it up
    assert not loader.dataset.return_to_loaded(12) and loader.dataset.return_to_loaded(8)
    assert ids_of(loader) == epochs[1][2:]


def test_the_state_of_a_run_whose_data_set_had_none_changes_nothing(folder):
    loader, expected = plain(folder), ids_of(plain(folder))
    loader.dataset.load_state_dict(None)
    assert ids_of(loader) == expected


def test_a_state_of_the_other_order_is_refused(folder):
    loader = plain(folder)
    next(iter(loader))
    lazy = plain(folder, order="lazy")
    with pytest.raises(ValueError, match="order"):
        lazy.dataset.load_state_dict(loader.dataset.state_dict(8, True))


def test_a_taught_state_needs_a_loader_of_ours(folder):
    loader = make_loader(data_of(folder), {}, {"keep": 0.5})
    batches = iter(loader)
    for _ in range(3):
        next(batches)
        loader.teach(difficulty_of)
        loader.teacher.clock.batches += 1
    state = loader.dataset.state_dict(12, True)
    batches.close()
    alone = TeachingDataset(**data_of(folder))
    alone.load_state_dict(state)
    with pytest.raises(TeacherError, match="iterate it with a TeachingDataLoader"):
        next(iter(alone))
