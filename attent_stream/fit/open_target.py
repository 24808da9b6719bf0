"""What a fit does with a target: read once when the fit starts, and shared by the ranks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from composer import State
from streaming import Stream, StreamingDataset
from torch import Tensor
from torch.nn import Embedding, Module
from transformers import PreTrainedModel

from attent_stream.base.errors import AttentError, in_words
from attent_stream.base.gather import RankGroup, first_fault
from attent_stream.base.stopwatch import Stopwatch
from attent_stream.data.dataloader import TeachingDataLoader
from attent_stream.data.spread import spread_ids
from attent_stream.data.target import TargetSamples, open_target
from attent_stream.fit.alike import SAMPLES
from attent_stream.fit.target import Target, place
from attent_stream.fit.target_scorer import TargetScorer
from attent_stream.score.recipe import TargetScore
from attent_stream.score.views import VIEWS

_LEAST, _HELD = 16, 64  # samples kept aside that are forwarded, and compared with candidates

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class OpenTarget:
    """A target that was opened.

    Args:
        settings: Where it is.
        samples: Its samples.
        held: Collated batches of samples that are kept aside, this rank's share of them. All ranks
            have as many.
        held_samples: Samples of all ranks' ``held``.
    """

    settings: Target
    samples: TargetSamples
    held: tuple[Any, ...]
    held_samples: int


def read_target(target: Target, state: State, loader: TeachingDataLoader) -> OpenTarget:
    """Open a target; all ranks call this together.

    Raises:
        ValueError: It is evaluated on, has other columns or tokens than the train data, or is
            missing.
        StoreError: It cannot be fetched.
    """
    dataset = loader.dataset
    rank, ranks, row_size = dataset.rank, dataset.num_ranks, dataset.row_size

    def streams() -> list[Stream]:
        _check_not_evaluated(target, state)
        return [stream.opened() for stream in target.streams]

    found = _together(streams)  # before the ranks meet in the data set

    def read() -> OpenTarget:
        samples = open_target(found, dataset)
        some = samples.some_aside(min(_HELD, max(row_size, _LEAST)) if ranks < _HELD else ranks)
        # With more ranks than samples, some ranks read the same.
        some = np.resize(some, max(1, len(some) // ranks) * ranks)
        size = loader.batch_size
        held = samples.batches(some, loader.collate, size=size, rank=rank, ranks=ranks)
        for batch in held:
            check_tokens(batch, state.model)
        return OpenTarget(
            settings=target, samples=samples, held=tuple(held), held_samples=len(some)
        )

    return _together(read)


def open_target_scorer(
    target: OpenTarget,
    score: TargetScore,
    loader: TeachingDataLoader,
    state: State,
    known: dict[str, Any],
    spent: Stopwatch,
    *,
    look: bool = False,
) -> TargetScorer | None:
    """Build the scorer of a fit from a target; all ranks call this together.

    Args:
        target: The target.
        score: How samples are compared with it.
        loader: The train loader.
        state: The Trainer's.
        known: State of a checkpoint or of the fit before to go on from; may be empty.
        spent: Measures teaching.
        look: Whether to look at the stream first.

    Returns:
        None where the stream was looked at and is like the target.

    Raises:
        ValueError: The target's samples cannot be scored, or are of another tokenizer.
    """
    group = RankGroup.of_world(state.device.tensor_to_device)
    view, samples, size = VIEWS.get(score.view), target.samples, loader.batch_size

    def views(ids: np.ndarray, rank: int, ranks: int) -> list[np.ndarray]:
        found = []
        for batch in samples.batches(ids, loader.collate, size=size, rank=rank, ranks=ranks):
            check_tokens(batch, state.model)
            found.append(view(batch))
        return found

    def counted() -> list[np.ndarray]:
        none = np.zeros_like(score.counts(view(target.held[0])))  # a rank may have no sample
        shares = [views(ids, group.rank, group.ranks) for ids in samples.shown]
        return [sum(map(score.counts, share), none) for share in shares]

    mine = _together(counted)
    counts = [group.total(one) for one in mine]
    weights = [
        float(total.sum()) if stream.weight is None else float(stream.weight)
        for stream, total in zip(target.settings.streams, counts, strict=True)
    ]
    # All ranks compare the stream with the same samples.
    aside = _together(lambda: views(samples.some_aside(_HELD), 0, 1))
    likeness = _together(lambda: score.open(counts, weights, group))
    to_device = state.device.tensor_to_device
    scorer = TargetScorer(likeness, score.view, loader, aside, to_device=to_device, spent=spent)
    scorer.load_state_dict(known)
    if not look:
        return scorer
    spread = spread_ids(loader.dataset, SAMPLES)
    mine = _share(spread, loader.dataset.rank, loader.dataset.num_ranks).tolist()
    seen = _together(
        lambda: [view(loader.collated(mine[i : i + size])) for i in range(0, len(mine), size)]
    )
    return None if scorer.alike(score.open(counts, weights, group), seen) else scorer


def _share(ids: np.ndarray, rank: int, ranks: int) -> np.ndarray:
    """A rank's share of some samples. All have as many, so with more ranks some read the same."""
    return np.resize(ids, max(1, len(ids) // ranks) * ranks)[rank::ranks]


def _together(make: Callable[[], T]) -> T:
    """What a function returns, or the error of the first rank on which it fails.

    Raises:
        ValueError: It failed.
    """
    made, fault, cause = None, None, None
    try:
        made = make()
    except (AttentError, ValueError, TypeError, LookupError, OSError, RuntimeError) as error:
        fault, cause = _fault(error), error
    fault = first_fault(fault)
    if fault is not None or made is None:
        raise ValueError(f"target: {fault}") from cause
    return made


def _fault(error: Exception) -> str:
    ours = isinstance(error, (AttentError, ValueError))
    return " ".join(str(error).split()) if ours else in_words(error)


def _check_not_evaluated(target: Target, state: State) -> None:
    """Refuse a target that the run is evaluated on: samples would be chosen for what is measured.

    Raises:
        ValueError: It is.
    """
    places = {stream.place for stream in target.streams}
    for evaluator in state.evaluators:
        dataset = getattr(evaluator.dataloader.dataloader, "dataset", None)
        streams = dataset.streams if isinstance(dataset, StreamingDataset) else []
        sources = [(s, stream.split) for stream in streams for s in (stream.remote, stream.local)]
        for source, split in sources:
            if source and place(source, split or None) in places:
                raise ValueError(
                    f"{source} is the data of the eval loader {evaluator.label!r}: give other "
                    "samples as target, as the model must not be measured on what it is taught by"
                )


def check_tokens(batch: Any, model: Module) -> None:
    """Refuse token ids that the model has no embedding of.

    Raises:
        ValueError: There are some.
    """
    ids = batch.get("input_ids") if isinstance(batch, dict) else None
    if not isinstance(ids, Tensor) or ids.is_floating_point() or not ids.numel():
        return
    words, largest = _words(model), int(ids.max())
    if words is not None and largest >= words:
        raise ValueError(
            f"expected token ids below the model's {words}, got {largest}: tokenize the target "
            "with the tokenizer of the train data"
        )


def _words(model: Module) -> int | None:
    """Size of a language model's vocabulary; None if it is not known."""
    for one in model.modules():
        if isinstance(one, PreTrainedModel):
            table = one.get_input_embeddings()
            return table.num_embeddings if isinstance(table, Embedding) else None
    return None
