"""The loader without a model. Oracles: stock Streaming, and the same functions called on the same
samples with the same seed.
"""

import random

import numpy as np
import pytest
import torch
from corpora import write_ids
from loaders import data_of, difficulty_of, lessons_of
from streaming import StreamingDataLoader, StreamingDataset
from taught import AsText, make_teacher
from torch.utils.data import default_collate

from attent_stream import TeachingDataLoader, TeachingDataset
from attent_stream.base.batch_seed import random_numbers_kept, seed_batch
from attent_stream.base.errors import TeacherError
from attent_stream.base.randomness import random_state
from attent_stream.corpus.batches import TokenCollator


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_ids(tmp_path_factory.mktemp("ids") / "data", 64)


class Draws:
    """A collate function that draws from all three global generators, as masking and augmenting
    ones do.
    """

    def __call__(self, samples: list) -> dict:
        batch = default_collate(samples)
        count = len(samples)
        drawn = [
            torch.rand(count),
            torch.tensor(np.random.rand(count)),  # noqa: NPY002
            torch.tensor([random.random() for _ in samples]),
        ]
        return batch | {"drawn": torch.stack([some.double() for some in drawn], 1)}


class Transforms(TeachingDataset):
    """A data set whose transform draws, too."""

    def __getitem__(self, at):
        sample = super().__getitem__(at)
        drawn = np.random.rand()  # noqa: NPY002
        return sample | {"noise": np.float64(random.random() + drawn + torch.rand(()).item())}


def transforming_loader(data: dict, workers: dict, teacher: dict | None) -> TeachingDataLoader:
    loader = TeachingDataLoader(
        Transforms(**data), batch_size=data["batch_size"], collate_fn=Draws(), **workers
    )
    loader.attach(None if teacher is None else make_teacher(**teacher))
    return loader


def redone(dataset: TeachingDataset, lesson: dict) -> dict:
    ids = lesson["id"].numpy()  # in this corpus a sample's id is its number
    with random_numbers_kept():
        seed_batch(dataset.shuffle_seed, lesson["epoch"], ids)
        return Draws()([dataset[number] for number in ids.tolist()])


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(one[name], other[name]) for name in ("id", "noise", "drawn"))


@pytest.mark.parametrize("order", ["streaming", "lazy"])
@pytest.mark.parametrize(
    "teacher",
    [
        None,
        {"keep": 1.0, "select": "random"},
        {"keep": 0.5, "select": "hard"},
        {"keep": 0.5, "select": "random"},
    ],
)
@pytest.mark.parametrize("workers", [{}, {"num_workers": 2, "persistent_workers": True}])
def test_what_a_batch_draws_depends_on_its_samples_alone(folder, order, teacher, workers):
    """With candidates between lessons and without, on any number of workers."""
    lessons = lessons_of(
        transforming_loader(data_of(folder, order=order, batch_size=8), workers, teacher)
    )
    data = Transforms(**data_of(folder, order=order, batch_size=8))
    assert all(same(lesson, redone(data, lesson)) for lesson in lessons)
    assert len({float(lesson["drawn"][0, 0]) for lesson in lessons}) == len(lessons)


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2}])
@pytest.mark.parametrize("teacher", [None, {"keep": 0.5, "select": "hard"}])
def test_a_resume_draws_the_same(folder, workers, teacher):
    data = data_of(folder)
    whole = lessons_of(transforming_loader(data, workers, teacher), 1)
    for cut in (1, 5):
        loader = transforming_loader(data, workers, teacher)
        for count, _ in enumerate(loader, 1):
            loader.teach(difficulty_of)
            if teacher:
                loader.teacher.clock.batches += 1
            if count == cut:
                state = loader.dataset.state_dict(cut * 4, True)
                break
        again = transforming_loader(data, workers, teacher)
        if teacher:
            again.teacher.clock.batches = cut
        again.dataset.load_state_dict(state)
        rest = lessons_of(again, 1)
        assert len(rest) == len(whole) - cut
        assert all(same(one, other) for one, other in zip(rest, whole[cut:], strict=True))


