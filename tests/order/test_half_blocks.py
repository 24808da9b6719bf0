"""Blocks found by arithmetic, against the arrays of ``lazy_samples.py``."""

import numpy as np
import pytest

from attent_stream.order.half_blocks import HalfBlocks
from attent_stream.order.lazy_samples import Samples, Shuffle, Units


@pytest.mark.parametrize("block_size", [1, 2, 3, 40, 333, 5000])
@pytest.mark.parametrize("canonical", [1, 3, 8])
@pytest.mark.parametrize("epoch", [0, 5])
def test_blocks_are_those_of_few_shards(block_size, canonical, epoch):
    sizes = np.full(60, 50)
    units = Units.of_shards(np.cumsum(sizes) - sizes, sizes, sizes, 1)
    shuffle = Shuffle(algo="py1e", seed=3, epoch=epoch, block_size=block_size)
    samples = Samples(units, canonical, shuffle)
    found = HalfBlocks(borders=samples.borders, shuffle=shuffle)
    at = np.arange(samples.total)
    for half, blocks in zip((1, 0), samples._blocks, strict=True):
        begin, end, key = found.find(at, half)
        block = np.searchsorted(blocks.edges, at, side="right") - 1
        assert (begin == blocks.edges[block]).all() and (end == blocks.edges[block + 1]).all()
        # A key for each block
        assert len(np.unique(key)) == len(np.unique(begin)) == len(blocks.edges) - 1
