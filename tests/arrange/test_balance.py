"""Balanced batches. Oracles: greedy herding written out in exact integers, counting, and the run
that is not balanced.
"""

import numpy as np
import pytest
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit
from fits import make_loader as make_lm_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from loaders import ids_data
from taught import features_of, make_loader, run_epochs

from attent_stream import AtteNT
from attent_stream.arrange import balance
from attent_stream.arrange.balance import BLOCK, balance_lanes, herded, imbalance
from attent_stream.base.errors import CollateError


def greedy(features: np.ndarray, rows: list[int] | None = None, left: list | None = None) -> list:
    """Sum after sum, each in Python's integers.

    ``left`` is what others have left over until the end of each batch, and ``rows`` the batches.
    """
    n = len(features)
    scaled = [
        [n * int(v) - int(total) for v, total in zip(row, features.sum(axis=0), strict=True)]
        for row in features
    ]
    remaining, order, so_far = list(range(n)), [], [0] * features.shape[1]
    for place in range(n):
        before = so_far if left is None else add(so_far, left[rows[place]])
        lengths = [sum(v**2 for v in add(before, scaled[i])) for i in remaining]
        best = remaining.pop(lengths.index(min(lengths)))
        so_far = add(so_far, scaled[best])
        order.append(best)
    return order


def add(one: list[int], other: list[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]


@settings(max_examples=60)
@given(
    arrays(
        np.int64,
        st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 4)),
        elements=st.integers(-2048, 2048),
    )
)
def test_greedy_herding(features):
    found = herded(features)
    assert found.tolist() == [greedy(block) for block in features]
    assert herded(features.astype(np.float16)).tolist() == found.tolist()


