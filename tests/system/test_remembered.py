"""Runs that choose by what they remember, and score nothing."""

import pytest
from corpora import write_tokens
from fits import LENGTH, VOCAB, fit
from fits import make_loader as make_lm_loader

from attent_stream import AtteNT


@pytest.mark.parametrize("per", ["sample", "shard", "stream"])
def test_a_run_that_only_remembers(tmp_path, per):
    folder = write_tokens(tmp_path / "tokens", 100, length=LENGTH, vocab=VOCAB)
    algorithm = AtteNT(score="remembered", select="soft", keep=0.5, remember={"per": per})
    watch, memory, _ = fit(make_lm_loader(folder), [algorithm], max_duration="3ep")
    assert memory.data["attent/candidates"][-1][1] == 0
    kept = {epoch: [] for epoch in range(3)}
    for time, value in memory.data["attent/keep"]:
        kept[int(time.epoch)].append(value)
    if per == "sample":
        # And the first epoch was not cut off
        assert set(kept[0]) == {1.0} and len(watch.losses) >= 25 + 2 * 13
    assert set(kept[1]) == set(kept[2]) == {0.5, 1.0}  # of a window of one row nothing is dropped
    with pytest.raises(ValueError, match="'remembered' needs remember.when, got 'never'"):
        AtteNT(score="remembered", remember="never")
