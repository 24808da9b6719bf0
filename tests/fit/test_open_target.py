"""What a user can do wrong with a target ends in one sentence before the first step."""

import numpy as np
import pytest
import torch
from composer import Evaluator
from corpora import write_ids
from fits import BATCH, fit, make_loader, make_model
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset
from target_corpora import LENGTH, mixed, write_kinds
from torch import nn

from attent_stream import AtteNT
from attent_stream.base.errors import StoreError
from attent_stream.corpus.batches import TokenCollator


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    return write_kinds(tmp_path_factory.mktemp("stream"), mixed(64))


def written(folder, tokens) -> str:
    with MDSWriter(out=str(folder), columns={"tokens": "ndarray:uint16"}) as writer:
        for sample in tokens:
            writer.write({"tokens": np.asarray(sample, np.uint16)})
    return str(folder)


def refused(stream, target, message, error=ValueError, **kwargs):
    loader = make_loader(stream, window=4)
    model, steps = make_model(), []
    model.register_forward_hook(lambda *_: steps.append(1))
    with pytest.raises(error, match=message):
        fit(loader, [AtteNT(target=target)], model, **kwargs)
    assert not steps


def test_a_missing_one(stream, tmp_path):
    refused(stream, str(tmp_path / "none"), "target: expected an MDS data set with an index.json")


def test_an_empty_one(stream, tmp_path):
    folder = write_kinds(tmp_path, "h" * 3)
    refused(stream, folder, "target: expected at least 20 samples, .* got 3")


def test_other_columns(stream, tmp_path):
    refused(stream, write_ids(tmp_path, 40), r"target: .*columns \(tokens\), got difficulty, id")


def test_another_tokenizer(stream, tmp_path):
    tokens = np.full((40, LENGTH), 5)
    tokens[17, 3] = 61
    refused(
        stream,
        written(tmp_path, tokens),
        "target: expected token ids below the model's 61, got 61: tokenize the target with the",
    )


def test_no_text(stream, tmp_path):
    """A collate function whose batches have no token ids."""
    target = write_kinds(tmp_path, "h" * 40)
    loader = make_loader(stream, collate_fn=floats)
    with pytest.raises(ValueError, match="target: score 'resemblance' needs input_ids of shape"):
        fit(loader, [AtteNT(target=target)], Values())


def floats(samples) -> dict:
    return {"x": torch.stack([torch.from_numpy(s["tokens"].astype(np.float32)) for s in samples])}


class Values(torch.nn.Module):
    def __new__(cls):
        from composer.models import ComposerModel

        class Model(ComposerModel):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(LENGTH, 1)

            def forward(self, batch):
                return self.layer(batch["x"])

            def loss(self, outputs, batch):
                return outputs.square().mean()

        return Model()


@pytest.mark.parametrize("remote", [False, True])
def test_what_the_run_is_evaluated_on(stream, tmp_path, remote):
    target = write_kinds(tmp_path / "target", "h" * 40)
    place = {"remote": target, "local": str(tmp_path / "cache")} if remote else {"local": target}
    dataset = StreamingDataset(**place, batch_size=BATCH)
    held = StreamingDataLoader(dataset, batch_size=BATCH, collate_fn=TokenCollator())
    refused(
        stream,
        target,
        "target: .* is the data of the eval loader 'held_out': give other samples as target",
        eval_dataloader=Evaluator(label="held_out", dataloader=held, metric_names=[]),
    )


def test_a_store_that_is_down(stream, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    refused(stream, "s3://bucket/good", "target: .*index", error=(ValueError, StoreError))


def test_a_stream_without_anything_like_it_is_said_once(tmp_path, caplog):
    stream = write_kinds(tmp_path / "stream", "l" * 96)
    target = written(tmp_path / "target", np.full((40, LENGTH), 60))
    fit(make_loader(stream), [AtteNT(target=target)])
    said = [one.message for one in caplog.records if "Nothing in the stream is like" in one.message]
    assert len(said) == 1
    caplog.clear()
    likely = write_kinds(tmp_path / "likely", "l" * 40, seed=3)
    fit(make_loader(stream), [AtteNT(target=likely)])
    assert "Nothing in the stream is like" not in caplog.text
