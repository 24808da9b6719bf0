"""AtteNT in a Composer Trainer: what it leaves alone, what it counts, what it refuses."""

import copy

import numpy as np
import pytest
import torch
from composer.models import ComposerClassifier
from corpora import write_tokens
from fits import BATCH, LENGTH, VOCAB, Watched, fit, make_loader, make_model

from attent_stream import AtteNT, TeachingDataLoader, TeachingDataset
from attent_stream.corpus.batches import TokenCollator


@pytest.fixture
def folder(tmp_path):
    return write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)


def test_keep_one_trains_as_plain(folder):
    plain, _, _ = fit(make_loader(folder), [], make_model(0.1), seed=1)
    taught, _, _ = fit(
        make_loader(folder), [AtteNT(select="hard", keep=1.0)], make_model(0.1), seed=1
    )
    assert taught.tokens == plain.tokens
    assert taught.losses == plain.losses


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


def test_batchnorm_dropout_and_classifier(tmp_path):
    """(input, target) batches; buffers, modes and random numbers are checked by Watched."""
    from streaming import MDSWriter

    rng = np.random.default_rng(0)
    with MDSWriter(
        out=str(tmp_path / "images"), columns={"x": "ndarray:float32:3,8,8", "y": "int"}
    ) as writer:
        for i in range(64):
            writer.write({"x": rng.normal(size=(3, 8, 8)).astype(np.float32), "y": i % 5})

    def collate(samples):
        return torch.stack([torch.from_numpy(s["x"].copy()) for s in samples]), torch.tensor(
            [s["y"] for s in samples]
        )

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.BatchNorm2d(8),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(288, 5),
    )
    model = ComposerClassifier(module, num_classes=5)
    model.module[1].eval()  # a frozen norm stays in eval mode
    dataset = TeachingDataset(local=str(tmp_path / "images"), batch_size=4, window=4)
    loader = TeachingDataLoader(dataset, batch_size=4, collate_fn=collate)
    algorithm = Watched(select="hard", keep=0.5)
    watch, memory, _ = fit(loader, [algorithm], model)
    assert algorithm.taught == len(watch.losses)
    assert len(watch.losses) == 4 + 3 * 2
    assert memory.data["attent/candidates"][-1][1] == 48


def test_record_fills_the_ledger_from_the_training_forward(folder):
    """attent_simple: the first epoch's own losses, no scoring pass ever."""
    algorithm = AtteNT(
        select="hard", keep=0.5, score="loss", interval="1dur", warmup="1ep", record="warmup"
    )
    watch, memory, trainer = fit(
        make_loader(folder, num_workers=2),
        [algorithm],
        max_duration="3ep",
        device_train_microbatch_size=3,
    )
    assert memory.data["attent/candidates"][-1][1] == 0
    assert len(watch.losses) == 25 + 2 * 13
    recalled = algorithm._memory.ledger.recall(np.arange(100))
    assert np.isfinite(recalled).all()
    assert [int(v) for _, v in memory.data["attent/dropped"]][-1] == 2 * 48


def test_epoch_length_is_told(folder):
    loader = make_loader(folder)
    _, _, trainer = fit(loader, [AtteNT(select="hard", keep=0.5)], max_duration="2ep")
    per_epoch = 4 + 5 * 2 + 1
    assert int(trainer.state.dataloader_len) == per_epoch
    assert int(trainer.state.timestamp.batch) == 2 * per_epoch


def test_callable_score(folder):
    def length(model, batch):
        return batch["input_ids"].float().mean(1)

    watch, _, _ = fit(make_loader(folder), [AtteNT(select="hard", keep=0.5, score=length)])
    plain, _, _ = fit(make_loader(folder), [])
    mean = [np.mean(batch) for batch in watch.tokens]
    assert np.mean(mean) > np.mean([np.mean(batch) for batch in plain.tokens]) + 0.5


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"select": "hard", "keep": 0}, "keep must be"),
        ({"select": "hard", "keep": 1.5}, "keep must be"),
        ({"score": "los"}, "score must be one of"),
        ({"select": "top"}, "select must be one of"),
        ({"record": "sometimes"}, "record must be one of"),
        (
            {"record": "always", "score": lambda model, batch: None},
            "needs a score that the training forward gives",
        ),
        ({"interval": "often"}, "interval"),
        ({"warmup": "3 parsecs"}, "parsecs"),
        ({"score_batch": 0}, "score_batch"),
        ({"temperature": -1}, "temperature"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        AtteNT(**kwargs)


def test_wrong_loader(folder):
    from streaming import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(local=folder, batch_size=BATCH)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, collate_fn=TokenCollator())
    with pytest.raises(TypeError, match="AtteNT needs a TeachingDataLoader"):
        fit(loader, [AtteNT()])


def test_batch_without_labels(folder):
    class Unlabelled(TokenCollator):
        def __call__(self, samples):
            batch = super().__call__(samples)
            batch["targets"] = batch.pop("labels")
            return batch

    dataset = TeachingDataset(local=folder, batch_size=BATCH, window=4)
    loader = TeachingDataLoader(dataset, batch_size=BATCH, collate_fn=Unlabelled())
    with pytest.raises(ValueError, match="no tensor 'labels'"):
        fit(loader, [AtteNT(select="hard", keep=0.5)])


def test_anneal_in_another_unit_than_the_duration(folder):
    with pytest.raises(ValueError, match="anneal"):
        fit(make_loader(folder), [AtteNT(anneal="100tok")], max_duration="1ep")
