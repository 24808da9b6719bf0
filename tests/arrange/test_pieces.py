"""Samples in pieces. Oracles: slices written out, stock training on the very pieces, the run that
is not cut.
"""

import numpy as np
import pytest
import torch
from composer import Trainer
from composer.core import Callback
from corpora import write_ids, write_tokens
from fits import BATCH, LENGTH, VOCAB, fit, make_model
from fits import make_loader as make_lm_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from taught import TOKENS, features_of, make_loader, read, run_epochs
from torch.utils.data import DataLoader
from training import trained

from attent_stream import AtteNT
from attent_stream.arrange.cutting import apart, together
from attent_stream.arrange.pieces import MOST, cut, mixed, pieces_at
from attent_stream.base.errors import ScoreError
from attent_stream.corpus.batches import TokenCollator
from attent_stream.effects.recorder import _means
from attent_stream.effects.short_lessons import ShortLessons
from attent_stream.launch.data import CutTokens

SHORT_FIRST = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "0.8dur", "stages": 2}
ALL = {"keep": 1.0, "select": "random"}


@pytest.mark.parametrize(
    ("share", "pieces"),
    [(1, 1), (0.8, 1), (0.625, 2), (0.5, 2), (0.3, 4), (0.25, 4), (0.1, 8), (1e-9, MOST)],
)
def test_shares_as_powers_of_two(share, pieces):
    assert pieces_at(share) == pieces


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(1, 5), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1))
def test_pieces_stay_in_their_lanes(rows, size, pieces, seed):
    rng = np.random.default_rng(seed)
    positions, lanes = (
        rng.permutation(rows * size).reshape(rows, size),
        rng.integers(0, 3, (rows, size)),
    )
    ours, wanted = cut(positions, pieces), lanes.repeat(pieces, axis=1)
    assert ours.tolist() == [
        [position * pieces + part for position in row for part in range(pieces)]
        for row in positions.tolist()
    ]
    found = mixed(ours, wanted, rng)
    assert sorted(found.flat) == list(range(rows * size * pieces))
    lane_of = dict(zip(ours.flat, wanted.flat, strict=True))
    assert [lane_of[piece] for piece in found.flat] == wanted.reshape(-1).tolist()


@pytest.mark.parametrize("length", [8, 11])
def test_together_and_apart_again(length):
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(0, 99, (12, length)))
    batch = {"input_ids": ids, "labels": ids + 100, "embedded": torch.stack([ids, -ids], dim=-1)}
    which = rng.integers(0, 4, 12).tolist()
    made = together(batch, which, 4)
    assert {name: len(value) for name, value in made.items()} == dict.fromkeys(batch, 3)
    for name, value in apart(made, 4, 3).items():
        assert value.tolist() == [
            batch[name][row, part * (length // 4) :][: length // 4].tolist()
            for row, part in enumerate(which)
        ]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            (torch.zeros(4, 3, 8, 8), torch.zeros(4)),
            "seq_len needs input_ids of shape .samples, tokens. in a batch, got a tuple of 2",
        ),
        (
            {"input_ids": torch.ones(4, 8), "domain": torch.zeros(4)},
            r"expected domain of shape \(4, 8\), got shape \(4,\)",
        ),
        (
            {"input_ids": torch.ones(4, 8), "text": ["a"] * 4},
            r"expected text of shape \(4, 8\), got a list",
        ),
        (
            {"input_ids": torch.ones(4, 8), "attention_mask": torch.eye(4, 8)},
            "samples without padding",
        ),
        (
            {"input_ids": torch.ones(4, 8), "position_ids": torch.ones(4, 8)},
            "got position_ids in a batch",
        ),
        ({"input_ids": torch.ones(4, 7)}, "samples of at least 8 tokens to cut into 4, got 7"),
        (
            {"input_ids": torch.ones(4, 8), "labels": torch.tensor([[1] * 6 + [1, -100]] * 4)},
            "a label in every piece, got one of 2 posi",
        ),
        ({"input_ids": torch.ones(5, 8)}, "expected a batch of 4 rows, one a sample, got 5"),
    ],
)
def test_what_cannot_be_cut(batch, message):
    with pytest.raises(ScoreError, match=message + ".*; seq_len: 1 trains on whole samples"):
        together(batch, [0, 1, 2, 3], 4)