@pytest.mark.parametrize("teacher", [None, {"keep": 0.5, "select": "hard"}])
def test_reading_leaves_trainings_random_numbers_alone(folder, teacher):
    loader = transforming_loader(data_of(folder), {}, teacher)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    np.random.randn(1)  # noqa: NPY002 (it keeps a second one)
    batches = iter(loader)
    next(batches)  # the loader draws its own seed at the start, as torch's does
    for _ in range(4):
        loader.teach(difficulty_of)
        before = random_state()
        next(batches)
        assert torch.equal(random_state(), before)
    batches.close()


def test_other_seeds_and_epochs_draw_otherwise(folder):
    drawn = set()
    for seed in (1, 2):
        dataset = Transforms(**data_of(folder, shuffle=False, shuffle_seed=seed))
        loader = TeachingDataLoader(dataset, batch_size=4, collate_fn=Draws())
        drawn |= {
            float(batch["drawn"][0, part])
            for _ in range(2)
            for batch in loader
            for part in range(3)
        }
    assert len(drawn) == 2 * 2 * 16 * 3


def test_plain_batches_are_stock_streamings_and_so_are_the_losses_noise(folder):
    """Also the generator that training shares with the loader."""

    def read(kind, loader):
        torch.manual_seed(3)
        data = {
            name: value
            for name, value in data_of(folder).items()
            if kind is TeachingDataset or name not in ("window", "gap")
        }
        return [
            (batch["id"].tolist(), float(torch.rand(())))
            for batch in loader(kind(**data), batch_size=4)
        ]

    assert read(TeachingDataset, TeachingDataLoader) == read(StreamingDataset, StreamingDataLoader)


def ids_of(loader: TeachingDataLoader) -> list[list[int]]:
    return [batch["id"].tolist() for batch in loader]


def test_a_glance_is_at_the_first_samples_and_changes_nothing(folder):
    loader = transforming_loader(data_of(folder), {}, None)
    expected = ids_of(transforming_loader(data_of(folder), {}, None))
    before = random_state()
    assert loader.glance()["id"].tolist() == list(range(8))
    assert torch.equal(random_state(), before)
    assert ids_of(loader) == expected


@pytest.mark.parametrize(
    ("collate", "packed"),
    [(None, False), (AsText(), False), (TokenCollator(), True), (TokenCollator(pad_id=9), False)],
)
def test_packed_is_what_the_collate_function_says(folder, collate, packed):
    loader = TeachingDataLoader(
        TeachingDataset(**data_of(folder)), batch_size=4, collate_fn=collate
    )
    assert loader.packed is packed


def test_looks_are_forgotten_in_a_new_run(folder):
    loader = TeachingDataLoader(TeachingDataset(**data_of(folder)), batch_size=4)
    first, second = ids_of(loader), next(iter(loader))["id"].tolist()
    next(iter(loader))
    assert loader.peeked and loader.dataset.coming_epoch == 3
    loader.forget_peeks()
    assert not loader.peeked and loader.dataset.coming_epoch == 1
    assert next(iter(loader))["id"].tolist() == second != first[0]


def test_no_more_than_so_many_batches(folder):
    loader = TeachingDataLoader(TeachingDataset(**data_of(folder)), batch_size=4)
    begun = []
    loader.attach(make_teacher(), begun=lambda: begun.append(1), at_most=3)
    assert len(lessons_of(loader, 1)) == 3 and begun == [1]
    assert len(lessons_of(loader, 1)) > 3 and begun == [1]  # of one iteration only


def test_a_data_set_that_requires_a_teacher(folder):
    dataset = TeachingDataset(**data_of(folder, require_teacher=True))
    loader = TeachingDataLoader(dataset, batch_size=4)
    with pytest.raises(TeacherError, match="requires a teacher and none is attached: add AtteNT"):
        next(iter(loader))
    loader.attach(make_teacher(keep=1.0, select="random"))
    assert len(lessons_of(loader, 1)) == 16


