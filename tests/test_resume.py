"""A run that stops at any lesson and goes on from its state trains on what the undisturbed run would have."""

import json

import pytest
import torch
from composer import Trainer
from corpora import write_ids, write_tokens
from streaming import StreamingDataLoader, StreamingDataset
from taught import make_loader, run_epochs
from test_algorithm import LENGTH, VOCAB, Watch, fit, make_model
from test_algorithm import make_loader as make_lm_loader

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.position import Position


def state_after_each_lesson(loader, epochs: int = 1) -> tuple[list, list]:
    """Lesson batches, and the state after each, read as Composer does."""
    batches, states = [], []
    for _ in range(epochs):
        for step, batch in enumerate(loader):
            loader.teach(lambda b: b["difficulty"])
            batches.append(batch["id"].tolist())
            state = loader.dataset.state_dict((step + 1) * loader.batch_size, True)
            assert loader.dataset.state_dict((step + 1) * loader.batch_size, True) == state
            states.append(json.loads(json.dumps(state)))
            loader.teacher.clock.batches += 1
    return batches, states


@pytest.mark.parametrize("keep", [0.5, {"schedule": "linear", "from": 0.2, "to": 0.9, "over": "60ba"}])
@pytest.mark.parametrize("workers", [0, 2])
def test_resume_at_every_lesson(tmp_path, keep, workers):
    data = {"local": write_ids(tmp_path / "data", 131), "batch_size": 4, "shuffle": True, "num_canonical_nodes": 2}
    data |= {"window": 5, "gap": 1}
    teacher = {"keep": keep, "select": "soft"}
    whole, states = state_after_each_lesson(make_loader(data, {}, teacher), 2)
    loader = make_loader(data, {"num_workers": workers}, teacher)
    for lesson in range(0, len(whole), 5 if workers else 1):
        loader.dataset.next_epoch = 0  # as in a new process; a new data set each time would run out of open files
        loader.dataset.load_state_dict(states[lesson])
        loader.teacher.clock.batches = lesson + 1
        epochs = 2 - states[lesson]["epoch"]
        assert run_epochs(loader, epochs)["lessons"] == whole[lesson + 1 :], lesson


def test_resume_at_the_border_of_epochs(tmp_path):
    """As Composer's epoch checkpoint has it: no sample of the new epoch."""
    data = {"local": write_ids(tmp_path / "data", 96), "batch_size": 4, "shuffle": True, "num_canonical_nodes": 1}
    data |= {"window": 6, "gap": 2}
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
    data = {"local": write_ids(tmp_path / "data", 120), "batch_size": 4, "shuffle": True, "num_canonical_nodes": 1}
    stock = StreamingDataset(**data)
    order = [sample["id"] for sample in stock]
    state = stock.state_dict(40, True)
    loader = make_loader(data | {"window": 4}, {}, {"keep": 0.5})
    loader.dataset.load_state_dict(state)
    log = run_epochs(loader)
    assert log["lessons"][:4] == [order[i : i + 4] for i in range(40, 56, 4)]
    assert set(sum(log["lessons"], [])) <= set(order[40:])
    assert set(sum(log["scored"], [])) == set(order[56:])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"window": 6}, "window: 5 in the checkpoint, 6 now"), ({"batch_size": 8}, "global batch size: 4 in the checkpoint, 8")],
)
def test_other_settings_are_refused_by_name(tmp_path, change, message):
    data = {"local": write_ids(tmp_path / "data", 131), "batch_size": 4, "num_canonical_nodes": 1, "window": 5}
    state = state_after_each_lesson(make_loader(data, {}, {}))[1][9]
    loader = make_loader(data | change, {}, {})
    loader.dataset.load_state_dict(state)
    with pytest.raises(ValueError, match=message):
        next(iter(loader))


