"""``fidelity: auto``: what is measured and decided."""

import copy
import logging

import numpy as np
import pytest
import torch
from fits import make_model

from attent_stream.score.agreement import kept_overlap, spearman
from attent_stream.score.auto_fidelity import AutoScorer, Measured, decide, usual_ways
from attent_stream.score.cost import ModelCost
from attent_stream.score.early_exit import find_blocks
from attent_stream.score.fidelity import FULL, AutoFidelity, Fidelity


def test_the_cheapest_that_agrees_is_taken():
    ways = [Fidelity(layers=n) for n in (1, 2, 3, 4)]
    seen = [(0.7, 0.1), (0.91, 0.2), (0.99, 0.3), (float("nan"), 0.01)]
    measured = [
        Measured(way=way, spearman=rho, overlap=0, cost=cost, time=0)
        for way, (rho, cost) in zip(ways, seen, strict=True)
    ]
    assert (
        decide(measured, 0.9).way == ways[1]
        and decide(measured, 0.95).way == ways[2]
        and decide(measured, 0.995) is None
    )


def test_usual_ways():
    blocks = find_blocks(make_model())
    text = usual_ways(text=True, blocks=blocks, patches=False, images=False)
    assert {way.layers for way in text} == {None, 1} and len(set(text)) == len(text)
    assert all(
        way.tokens is None and way.layers is None
        for way in usual_ways(text=False, blocks=None, patches=False, images=True)
    )


class Fake:
    """Scores with a column of the batch, and counts the samples."""

    sharded = False

    def __init__(self, column: str) -> None:
        self.column, self.seen = column, 0

    def __call__(self, batch, microbatch, draw=()):
        self.seen += len(batch["labels"])
        return batch[self.column].float()


def ranks_of(world: int, settings: AutoFidelity):
    """An AutoScorer whose ``gather`` joins the values of the last ``world`` calls."""
    parts: list = []

    def gather(values):
        parts.append(values.numpy())
        return (
            np.stack(parts[-world:])
            if len(parts) % world == 0
            else np.stack([values.numpy()] * world)
        )

    cost = ModelCost(blocks=4, block=10, width=0, head=10, full_precision=False)
    scorers = [Fake("full"), {Fidelity(layers=1): Fake("one"), Fidelity(layers=2): Fake("two")}]
    return AutoScorer(settings, scorers[0], scorers[1], cost, gather=gather, ranks=world), scorers


def batches(rows: int, noise: float, seed: int = 0):
    """Batches of 16 candidates. ``two`` ranks them like ``full``, ``one`` with ``noise``."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(rows):
        full = torch.randn(16, generator=generator)
        one = full + noise * torch.randn(16, generator=generator)
        yield {
            "labels": torch.zeros(16, 8, dtype=torch.long),
            "full": full,
            "one": one,
            "two": full * 3,
        }


def test_auto_scores_one_window_in_one_way():
    auto, (full, ways) = ranks_of(1, AutoFidelity(every=2, samples=40))
    one, two = ways.values()
    window = list(batches(4, 3.0))
    for batch in window:  # the first window: in full, and 40 of its candidates in every way
        assert torch.equal(auto(batch, 16), batch["full"])
    assert (full.seen, one.seen, two.seen) == (64 + 40, 40, 40)
    found = {m.way: m for m in auto.window_chosen(0.5)}
    joined = {
        name: torch.cat([b[name] for b in window])[:40].numpy() for name in ("full", "one", "two")
    }
    assert found[Fidelity(layers=1)].spearman == pytest.approx(
        spearman(joined["one"], joined["full"]), abs=1e-6
    )
    assert found[Fidelity(layers=1)].overlap == kept_overlap(joined["one"], joined["full"], 0.5)
    assert auto.way == Fidelity(layers=2) and auto.cost == (20 + 10) / (40 + 10)
    for batch in batches(3, 3.0, seed=1):  # the second: by that way alone
        assert torch.equal(auto(batch, 16), batch["two"])
    assert (full.seen, one.seen) == (104, 40) and auto.window_chosen(0.5) == []
    for batch in batches(4, 0.01, seed=2):  # measured anew, still by the same way
        assert torch.equal(auto(batch, 16), batch["two"])
    auto.window_chosen(0.5)
    assert auto.way == Fidelity(layers=1)


def test_auto_goes_on_from_its_state_at_any_batch():
    def play(auto, batches):
        return [auto(batch, 16) if batch else auto.window_chosen(0.5) for batch in batches]

    settings = AutoFidelity(every=2, samples=40)
    run = [
        step
        for window in range(5)
        for step in (*batches(3, 0.1 if window < 3 else 9.0, seed=window), None)
    ]
    whole, _ = ranks_of(1, settings)
    names = []
    for at in range(len(run)):
        resumed, _ = ranks_of(1, settings)
        resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
        assert whole.state_dict().keys() == resumed.state_dict().keys()
        rest = play(resumed, run[at:])
        other, _ = ranks_of(1, settings)
        everything = play(other, run)[at:]
        assert all(
            torch.equal(a, b)
            for a, b in zip(rest, everything, strict=True)
            if isinstance(a, torch.Tensor)
        )
        assert resumed.way == other.way
        play(whole, run[at : at + 1])
        names.append(whole.way.name)
    assert set(names) == {"full", "layers_1", "layers_2"}


def test_auto_with_few_finite_scores_or_other_ways_decides_nothing(caplog):
    auto, _ = ranks_of(1, AutoFidelity())
    auto(next(batches(1, 0.1)), 16)
    with caplog.at_level(logging.WARNING):
        assert auto.window_chosen(0.5) == [] and auto.way == FULL
        state = auto.state_dict() | {"ways": ["full", "layers_3"], "way": "layers_3"}
        auto.load_state_dict(state)
    assert auto.way == FULL and auto.measuring
    assert [
        "measured 16 candidates" in caplog.text,
        "other ways than the checkpoint" in caplog.text,
    ] == [True, True]


def test_all_ranks_decide_alike():
    """The ranks see different candidates, and run one after the other in this test."""
    world = 2
    lots = [list(batches(2, 0.4, seed=rank)) for rank in range(world)]
    gathered = []
    for _ in range(world):
        auto, _ = ranks_of(1, AutoFidelity(samples=64))
        auto._ranks = world
        step = iter(range(2))

        def gather(values, step=step):
            row = next(step)
            names = ("full", "one", "two")
            other = [
                torch.stack([*(lots[rank][row][name] for name in names), torch.full((16,), 8.0)])
                for rank in range(world)
            ]
            return torch.stack(other).numpy()

        auto._gather = gather
        for batch in lots[len(gathered)]:
            auto(batch, 16)
        auto.window_chosen(0.5)
        gathered.append(auto.state_dict())
    assert gathered[0]["way"] == gathered[1]["way"] and torch.equal(
        gathered[0]["slice"], gathered[1]["slice"]
    )
