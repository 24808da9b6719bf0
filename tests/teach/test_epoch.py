"""A corpus whose right selection is known: agreement with a brute-force loop, on any number of
workers and ranks.
"""

import numpy as np
import pytest
import torch
from corpora import difficulty, write_ids
from loaders import ids_data
from streaming import Stream, StreamingDataset
from taught import make_loader, run_epochs
from taught_ranks import run_ranks

from attent_stream.base.errors import TeacherError


def stock_order(data: dict) -> list[int]:
    """The epoch as stock Streaming yields it on one rank."""
    data = {
        key: value for key, value in data.items() if key not in ("window", "gap", "require_teacher")
    }
    return [sample["id"] for sample in StreamingDataset(**data)]


def brute_force(
    order: list[int], batch: int, window: int, keep: float, lanes: int = 1
) -> list[list[int]]:
    """Lesson batches of one epoch with hard selection by difficulty, written as plainly as
    can be.
    """
    rows = [order[i : i + batch] for i in range(0, len(order), batch)]
    tail = [rows.pop()] if rows and len(rows[-1]) < batch else []
    batches = []
    for number, begin in enumerate(range(0, len(rows), window)):
        candidates = rows[begin : begin + window]
        count = max(1, int(len(candidates) * keep + 0.5))
        if number == 0 or count == len(candidates):
            batches += candidates
            continue
        kept = []
        for lane in range(lanes):
            members = [
                row[slot] for row in candidates for slot in range(batch) if slot % lanes == lane
            ]
            wanted = count * batch // lanes
            hardest = sorted(range(len(members)), key=lambda i: (-difficulty(members[i]), i))[
                :wanted
            ]
            kept.append([members[i] for i in sorted(hardest)])
        for row in range(count):
            batches.append(
                [kept[slot % lanes][(row * batch + slot) // lanes] for slot in range(batch)]
            )
    return batches + tail


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize(("canonical", "keep"), [(1, 0.5), (4, 0.3), (2, 0.75)])
def test_hard_selection_is_brute_force(tmp_path, workers, canonical, keep):
    data = ids_data(tmp_path, 371, batch_size=8, shuffle=True, num_canonical_nodes=canonical)
    expected = brute_force(stock_order(data), 8, 6, keep, lanes=canonical)
    loader = make_loader(
        data | {"window": 6, "gap": 2}, {"num_workers": workers}, {"select": "hard", "keep": keep}
    )
    log = run_epochs(loader)
    assert log["lessons"] == expected
    assert log["lengths"] == [len(expected)]


@pytest.mark.parametrize("select", ["hard", "soft", "random"])
def test_lessons_do_not_depend_on_workers(tmp_path, select):
    data = ids_data(tmp_path, 230, shuffle=True, num_canonical_nodes=2, window=8, gap=1)
    logs = []
    for loader in (
        {"num_workers": 0},
        {"num_workers": 1, "prefetch_factor": 7},
        {"num_workers": 3, "persistent_workers": True},
    ):
        logs.append(run_epochs(make_loader(data, loader, {"select": select, "keep": 0.4}), 2))
    assert logs[0] == logs[1] == logs[2]
    if select == "random":
        assert not logs[0]["scored"]


def test_conservation(tmp_path):
    data = ids_data(tmp_path, 333, batch_size=5, shuffle=True)
    order = stock_order(data)
    loader = make_loader(data | {"window": 7}, {}, {"select": "hard", "keep": 0.3})
    run = run_epochs(loader)
    windows = []
    for epoch, index, by, kept in run["choices"]:
        candidates = order[index * 35 : index * 35 + min(35, 330 - index * 35)]
        kept_ids = [i for row in kept for i in row]
        assert epoch == 0 and len(set(kept_ids)) == len(kept_ids)
        assert set(kept_ids) <= set(candidates)
        assert by == ("all" if index == 0 else "scored")
        windows += candidates
    # Each window is the next slice of the order, none twice, none left out
    assert windows == order[:330]
    scored = [i for batch in run["scored"] for i in batch]
    assert sorted(scored) == sorted(order[35:330])


def test_scores_come_before_they_are_needed_and_early(tmp_path):
    data = ids_data(tmp_path, 400, window=10, gap=2)
    loader = make_loader(data, {}, {"select": "hard", "keep": 0.5})
    for _ in loader:
        loader.teach(lambda batch: batch["difficulty"])
        segment = loader.epoch.segment
        assert len(segment.candidates) in (0, 10)
        last_candidate = np.flatnonzero(segment.roles == 0).max(initial=-1)
        lessons = len(segment.lessons)
        assert (segment.roles[last_candidate + 1 :] == 1).sum() >= min(
            2, max(1, lessons // 4), lessons - 1
        )


def test_teach_not_called_is_an_error_not_a_hang(tmp_path):
    data = ids_data(tmp_path, 200, window=5)
    loader = make_loader(data, {"num_workers": 2}, {"select": "hard", "keep": 0.5})
    with pytest.raises(TeacherError, match="window 1 of epoch 0 was not chosen in time"):
        list(loader)


def test_non_finite_scores_never_select(tmp_path):
    data = ids_data(tmp_path, 240, window=6)

    def score(batch):
        scores = batch["difficulty"].clone()
        scores[batch["id"] % 3 == 0] = torch.tensor([float("nan"), float("inf")])[
            torch.randint(2, (1,))
        ]
        return scores

    loader = make_loader(data, {}, {"select": "hard", "keep": 0.5})
    log = run_epochs(loader, score=score)
    for _, index, _, kept in log["choices"]:
        assert index == 0 or all(i % 3 for row in kept for i in row)


def test_remembered_scores_skip_the_candidates(tmp_path):
    data = ids_data(tmp_path, 160, shuffle=True)
    loader = make_loader(
        data | {"window": 5}, {}, {"select": "hard", "keep": 0.5, "interval": "10ep", "ledger": 160}
    )
    log = run_epochs(loader, 5)
    stock, known, expected = StreamingDataset(**data), set(), []
    for epoch in range(5):
        order = [sample["id"] for sample in stock]
        for index in range(8):
            window = set(order[index * 20 : index * 20 + 20])
            # Of 20: nine tenths
            by = "remembered" if len(window & known) >= 18 else "scored" if index else "all"
            known |= window if by == "scored" else set()
            expected.append([epoch, index, by])
    assert [choice[:3] for choice in log["choices"]] == expected
    assert sum(by == "remembered" for *_, by in expected) > 20
    assert len(log["scored"]) == 5 * sum(by == "scored" for *_, by in expected)


def test_scores_are_not_reused_past_the_interval(tmp_path):
    data = ids_data(tmp_path, 160, shuffle=True)
    loader = make_loader(
        data | {"window": 5}, {}, {"select": "hard", "keep": 0.5, "interval": "1ep", "ledger": 160}
    )
    assert "remembered" not in {by for *_, by, _ in run_epochs(loader, 3)["choices"]}


def test_random_keeps_the_same_counts_and_reads_nothing_more(tmp_path):
    data = ids_data(tmp_path, 320, window=8, shuffle=True)
    hard = run_epochs(make_loader(data, {}, {"select": "hard", "keep": 0.5}))
    chance = run_epochs(make_loader(data, {}, {"keep": 0.5, "select": "random"}))
    # Its first window needs no scores, so it is not kept whole
    assert len(chance["lessons"]) == 10 * 8 // 2
    assert len(hard["lessons"]) == 8 + 9 * 4
    assert not chance["scored"]


def test_warmup_and_anneal(tmp_path):
    data = ids_data(tmp_path, 320, window=8)
    teacher = {"select": "hard", "keep": 0.5, "warmup": "20ba", "anneal": "18ba", "total": "60ba"}
    log = run_epochs(make_loader(data, {}, teacher))
    by = [b for _, _, b, _ in log["choices"]]
    starts = np.cumsum([0] + [len(kept) for *_, kept in log["choices"]])[:-1]
    assert by == ["all" if start < 20 or start >= 42 else "scored" for start in starts]
    assert log["lengths"] == [len(log["lessons"])]


@pytest.mark.parametrize("batching", ["random", "stratified", "per_stream", "device_per_stream"])
def test_batching_methods_keep_their_promise(tmp_path, batching):
    sizes, first, streams = {"a": 200, "b": 120}, 0, []
    for name, size in sizes.items():
        streams.append(Stream(local=write_ids(tmp_path / name, size, first=first)))
        first += size
    data = {
        "streams": streams,
        "batch_size": 8,
        "shuffle": True,
        "num_canonical_nodes": 1,
        "batching_method": batching,
    }
    log = run_epochs(
        make_loader(data | {"window": 6, "gap": 1}, {}, {"select": "hard", "keep": 0.5})
    )
    of_first = [sum(i < 200 for i in batch) for batch in log["lessons"]]
    if batching == "stratified":
        assert set(of_first) == {5}
    if batching.endswith("per_stream"):
        assert set(of_first) == {0, 8}
    assert log["scored"]


@pytest.mark.parametrize(
    ("workers", "order", "more"),
    [
        (0, "streaming", {"balance": "ids"}),
        (0, "streaming", {"group": "length"}),
        pytest.param(
            0,
            "streaming",
            {
                "balance": "starts",
                "pieces": {"schedule": "step", "from": 0.25, "to": 1, "over": "20ba", "stages": 2},
            },
            marks=pytest.mark.slow,
        ),
        pytest.param(3, "lazy", {}, marks=pytest.mark.slow),
    ],
)
def test_four_ranks_train_on_the_lessons_of_one(tmp_path, workers, order, more):
    """Same global batches on 1 and 4 ranks; every rank makes as many scoring passes and lessons as
    the others.
    """
    data = {
        "local": write_ids(tmp_path / "data", 16 * 20),
        "shuffle": True,
        "num_canonical_nodes": 4,
    }
    data |= {"window": 5, "gap": 1, "partition_algo": "relaxed", "order": order}
    teacher = {"select": "hard", "keep": 0.4, **more}
    alone = run_epochs(make_loader(data | {"batch_size": 16}, {}, teacher), 2)
    spec = {
        "data": data | {"batch_size": 4},
        "loader": {"num_workers": workers},
        "teacher": teacher,
        "epochs": 2,
    }
    logs = run_ranks(tmp_path, 4, spec)
    assert len({len(log["lessons"]) for log in logs}) == 1
    assert len({len(log["scored"]) for log in logs}) == 1
    assert all(log["choices"] == alone["choices"] for log in logs)
    for step, batch in enumerate(alone["lessons"]):
        assert sorted(i for log in logs for i in log["lessons"][step]) == sorted(batch)