def test_position_is_small_and_of_one_version(tmp_path):
    data = {"local": write_ids(tmp_path / "data", 2560), "batch_size": 64, "num_canonical_nodes": 1, "window": 16}
    state = state_after_each_lesson(make_loader(data, {}, {}))[1][20]
    assert len(state["attent"]) < 16 * 64 * 8
    fields = json.loads(state["attent"]) | {"version": 99}
    with pytest.raises(ValueError, match="version 1, got version 99"):
        Position.load(json.dumps(fields))


def test_trainer_resumes_bit_for_bit(tmp_path):
    """Composer's own checkpoint, in the middle of a window, remembered and recorded scores. (No dropout: in the middle of an
    epoch Composer does not restore random number states where the data set resumes by itself.)"""
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    kwargs = {"keep": 0.5, "score": "loss", "interval": "10ep", "record": "always", "select": "soft"}
    common = {"max_duration": "3ep", "seed": 3}
    whole, _, _ = fit(make_lm_loader(folder), [AtteNT(**kwargs)], make_model(), **common)
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "1ba", "save_overwrite": True}
    loader = make_lm_loader(folder)
    saved, _, _ = fit(loader, [AtteNT(**kwargs)], make_model(), **common, **saving)
    assert saved.losses == whole.losses
    for batch in (1, 7, 14, 15, 16, 25, 31):
        loader.attach(None)
        loader.dataset.next_epoch = 0  # as in a new process
        path = str(next((tmp_path / "saved").glob(f"ep*-ba{batch}-rank0.pt")))
        rest, _, _ = fit(loader, [AtteNT(**kwargs)], make_model(seed=9), **common, load_path=path)
        assert rest.tokens == whole.tokens[batch:], batch
        assert rest.losses == whole.losses[batch:], batch


@pytest.mark.parametrize("batches", [3, 7, 15, 20])
def test_fit_again_goes_on_in_the_same_epoch(tmp_path, batches):
    """In the middle of an epoch, at its border (15 lessons) and in the next: a second fit is as one fit."""
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    whole, _, _ = fit(make_lm_loader(folder), [AtteNT(keep=0.5)], max_duration="30ba")
    model, watch = make_model(), Watch()
    trainer = Trainer(
        model=model,
        train_dataloader=make_lm_loader(folder),
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        max_duration=f"{batches}ba",
        algorithms=[AtteNT(keep=0.5)],
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
    fit(loader, [AtteNT(keep=0.5)])
    assert len(loader) == 25
    plain, _, _ = fit(loader, [])
    assert len(plain.losses) == 25


@pytest.mark.parametrize("kwargs", [{"keep": 0.3, "anneal": "1ep"}, {"keep": {"schedule": "linear", "from": 0.2, "to": 0.9}}])
def test_resume_in_an_epoch_of_another_length(tmp_path, kwargs):
    """The Trainer cuts an epoch off at the length it is told: on a resume it must be that epoch's own."""
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    saving = {"save_folder": str(tmp_path / "saved"), "save_interval": "1ba"}
    loader = make_lm_loader(folder)
    whole, _, _ = fit(loader, [AtteNT(**kwargs)], max_duration="3ep", seed=1, **saving)
    for path in sorted((tmp_path / "saved").glob("ep2-ba*-rank0.pt"))[::7]:
        loader.dataset.next_epoch = 0  # as in a new process
        batch = int(path.name.split("-ba")[1].split("-")[0])
        rest, _, _ = fit(loader, [AtteNT(**kwargs)], max_duration="3ep", seed=1, load_path=str(path))
        assert rest.tokens == whole.tokens[batch:], path.name


@pytest.mark.parametrize("workers", [0, 2])
def test_plain_state_is_stocks(tmp_path, workers):
    """Without a teacher: the entries of Streaming's own state, also before anything is iterated, and its resume."""
    data = {"local": write_ids(tmp_path / "data", 64), "batch_size": 4, "shuffle": True}
    states, rests = [], []
    for kind, load in ((StreamingDataset, StreamingDataLoader), (TeachingDataset, TeachingDataLoader)):
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