@pytest.mark.parametrize(
    "batch",
    [
        {"input_ids": torch.ones(8, 4)},
        {"input_ids": torch.ones(4, 8), "new": torch.ones(4, 2)},
        [1, 2],
    ],
)
def test_a_batch_that_others_have_changed(batch):
    with pytest.raises(
        ScoreError, match="expected a batch of 4 rows as the collate function made them"
    ):
        apart(batch, 2, 4)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "more", [{"balance": "starts"}, {}, {"keep": 0.5, "select": "hard", "balance": "starts"}]
)
def test_each_window_is_trained_on_whole(tmp_path, workers, more):
    data = {
        "local": write_ids(tmp_path / "data", 250),
        "batch_size": 4,
        "shuffle": True,
        "num_canonical_nodes": 2,
    }
    data |= {"window": 12, "gap": 1}
    whole = run_epochs(make_loader(data, {}, ALL | more | {"pieces": 1.0, "balance": None}), 2)
    ours = run_epochs(make_loader(data, {"num_workers": workers}, ALL | more | {"pieces": 0.25}), 2)
    assert [len(batch) for batch in ours["lessons"]] == [
        4 * len(batch) if len(batch) == 4 else len(batch) for batch in whole["lessons"]
    ]
    step = TOKENS // 4
    spread = []
    for epoch, window, _, ids in (tuple(choice) for choice in ours["choices"]):
        (same,) = (choice for choice in whole["choices"] if choice[:2] == [epoch, window])
        assert sorted(np.unique(ids)) == sorted(np.ravel(same[3])) and np.unique(
            ids, return_counts=True
        )[1].tolist() == [4] * np.size(same[3])
        spread.append(np.mean([len(set(row)) for row in ids]))
    assert np.mean(spread) > 11  # samples of which a batch of 16 pieces is made, of 48 in a window
    lessons = sum(ours["lessons"], [])
    assert sum(ours["lengths"]) >= len(ours["lessons"])
    assert all(start % step == 0 for start in lessons)
    if more.get("keep") is None:
        # The rest of an epoch stays whole.
        expanded = [
            s
            for batch in ours["lessons"]
            for start in batch
            for s in ([start] if len(batch) == 16 else range(start, start + TOKENS, step))
        ]
        assert sorted(expanded) == sorted(list(range(0, 250 * TOKENS, step)) * 2)


def test_pieces_are_balanced(tmp_path):
    data = {
        "local": write_ids(tmp_path / "data", 480),
        "batch_size": 4,
        "shuffle": True,
        "num_canonical_nodes": 1,
    }
    data |= {"window": 12, "gap": 1}
    uneven = []
    for balance in (None, "starts"):
        log = run_epochs(make_loader(data, {}, ALL | {"pieces": 0.25, "balance": balance}))
        of = np.array([features_of(np.array(batch)).mean(axis=0) for batch in log["lessons"][12:]])
        uneven.append(((of - of.mean(axis=0)) ** 2).sum())
    assert uneven[1] < 0.5 * uneven[0]


def text(folder):
    return make_lm_loader(folder, window=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("tokens") / "data", 96, length=LENGTH, vocab=VOCAB)


@pytest.mark.parametrize(
    "settings", [{"pieces": 0.25}, {"pieces": SHORT_FIRST, "balance": "tokens"}]
)
def test_it_is_training_on_the_pieces(folder, settings):
    """Oracle: stock Composer, given the batches that ours has at BATCH_START, one after
    the other.
    """
    watch, _, trainer = fit(text(folder), [AtteNT(**ALL, **settings)], make_model())
    assert {len(batch) for batch in watch.tokens} == (
        {16} if settings["pieces"] == 0.25 else {16, 8, 4}
    )
    assert all(np.size(batch) == BATCH * LENGTH for batch in watch.tokens)
    stock = make_model()
    batches = [
        TokenCollator()([{"tokens": np.array(row)} for row in batch]) for batch in watch.tokens
    ]
    other = Trainer(
        model=stock,
        train_dataloader=DataLoader(batches, batch_size=None),
        optimizers=torch.optim.SGD(stock.parameters(), lr=0.1),
        max_duration="1ep",
        progress_bar=False,
        device_train_microbatch_size=4 * BATCH,
    )
    other.fit()
    for ours, wanted in zip(trainer.state.model.parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)


