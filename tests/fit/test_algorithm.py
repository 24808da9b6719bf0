"""AtteNT in a Composer Trainer: what it leaves alone, and what it refuses."""

import numpy as np
import pytest
import torch
from composer.models import ComposerClassifier
from corpora import write_tokens
from fits import BATCH, LENGTH, VOCAB, Watched, fit, make_loader, make_model, make_rotary

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


def test_wrong_loader(folder):
    from streaming import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(local=folder, batch_size=BATCH)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, collate_fn=TokenCollator())
    with pytest.raises(TypeError, match="AtteNT needs a TeachingDataLoader"):
        fit(loader, [AtteNT()])


def test_the_default_in_a_single_pass(folder):
    """It trains as with all of it written out, and with that off as plain streaming does."""
    given = {"max_duration": "1ep", "seed": 1}
    plain, _, _ = fit(make_loader(folder), [], make_rotary(), **given)
    pieces = {"schedule": "step", "from": 0.25, "to": 1.0, "over": "0.8dur", "stages": 2}
    runs = []
    for asked in ({}, {"arrange": {"balance": "tokens", "pieces": pieces}}, {"arrange": "none"}):
        algorithm = AtteNT(**asked)
        runs.append(fit(make_loader(folder), [algorithm], make_rotary(), **given)[0])
        assert algorithm.fit.teacher.ledger is None  # nothing is scored or remembered
    assert runs[0].losses == runs[1].losses != plain.losses
    assert runs[2].losses == plain.losses


def test_where_positions_are_learnt_samples_stay_whole(folder):
    """By default; pieces that are asked for are made."""
    runs = [
        fit(make_loader(folder), [AtteNT(**asked)], max_duration="1ep", seed=1)[0]
        for asked in ({}, {"arrange": {"balance": "tokens"}}, {"arrange": {"pieces": 0.5}})
    ]
    assert runs[0].losses == runs[1].losses
    assert {len(row) for batch in runs[0].tokens for row in batch} == {LENGTH}
    assert {len(row) for batch in runs[2].tokens for row in batch} == {LENGTH // 2}


def test_where_few_weights_are_trained_nothing_is_dropped(folder):
    """It trains as plain streaming does where text is seen again; a choice that is asked for is
    made.
    """
    lines = []
    for asked in (None, {}, {"remember": "always"}):
        model = make_rotary()
        for name, weight in model.named_parameters():
            weight.requires_grad_("norm" in name)
        algorithms = [] if asked is None else [AtteNT(**asked)]
        seen, memory, _ = fit(make_loader(folder), algorithms, model, max_duration="60ba", seed=1)
        lines.append(seen.losses)
        for algorithm in algorithms:
            assert algorithm.fit.run.told.startswith("few of the model's weights") == (asked == {})
    assert lines[0] == lines[1] != lines[2]
    assert min(keep for _, keep in memory.data["attent/keep"]) < 0.6


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"keep": 0.7, "score": "residual", "temperature": 2.0, "anneal": "9ba"},
        {"remember": {"detrend": False}},
    ],
)
def test_the_default_where_text_is_seen_again(folder, asked):
    """As with all of it written out: soft by remembered losses, balanced. What is asked for
    stays.
    """
    remember = {"when": "always", "detrend": True} | asked.get("remember", {})
    # Candidates are not scored in the first epoch
    written = {"interval": "1dur", "select": "soft", "warmup": "1ep"}
    written["arrange"] = {"balance": "tokens"}
    default = {"keep": 0.5, "score": "loss", "temperature": 0.5}
    runs = []
    for given in (asked, written | default | asked | {"remember": remember}):
        algorithm = AtteNT(**given)
        made = fit(make_loader(folder), [algorithm], max_duration="60ba", seed=1)
        runs.append((*made[:2], algorithm))
    (got, memory, algorithm), (want, _, _) = runs
    assert got.tokens == want.tokens and got.losses == want.losses
    kept = [keep for _, keep in memory.data["attent/keep"]]
    assert min(kept) == pytest.approx(asked.get("keep", 0.5), abs=0.1) and max(kept) == 1
    algorithm.fit.flush()
    assert np.isfinite(algorithm.fit.teacher.ledger.recall(np.arange(96))).mean() > 0.9


def test_the_default_of_a_classifier(folder):
    """Plain streaming, also where samples are seen again."""

    def collate(samples):
        tokens = np.stack([sample["tokens"] for sample in samples]).astype(np.float32)
        tokens = torch.from_numpy(tokens)
        return tokens / VOCAB - 0.5, (tokens[:, 0] % 5).long()

    def losses(algorithms):
        torch.manual_seed(0)
        model = ComposerClassifier(torch.nn.Linear(LENGTH, 5), num_classes=5)
        loader = make_loader(folder, collate_fn=collate)
        return fit(loader, algorithms, model, max_duration="2ep", seed=1)[0].losses

    algorithm = AtteNT()
    assert losses([algorithm]) == losses([])
    assert algorithm.fit.teacher.ledger is None and algorithm.fit.recorder is None
