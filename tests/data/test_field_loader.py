"""Loaders as people use them: too few samples, odd arguments, other columns, random collate
functions, packed rows.

Oracles: stock Streaming, what was written, and the same function called on the same samples with
the same seed.
"""

import functools
import io
import logging
import pickle
import random
from collections import UserDict
from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import write_ids
from PIL import Image
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
from streaming.base.world import World
from taught import make_loader, make_teacher
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import default_collate

from attent_stream import TeachingDataLoader, TeachingDataset
from attent_stream.base.batch_seed import random_numbers_kept, seed_batch
from attent_stream.base.epoch_number import EpochNumber, varying_by_epoch
from attent_stream.base.errors import CollateError
from attent_stream.base.randomness import random_state
from attent_stream.corpus.batches import ImageCollator, TokenCollator
from attent_stream.data.rows import miscounted
from attent_stream.launch.data import CutTokens
from attent_stream.train import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_ids(tmp_path_factory.mktemp("ids") / "data", 64)


def data_of(folder: str, **more) -> dict:
    return {
        "local": folder,
        "batch_size": 4,
        "window": 4,
        "gap": 2,
        "num_canonical_nodes": 1,
        "shuffle": True,
    } | more


def difficulty_of(batch: dict) -> torch.Tensor:
    return batch["difficulty"]


# 1. An epoch without a batch


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


# 2. DataLoader's arguments


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


# 3. Columns

IDS = np.random.default_rng(3).integers(0, 250, (24, 16))


def text(folder, column: str, encoding: str, made) -> str:
    with MDSWriter(
        out=str(folder / "train"), columns={column: encoding, "source": "str"}
    ) as writer:
        for row in IDS:
            writer.write({column: made(row), "source": "here"})
    return str(folder)


@pytest.mark.parametrize(
    ("column", "encoding", "made", "settings"),
    [
        ("tokens", "ndarray:uint16", lambda row: row.astype(np.uint16), {}),
        ("input_ids", "ndarray:int32", lambda row: row.astype(np.int32), {"column": "input_ids"}),
        ("tokens", "ndarray", lambda row: row.astype(np.int64), {"dtype": "int64"}),
        ("tokens", "bytes", lambda row: row.astype(np.int64).tobytes(), {"dtype": "int64"}),
        (
            "ids",
            "bytes",
            lambda row: row.astype(np.uint16).tobytes(),
            {"column": "ids", "dtype": "uint16"},
        ),
        ("tokens", "json", lambda row: row.tolist(), {}),
    ],
)
def test_text_columns_as_people_have_them(tmp_path, column, encoding, made, settings):
    samples = list(
        StreamingDataset(
            local=text(tmp_path, column, encoding, made), split="train", batch_size=1, shuffle=False
        )
    )
    collate = pickle.loads(pickle.dumps(TokenCollator(**settings)))
    assert collate(samples)["input_ids"].tolist() == IDS.tolist()
    cut = CutTokens(collate=collate, max_seq_len=5, **settings)
    assert cut(samples)["input_ids"].tolist() == IDS[:, :5].tolist()


@pytest.mark.parametrize(
    ("sample", "settings", "named"),
    [
        (
            {"input_ids": IDS[0]},
            {},
            "no column 'tokens', only 'input_ids' .*set column to one of these",
        ),
        ({"tokens": IDS[0].tobytes()}, {}, "column 'tokens' holds raw bytes: set dtype"),
        (
            {"tokens": b"123456789"},
            {"dtype": "int64"},
            "9 bytes in a sample, expected a multiple of 8 for dtype int64",
        ),
        (
            {"tokens": IDS[0].astype(np.float32)},
            {},
            "column 'tokens' holds float32 of shape .16,., expected token ids",
        ),
        ({"tokens": [0.5, 1.0]}, {}, "column 'tokens' holds list, expected token ids"),
        ({"tokens": [[1], [2, 3]]}, {}, "column 'tokens' holds list, expected token ids"),
        ({"tokens": IDS}, {}, "of shape .24, 16., expected token ids"),
        (
            {"tokens": "a text"},
            {},
            "column 'tokens' holds str, expected token ids .*attent-stream corpus text",
        ),
        ({"tokens": -IDS[0] - 1}, {}, "the negative token id -"),
        ({"tokens": np.array([70000], np.uint32).tobytes()}, {"dtype": "int16"}, None),
        (
            {"tokens": np.array([60000], np.uint16).tobytes()},
            {"dtype": "int16"},
            "negative token id -5536 if read as int16",
        ),
        (
            {"tokens": IDS[0].astype(np.uint16)},
            {"dtype": "int64"},
            "column 'tokens' holds uint16, not int64: remove dtype",
        ),
    ],
)
def test_what_is_no_token_ids_is_one_sentence(sample, settings, named):
    collate = TokenCollator(**settings)
    if named is None:  # nothing tells
        collate([sample])
        return
    for made in (collate, CutTokens(collate=collate, max_seq_len=4, **settings)):
        with pytest.raises(ValueError, match=named):
            made([sample])


@pytest.mark.parametrize("dtype", ["float32", "int65", "bytes", ""])
def test_a_dtype_of_no_whole_numbers_is_refused(dtype):
    with pytest.raises(ValueError, match="dtype must name whole numbers"):
        TokenCollator(dtype=dtype)


def picture(encoded: str) -> bytes:
    made = io.BytesIO()
    Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)).save(made, encoded)
    return made.getvalue()


