"""A taught run that goes on with other nodes and ranks trains on the lessons of one that never
stopped.

Oracle: the run that was never stopped. All ranks of a job are played in one process, each with its
own plan, teacher and board; the score is a function of the sample, as a score that a model computes
differs in its last bits from world to world. Real processes: ``test_faults_ranks.py`` (ranks) and
``test_nodes.py`` (the launcher, nodes).
"""

import itertools
import json
import logging
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from corpora import difficulty, write_ids
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from streaming import Stream
from streaming.base.world import World
from taught import features_of, make_teacher

from attent_stream.data.dataset import TeachingDataset
from attent_stream.teach.board import Board
from attent_stream.teach.epoch import TaughtEpoch
from attent_stream.window.decision import SCORED
from attent_stream.window.layout import CANDIDATE

GLOBAL_BATCH = 16
STATE = ("sample_in_epoch", "num_canonical_nodes", "shuffle_seed", "initial_physical_nodes")
# (nodes, ranks per node): 1, 2, 4 and 8 ranks on 1, 2 and 4 nodes.
WORLDS = [
    (nodes, ranks // nodes) for nodes in (1, 2, 4) for ranks in (1, 2, 4, 8) if ranks >= nodes
]


class Step(NamedTuple):
    """A lesson: its ids in canonical slots (None after the last full row), those of all ranks
    sorted, how many candidate batches each rank scored at it, and the state after it.
    """

    lesson: list | None
    ids: list
    scored: int
    state: dict


class Job:
    """All ranks of one start of a run, step by step together.

    Args:
        dataset: Shared by all starts; it is set up as in a new process.
        world: Nodes, and ranks of each.
        teacher: ``make_teacher``'s arguments.
        canonical: Streaming's canonical nodes as configured, None for its default.
        state: To go on from, or None.
        batches: Lessons that lie behind the state.
    """

    def __init__(
        self, dataset, world, teacher: dict, canonical: int | None, state=None, batches=0
    ) -> None:
        nodes, ranks = world
        dataset.batch_size = GLOBAL_BATCH // (nodes * ranks)
        # A stale state, which is none
        dataset.load_state_dict(dict.fromkeys(STATE) | {"epoch": -1})
        dataset.num_canonical_nodes, dataset.initial_physical_nodes = canonical, None
        dataset.next_epoch, dataset._loaded = 0, None
        # One rank as far as shared memory and barriers go, `world` as far as samples go.
        dataset._unique_rank_world, dataset._parallel_rank_world = (
            World(1, 1, 1, 0),
            World(nodes, ranks, 1, 0),
        )
        self._trained = 0  # in the epoch under way
        if state is not None:
            dataset.load_state_dict(state)
            self._trained = state["sample_in_epoch"]
        self.dataset, self.ranks = dataset, nodes * ranks
        self.teachers = [make_teacher(**teacher) for _ in range(self.ranks)]
        for made in self.teachers:
            made.clock.batches = batches

    @property
    def rows(self) -> int:
        """Full rows of the coming epoch."""
        return self.dataset.begin_epoch()[0].full

    def run(self, epochs: int) -> Iterator[Step]:
        """Train until so many epochs are over."""
        dataset = self.dataset
        while dataset.coming_epoch < epochs:
            position = dataset.coming_position
            order, first_row = dataset.begin_epoch()
            plans = [self._plan(order, rank, first_row, position) for rank in range(self.ranks)]
            dataset.follow(plans[0])
            yield from self._epoch(plans)
            dataset.follow(None)
            self._trained = 0

    def _plan(self, order, rank, first_row, position) -> TaughtEpoch:
        data = self.dataset
        board = Board(
            steps=2 * data.window,
            batch_size=data.batch_size,
            ahead=2 * data.window * data.batch_size,
        )
        board.begin(taught=True)
        common = {"window": data.window, "gap": data.gap, "drop_last": True, "first_row": first_row}
        return TaughtEpoch(
            order, self.teachers[rank], board, rank=rank, position=position, **common
        )

    def _epoch(self, plans: list[TaughtEpoch]) -> Iterator[Step]:
        first, inbox = plans[0], []
        while not first.done:
            assert len({plan.expect() for plan in plans}) == 1
            taken = {plan.advance() for plan in plans}
            assert len(taken) == 1  # no rank is ever at another step
            ((role, index),) = taken
            if role == CANDIDATE:
                inbox.append(index)
                continue
            parts = [plan.lesson[0].tolist() for plan in plans]
            choice = first.segment.choice
            lesson = (
                None
                if choice is None
                else (choice.ids * choice.decision.units + choice.pieces)[index].tolist()
            )
            # After a resume, candidates are read again for their features, and not scored again
            fresh = [row for row in inbox if row >= first.again]
            if inbox:
                scores = np.array(
                    [
                        [difficulties(plan.segment.candidates[row]) for row in fresh]
                        for plan in plans
                    ]
                )
                for plan in plans:
                    if plan.next.by == SCORED and fresh:
                        plan.record(fresh, scores)
                    if plan.next.features:
                        rank, sample = plan.feature_places()
                        read = [[piece_features(p, row) for row in inbox] for p in plans]
                        plan.record_features(inbox, np.array(read)[rank, :, sample].swapaxes(0, 1))
            scored, inbox = len(fresh), []
            assert len({plan.due for plan in plans}) == 1
            for plan in plans if first.due else []:
                plan.choose()
            for teacher in self.teachers:
                teacher.clock.batches += 1
            # A checkpoint of any rank is complete
            assert len({plan.position.dump() for plan in plans}) == 1
            self._trained += sum(map(len, parts)) // first.units
            state = self.dataset.state_dict(self._trained, True)
            yield Step(lesson, sorted(sum(parts, [])), scored, json.loads(json.dumps(state)))


def piece_features(plan: TaughtEpoch, row: int) -> np.ndarray:
    """Of the pieces of a candidate row's samples, shape (batch_size, pieces * 4)."""
    pieces = plan.next.units
    ids = plan.segment.candidates[row][:, None] * pieces + np.arange(pieces)
    return features_of(ids.reshape(-1)).reshape(len(ids), -1)


def difficulties(ids: np.ndarray) -> list[float]:
    return [difficulty(int(i)) for i in ids]


def told(steps: list[Step]) -> list[tuple]:
    """What must not depend on the world: ids in canonical slots and as a set, and how many scoring
    passes.
    """
    return [(step.lesson, step.ids, step.scored) for step in steps]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    root = tmp_path_factory.mktemp("elastic")
    write_ids(root / "a", 16 * 22 + 5)
    write_ids(root / "b", 16 * 14, first=1000)
    common = {"batch_size": GLOBAL_BATCH, "shuffle": True, "shuffle_seed": 4, "window": 5, "gap": 1}
    # The last two are for settings that are drawn
    streams = {"fixed": "a", "one": "a", "two": "ab"}
    return {
        name: TeachingDataset(
            streams=[Stream(local=str(root / f)) for f in folders], num_canonical_nodes=4, **common
        )
        for name, folders in streams.items()
    }


SHORT_FIRST = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "20ba", "stages": 2}


