"""Samples that were read of late are not read again, and nobody sees it."""

from collections import Counter

import numpy as np
import pytest
from corpora import write_ids, write_tokens
from hypothesis import given
from hypothesis import strategies as st
from streaming import StreamingDataset

from attent_stream import AtteNT, TeachingDataset
from attent_stream.data.sample_cache import _FIXED, _SAMPLE, SampleCache

from fits import LENGTH, VOCAB, fit, make_loader  # isort: skip


def tokens(count):
    return np.frombuffer(bytes(range(count)), np.uint8)


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 6))
def test_it_holds_what_was_read_last(reads, room):
    size = _SAMPLE + _FIXED + 8
    cache, last = SampleCache(room * size), []
    for sample_id in reads:
        found = cache.get(sample_id)
        assert (found is not None) == (sample_id in last)
        if found is None:
            cache.put(sample_id, {"tokens": tokens(8)})
            last = last[-room + 1 :] if room > 1 else []
        else:
            last.remove(sample_id)
        last.append(sample_id)


def test_a_reader_cannot_change_what_the_next_one_gets():
    cache = SampleCache()
    cache.put(1, {"tokens": tokens(4), "label": 3})
    first = cache.get(1)
    first["label"] = 7
    del first["tokens"]
    assert cache.get(1)["label"] == 3 and cache.get(1)["tokens"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "sample", [{"a": np.zeros(3)}, {"a": [1]}, {"a": object()}, [1], {"a": np.array([{}], object)}]
)
def test_what_can_be_changed_is_not_held(sample):
    cache = SampleCache()
    cache.put(1, sample)
    assert cache.get(1) is None


def test_a_sample_that_is_too_large_is_not_held():
    cache = SampleCache(1000)
    cache.put(1, {"a": b"x" * 2000})
    assert cache.get(1) is None


@pytest.mark.parametrize("given", [{}, {"keep": 0.5, "select": "hard", "score": "loss"}])
def test_each_sample_is_read_once_a_window(tmp_path, monkeypatch, given):
    """Pieces and candidates are read once, and what is trained on stays the same."""
    folder = write_tokens(tmp_path / "data", 160, length=LENGTH, vocab=VOCAB)
    reads, runs = Counter(), []
    read = TeachingDataset._read

    def counted(self, sample_id, retry):
        reads[sample_id] += 1
        return read(self, sample_id, retry)

    monkeypatch.setattr(TeachingDataset, "_read", counted)
    for held in (True, False):
        if not held:
            monkeypatch.setattr(SampleCache, "get", lambda self, sample_id: None)
        reads.clear()
        watch, _, _ = fit(make_loader(folder), [AtteNT(**given)], max_duration="1ep")
        runs.append((watch.losses, sum(reads.values())))
    assert runs[0][0] == runs[1][0]
    assert runs[0][1] < 0.8 * runs[1][1]


@pytest.mark.parametrize("limit", [None, "1gb"])
def test_a_sample_is_streamings(tmp_path, limit):
    """With and without Streaming's bookkeeping, and where the shard is not there yet."""
    write_ids(tmp_path / "remote", 64)
    given = {"remote": str(tmp_path / "remote"), "batch_size": 4, "cache_limit": limit}
    stock = StreamingDataset(local=str(tmp_path / "stock"), **given)
    ours = TeachingDataset(local=str(tmp_path / "ours"), **given)
    for sample_id in (0, 63, 17, -1):
        np.testing.assert_equal(ours[sample_id], stock[sample_id])
    for data in (stock, ours):
        with pytest.raises(IndexError):
            data[64]
