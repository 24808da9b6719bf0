"""A run that stops at any lesson and goes on from its state trains on what the undisturbed run
would have.
"""

import json
import random
import time

import numpy as np
import pytest
import torch
from composer import Trainer
from composer.core import Callback
from corpora import write_ids, write_tokens
from fits import LENGTH, VOCAB, Watch, fit, make_model
from fits import make_loader as make_lm_loader
from loaders import ids_data
from streaming import Stream, StreamingDataLoader, StreamingDataset
from taught import make_loader, run_epochs, state_after_each_lesson
from torch.utils.data import get_worker_info

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.base.randomness import random_state, restore_ranks
from attent_stream.teach.position import VERSION, Position

GROWING = {"schedule": "linear", "from": 0.2, "to": 0.9, "over": "60ba"}
SHORT_FIRST = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "50ba", "stages": 2}


@pytest.mark.parametrize(
    "teacher",
    [
        {"keep": 0.5, "select": "soft"},
        {"keep": GROWING, "select": "soft"},
        {"keep": GROWING, "select": "unbiased", "balance": "ids"},
        {"keep": 1.0, "select": "random", "balance": "ids"},
        {"keep": 1.0, "select": "random", "group": "length"},
        {"keep": 1.0, "select": "random", "balance": "starts", "pieces": SHORT_FIRST},
        {"keep": GROWING, "select": "random", "pieces": SHORT_FIRST},
    ],
)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resume_at_every_lesson(tmp_path, teacher, workers):
    data = ids_data(tmp_path, 131, shuffle=True, num_canonical_nodes=2, window=5, gap=1)
    whole, states = state_after_each_lesson(make_loader(data, {}, teacher), 2)
    loader = make_loader(data, {"num_workers": workers}, teacher)
    for lesson in range(0, len(whole), 5 if workers else 1):
        loader.dataset.load_state_dict(states[lesson])
        loader.teacher.clock.batches = lesson + 1
        epochs = 2 - states[lesson]["epoch"]
        assert run_epochs(loader, epochs)["lessons"] == whole[lesson + 1 :], lesson


def late(worker: int) -> None:
    """The second worker starts once as much has been published as the first can bring about, or a
    second has passed.
    """
    board, end = get_worker_info().dataset._board, time.monotonic() + 1
    while worker == 1 and board._memory[2] < 3 and time.monotonic() < end:
        time.sleep(0.001)


@pytest.mark.timeout(60)
def test_resume_with_a_worker_that_is_late(tmp_path):
    """Windows of one lesson, at whose ends nothing is left to read: the late worker finds what it
    waits for overwritten.
    """
    data = ids_data(tmp_path, 131, shuffle=True, num_canonical_nodes=2, window=5, gap=1)
    teacher = {"keep": 0.2, "select": "random"}
    whole, states = state_after_each_lesson(make_loader(data, {}, teacher))
    loader = make_loader(data, {"num_workers": 2, "worker_init_fn": late}, teacher)
    for lesson in range(4):
        loader.dataset.load_state_dict(states[lesson])
        loader.teacher.clock.batches = lesson + 1
        assert run_epochs(loader)["lessons"] == whole[lesson + 1 :], lesson


def test_resume_at_the_border_of_epochs(tmp_path):
    """As Composer's epoch checkpoint has it: no sample of the new epoch."""
    data = ids_data(tmp_path, 96, shuffle=True, window=6, gap=2)
    whole = run_epochs(make_loader(data, {}, {}), 3)["lessons"]
    loader = make_loader(data, {}, {})
    before = run_epochs(loader, 1)["lessons"]
    state = loader.dataset.state_dict(0, True)
    assert state["epoch"] == 1 and state["attent"] == ""
    loader = make_loader(data, {}, {})
    loader.dataset.load_state_dict(state)
    loader.teacher.clock.batches = len(before)
    assert before + run_epochs(loader, 2)["lessons"] == whole


