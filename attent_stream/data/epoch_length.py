"""The number of batches in epochs that are yet to come."""

from attent_stream.data.dataset import TeachingDataset
from attent_stream.teach.lengths import expected_rows, most_rows
from attent_stream.teach.teacher import Teacher


def longest_epoch(teacher: Teacher | None, dataset: TeachingDataset, plain: int, done: int) -> int:
    """Forecast the largest number of batches that the next epoch can have.

    If this cannot be foreseen, it is the number without a teacher.

    Args:
        teacher: The loader's teacher.
        dataset: The loader's data set.
        plain: Batches in an epoch without a teacher.
        done: Batches of that epoch that the teacher's clock has already counted, after a resume
            within it.
    """
    if teacher is None or not teacher.foreseeable:
        return plain
    full = len(dataset) // dataset.batch_size
    most = most_rows(teacher, full, dataset.window, dataset.coming_epoch, done)
    return most + plain - full


def expected_batches(
    teacher: Teacher | None,
    dataset: TeachingDataset,
    plain: int,
    *,
    epochs: int,
    done: int,
    recorded: bool,
) -> int:
    """Estimate the total number of batches in the next epochs.

    Args:
        teacher: See ``longest_epoch``.
        dataset: See ``longest_epoch``.
        plain: See ``longest_epoch``.
        epochs: Number of epochs.
        done: See ``longest_epoch``.
        recorded: Whether losses of training forwards are recorded in the ledger.
    """
    if teacher is None or epochs <= 0:
        return epochs * plain
    # Whether epochs have nearly the same samples.
    same = plain * dataset.row_size >= 0.9 * dataset.num_samples
    again = same and teacher.will_remember(recorded)
    full, first = len(dataset) // dataset.batch_size, dataset.coming_epoch
    rows = expected_rows(teacher, full, dataset.window, range(first, first + epochs), done, again)
    return rows + epochs * (plain - full)
