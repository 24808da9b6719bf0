"""Whether a run's samples can be arranged, seen on a few of them before training."""

from collections.abc import Set

from composer.utils import dist

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.base.errors import ScoreError, in_words
from attent_stream.data.dataloader import TeachingDataLoader


def arrange_faults(
    loader: TeachingDataLoader, arrangements: Arrangements, asked: Set[str]
) -> dict[str, str]:
    """Why arrangements cannot be carried out; all ranks call this together.

    Args:
        loader: Has the samples and the collate function.
        arrangements: What is to be done with them.
        asked: Names that the user asked for. If so few samples cannot be collated, these are left
            to the workers, who see whole batches.

    Returns:
        Reasons by name.
    """
    if not arrangements.names:
        return {}
    faults: dict[str, str] = {}
    entries = [entry for entry in arrangements.entries if entry.on]
    try:
        batch = loader.glance()
    except Exception as error:
        faults = {entry.name: in_words(error) for entry in entries if entry.name not in asked}
    else:
        for entry in entries:
            try:
                entry.made.check(batch)
            except ScoreError as error:
                faults[entry.name] = str(error)
    of_ranks = dist.all_gather_object(faults)
    # The first rank's reason counts.
    return {name: reason for found in reversed(of_ranks) for name, reason in found.items()}