def test_a_plain_checkpoint_taken_up_with_teaching(tmp_path):
    data = ids_data(tmp_path, 120, shuffle=True)
    stock = StreamingDataset(**data)
    order = [sample["id"] for sample in stock]
    state = stock.state_dict(40, True)
    loader = make_loader(data | {"window": 4}, {}, {"select": "hard", "keep": 0.5})
    loader.dataset.load_state_dict(state)
    log = run_epochs(loader)
    assert log["lessons"][:4] == [order[i : i + 4] for i in range(40, 56, 4)]
    assert set(sum(log["lessons"], [])) <= set(order[40:])
    assert set(sum(log["scored"], [])) == set(order[56:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 6}, "window: 5 in the checkpoint, 6 now"),
        ({"batch_size": 8}, "global batch size: 4 in the checkpoint, 8"),
        (
            {"shuffle": True},
            r"order \(shuffle, its seed, stream proportions\): \w+ in the checkpoint",
        ),
        ({"stream": 97}, "rows: 32 in the checkpoint, 24 now, samples before each stream"),
        ({"seed": 4}, "seed: 3 in the checkpoint, 4 now"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, change, message):
    data = ids_data(tmp_path, 131, window=5)
    state = state_after_each_lesson(make_loader(data, {}, {}))[1][9]
    seed, size = change.pop("seed", 3), change.pop("stream", None)
    if size:
        change = {
            "streams": [
                Stream(local=write_ids(tmp_path / str(i), size // 2 + i)) for i in range(2)
            ],
            "local": None,
        }
    loader = make_loader(data | change, {}, {"seed": seed})
    loader.dataset.load_state_dict(state)
    with pytest.raises(ValueError, match=message):
        next(iter(loader))


def test_position_is_small_and_of_one_version(tmp_path):
    data = ids_data(tmp_path, 2560, batch_size=64, window=16)
    state = state_after_each_lesson(make_loader(data, {}, {}))[1][20]
    assert len(state["attent"]) < 16 * 64 * 8
    fields = json.loads(state["attent"]) | {"version": 99}
    with pytest.raises(ValueError, match=f"version {VERSION}, got version 99"):
        Position.load(json.dumps(fields))


def test_trainer_resumes_bit_for_bit(tmp_path):
    """Composer's own checkpoint, in the middle of a window, remembered and recorded scores,
    dropout.
    """
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    kwargs = {
        "keep": 0.5,
        "score": "loss",
        "interval": "10ep",
        "remember": "always",
        "select": "soft",
        "arrange": {
            "pieces": {"schedule": "step", "from": 0.25, "to": 1, "over": "0.8dur", "stages": 2},
            "balance": "tokens",
        },
    }
    common = {"max_duration": "3ep", "seed": 3}
    whole, _, _ = fit(make_lm_loader(folder), [AtteNT(**kwargs)], make_model(0.2), **common)
    saving = {
        "save_folder": str(tmp_path / "saved"),
        "save_interval": "1ba",
        "save_overwrite": True,
    }
    loader = make_lm_loader(folder)
    saved, _, _ = fit(loader, [AtteNT(**kwargs)], make_model(0.2), **common, **saving)
    assert saved.losses == whole.losses
    for batch in (1, 7, 14, 15, 16, 25, 31):
        path = str(next((tmp_path / "saved").glob(f"ep*-ba{batch}-rank0.pt")))
        rest, _, _ = fit(
            loader,
            [AtteNT(**kwargs)],
            make_model(0.2, seed=9),
            **common | {"seed": 8},
            load_path=path,
        )
        assert rest.tokens == whole.tokens[batch:], batch
        assert rest.losses == whole.losses[batch:], batch


@pytest.mark.parametrize("batches", [3, 7, 15, 20])
def test_fit_again_goes_on_in_the_same_epoch(tmp_path, batches):
    """In the middle of an epoch, at its border (15 lessons) and in the next: a second fit is as one
    fit.
    """
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    whole, _, _ = fit(
        make_lm_loader(folder), [AtteNT(select="hard", keep=0.5)], max_duration="30ba"
    )
    model, watch = make_model(), Watch()
    trainer = Trainer(
        model=model,
        train_dataloader=make_lm_loader(folder),
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        max_duration=f"{batches}ba",
        algorithms=[AtteNT(select="hard", keep=0.5)],
        callbacks=[watch],
        progress_bar=False,
    )
    trainer.fit()
    trainer.fit(duration=f"{30 - batches}ba")
    trainer.close()
    assert watch.tokens == whole.tokens
    assert watch.losses == whole.losses


def test_a_loader_is_plain_again_after_a_taught_fit(tmp_path):
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    loader = make_lm_loader(folder)
    fit(loader, [AtteNT(select="hard", keep=0.5)])
    assert len(loader) == 25
    plain, _, _ = fit(loader, [])
    assert len(plain.losses) == 25


@pytest.mark.parametrize(
    "kwargs",
    [
        {"select": "hard", "keep": 0.3, "anneal": "1ep"},
        {"select": "hard", "keep": {"schedule": "linear", "from": 0.2, "to": 0.9}},
    ],
)
def test_resume_in_an_epoch_of_another_length(tmp_path, kwargs):
    """The Trainer cuts an epoch off at the length it is told: on a resume it must be that epoch's
    own.
    """
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "1ba"}
    loader = make_lm_loader(folder)
    whole, _, _ = fit(loader, [AtteNT(**kwargs)], max_duration="3ep", seed=1, **saving)
    for path in sorted((tmp_path / "saved").glob("ep2-ba*-rank0.pt"))[::7]:
        batch = int(path.name.split("-ba")[1].split("-")[0])
        rest, _, _ = fit(
            loader, [AtteNT(**kwargs)], max_duration="3ep", seed=1, load_path=str(path)
        )
        assert rest.tokens == whole.tokens[batch:], path.name


@pytest.mark.parametrize("workers", [0, 2])
def test_plain_state_is_stocks(tmp_path, workers):
    """Without a teacher: the entries of Streaming's own state, also before anything is iterated,
    and its resume.
    """
    data = {"local": write_ids(tmp_path / "data", 64), "batch_size": 4, "shuffle": True}
    states, rests = [], []
    for kind, load in (
        (StreamingDataset, StreamingDataLoader),
        (TeachingDataset, TeachingDataLoader),
    ):
        loader = load(kind(**data), batch_size=4, num_workers=workers)
        epoch = iter(loader)
        for _ in range(5):
            next(epoch)
        state = loader.dataset.state_dict(20, True)
        resumed = load(kind(**data), batch_size=4, num_workers=workers)
        resumed.dataset.load_state_dict(state)
        early = resumed.dataset.state_dict(20, True)
        rests.append([batch["id"].tolist() for batch in resumed])
        states.append([{**s, "attent": ""} for s in (state, early)])
    assert states[0] == states[1]
    assert rests[0] == rests[1] and len(rests[0]) == 11


def test_a_loaded_state_is_told_until_it_is_gone_on_from(tmp_path):
    data = ids_data(tmp_path, 131, window=5)
    state = state_after_each_lesson(make_loader(data, {}, {}))[1][9]
    loader = make_loader(data, {}, {})
    loader.dataset.load_state_dict(state)
    assert loader.dataset.state_dict(state["sample_in_epoch"], True) == state
    next(iter(loader))
    assert loader.dataset.state_dict(44, True)["sample_in_epoch"] == 44


@pytest.mark.parametrize("lesson", [0, 3, 7, 8, 12, 15, 16])
def test_a_taught_checkpoint_gone_on_from_without_a_teacher(tmp_path, lesson):
    """What was chosen is trained on, what was dropped stays dropped, all that was not chosen yet is
    kept.
    """
    data = ids_data(tmp_path, 131, shuffle=True, window=5, gap=1)
    order = [
        sample["id"]
        for sample in StreamingDataset(
            **{k: v for k, v in data.items() if k not in ("window", "gap")}
        )
    ]
    whole = make_loader(data, {}, {"select": "hard", "keep": 0.4})
    lessons, states = state_after_each_lesson(whole)
    chosen = make_loader(data, {}, {"select": "hard", "keep": 0.4})
    windows = {index: sum(kept, []) for _, index, _, kept in run_epochs(chosen)["choices"]}
    loader = make_loader(data, {"num_workers": 1}, {})
    loader.attach(None)
    loader.dataset.load_state_dict(states[lesson])
    position = Position.load(states[lesson]["attent"])
    # The first window that is not chosen yet
    after = position.segment + (2 if position.following else 1)
    rest = [i for batch in loader for i in batch["id"].tolist()]
    trained = sum(lessons[: lesson + 1], [])
    # 32 full rows
    assert (
        trained + rest
        == sum((windows.get(i, []) for i in range(after)), []) + order[min(after * 20, 128) :]
    )
    # The next epoch is a whole one
    assert [i for batch in loader for i in batch["id"].tolist()] != rest
    assert loader.dataset.next_epoch == 2


def test_a_data_set_is_plain_to_others_after_a_taught_epoch(tmp_path):
    data = ids_data(tmp_path, 64, window=4)
    for workers in (0, 1):
        loader = make_loader(data, {"num_workers": workers}, {})
        run_epochs(loader)
        assert sorted(sample["id"] for sample in loader.dataset) == list(range(64))
        other = StreamingDataLoader(loader.dataset, batch_size=4, num_workers=workers)
        assert sorted(i for batch in other for i in batch["id"].tolist()) == list(range(64))


@pytest.mark.parametrize("workers", [{}, {"num_workers": 1, "persistent_workers": True}])
def test_two_loaders_take_turns_on_one_data_set(tmp_path, workers):
    data = ids_data(tmp_path, 96, shuffle=True, window=4, gap=1)
    whole = run_epochs(make_loader(data, {}, {}), 4)["lessons"]
    first = make_loader(data, workers, {})
    second = TeachingDataLoader(first.dataset, batch_size=4, **workers)
    second.attach(first.teacher)
    assert (
        sum((run_epochs(loader)["lessons"] for loader in (first, second, first, second)), [])
        == whole
    )


def test_a_second_trainer_on_the_same_loader_starts_anew(tmp_path):
    """Times in epochs are the run's own, and nothing is remembered of another run."""
    folder = write_tokens(tmp_path / "tokens", 96, length=LENGTH, vocab=VOCAB)
    loader, algorithm = (
        make_lm_loader(folder),
        AtteNT(
            select="hard", keep=0.5, warmup="1ep", interval="9ep", score="loss", remember="warmup"
        ),
    )
    for _ in range(2):
        watch, memory, _ = fit(loader, [algorithm], max_duration="2ep")
        assert len(watch.losses) == 24 + 12
        assert memory.data["attent/lessons"][-1][1] == 36 * 4


def test_a_schedule_over_tokens_does_not_cut_the_epoch_off(tmp_path):
    """Where the epoch's length cannot be foreseen, all of it is trained on."""
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    keep = {"schedule": "linear", "from": 0.2, "to": 1.0, "over": f"{60 * LENGTH}tok"}
    algorithm = AtteNT(select="hard", keep=keep)
    watch, memory, _ = fit(make_lm_loader(folder), [algorithm])
    assert memory.data["attent/lessons"][-1][1] + memory.data["attent/dropped"][-1][1] == 100
    assert algorithm.last_choice.window.index == 6


def test_a_checkpoint_that_says_nothing_of_the_data(tmp_path, caplog):
    folder = write_tokens(tmp_path / "tokens", 96, length=LENGTH, vocab=VOCAB)
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "5ba"}
    plain, _, _ = fit(make_lm_loader(folder), [], max_duration="2ep", **saving)
    for batch in (10, 30):
        path = str(next((tmp_path / "saved").glob(f"ep*-ba{batch}-rank0.pt")))
        rest, _, _ = fit(
            make_lm_loader(folder),
            [AtteNT(select="hard", keep=1.0)],
            max_duration="2ep",
            load_path=path,
            load_ignore_keys=["state/dataset_state*"],
        )
        assert rest.tokens == plain.tokens[batch:]
        assert "The checkpoint has no state of the data set" in caplog.text


