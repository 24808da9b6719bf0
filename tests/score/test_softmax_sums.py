"""Merged sums of tiles, against the softmax of all logits in float64."""

import pytest
import torch

from attent_stream.model.reference import token_scores
from attent_stream.score.chunked import all_sums
from attent_stream.score.softmax_sums import SoftmaxSums, merge


@pytest.mark.parametrize("cuts", [(17,), (5, 12), (1, 1, 15)])
def test_merged_tiles_are_the_whole_softmax(cuts):
    z = torch.randn(6, sum(cuts), generator=torch.Generator().manual_seed(0)) * 4
    labels = torch.tensor([0, 16, 3, -100, 8, 2])
    index = labels.clamp(min=0)[:, None]
    others = z.scatter(1, index, float("-inf"))
    tiles = [all_sums(tile, None) for tile in others.split(cuts, dim=1)]
    stacked = SoftmaxSums(*(torch.stack(sums) for sums in zip(*tiles, strict=True)))
    got = merge(stacked, z.gather(1, index)[:, 0], labels)
    for mine, exact in zip(got, token_scores(z.double(), labels), strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=1e-5, atol=1e-6)
