"""A large window is chosen in a thread while training goes on. Oracle: the same without one."""

import copy
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from corpora import write_ids
from taught import Counter, OneOfMany, make_loader, run_epochs

from attent_stream.arrange.arrangement import Arrangement
from attent_stream.arrange.arrangements import ARRANGEMENTS
from attent_stream.arrange.panels import Panels
from attent_stream.base.gather import RankGroup
from attent_stream.teach import chooser
from attent_stream.teach.teacher import Teacher
from attent_stream.window.choice import Choice
from attent_stream.window.metrics import choice_metrics

PIECES = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "30ba", "stages": 2}
TEACHERS = [
    {"keep": 1, "pieces": PIECES},
    {"select": "random", "keep": 0.4},
    {"select": "hard", "keep": 0.5},
    {"select": "soft", "keep": 0.5, "pieces": PIECES},
    {"select": "soft", "keep": {"schedule": "linear", "from": 0.2, "to": 0.9, "over": "40ba"}},
]
SHARING = [
    {"keep": 1, "select": "random", "pieces": PIECES, "balance": "starts"},
    {"select": "hard", "keep": 0.5, "balance": "ids"},
    {"select": "random", "keep": 0.7, "group": "length"},
]
REMEMBERING = [
    {"select": "soft", "keep": 0.5, "ledger": 371, "interval": "2ep"},
    {"select": "soft", "ledger": 371, "detrend": True, "interval": "2ep", "balance": "ids"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_ids(tmp_path_factory.mktemp("ids") / "data", 371)


def data_of(folder):
    given = {"local": folder, "batch_size": 4, "shuffle": True, "num_canonical_nodes": 2}
    return given | {"window": 6, "gap": 3}


@pytest.fixture
def in_a_thread(monkeypatch):
    """All windows count as large. Returns the names of the threads that choose."""
    monkeypatch.setattr(chooser, "LARGE", 1)
    monkeypatch.setattr(chooser, "COMPARED", 1)
    seen, selected = [], Teacher.selected

    def named(self, *given):
        seen.append(threading.current_thread().name)
        return selected(self, *given)

    monkeypatch.setattr(Teacher, "selected", named)
    return seen


@pytest.fixture
def of_two(monkeypatch):
    """Choices are shared with another rank, but this one has done all of the work."""
    monkeypatch.setattr(RankGroup, "of_world", lambda to_device: OneOfMany(rank=0, ranks=2))
    monkeypatch.setattr(Panels, "slots", lambda self, group: np.arange(len(self.of_slot)))
    monkeypatch.setattr(Panels, "share", lambda self, group: (0, 1))


def apart(seen):
    return [name for name in seen if name.startswith("attent-choice")]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("teacher", TEACHERS + SHARING + REMEMBERING)
def test_lessons_and_choices_are_the_same(folder, monkeypatch, request, teacher, workers):
    data, loader = data_of(folder), {"num_workers": workers}
    expected = run_epochs(make_loader(data, loader, {"seed": 5, **teacher}), 2)
    seen = request.getfixturevalue("in_a_thread")
    found = run_epochs(make_loader(data, loader, {"seed": 5, **teacher}), 2)
    assert len(apart(seen)) > 20
    assert found["lessons"] == expected["lessons"] and found["lengths"] == expected["lengths"]
    # Scores come in the same sequence; the last choices of an epoch come with its last lessons
    assert found["scored"] == expected["scored"]
    assert found["choices"] == expected["choices"]


@pytest.mark.parametrize("teacher", TEACHERS)
def test_a_position_is_the_same_at_each_lesson(folder, request, teacher):
    data = data_of(folder)

    def positions():
        loader, found = make_loader(data, {}, {"seed": 5, **teacher}), []
        for _ in loader:
            loader.teach(lambda batch: batch_scores(batch))
            found.append(replace(loader.epoch.position, untold=None).dump())
            loader.teacher.clock.batches += 1
        return found

    expected = positions()
    seen = request.getfixturevalue("in_a_thread")
    assert positions() == expected and apart(seen)


def batch_scores(batch):
    ids = batch["id"] if "id" in batch else batch["input_ids"][:, 0]
    return (ids * 7919 % 101).float()


def tokens_in(batch) -> int:
    """What a batch counts, unlike the next."""
    ids = batch["id"] if "id" in batch else batch["input_ids"][:, 0]
    return int(ids.sum()) % 13 + 1


class Moving:
    """A score that changes with each choice that is handed out, as that of a target. What is
    trained on is remembered, if anything is.
    """

    def __init__(self, loader, choices=0, memory=None):
        self.loader, self.choices, self.ledger = loader, choices, loader.teacher.ledger
        self.told: list = []  # of this run
        if memory is not None:
            self.ledger.load_state_dict(memory)
        elif self.ledger is not None:
            self.ledger.record(np.arange(371), np.arange(371) * 7919 % 101 + 1.0, 0.0)

    def __call__(self, batch):
        return (batch_scores(batch) * (self.choices + 1)) % 101

    def lesson(self):
        """As AtteNT goes through a lesson."""
        epoch = self.loader.epoch
        if epoch.segment.index:
            self.tell(epoch.take_choices())
        self.tell(self.loader.teach(self))
        if self.ledger is not None:
            ids = epoch.lesson[0]
            # As if these were repeated: some of them are in the window that is chosen
            ids = np.concatenate([ids, np.arange(self.choices, 371, 3)])
            self.ledger.record(ids, (ids * 31 + int(ids[0])) % 101 + 1.0, 0.5)

    def tell(self, choices):
        """Note all that is told of choices."""
        self.choices += len(choices)
        starts = self.loader.epoch.order.stream_starts
        for one in choices:
            scores = None if one.scores is None else one.scores.astype(np.float32).tobytes()
            self.told.append((one.measured or choice_metrics(one, starts), scores))

    def memory(self):
        return copy.deepcopy(self.ledger.state_dict()) if self.ledger is not None else None


class Drifting(Counter):
    """A clock that tells tokens to come by the mean of the batches so far."""

    tokens = 0

    def __call__(self, ahead, epoch, share):
        mean = self.tokens / max(1, self.batches)
        now = super().__call__(ahead, epoch, share)
        return replace(now, tok=round(self.tokens + ahead * mean))


DRIFTING = {"schedule": "linear", "from": 0.8, "to": 0.3, "over": "400tok"}


@pytest.mark.parametrize(
    ("teacher", "gap", "ranks"),
    [(teacher, 3, 1) for teacher in TEACHERS + SHARING + REMEMBERING]
    + [(REMEMBERING[1], 0, 2), (REMEMBERING[1], 3, 2)]
    + [(SHARING[1], 0, 1), (SHARING[1], 0, 2), *((one, 3, 2) for one in SHARING)]
    + [({"select": "hard", "keep": DRIFTING, "balance": "ids"}, 3, 2)],
)
def test_a_resume_between_a_choice_and_its_first_lesson(folder, request, teacher, gap, ranks):
    """With the position of every lesson of some windows. Scores change with each choice that is
    handed out, the clock and what is remembered with each lesson.
    """
    request.getfixturevalue("in_a_thread")
    if ranks > 1:
        request.getfixturevalue("of_two")
    data = data_of(folder) | {"gap": gap, "window": 12 if gap else 6}

    def start(batches=0, tokens=0, choices=0, memory=None):
        loader = make_loader(data, {}, {"seed": 5, **teacher})
        loader.teacher.clock = clock = Drifting()
        clock.batches, clock.tokens = batches, tokens
        return loader, Moving(loader, choices, memory)

    def go(loader, score, log, states=None):
        for batch in loader:
            score.lesson()
            log.append(loader.epoch.lesson[0].tolist())
            loader.teacher.clock.batches += 1
            loader.teacher.clock.tokens += tokens_in(batch)
            if states is not None:
                state = loader.dataset.state_dict(len(log) * 4, True)
                then = len(log), loader.teacher.clock.tokens, score.choices, score.memory()
                states.append((state, *then))

    whole: list = []
    undisturbed = start()
    go(*undisturbed, whole)
    seen: list = []
    states: list = []
    again = start()
    go(*again, seen, states)
    assert seen == whole and again[1].told == undisturbed[1].told  # asking changes nothing
    for state, *then in states[8 : 45 : 1 if "balance" in teacher else 5]:
        for again in range(2):
            loader, score = start(*then)
            loader.dataset.load_state_dict(state)
            log, found = whole[: then[0]], []
            go(loader, score, log, found)
            assert log == whole, (then[0], again)
            assert score.choices == undisturbed[1].choices, (then[0], again)
            assert undisturbed[1].told[then[2] :] == score.told, (then[0], again)
            if ranks == 1:
                break
            # From a checkpoint soon after a resume, which may be between a choice and its sum again
            state, *then = found[0]


def test_an_error_in_the_thread_reaches_training(folder, in_a_thread, monkeypatch):
    loader = make_loader(data_of(folder), {"num_workers": 1}, {"select": "soft"})
    selected = Teacher.selected

    def failing(self, window, decision, scores):
        if window.index == 2:
            raise ValueError("cannot choose window 2")
        return selected(self, window, decision, scores)

    monkeypatch.setattr(Teacher, "selected", failing)
    with pytest.raises(ValueError, match="cannot choose window 2"):
        run_epochs(loader)


def test_an_iteration_that_ends_early_waits_for_the_thread(folder, in_a_thread, monkeypatch):
    loader = make_loader(data_of(folder), {"num_workers": 1}, {"select": "random"})
    go_on, publish = threading.Event(), loader._board.publish
    late = []

    def slow(index, posting):
        if threading.current_thread().name.startswith("attent-choice"):
            go_on.wait(60)
            late.append(loader._board.generation)
        return publish(index, posting)

    monkeypatch.setattr(loader._board, "publish", slow)
    batches = iter(loader)
    while loader.epoch is None or not loader.epoch.chooser.busy:
        next(batches)
        loader.teach(batch_scores)
    ending = threading.Thread(target=batches.close)
    ending.start()
    go_on.set()
    ending.join(60)
    assert late == [loader._board.generation]
    assert len(run_epochs(loader)["lessons"]) > 20


class Looks(Arrangement):
    """Decides by sample ids."""

    def decide(self, window, end, units):
        return int(window.ids.max() > 5)


def test_a_selector_of_ones_own_is_asked_at_once(folder, in_a_thread):
    teacher = {"select": "attent_stream.window.selectors:random", "keep": 0.4}
    run_epochs(make_loader(data_of(folder), {}, teacher), 2)
    assert in_a_thread and not apart(in_a_thread)


@pytest.mark.parametrize(
    ("balance", "large", "compared", "expected"),
    [
        (None, 24, 99, True),
        (None, 25, 1, False),
        ("ids", 99, 24, True),
        ("ids", 99, 25, False),
        ("ids", 24, 99, False),
    ],
)
def test_from_how_many_units_on_a_thread_chooses(
    folder, in_a_thread, monkeypatch, balance, large, compared, expected
):
    """Fewer where features are compared. Windows have 24 units."""
    monkeypatch.setattr(chooser, "LARGE", large)
    monkeypatch.setattr(chooser, "COMPARED", compared)
    run_epochs(make_loader(data_of(folder), {}, {"select": "random", "balance": balance}))
    assert in_a_thread and bool(apart(in_a_thread)) == expected


class Reads(Arrangement):
    """Reads features, and may share them with other ranks in its own way."""

    reads = foreseeable = True

    def decide(self, window, end, units):
        return int(window.index > 0)

    def features(self, batch, units):
        return torch.ones(len(batch["id"]), 2, dtype=torch.float16)


@pytest.mark.parametrize("made", [Looks, Reads])
def test_other_arrangements_are_asked_at_once(folder, in_a_thread, made):
    ARRANGEMENTS.known["made"] = made
    try:
        loader = make_loader(data_of(folder), {}, {"select": "random"})
        loader.teacher.arrangements = loader.teacher.arrangements.parse({"made": None})
        run_epochs(loader)
    finally:
        del ARRANGEMENTS.known["made"]
    assert in_a_thread and not apart(in_a_thread)


def test_what_ranks_share_is_summed_halfway(folder, in_a_thread, of_two, monkeypatch):
    """In the main thread, and a position until then is one of before the choice."""
    summed, total = [], OneOfMany.total

    def named(self, values):
        summed.append((threading.current_thread().name, epoch._lesson))
        return total(self, values)

    monkeypatch.setattr(OneOfMany, "total", named)
    loader = make_loader(data_of(folder) | {"window": 24, "gap": 5}, {}, SHARING[0])
    for _ in loader:
        epoch = loader.epoch
        loader.teach(batch_scores)
        if epoch.chooser.shares:
            assert epoch.segment.due <= epoch._lesson < epoch.chooser._share_at
            position = epoch.position
            assert position.following is None and position.after == epoch.chooser.after
        loader.teacher.clock.batches += 1
    # 24 lessons: due at 18, the last is 23; the last window has 20 lessons
    assert summed == [("MainThread", 21)] * 3


def test_a_choice_that_was_made_apart_is_measured(folder, in_a_thread):
    loader, found = make_loader(data_of(folder), {}, {"select": "hard"}), []
    for _ in loader:
        found += loader.teach(batch_scores)
    assert isinstance(found[0], Choice) and found[0].measured is None
    metrics, counts = found[1].measured
    assert metrics["keep"] == 0.5 and counts["lessons"] == counts["dropped"] == 12
    assert torch.tensor(metrics["kept_q50"]) > metrics["dropped_q50"]