def test_samples_are_counted_as_ever(folder):
    _, _, trainer = fit(text(folder), [AtteNT(**ALL, seq_len=0.25)], make_model())
    assert (
        int(trainer.state.timestamp.sample) == 96
        and trainer.state.device_train_microbatch_size == BATCH
    )


def test_microbatches_and_resumes_change_nothing(folder, tmp_path):
    settings = {
        "pieces": SHORT_FIRST,
        "balance": "tokens",
        "score": "loss",
        "record": "always",
        "reweight": "linupper",
    }
    run = {"duration": "2ep", "seed": 3, "microbatch": BATCH}
    whole = trained(make_model(0.1), text(folder), saved=str(tmp_path / "saved"), **settings, **run)
    for batch in (5, 20, 24, 30):
        load = str(next((tmp_path / "saved").glob(f"ep*-ba{batch}-rank0.pt")))
        assert torch.equal(
            trained(make_model(0.1), text(folder), load=load, **settings, **run), whole
        ), batch
    del settings["reweight"]  # which compares each microbatch with the losses of those before
    whole, split = (
        trained(make_model(), text(folder), **settings, **run | {"microbatch": size})
        for size in (BATCH, 1)
    )
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-5)


def test_weights_go_with_the_samples(tmp_path):
    data = {
        "local": write_ids(tmp_path / "data", 240),
        "batch_size": 4,
        "shuffle": True,
        "num_canonical_nodes": 1,
        "window": 12,
    }
    loader = make_loader(
        data, {}, {"keep": 0.5, "select": "unbiased", "balance": "starts", "pieces": 0.5}
    )
    by_window, taught = {}, 0
    for _ in loader:
        for choice in loader.teach(
            lambda batch: torch.from_numpy(
                features_of(batch["input_ids"][:, 0].numpy()).sum(axis=1) + 1
            )
        ):
            taught += bool((choice.weights != 1).any())
            for number, weight in zip(choice.ids.flat, choice.weights.flat, strict=True):
                assert by_window.setdefault((choice.window.index, number), weight) == weight
        loader.teacher.clock.batches += 1
        ids, weights = loader.epoch.lesson
        index = loader.epoch.segment.choice.window.index
        assert [by_window[index, number] for number in ids] == weights.tolist()
    assert taught


def test_a_samples_score_is_its_pieces_mean():
    ids, scores = _means(np.array([5, 3, 5, 5]), np.array([1.0, 7.0, 2.0, 6.0]))
    assert ids.tolist() == [3, 5] and scores.tolist() == [7, 3]
    ids, scores = _means(np.array([5, 3]), np.array([1.0, 7.0]))
    assert ids.tolist() == [5, 3] and scores.tolist() == [1, 7]


def test_a_microbatch_that_memory_makes_smaller_stays_so():
    class State:
        batch = {"input_ids": torch.ones(8, 8)}
        device_train_microbatch_size = 6

    state, short = State(), ShortLessons(asked=True)
    short.begin_batch(state, 4, 8)
    assert state.device_train_microbatch_size == 24 and len(state.batch["input_ids"]) == 32
    state.device_train_microbatch_size = 12  # as Composer halves it
    short.end_batch(state)
    short.end_batch(state)
    assert state.device_train_microbatch_size == 3


DEFAULTS = {
    "once": ({}, {}, (0.25, "tokens")),
    "again, or no end in sight": ({}, {"once": False}, (1.0, None)),
    "padded": ({}, {"packed": False}, (1.0, None)),
    "images": ({}, {"text": False, "packed": False}, (1.0, None)),
    "asked for everything": ({"keep": 1.0}, {}, (1.0, None)),
    "asked for a selector": ({"select": "soft"}, {}, (1.0, None)),
    "turned off": ({"balance": "none", "pieces": 1.0}, {}, (1.0, None)),
    "turned half off": ({"balance": "none"}, {}, (0.25, None)),
}


@pytest.mark.parametrize("case", DEFAULTS)
def test_when_it_is_the_default(case):
    asked, run, wanted = DEFAULTS[case]
    teacher = (
        AtteNT(**asked)
        .settings.of_run(**{"text": True, "once": True, "packed": True, "endless": False} | run)
        .teacher
    )
    assert (teacher.seq_len.start, teacher.balance) == wanted


