"""Candidates are scored, and windows are chosen, before each batch. Oracles: the training loop
written out, counts.
"""

import copy

import numpy as np
import pytest
import torch
from corpora import write_tokens
from fits import BATCH, LENGTH, VOCAB, fit, make_loader, make_model

from attent_stream import AtteNT, TeachingDataset
from attent_stream.corpus.batches import TokenCollator


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)


@pytest.mark.parametrize("score", ["residual", "loss"])
@pytest.mark.parametrize("microbatch", [4, 3, 1])
def test_selection_is_what_the_model_says(folder, score, microbatch):
    """Oracle: the training loop written out, with the scores computed in float64 from the model at
    the right steps.
    """
    loader = make_loader(folder, window=4)
    watch, memory, trainer = fit(
        loader,
        [AtteNT(select="hard", keep=0.5, score=score)],
        max_duration="1ep",
        device_train_microbatch_size=microbatch,
    )
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stock = TeachingDataset(local=folder, batch_size=BATCH, shuffle=True, num_canonical_nodes=1)
    rows = [[s["tokens"] for s in stock]][0]
    rows = [np.stack(rows[i : i + BATCH]) for i in range(0, 100, BATCH)]
    windows = [rows[i : i + 4] for i in range(0, 24, 4)] + [rows[24:]]
    lessons = list(windows[0])
    steps = []
    for index in range(len(windows)):
        candidates = windows[index + 1] if index + 1 < len(windows) else []
        count = max(1, round(len(candidates) * 0.5)) if candidates else 0
        skip = count == len(candidates)
        due = max(0, len(lessons) - 2)
        before = [min((c + 1) * (due + 1) // len(candidates), due) for c in range(len(candidates))]
        scores = {}
        for number, lesson in enumerate(lessons):
            for c, row in enumerate(candidates):
                if before[c] == number and not skip:
                    scores[c] = float64_scores(model, row, score)
            steps.append(lesson.tolist())
            tokens = torch.from_numpy(lesson.astype(np.int64))
            optimizer.zero_grad()
            model.model(input_ids=tokens, labels=tokens).loss.backward()
            optimizer.step()
        if skip:
            lessons = list(candidates)
            continue
        flat = np.concatenate(candidates)
        values = np.concatenate([scores[c] for c in range(len(candidates))])
        kept = np.sort(np.argsort(-values, kind="stable")[: count * BATCH])
        lessons = [flat[kept[i : i + BATCH]] for i in range(0, len(kept), BATCH)]
    assert watch.tokens == steps
    assert int(trainer.state.timestamp.sample) == len(steps) * BATCH
    assert int(trainer.state.timestamp.token) == len(steps) * BATCH * LENGTH
    assert memory.data["attent/candidates"][-1][1] == 20 * BATCH


def float64_scores(model, row, score):
    model = copy.deepcopy(model).double().eval()
    tokens = torch.from_numpy(row.astype(np.int64))
    with torch.no_grad():
        logits = model.model(input_ids=tokens).logits[:, :-1]
    target = tokens[:, 1:]
    p = logits.softmax(-1)
    if score == "loss":
        return -p.gather(-1, target[..., None]).log()[..., 0].mean(1).numpy()
    return (p - torch.nn.functional.one_hot(target, VOCAB)).square().sum(-1).mean(1).sqrt().numpy()


def test_metrics(folder):
    _, memory, _ = fit(make_loader(folder), [AtteNT(select="hard", keep=0.5)])
    last = {
        name: values[-1][1] for name, values in memory.data.items() if name.startswith("attent/")
    }
    assert {
        "attent/keep",
        "attent/kept_q50",
        "attent/dropped_q50",
        "attent/seconds",
        "attent/share_of_step",
    } <= set(last)
    assert last["attent/lessons"] + last["attent/dropped"] == 100
    assert last["attent/nonfinite"] == 0
    for name in ("attent/kept_q50", "attent/dropped_q50"):
        assert len(memory.data[name]) >= 5
    assert all(0 <= share < 1 for _, share in memory.data["attent/share_of_step"])


class Unlabelled:
    """Every seventh sample has no label at all, as a prompt that is longer than the context."""

    def __call__(self, samples):
        batch = TokenCollator()(samples)
        empty = batch["input_ids"][:, 9] % 7 == 0
        batch["labels"][empty] = -100
        return batch


def test_a_sample_without_a_label_is_the_last_to_be_taught(folder, caplog):
    """About 15% have none: too many to be unknown, and the default teaches all the same."""
    watch, memory, trainer = fit(
        make_loader(folder, window=8, collate_fn=Unlabelled()), [AtteNT()], max_duration="4ep"
    )
    seen = np.array([row[9] % 7 == 0 for batch in watch.tokens for row in batch])
    share = seen[:96].mean()
    assert 0.1 < share < 0.25 and memory.data["attent/empty"][-1][1] > 0
    taught = seen[2 * 96 :] if len(seen) > 3 * 96 else seen[96:]
    assert len(seen) < 4 * 96 and taught.mean() < share / 4
    assert sum("have no label" in record.getMessage() for record in caplog.records) == 1
    assert memory.data["attent/nonfinite"][-1][1] == 0
