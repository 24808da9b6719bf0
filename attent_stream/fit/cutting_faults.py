"""Whether a run's samples can be cut into pieces and balanced, seen on a few before any lesson is
made.
"""

from collections.abc import Callable, Set
from typing import Any

from composer.utils import dist

from attent_stream.arrange.cutting import cuttable
from attent_stream.arrange.features import FEATURES
from attent_stream.arrange.pieces import pieces_at
from attent_stream.base.errors import ScoreError, in_words
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.teach.teacher import TeacherSettings


def cutting_faults(
    loader: TeachingDataLoader, teacher: TeacherSettings, asked: Set[str]
) -> dict[str, str]:
    """Why lessons cannot be balanced or cut as a teacher would; all ranks call this together.

    Args:
        loader: Has the samples and the collate function.
        teacher: What is to be done with them.
        asked: Which of ``balance`` and ``seq_len`` the user asked for by name. Where these few
            samples cannot be collated it is left to the workers, who see whole batches; else that
            is a reason.

    Returns:
        Reasons by ``balance`` and ``seq_len``, those of them that cannot be done.
    """
    checks: dict[str, Callable[[Any], Any]] = {}
    if teacher.balance is not None:
        checks["balance"] = FEATURES[teacher.balance]
    if teacher.seq_len.some:
        checks["seq_len"] = lambda batch: cuttable(batch, pieces_at(teacher.seq_len.least))
    if not checks:
        return {}
    faults: dict[str, str] = {}
    try:
        batch = loader.glance()
    except Exception as error:
        faults = {name: in_words(error) for name in checks if name not in asked}
    else:
        for name, check in checks.items():
            try:
                check(batch)
            except ScoreError as error:
                faults[name] = str(error)
    every = dist.all_gather_object(faults)
    return {name: found[name] for name in checks for found in reversed(every) if name in found}
