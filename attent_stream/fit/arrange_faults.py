"""Whether a run's samples can be arranged, seen on a few of them before training."""

import logging
from collections.abc import Set
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from composer.utils import dist

from attent_stream.arrange.arrangements import Arrangements
from attent_stream.arrange.cutting import CollatesToCut
from attent_stream.arrange.group import Group
from attent_stream.arrange.sort import rows_by_length
from attent_stream.base.errors import ScoreError, in_words
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.fit.run import Run

log = logging.getLogger(__name__)


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
    glance = cache(loader.glance)
    own = isinstance(loader.collate, CollatesToCut)  # makes other batches to cut
    for entry in entries:
        try:
            entry.made.check(glance(to_cut=own and entry.made.cuts))
        except ScoreError as error:
            faults[entry.name] = str(error)
        except Exception as error:
            if entry.name not in asked:
                faults[entry.name] = in_words(error)
    of_ranks = dist.all_gather_object(faults)
    # The first rank's reason counts.
    return {name: reason for found in reversed(of_ranks) for name, reason in found.items()}


class Padding(NamedTuple):
    """How text is padded, as far as a few samples tell.

    Args:
        longest: To the longest sample of a batch.
        end: At the end of samples, to whatever length.
    """

    longest: bool = False
    end: bool = False


def padding(loader: TeachingDataLoader) -> Padding:
    """How text is padded; all ranks call this together."""
    found = Padding()
    with suppress(Exception):  # of the user's collate function: whoever reads the batch will tell
        if not loader.packed:
            found = _padding_of(loader.glance())
    every = dist.all_gather_object(found)
    return Padding(*(all(one) for one in zip(*every, strict=True)))


def _padding_of(batch: Any) -> Padding:
    longest = end = False
    with suppress(ScoreError):
        Group().check(batch)
        longest = True
    with suppress(ScoreError):
        rows = rows_by_length(batch)
        end = bool(rows.lengths.min() < rows.width)
    return Padding(longest, end)


def with_what_can_be_arranged(run: Run, loader: TeachingDataLoader, asked: Set[str]) -> Run:
    """The run without the arrangements of its default that cannot be carried out; all ranks call
    this together.

    Args:
        run: The run.
        loader: Has the samples and the collate function.
        asked: Names that the user asked for.

    Raises:
        ValueError: One of these cannot be carried out.
    """
    arrangements = run.teacher.arrangements
    faults = arrange_faults(loader, arrangements, asked)
    for name in faults.keys() & asked:
        raise ValueError(faults[name])
    if not faults:
        return run
    if dist.get_global_rank() == 0:
        reasons = [f"{name} is not used by default here: {why}" for name, why in faults.items()]
        log.warning("%s", "; ".join(reasons))
    left = arrangements.without(*faults)
    return replace(run, teacher=replace(run.teacher, arrangements=left))
