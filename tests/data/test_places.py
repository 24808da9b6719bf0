"""Where samples lie, in words. Oracle: the files of the shards."""

import functools
from pathlib import Path

import numpy as np
import pytest
from corpora import write_ids
from streaming import Stream, StreamingDataset

from attent_stream.data.places import collate_fault, collate_name, places


@pytest.fixture
def dataset(tmp_path):
    streams = [Stream(local=write_ids(tmp_path / name, 64)) for name in ("one", "two")]
    return StreamingDataset(streams=streams, batch_size=4)


def test_each_sample_is_told_once_with_its_shard(dataset):
    starts = dataset.sample_offset_per_shard
    ids = [int(starts[1]), 0, 1, 0, int(starts[-1]) + 2]
    files = [
        str(Path(dataset.streams[stream].local) / dataset.shards[shard].file_pairs[0][0].basename)
        for stream, shard in ((0, 0), (0, 1), (1, len(starts) - 1))
    ]
    assert places(dataset, ids) == (
        f"samples 0, 1 (stream 0, {files[0]}); {starts[1]} (stream 0, {files[1]}); "
        f"{starts[-1] + 2} (stream 1, {files[2]})"
    )
    assert places(dataset, np.array([3])) == f"sample 3 (stream 0, {files[0]})"


class Collate:
    def __call__(self, samples):
        return samples

    def method(self, samples):
        return samples


@pytest.mark.parametrize(
    ("collate", "name"),
    [
        (write_ids, "write_ids"),
        (Collate(), "Collate"),
        (Collate().method, "Collate.method"),
        (functools.partial(functools.partial(Collate()), 3), "Collate"),
        (len, "len"),
    ],
)
def test_a_collate_function_has_a_name(collate, name):
    assert collate_name(collate) == name


def test_what_it_raised_is_one_sentence():
    told = collate_fault(Collate(), ValueError("two\n  lines"), "sample 3")
    assert told.startswith("collate function 'Collate' raised ValueError on rank 0 (")
    assert told.endswith(") for sample 3: two lines")