@pytest.mark.parametrize(
    ("canonical", "balance"), [(4, "ids"), pytest.param(64, None, marks=pytest.mark.slow)]
)
def test_from_every_world_to_every_other(datasets, canonical, balance):
    """A run of two epochs, stopped at a lesson that differs from pair to pair, goes on in the other
    world.
    """
    dataset, rng = datasets["fixed"], np.random.default_rng([1, canonical])
    teacher = {"keep": 0.5, "select": "soft", "balance": balance, "pieces": SHORT_FIRST}
    whole = {world: list(Job(dataset, world, teacher, canonical).run(2)) for world in WORLDS}
    expected = told(whole[1, 1])
    for world, steps in whole.items():
        assert told(steps) == expected, world
    for begun, other in itertools.permutations(WORLDS, 2):
        lesson = int(rng.integers(1, len(expected)))
        rest = Job(dataset, other, teacher, canonical, whole[begun][lesson - 1].state, lesson).run(
            2
        )
        assert told(list(rest)) == expected[lesson:], (begun, other, lesson)


def to_run(examples: int):
    """Settings of a property. To shrink what fails would take minutes."""
    return settings(max_examples=examples, phases=[Phase.generate])


@pytest.mark.filterwarnings("ignore")
@to_run(15)
@given(data=st.data())
def test_any_chain_of_worlds(datasets, data):
    chain_of_worlds(datasets, data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@to_run(40)
@given(data=st.data())
def test_any_chain_of_worlds_at_length(datasets, data):
    chain_of_worlds(datasets, data)


def chain_of_worlds(datasets, data) -> None:
    """Killed and restarted up to four times, under settings drawn from Streaming's and ours."""
    logging.getLogger("streaming").setLevel(logging.ERROR)
    dataset = datasets[data.draw(st.sampled_from(["one", "two"]), "streams")]
    canonical = data.draw(st.sampled_from([None, 1, 2, 4, 16, 64]), "canonical")
    dataset.shuffle_algo = data.draw(
        st.sampled_from(["naive", "py1s", "py2s", "py1br", "py1e"]), "algo"
    )
    dataset.order = data.draw(st.sampled_from(["streaming", "lazy"]), "order")
    dataset.partition_algo = data.draw(st.sampled_from(["orig", "relaxed"]), "partition")
    dataset.batching_method = data.draw(
        st.sampled_from(["random", "stratified", "per_stream"]), "batching"
    )
    dataset.window, dataset.gap = (
        data.draw(st.integers(2, 7), "window"),
        data.draw(st.integers(0, 4), "gap"),
    )
    growing = {"schedule": "linear", "from": 0.2, "to": 0.9, "over": "30ba"}
    teacher = {
        "keep": data.draw(st.sampled_from([0.3, 0.5, growing]), "keep"),
        "select": data.draw(st.sampled_from(["hard", "soft", "random"]), "select"),
        "warmup": data.draw(st.sampled_from(["0ba", "9ba"]), "warmup"),
        "balance": data.draw(st.sampled_from([None, "ids"]), "balance"),
        "pieces": data.draw(st.sampled_from([1.0, 0.5, SHORT_FIRST]), "pieces"),
    }
    begun, state, lesson = data.draw(st.sampled_from(WORLDS), "first"), None, 0
    expected = list(Job(dataset, begun, teacher, canonical).run(2))
    for _ in range(data.draw(st.integers(1, 4), "kills")):
        left = data.draw(st.integers(1, max(1, (len(expected) - lesson) // 2)), "lessons")
        part = list(
            itertools.islice(Job(dataset, begun, teacher, canonical, state, lesson).run(2), left)
        )
        assert told(part) == told(expected)[lesson : lesson + left]
        state, lesson = part[-1].state, lesson + len(part)
        rows, begun = (
            Job(dataset, begun, teacher, canonical, state, lesson).rows,
            data.draw(st.sampled_from(WORLDS), "next"),
        )
        if Job(dataset, begun, teacher, canonical, state, lesson).rows != rows:
            # Streaming pads each stream for the ranks of a node, so there its own epoch has another
            # length.
            assert dataset.batching_method == "stratified"
            with pytest.raises(ValueError, match="rows: [0-9]+ in the checkpoint, [0-9]+ now"):
                next(Job(dataset, begun, teacher, canonical, state, lesson).run(2))
            return
    rest = Job(dataset, begun, teacher, canonical, state, lesson).run(2)
    assert told(list(rest)) == told(expected)[lesson:]


@pytest.mark.parametrize("balance", [None, "ids"])
@pytest.mark.parametrize(("begun", "other"), [(2, 3), (3, 2)])
def test_nodes_that_do_not_divide_the_canonical_nodes(tmp_path, monkeypatch, begun, other, balance):
    """Then a rank has no whole canonical node, and its slots are those of the first start."""
    monkeypatch.setattr(sys.modules[__name__], "GLOBAL_BATCH", 24)
    dataset = TeachingDataset(
        local=write_ids(tmp_path / "data", 24 * 20),
        batch_size=24,
        shuffle=True,
        shuffle_seed=4,
        window=5,
        gap=1,
        num_canonical_nodes=begun,
        partition_algo="relaxed",
    )
    teacher = {"keep": 0.5, "select": "hard", "balance": balance}
    whole = list(Job(dataset, (begun, 1), teacher, begun).run(1))
    for lesson in (3, 6):
        job = Job(dataset, (other, 1), teacher, begun, whole[lesson - 1].state, lesson)
        assert told(list(job.run(1))) == told(whole)[lesson:]


def test_a_plain_checkpoint_is_taken_up_alike_in_every_world(datasets):
    """A checkpoint of stock Streaming in the middle of an epoch, gone on from with teaching."""
    dataset, teacher = datasets["fixed"], {"select": "hard", "keep": 0.5}
    plain = {
        "epoch": 0,
        "sample_in_epoch": 7 * GLOBAL_BATCH,
        "num_canonical_nodes": 4,
        "shuffle_seed": 4,
    }
    plain["initial_physical_nodes"] = 2
    expected = None
    for world in WORLDS:
        steps = told(list(Job(dataset, world, teacher, None, plain).run(1)))
        assert sum(step[2] for step in steps) == 10  # three windows, the first untaught
        expected = expected or steps
        assert steps == expected, world
