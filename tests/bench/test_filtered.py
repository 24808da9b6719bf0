"""A corpus that was filtered before training."""

from pathlib import Path

import numpy as np
from streaming import StreamingDataset
from target_corpora import is_high, mixed, write_kinds

from attent_stream.bench.filtered import filtered_folder, write_filtered
from attent_stream.bench.prepare import Prepared


def test_what_is_like_the_target_is_kept(tmp_path):
    folder = write_kinds(tmp_path / "stream", mixed(200))
    data = Prepared(
        folder=tmp_path,
        train={"all": tmp_path / "stream"},
        held_out={},
        samples=200,
        source="s",
        target={"high": Path(write_kinds(tmp_path / "target", "h" * 40, seed=5))},
    )
    made = filtered_folder(data, 0.2)
    write_filtered(data, 0.2)
    written = (made / "index.json").stat().st_mtime_ns
    write_filtered(data, 0.2)
    assert (made / "index.json").stat().st_mtime_ns == written

    def tokens(path):
        dataset = StreamingDataset(local=str(path), batch_size=1, shuffle=False)
        return [tuple(dataset[i]["tokens"]) for i in range(dataset.num_samples)]

    every, kept = tokens(folder), tokens(made)
    assert len(kept) == 40 and [one for one in every if one in set(kept)] == kept
    assert is_high(np.array(kept)).mean() > 0.9