def test_image_columns_as_people_have_them():
    shared = {"size": 16, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    data = picture("PNG")
    want, _ = ImageCollator(**shared)([{"image": data, "label": 3}])
    collate = ImageCollator(**shared, image_column="img", label_column="cls")
    for given in (data, Image.open(io.BytesIO(data)), np.asarray(Image.open(io.BytesIO(data)))):
        images, labels = collate([{"img": given, "cls": np.int32(3)}])
        assert torch.equal(images, want) and labels.tolist() == [3]
    for sample, named in (
        ({"image": data, "cls": 3}, "no column 'img', only 'image' .*set image_column"),
        ({"img": data, "label": 3}, "no column 'cls', only .*set label_column"),
        ({"img": data, "cls": "cat"}, "column 'cls' holds 'cat', expected a class number"),
        ({"img": data, "cls": 0.5}, "column 'cls' holds 0.5, expected a class number"),
        ({"img": "cat.png", "cls": 3}, "column 'img' holds a str, expected an image"),
    ):
        with pytest.raises(ValueError, match=named):
            collate([sample])


YAML = str(Path(__file__).parents[2] / "yamls" / "smoke_cpu.yaml")
RUN = [
    "seq_len=8",
    "vocab_size=256",
    "train_loader.num_workers=0",
    "max_duration=2ba",
    "eval_interval=2ba",
]


def run(folder: str, *overrides: str) -> int:
    code = main([YAML, f"data={folder}", *RUN, *overrides])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return code


def test_the_yaml_names_column_and_dtype(tmp_path, capsys):
    def as_bytes(row):
        return row.astype(np.int64).tobytes()

    folder = text(tmp_path, "input_ids", "bytes", as_bytes)
    both = [
        f"{loader}.collate={{column: input_ids, dtype: int64}}"
        for loader in ("train_loader", "eval_loader")
    ]
    assert run(folder, *both) == 0
    assert "trained 2 batches, 16 samples, 128 tokens" in capsys.readouterr().out
    for loader, given, named in (
        (
            "train_loader",
            "{}",
            "there is no column 'tokens', only 'input_ids' (bytes), 'source' (str): set column",
        ),
        ("eval_loader", "{column: input_ids}", "column 'input_ids' holds raw bytes: set dtype"),
        ("train_loader", "{column: source}", "column 'source' holds str, expected token ids"),
        ("train_loader", "{column: input_ids, dtype: float}", "dtype must name whole numbers"),
    ):
        assert run(folder, *both, f"{loader}.collate={given}") == 2
        assert f"error: {loader}.collate: {named}" in capsys.readouterr().err
    assert run(folder, *both, "eval_loader.drop_last=true", "device_eval_batch_size=25") == 2
    assert (
        "error: eval_loader: an epoch has no batch: 24 samples for each of 1 rank"
        in capsys.readouterr().err
    )
    assert run(folder, *both, "global_train_batch_size=25", "max_duration=20ba") == 2
    assert "error: train_loader: an epoch has no batch: 24 samples" in capsys.readouterr().err


# 4. Random numbers drawn while a batch is read and collated


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


def lessons_of(loader: TeachingDataLoader, epochs: int = 2) -> list[dict]:
    lessons = []
    for _ in range(epochs):
        for batch in loader:
            loader.teach(difficulty_of)
            if loader.teacher:
                loader.teacher.clock.batches += 1
            lessons.append(batch | {"epoch": loader.dataset.next_epoch - 1})
    return lessons


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


# 5. set_epoch


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


def test_a_late_worker_does_not_take_the_epoch_back(monkeypatch):
    number = EpochNumber()
    number.set(3)
    monkeypatch.setattr("attent_stream.base.epoch_number.get_worker_info", lambda: object())
    number.set(2)
    assert number.get() == 3


# 6. Rows

EIGHT, TWO = torch.zeros(8, 3), torch.zeros(2, 12)


@pytest.mark.parametrize(
    ("batch", "rows"),
    [
        (EIGHT, None),
        ({"input_ids": EIGHT, "labels": EIGHT}, None),
        (UserDict(x=EIGHT), None),
        ((EIGHT, torch.zeros(8)), None),
        (([torch.zeros(3, 5)] * 8, [{"boxes": torch.zeros(2, 4)}] * 8), None),  # detection
        ([{"image": torch.zeros(3, 5)}] * 8, None),
        ({"patches": torch.zeros(77, 5), "sizes": [9] * 8}, None),  # ragged images
        ({"patches": torch.zeros(77, 5), "meta": {"label": np.zeros(8)}}, None),
        (torch.tensor(3.0), None),
        ({"loss": 1.0, "name": "eight"}, None),
        (
            {"graph": object(), "nodes": torch.zeros(77, 5)},
            None,
        ),  # nobody knows what an object holds
        (pack_sequence([torch.zeros(3)] * 8), None),
        ({"input_ids": TWO, "labels": TWO}, 2),
        ((TWO, torch.zeros(2)), 2),
        ({"image": EIGHT[:7], "label": torch.zeros(7)}, 7),
        ({"image": [torch.zeros(3, 5)] * 7, "label": np.zeros(7)}, 7),
        ({"image": [EIGHT] * 7, "label": np.zeros(7)}, None),  # a length that fits by chance
        (torch.zeros(16, 3), 16),  # two views of each, one under the other
        ({"x": torch.zeros(0, 3)}, 0),
        ([], 0),
    ],
)
def test_rows_are_counted_where_it_is_certain(batch, rows):
    assert miscounted(batch, 8) == rows


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