@settings(max_examples=30)
@given(
    features=arrays(
        np.int64,
        st.tuples(st.integers(1, 4), st.just(12), st.integers(1, 3)),
        elements=st.integers(-50, 50),
    )
)
def test_blocks_make_up_for_those_before(features):
    """Blocks of four, three in a chain: each has every so many-th place of the window."""
    count, width, _ = features.shape
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(balance, "BLOCK", 4)
        patched.setattr(balance, "CHAIN", 3)
        places = np.random.default_rng(0).permutation(count * width).reshape(count, width)
        found = balance_lanes(places, np.zeros_like(places), features).reshape(-1)
    known, blocks, left = features.reshape(count * width, -1), 3 * count, []
    for number in range(blocks):
        if number % 3 == 0:
            left = [[0] * features.shape[2] for _ in range(count)]
        slots = np.arange(number, count * width, blocks)
        own, rows = known[places.reshape(-1)[slots]], [int(slot) // width for slot in slots]
        order = greedy(own, rows, left)
        assert found[slots].tolist() == places.reshape(-1)[slots][order].tolist()
        for place, which in enumerate(order):
            beyond = [int(v) for v in len(own) * own[which] - own.sum(axis=0)]
            for row in range(rows[place], count):
                left[row] = add(left[row], beyond)


def test_samples_that_are_alike_stay_where_they_are():
    assert herded(np.full((2, 9, 3), 7)).tolist() == [list(range(9))] * 2


def test_lessons_stay_in_their_lanes_slots():
    rng = np.random.default_rng(0)
    lanes = rng.integers(0, 3, (600, 8))  # about 1,600 a lane: more than one block
    features = rng.integers(0, 9, (600, 8, 5))
    positions = np.sort(rng.permutation(4800)[:4000]).reshape(500, 8)
    wanted = lanes.reshape(-1)[positions]
    found = balance_lanes(positions, wanted, features.astype(np.float16))
    assert sorted(found.reshape(-1)) == sorted(positions.reshape(-1))
    assert (lanes.reshape(-1)[found] == wanted).all() and (found != positions).any()
    assert np.bincount(wanted.reshape(-1)).min() > BLOCK
    one = balance_lanes(positions, np.zeros_like(wanted), features)
    assert imbalance(one, features) < 0.2 < imbalance(positions, features)


def test_batches_larger_than_a_block_are_alike():
    rng = np.random.default_rng(2)
    features = rng.integers(0, 50, (8, 2 * BLOCK, 6))
    places = rng.permutation(features.shape[0] * features.shape[1]).reshape(features.shape[:2])
    found = balance_lanes(places, np.zeros_like(places), features)
    assert imbalance(places, features) > 0.5 > 0.1 > imbalance(found, features)


def test_blocks_of_a_long_window_are_stretches_of_it():
    """Each is ordered as if it were alone: with batches of 8, it has more than enough of them."""
    rng = np.random.default_rng(3)
    features = rng.integers(0, 50, (3 * BLOCK // 8, 8, 4))
    places = rng.permutation(3 * BLOCK).reshape(-1, 8)
    found = balance_lanes(places, np.zeros_like(places), features)
    for stretch in range(3):
        rows = slice(stretch * BLOCK // 8, (stretch + 1) * BLOCK // 8)
        own = places[rows].reshape(-1)
        order = herded(features.reshape(-1, 4)[own][None])[0]
        assert found[rows].reshape(-1).tolist() == own[order].tolist()


def test_imbalance_of_random_batches_is_one():
    rng = np.random.default_rng(1)
    features = rng.integers(0, 50, (32, 8, 6))
    drawn = [imbalance(rng.permutation(256).reshape(32, 8), features) for _ in range(200)]
    assert np.mean(drawn) == pytest.approx(1, abs=0.03)
    assert imbalance(np.arange(8).reshape(1, 8), features) == 1
    assert imbalance(np.arange(256).reshape(32, 8), np.ones((32, 8, 2))) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corpus_without_tokens_ends_before_the_first_step(tmp_path, workers):
    data = ids_data(tmp_path, 200, window=6, gap=1)
    loader = make_loader(data, {"num_workers": workers}, {"balance": "tokens"})
    with pytest.raises(
        CollateError,
        match="balance 'tokens' needs input_ids .* got keys .*'difficulty', 'id'.*; for .*sample",
    ):
        next(iter(loader))


def test_a_name_that_is_none():
    with pytest.raises(ValueError, match="arrange.balance has no 'words', .known: "):
        AtteNT(arrange={"balance": "words"})


@pytest.mark.parametrize(
    "teacher",
    [
        {"select": "random", "keep": 1.0},
        {"select": "hard", "keep": 0.5},
        {"select": "random", "keep": 0.5},
    ],
)
def test_only_the_order_within_windows_changes(tmp_path, teacher):
    data = ids_data(tmp_path, 500, shuffle=True, num_canonical_nodes=2, window=12, gap=1)
    plain = run_epochs(make_loader(data, {}, teacher), 2)
    ours = run_epochs(make_loader(data, {"num_workers": 2}, teacher | {"balance": "ids"}), 2)
    uneven = []
    for one, other in zip(plain["choices"], ours["choices"], strict=True):
        assert one[:3] == other[:3] and sorted(sum(one[3], [])) == sorted(sum(other[3], []))
        if one[1] == 0:
            assert one == other  # nothing of it could be read before
            continue
        lengths = []
        for choice in (one, other):
            of = features_of(np.array(choice[3]).reshape(-1)).astype(float).reshape(-1, 4, 4)
            lengths.append(((of.mean(axis=1) - of.mean(axis=(0, 1))) ** 2).sum())
        uneven.append(lengths)
    assert np.mean(uneven, axis=0)[1] < 0.6 * np.mean(uneven, axis=0)[0]
    assert bool(ours["scored"]) == (teacher["select"] == "hard")


def test_a_checkpoint_taken_up_with_balancing_and_without(tmp_path):
    """What was decided stands; from the next window on the new settings hold. Nothing is trained on
    twice or left out.
    """
    data = ids_data(tmp_path, 200, shuffle=True, window=6, gap=1)
    for before, after in (("ids", None), (None, "ids")):
        loader = make_loader(data, {}, {"select": "random", "keep": 1.0, "balance": before})
        seen = []
        for step, batch in enumerate(loader):
            loader.teach(None)
            seen += batch["id"].tolist()
            loader.teacher.clock.batches += 1
            if step == 8:
                break
        state = loader.dataset.state_dict(9 * 4, True)
        other = make_loader(data, {}, {"select": "random", "keep": 1.0, "balance": after})
        other.dataset.load_state_dict(state)
        other.teacher.clock.batches = 9
        rest = run_epochs(other)
        assert sorted(seen + sum(rest["lessons"], [])) == list(range(200))


def test_a_run_is_balanced_and_says_how_much(tmp_path):
    folder = write_tokens(tmp_path / "tokens", 200, length=LENGTH, vocab=VOCAB)
    plain, _, _ = fit(make_lm_loader(folder, window=8), [AtteNT(keep=1.0, select="random")])
    ours, memory, _ = fit(make_lm_loader(folder, window=8), [AtteNT(arrange={"balance": "tokens"})])
    assert sorted(map(str, sum(plain.tokens, []))) == sorted(map(str, sum(ours.tokens, [])))
    assert plain.tokens != ours.tokens
    found = [float(value) for _, value in memory.data["attent/imbalance"]]
    assert np.mean(found) < 0.9
    assert int(memory.data["attent/candidates"][-1][1]) == 0  # no model was asked
