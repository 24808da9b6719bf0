"""Where the data set goes on at the start of a fit, which Composer leaves to us in two cases."""

import logging
from typing import Any

from composer import State

from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.data.dataset import TeachingDataset

log = logging.getLogger(__name__)


def find_place(
    state: State,
    loader: TeachingDataLoader,
    fitted: TeachingDataset | None,
    left_at: dict[str, Any] | None,
) -> None:
    """Let the data set go on where the run stands.

    Args:
        state: The Trainer's.
        loader: The train loader.
        fitted: The data set of an earlier fit in this process, or None.
        left_at: The state of that data set when the fit ended; None if it did not end.
    """
    time, dataset = state.timestamp, loader.dataset
    if int(time.batch) == 0:
        if fitted is not dataset:
            loader.forget_peeks()
        return
    if fitted is dataset and left_at is not None and loader.peeked:
        dataset.load_state_dict(left_at)
    elif fitted is dataset:
        if int(time.batch_in_epoch) > 0:
            dataset.continue_epoch(int(time.sample_in_epoch))
    elif (
        fitted is None
        and not dataset.resumes
        and not dataset.return_to_loaded(int(time.sample_in_epoch))
    ):
        log.warning(
            "The checkpoint has no state of the data set: training goes on after its %d samples of "
            "epoch %d, as if all samples before had been trained on.",
            int(time.sample_in_epoch),
            int(time.epoch),
        )
        dataset.start_at(int(time.epoch), int(time.sample_in_epoch))
    # Composer would otherwise read through the epochs and batches up to here.
    state.dataset_resumption["train"] = True
