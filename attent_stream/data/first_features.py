"""Features of an epoch's first window, which the training process reads before training."""

import numpy as np
import torch
from numpy.typing import NDArray

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.base.errors import ScoreError
from attent_stream.base.gather import Pick
from attent_stream.base.watch import here
from attent_stream.data.candidates import ToDevice
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.data.places import places
from attent_stream.data.tagged_collate import row_each
from attent_stream.teach.teacher import FirstFeatures
from attent_stream.window.decision import Decision

_MOST = 1 << 12  # samples of a rank: training waits for them


def open_first_features(loader: TeachingDataLoader, to_device: ToDevice) -> FirstFeatures | None:
    """What reads the features of first windows; None if training would wait for too many samples.

    Args:
        loader: Reads and collates.
        to_device: Moves a tensor to where torch.distributed can gather it.
    """
    dataset = loader.dataset
    if dataset.window * dataset.batch_size > _MOST:
        return None

    def read(
        ids: NDArray[np.int64], arrangements: Arrangements, decision: Decision, pick: Pick
    ) -> NDArray[np.float16]:
        found = []
        for row in ids:
            try:
                features = arrangements.features(loader.collated(row), decision)
                found.append(row_each(features, len(row)))
            except ScoreError as error:
                raise ScoreError(f"{error}; on {here()} for {places(dataset, row)}") from error
        return dataset.gathered(to_device(torch.from_numpy(np.stack(found))), pick)

    return read