def test_the_default_in_a_run(folder):
    """Packed text seen once: pieces at first. Padded, it is as it was."""
    once, _, _ = fit(text(folder), [AtteNT()], make_model())
    assert {len(batch) for batch in once.tokens} == {16, 8, 4}
    padded, _, _ = fit(
        make_lm_loader(folder, window=8, collate_fn=TokenCollator(pad_id=VOCAB)),
        [AtteNT()],
        make_model(),
    )
    plain, _, _ = fit(text(folder), [], make_model())
    assert padded.tokens == plain.tokens


def test_padding_ends_in_a_sentence(folder):
    loader = make_lm_loader(folder, window=8, collate_fn=TokenCollator(pad_id=1))
    # Before any worker is asked
    with pytest.raises(ValueError, match="seq_len needs samples without padding"):
        fit(loader, [AtteNT(**ALL, seq_len=0.5)], make_model())


@pytest.mark.parametrize(
    "value",
    [
        0,
        1.5,
        1024,
        0.8,
        "half",
        {"schedule": "step"},
        {"schedule": "linear", "from": 0.75, "to": 1},
    ],
)
def test_settings_out_of_range(value):
    with pytest.raises(ValueError, match="pieces"):
        AtteNT(seq_len=value)


def test_what_says_that_it_is_packed(folder):
    plain, padded = TokenCollator(), TokenCollator(pad_id=0)
    loaders = [
        make_lm_loader(folder, collate_fn=c)
        for c in (
            plain,
            padded,
            CutTokens(collate=plain, max_seq_len=8),
            CutTokens(collate=padded, max_seq_len=8),
            list,
        )
    ]
    assert [loader.packed for loader in loaders] == [True, False, True, False, False]


def test_a_fit_that_was_interrupted_leaves_the_microbatch_alone(folder):
    class Stop(Callback):
        stops = True

        def before_forward(self, state, logger):
            if int(state.timestamp.batch) == 2 and Stop.stops:
                Stop.stops = False
                raise KeyboardInterrupt

    model = make_model()
    trainer = Trainer(
        model=model,
        train_dataloader=text(folder),
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        max_duration="1ep",
        algorithms=[AtteNT(**ALL, seq_len=0.25)],
        callbacks=[Stop(), sizes := Sizes()],
        progress_bar=False,
        device_train_microbatch_size=1,
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    trainer.fit()
    assert set(sizes.seen) == {4} and trainer.state.device_train_microbatch_size == 1


class Sizes(Callback):
    """Rows of each microbatch."""

    def __init__(self):
        self.seen = []

    def before_forward(self, state, logger):
        self.seen.append(len(state.batch["input_ids"]))


def state_at(data, teacher, lesson):
    """The state after so many lessons, and what was trained on until then."""
    loader, seen = make_loader(data, {}, teacher), []
    for step, batch in enumerate(loader):
        loader.teach(None)
        seen += read(batch, loader)
        loader.teacher.clock.batches += 1
        if step + 1 == lesson:
            return loader.dataset.state_dict(lesson * 4, True), seen
    raise AssertionError


@pytest.mark.parametrize("lesson", range(6, 19))
def test_a_checkpoint_gone_on_from_without(tmp_path, lesson):
    """Cutting and balancing turned off, or AtteNT taken away, at any place of a window: all is
    trained on once, and soon whole.
    """
    data = {
        "local": write_ids(tmp_path / "data", 200),
        "batch_size": 4,
        "shuffle": True,
        "num_canonical_nodes": 1,
    }
    data |= {"window": 6, "gap": 1}
    state, seen = state_at(data, ALL | {"balance": "starts", "pieces": 0.25}, lesson)
    wanted = sorted(range(0, 200 * TOKENS, TOKENS // 4))
    for taught in (True, False):
        other = make_loader(data, {}, ALL | {"pieces": 1.0})
        other.dataset.load_state_dict(state)
        other.teacher.clock.batches = lesson
        if not taught:
            other.attach(None)
        rest, sizes = [], []
        for batch in other:
            if taught:
                other.teach(None)
                other.teacher.clock.batches += 1
            pieces = other.epoch.units
            sizes.append(pieces)
            rest += [
                start + part
                for start in read(batch, other)
                for part in range(0, TOKENS, TOKENS // 4)[: 4 // pieces]
            ]
        assert sorted(seen + rest) == wanted
        assert sizes == sorted(sizes, reverse=True) and sizes.count(4) <= 11