def test_wrong_data_sets_and_batch_sizes_are_refused(folder):
    with pytest.raises(TypeError, match="dataset must be a TeachingDataset, got StreamingDataset"):
        TeachingDataLoader(StreamingDataset(local=folder, batch_size=4), batch_size=4)
    with pytest.raises(ValueError, match=r"batch_size must be the data set's own \(4\), got 8"):
        TeachingDataLoader(TeachingDataset(**data_of(folder)), batch_size=8)


def without_window(folder: str, **more) -> TeachingDataLoader:
    dataset = TeachingDataset(local=folder, batch_size=1, shuffle=True, **more)
    return TeachingDataLoader(dataset, batch_size=1)


def test_a_window_that_is_not_given_may_be_another(tmp_path):
    folder = write_ids(tmp_path, 400)
    loader = without_window(folder)
    assert loader.dataset.window == 32
    loader.widen(64)
    assert loader.dataset.window == 64
    loader.attach(make_teacher(keep=0.5, select="random"))
    assert len(lessons_of(loader, 1)) == 200
    loader.widen(4000)  # an epoch has four windows
    assert loader.dataset.window == 100
    loader.widen(1)
    assert loader.dataset.window == 32
    given = without_window(folder, window=16)
    given.widen(64)
    assert given.dataset.window == 16


@pytest.mark.parametrize(
    ("workers", "teacher", "ahead"),
    [
        (1, {}, 2),  # plain
        (1, {"keep": 0.25, "select": "random"}, 2),  # reads lessons only
        (1, {"keep": 0.25, "select": "hard"}, 6),
        (2, {"keep": 0.25, "select": "hard"}, 3),
        (1, {"keep": 0.7, "select": "hard"}, 4),
        (1, {"keep": 0.001, "select": "hard"}, 18),
    ],
)
def test_what_a_step_reads_is_read_ahead(tmp_path, workers, teacher, ahead):
    dataset = TeachingDataset(local=write_ids(tmp_path, 64), batch_size=1, window=8)
    loader = TeachingDataLoader(dataset, batch_size=1, num_workers=workers)
    if teacher:
        loader.attach(make_teacher(**teacher))
    for _ in loader:
        assert loader.prefetch_factor == ahead
        loader.teach(difficulty_of)
    loader.attach(None)
    next(iter(loader))
    assert loader.prefetch_factor == 2


def test_a_window_that_is_not_given_is_the_checkpoints(tmp_path):
    folder = write_ids(tmp_path, 400)
    loader = without_window(folder)
    loader.widen(64)
    loader.attach(make_teacher(keep=0.5, select="random"))
    whole, state = [], None
    for step, batch in enumerate(loader):
        loader.teach(lambda batch: batch["difficulty"])
        whole.append(batch["id"].tolist())
        if step == 40:
            state = loader.dataset.state_dict(41, True)
        loader.teacher.clock.batches += 1
    for teacher in (True, False):
        again = without_window(folder)
        again.dataset.load_state_dict(state)
        if teacher:
            again.attach(make_teacher(keep=0.5, select="random"))
            again.teacher.clock.batches = 41
        rest = []
        for batch in again:
            again.teach(lambda batch: batch["difficulty"])
            rest.append(batch["id"].tolist())
            if teacher:
                again.teacher.clock.batches += 1
        assert again.dataset.window == 64
        assert rest[:20] == whole[41:61] and (rest == whole[41:] or not teacher)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iteration_that_was_left_does_not_disturb_wider_windows(tmp_path, workers):
    folder = write_ids(tmp_path, 400)
    dataset = TeachingDataset(local=folder, batch_size=1, shuffle=True)
    loader = TeachingDataLoader(dataset, batch_size=1, num_workers=workers)
    peek = iter(loader)
    next(peek)
    loader.widen(64)
    loader.attach(make_teacher(keep=0.5, select="random"))
    ids = []
    for batch in loader:
        loader.teach(difficulty_of)
        ids.append(batch["id"].item())
        if len(ids) == 1:
            peek.close()
    assert len(set(ids)) == len(ids) == 200
