"""The samples of a target."""

import numpy as np
import pytest
import torch
from corpora import write_ids
from streaming import Stream
from target_corpora import write_kinds

from attent_stream import TeachingDataset
from attent_stream.corpus.batches import TokenCollator
from attent_stream.data.target import open_target


def opened(tmp_path, *sizes, like="tokens"):
    folders = [write_kinds(tmp_path / str(i), "h" * size, seed=i) for i, size in enumerate(sizes)]
    train = tmp_path / "train"
    if not train.exists():
        (write_kinds(train, "lh" * 8) if like == "tokens" else write_ids(train, 16))
    dataset = TeachingDataset(local=str(train), batch_size=4)
    return open_target([Stream(local=folder) for folder in folders], dataset)


def test_a_tenth_is_kept_aside_and_ranks_share_the_rest(tmp_path):
    samples = opened(tmp_path, 30, 45)
    assert sorted(np.concatenate([*samples.shown, samples.aside])) == list(range(75))
    assert [len(ids) for ids in samples.shown] == [27, 41] and len(samples.aside) == 7
    assert (samples.shown[0] < 30).all() and (samples.shown[1] >= 30).all()
    state = torch.get_rng_state()
    whole = samples.batches(samples.shown[1], TokenCollator(), size=8)
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(batch["input_ids"]) for batch in whole] == [8, 8, 8, 8, 8, 1]
    rows = torch.cat([batch["input_ids"] for batch in whole])
    assert rows[3].tolist() == samples.dataset[samples.shown[1][3]]["tokens"].tolist()
    parts = [
        samples.batches(samples.shown[1], TokenCollator(), size=8, rank=rank, ranks=3)
        for rank in range(3)
    ]
    for rank, part in enumerate(parts):
        mine = torch.cat([batch["input_ids"] for batch in part])
        assert torch.equal(mine, rows[rank::3])


def test_a_large_target_is_read_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr("attent_stream.data.target.LARGEST", 32)
    samples = opened(tmp_path, 90)
    read = np.sort(np.concatenate([*samples.shown, samples.aside]))
    assert len(read) == 32 and read[0] == 0 and read[-1] == 89 and np.diff(read).max() <= 4


def test_a_target_that_says_little_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected at least 20 samples, .* got 19"):
        opened(tmp_path, 19)


def test_other_columns_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"the train data's columns \(difficulty, id\), got tokens"
    ):
        opened(tmp_path, 30, like="ids")