def test_a_window_longer_than_an_epoch_is_told(tmp_path, caplog):
    folder = write_tokens(tmp_path / "tokens", 40, length=LENGTH, vocab=VOCAB)
    fit(make_lm_loader(folder, window=10), [AtteNT(select="hard", keep=0.5)])
    assert "a window of 10 rows holds all 10 batches" in caplog.text


def test_a_ledger_of_another_data_set_is_refused(tmp_path):
    sizes = {"a": 96, "b": 100}
    folders = {
        n: write_tokens(tmp_path / n, size, length=LENGTH, vocab=VOCAB) for n, size in sizes.items()
    }
    kwargs = {
        "select": "hard",
        "keep": 0.5,
        "score": "loss",
        "interval": "9ep",
        "remember": "always",
    }
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "1ep"}
    fit(make_lm_loader(folders["a"]), [AtteNT(**kwargs)], **saving)
    path = str(next((tmp_path / "saved").glob("ep1*.pt")))
    with pytest.raises(ValueError, match="a ledger of 100 samples, got 96"):
        fit(make_lm_loader(folders["b"]), [AtteNT(**kwargs)], max_duration="2ep", load_path=path)


class Stop(Callback):
    """Raises once, behind a batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def batch_end(self, state, logger):
        if int(state.timestamp.batch) == self.batch:
            self.batch = -1
            raise KeyboardInterrupt


def make_trainer(loader, algorithm, *callbacks, **kwargs):
    model, watch = make_model(), Watch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(
        model=model,
        train_dataloader=loader,
        optimizers=optimizer,
        algorithms=[algorithm] if algorithm else [],
        callbacks=[watch, *callbacks],
        progress_bar=False,
        **kwargs,
    )
    return trainer, watch


@pytest.mark.parametrize("resumed", [False, True])
def test_a_fit_after_an_interrupted_one_goes_on(tmp_path, resumed):
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "1ba"}
    whole, _, _ = fit(
        make_lm_loader(folder), [AtteNT(select="hard", keep=0.5)], max_duration="2ep", **saving
    )
    start = (
        {"load_path": str(next((tmp_path / "saved").glob("ep0-ba3-rank0.pt")))} if resumed else {}
    )
    trainer, watch = make_trainer(
        make_lm_loader(folder),
        AtteNT(select="hard", keep=0.5),
        Stop(6),
        max_duration="2ep",
        **start,
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    trainer.fit()
    trainer.close()
    assert watch.tokens == whole.tokens[3 * resumed :]


def test_a_fit_on_another_loader_starts_at_its_start(tmp_path):
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    other = write_tokens(tmp_path / "other", 60, length=LENGTH, vocab=VOCAB, seed=5)
    alone, _, _ = fit(make_lm_loader(other), [AtteNT(select="hard", keep=1.0)], max_duration="5ba")
    trainer, watch = make_trainer(
        make_lm_loader(folder), AtteNT(select="hard", keep=1.0), max_duration="7ba"
    )
    trainer.fit()
    trainer.fit(train_dataloader=make_lm_loader(other), duration="5ba")
    trainer.close()
    assert watch.tokens[7:] == alone.tokens


def test_a_stock_checkpoint_at_the_border_of_epochs(tmp_path):
    """Streaming tells the epoch that it has finished, and would replay it."""
    data = ids_data(tmp_path, 48, shuffle=True)
    stock = StreamingDataset(**data)
    epochs = [[sample["id"] for sample in stock] for _ in range(2)]
    resumed = StreamingDataset(**data)
    list(resumed)
    state = resumed.state_dict(0, True)
    taught = make_loader(data, {}, {"select": "hard", "keep": 1.0})
    taught.dataset.load_state_dict(state)
    assert sum(run_epochs(taught)["lessons"], []) == epochs[1]
    plain = TeachingDataLoader(TeachingDataset(**data), batch_size=4)
    plain.dataset.load_state_dict(state)
    assert [i for batch in plain for i in batch["id"].tolist()] == epochs[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stock_loader_refuses_a_taught_state(tmp_path, workers):
    data = ids_data(tmp_path, 131, window=5)
    state = state_after_each_lesson(make_loader(data, {}, {}))[1][9]
    dataset = TeachingDataset(**data)
    dataset.load_state_dict(state)
    with pytest.raises(RuntimeError, match="iterate it with a TeachingDataLoader"):
        list(StreamingDataLoader(dataset, batch_size=4, num_workers=workers))


def test_a_checkpoint_saved_before_its_resumed_fit_is_whole(tmp_path):
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    kwargs = {
        "select": "hard",
        "keep": 0.5,
        "score": "loss",
        "interval": "10ep",
        "remember": "always",
    }
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "1ba"}
    whole, _, _ = fit(
        make_lm_loader(folder), [AtteNT(**kwargs)], make_model(0.1), max_duration="2ep", **saving
    )
    path = str(next((tmp_path / "saved").glob("ep1-ba20-rank0.pt")))
    trainer, _ = make_trainer(
        make_lm_loader(folder), AtteNT(**kwargs), max_duration="2ep", load_path=path
    )
    again = trainer.save_checkpoint(str(tmp_path / "again.pt"))
    trainer.close()
    rest, _, _ = fit(
        make_lm_loader(folder),
        [AtteNT(**kwargs)],
        make_model(0.1, 9),
        max_duration="2ep",
        load_path=again,
    )
    assert rest.losses == whole.losses[20:]


RECORDED = {"score": "loss", "select": "hard", "interval": "9ep", "remember": "always"}


@pytest.mark.parametrize(
    ("before", "after", "batch"),
    [
        ({"select": "random"}, {"select": "hard"}, 6),
        ({"select": "hard"}, {"select": "random"}, 6),
        (RECORDED, {"select": "random"}, 20),
        (RECORDED, {"select": "hard", "interval": "1ep"}, 20),
        ({"select": "hard"}, {"keep": 1.0}, 6),
    ],
)
def test_a_resume_with_another_teacher(tmp_path, before, after, batch):
    """What was chosen is trained on; a plan that the new teacher cannot carry out keeps its window
    whole, or draws anew.
    """
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "1ba"}
    whole, _, _ = fit(
        make_lm_loader(folder),
        [AtteNT(**{"select": "hard", "keep": 0.5} | before)],
        max_duration="2ep",
        **saving,
    )
    path = str(next((tmp_path / "saved").glob(f"ep*-ba{batch}-rank0.pt")))
    algorithm = AtteNT(**{"select": "hard", "keep": 0.5} | after)
    rest, memory, _ = fit(make_lm_loader(folder), [algorithm], max_duration="2ep", load_path=path)
    assert rest.tokens[0] == whole.tokens[batch]  # of a window that was chosen
    assert algorithm.last_choice.window.index == 6
    counts = {name: memory.data[f"attent/{name}"][-1][1] for name in ("lessons", "dropped")}
    assert len(rest.tokens) + batch <= 50 and counts["lessons"] + counts["dropped"] <= 200


def test_a_users_subset_of_an_epoch_is_resumed(tmp_path):
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    common = {"max_duration": "2ep", "train_subset_num_batches": 10}
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "1ba"}
    whole, _, _ = fit(make_lm_loader(folder), [AtteNT(select="hard", keep=0.5)], **common, **saving)
    assert len(whole.tokens) == 20
    path = str(next((tmp_path / "saved").glob("ep0-ba5-rank0.pt")))
    rest, _, _ = fit(
        make_lm_loader(folder), [AtteNT(select="hard", keep=0.5)], **common, load_path=path
    )
    assert rest.tokens == whole.tokens[5:]


def test_random_numbers_of_another_kind_of_machine_begin_anew(caplog):
    before = torch.get_rng_state()
    with caplog.at_level("INFO"):
        restore_ranks(torch.zeros((1, len(random_state()) + 16), dtype=torch.uint8))
    assert "start anew" in caplog.text
    assert torch.equal(torch.get_rng_state(), before)
    state = random_state()
    drawn = torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002 (what is saved is the global generator's state)
    restore_ranks(state[None])
    assert torch.equal(torch.rand(3), drawn[0]) and (np.random.rand(), random.random()) == drawn[1:]  # noqa: NPY002


def test_a_refused_position_leaves_persistent_workers_in_step(tmp_path):
    data = ids_data(tmp_path, 131, window=5)
    state = state_after_each_lesson(make_loader(data, {}, {}))[1][9]
    whole = run_epochs(make_loader(data, {}, {}), 3)["lessons"]
    loader = make_loader(data, {"num_workers": 1, "persistent_workers": True}, {})
    first = run_epochs(loader)["lessons"]
    bad = json.loads(state["attent"])
    bad["identity"]["window"] = 6
    loader.dataset.load_state_dict(state | {"epoch": 1, "attent": json.dumps(bad | {"epoch": 1})})
    with pytest.raises(ValueError, match="window: 6 in the checkpoint, 5 now"):
        next(iter(loader))
    loader.dataset.start_at(1, 0)
    assert first + run_epochs(loader, 2)["lessons"] == whole
