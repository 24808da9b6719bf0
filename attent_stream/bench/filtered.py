"""A corpus that was filtered before training: what DSIR (Xie et al., NeurIPS 2023) does."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from streaming import MDSWriter, StreamingDataset

from attent_stream.base.gather import ALONE
from attent_stream.bench.prepare import Prepared
from attent_stream.score.ngrams import ngram_counts, ngram_ids
from attent_stream.score.resemblance import Resemblance
from attent_stream.window.selectors import soft

FILTERED = "filtered"
_TEMPERATURE, _SEED = 0.3, 17
_AT_ONCE = 256  # samples


def filtered_folder(data: Prepared, keep: float) -> Path:
    """Where ``write_filtered`` writes."""
    return data.folder / f"{FILTERED}-{keep:g}"


def write_filtered(data: Prepared, keep: float) -> None:
    """Write the part of the training text that is most like the target, unless it exists.

    The same score and choice as AtteNT's by default, but the corpus is read and counted as a whole
    before training, and the choice is over all of it.

    Args:
        data: A task's data, with a target.
        keep: Share of the samples to keep. A file beside the folder has the seconds that it took.
    """
    folder = filtered_folder(data, keep)
    if folder.is_dir():
        return
    begin, half = time.perf_counter(), folder.with_name(folder.name + ".half")
    shutil.rmtree(half, ignore_errors=True)
    (source,) = data.train.values()
    samples = _tokens(source)
    target = sum(
        ngram_counts(ids) for place in data.target.values() for ids in _ids(_tokens(place))
    )
    likeness = Resemblance([target], [1.0], ALONE)
    every = _ids(samples)
    for ids in every:
        likeness.count(ids)
    likeness.advance()
    scores = np.concatenate([likeness.scores(ids) for ids in every])
    count = round(keep * len(samples))
    kept = soft(scores, len(samples), count, np.random.default_rng(_SEED), _TEMPERATURE)
    columns = {"tokens": f"ndarray:{samples.dtype}:{samples.shape[1]}"}
    with MDSWriter(out=str(half), columns=columns, size_limit="1mb", progress_bar=False) as writer:
        for sample in samples[kept]:
            writer.write({"tokens": sample})
    took = {"seconds": time.perf_counter() - begin}
    folder.with_name(f"{folder.name}.json").write_text(json.dumps(took), "utf-8")
    half.rename(folder)


def _tokens(folder: Path) -> np.ndarray:
    """All samples of a folder, shape (n, T)."""
    dataset = StreamingDataset(local=str(folder), batch_size=1, shuffle=False)
    return np.stack([dataset[i]["tokens"] for i in range(dataset.num_samples)])


def _ids(tokens: np.ndarray) -> list[np.ndarray]:
    rows = torch.from_numpy(tokens.astype(np.int64))
    return [ngram_ids({"input_ids": some}) for some in rows.split(_AT_ONCE)]
