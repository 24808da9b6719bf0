"""Arguments of DataLoader that cannot work, and epochs without a batch. Oracles: the rows of the
epoch's order, an iteration.
"""

import pytest
import torch
from corpora import write_ids
from loaders import data_of, difficulty_of
from streaming.base.world import World
from taught import make_loader, make_teacher

from attent_stream import TeachingDataLoader, TeachingDataset
from attent_stream.data.loader_arguments import check_has_batches, check_loader_arguments


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_ids(tmp_path_factory.mktemp("ids") / "data", 64)


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "more", "batches"),
    [
        (64, True, {}, 1),
        (65, True, {}, 0),
        (128, False, {}, 1),
        (8, True, {"epoch_size": 7}, 0),
        (8, True, {"epoch_size": 8}, 1),
    ],
)
def test_an_epoch_without_a_batch_is_refused(folder, batch_size, drop_last, more, batches):
    dataset = TeachingDataset(**data_of(folder, batch_size=batch_size, **more))
    if batches:
        loader = TeachingDataLoader(dataset, batch_size=batch_size, drop_last=drop_last)
        loader.attach(make_teacher(keep=1.0, select="random"))
        assert len([loader.teach(difficulty_of) for _ in loader]) == loader.plain_batches == batches
        return
    with pytest.raises(
        ValueError,
        match=rf"an epoch has no batch: \d+ samples .* batch_size {batch_size} and drop_last=True",
    ):
        TeachingDataLoader(dataset, batch_size=batch_size, drop_last=drop_last)


@pytest.mark.parametrize("replication", [1, 2])
@pytest.mark.parametrize("batch_size", [15, 16, 17, 31, 32, 33])
def test_what_a_rank_has_counts(folder, replication, batch_size):
    """64 samples on four ranks: 16 each, or 32 where two ranks share theirs. Oracle: the rows of
    the epoch's order.
    """
    dataset = TeachingDataset(**data_of(folder, batch_size=batch_size))
    dataset._parallel_rank_world = World(1, 4, 1, 0).replicate(
        replication
    )  # of its shared memory there is one rank
    dataset.length = -(-dataset.epoch_size // dataset.num_ranks)
    if dataset.begin_epoch().order.full:
        assert TeachingDataLoader(dataset, batch_size=batch_size, drop_last=True).plain_batches
        return
    ranks = 4 // replication
    with pytest.raises(ValueError, match=f"{64 // ranks} samples for each of {ranks} ranks"):
        TeachingDataLoader(dataset, batch_size=batch_size, drop_last=True)
    assert TeachingDataLoader(dataset, batch_size=batch_size).plain_batches == 1


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"in_order": False}, "in_order must be True"),
        ({"in_order": False, "num_workers": 2}, "in_order must be True"),
        ({"shuffle": True}, "pass shuffle=True to TeachingDataset"),
        ({"sampler": range(4)}, "sampler must not be given"),
        ({"batch_sampler": [[0]]}, "batch_sampler must not be given"),
        ({"num_workers": -1}, "num_workers must be"),
        ({"num_workers": 2.0}, "num_workers must be"),
        ({"num_workers": None}, "num_workers must be"),
        ({"num_workers": 1, "prefetch_factor": 0}, "prefetch_factor must be"),
        ({"num_workers": 1, "prefetch_factor": 1.5}, "prefetch_factor must be"),
        ({"prefetch_factor": 2}, "prefetch_factor=2 need workers"),
        ({"persistent_workers": True}, "persistent_workers=True need workers"),
        ({"multiprocessing_context": "fork"}, "need workers"),
        ({"timeout": 60}, "timeout=60 need workers"),
        ({"timeout": -1, "num_workers": 1}, "timeout must be"),
        ({"timeout": None, "num_workers": 1}, "timeout must be"),
        ({"multiprocessing_context": "frok", "num_workers": 1}, "multiprocessing_context"),
        ({"generator": 5}, "generator must be"),
        ({"collate_fn": "tokens"}, "collate_fn must be"),
        ({"worker_init_fn": 3, "num_workers": 1}, "worker_init_fn must be"),
        ({"teacher_timeout": "long"}, "teacher_timeout must be"),
        ({"bach_size": 4}, "bach_size"),
    ],
)
def test_arguments_that_cannot_work_are_refused(folder, given, named):
    dataset = TeachingDataset(**data_of(folder))
    with pytest.raises((TypeError, ValueError), match=named) as refused:
        TeachingDataLoader(dataset, batch_size=4, **given)
    assert "\n" not in str(refused.value)


def test_no_batch_size_is_refused(folder):
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        TeachingDataLoader(TeachingDataset(**data_of(folder, batch_size=None)), batch_size=None)


def test_arguments_that_can_work_do(folder):
    given = {
        "in_order": True,
        "shuffle": False,
        "sampler": None,
        "batch_sampler": None,
        "prefetch_factor": None,
    }
    given |= {
        "generator": torch.Generator(),
        "timeout": 0,
        "pin_memory": False,
        "worker_init_fn": print,
    }
    loader = make_loader(data_of(folder), given, {"keep": 0.5})
    assert sum(len(batch["id"]) for batch in loader if loader.teach(difficulty_of) is not None) > 0


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"num_workers": 2, "prefetch_factor": None, "persistent_workers": True},
        {"num_workers": 1, "timeout": 0.5, "multiprocessing_context": "spawn"},
        {"collate_fn": None, "worker_init_fn": None, "generator": None},
        {"collate_fn": len, "pin_memory": True},
    ],
)
def test_what_can_work_is_let_through(given):
    check_loader_arguments(given)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("samples", range(6))
def test_a_batch_is_counted_as_a_loader_counts(samples, drop_last):
    batches = len(torch.utils.data.DataLoader(range(samples), batch_size=3, drop_last=drop_last))
    if batches:
        check_has_batches(samples, 3, drop_last)
    else:
        with pytest.raises(ValueError, match=f"an epoch has no batch: {samples} samples for each"):
            check_has_batches(samples, 3, drop_last, ranks=2)
