"""``train_loader`` and ``eval_loader`` sections -> loaders with token counts, as Composer wants
them.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import numpy as np
import torch

from attent_stream.arrange.cutting import Packed
from attent_stream.base.epoch_number import EpochNumber, VariesByEpoch
from attent_stream.corpus.columns import columns_of, token_ids, whole_dtype
from attent_stream.launch.config_check import ConfigError, checked_arguments, join, refuse_unknown
from attent_stream.launch.config_sections import (
    EvalLoaderConfig,
    LoaderConfig,
    StreamsConfig,
    TrainLoaderConfig,
)

IGNORED = -100  # Hugging Face's label for a position that has no target.


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutTokens:
    """A collator that keeps the first ``max_seq_len`` tokens of each sample for the one it wraps.

    ``column`` and ``dtype`` are ``TokenCollator``'s: where the tokens are, and what raw bytes were
    written as.
    """

    collate: Callable[[list], Any]
    max_seq_len: int
    column: str = "tokens"
    dtype: str | None = None

    def __call__(self, samples: list[Mapping[str, Any]]) -> Any:
        dtype = None if self.dtype is None else whole_dtype(self.dtype)
        return self.collate(
            [
                {**sample, self.column: token_ids(sample, self.column, dtype)[: self.max_seq_len]}
                for sample in samples
            ]
        )

    @property
    def packed(self) -> bool:
        """Whether what it wraps says so of its samples."""
        return isinstance(self.collate, Packed) and self.collate.packed

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch's number on."""
        if isinstance(self.collate, VariesByEpoch):
            self.collate.set_epoch(epoch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskTokens:
    """A collator for masked LMs around one for causal LMs: BERT's 80 / 10 / 10 (Devlin et al.,
    2019, section 3.1).

    A sample's mask depends on ``seed``, the epoch and its tokens alone, so a candidate is scored on
    the very problem that its lesson will be, whichever worker reads it. ``input_ids`` and
    ``labels`` are (B, T) int64; labels are -100 where not masked.
    """

    collate: Callable[[list], Mapping[str, torch.Tensor]]
    mask_token_id: int
    vocab_size: int
    probability: float = 0.15
    seed: int = 17
    _epoch: EpochNumber = dataclasses.field(
        default_factory=EpochNumber, init=False, repr=False, compare=False
    )

    def __post_init__(self):
        if not 0 < self.probability < 1:
            raise ValueError(f"expected probability between 0 and 1, received {self.probability}")

    def __call__(self, samples: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = dict(self.collate(samples))
        ids, labels = batch["input_ids"].clone(), batch["labels"].clone()
        for row in range(len(ids)):
            rng = np.random.default_rng(
                [self.seed, self._epoch.get(), crc32(ids[row].numpy().tobytes())]
            )
            draw, way = rng.random((2, ids.shape[1]))
            masked = torch.from_numpy(draw < self.probability) & (labels[row] != IGNORED)
            labels[row, ~masked] = IGNORED
            ids[row, masked & torch.from_numpy(way < 0.8)] = self.mask_token_id
            swap = masked & torch.from_numpy(way >= 0.9)
            other = rng.integers(0, self.vocab_size, ids.shape[1])
            ids[row] = torch.where(swap, torch.from_numpy(other), ids[row])
        return {**batch, "input_ids": ids, "labels": labels}

    def set_epoch(self, epoch: int) -> None:
        """Draw the masks of this epoch from now on."""
        self._epoch.set(epoch)


def count_tokens(batch: Any) -> int | dict[str, int]:
    """Tokens of a batch: all that are attended to (``total``), and those with a target
    (``loss_generating``).

    Batches without ``input_ids`` (images) have none. The names are Composer's.
    """
    if not isinstance(batch, Mapping) or "input_ids" not in batch:
        return 0
    mask = batch.get("attention_mask")
    total = batch["input_ids"].numel() if mask is None else int(mask.sum())
    labels = batch.get("labels")
    return {
        "total": total,
        "loss_generating": total if labels is None else int((labels != IGNORED).sum()),
    }


def device_batch_size(samples: int, ranks: int, key: str) -> int:
    """Samples per rank of a global batch of ``samples``; raises ConfigError if it cannot be shared
    out evenly.
    """
    if samples % ranks:
        raise ConfigError(f"{key}: expected a multiple of the {ranks} ranks, received {samples}")
    return samples // ranks


def check_folders(streams: StreamsConfig, path: str) -> None:
    """Raise ConfigError if a data set that is to be read from a local folder is not there."""
    for where, source in [(path, streams), *_named_streams(streams, path)]:
        split = source.split or streams.split or ""
        key, folder = (
            ("local", source.local) if source.remote is None else ("remote", source.remote)
        )
        if folder is None or "://" in folder or folder.startswith("dbfs:"):
            continue
        if not os.path.isdir(os.path.join(folder, split)):
            raise ConfigError(
                f"{join(where, key)}: folder {os.path.join(folder, split)!r} does not exist"
            )
        if not os.path.isfile(os.path.join(folder, split, "index.json")):
            raise ConfigError(
                f"{join(where, key)}: folder {os.path.join(folder, split)!r} has no index.json, "
                "it is no MDS data set"
            )


def _named_streams(streams: StreamsConfig, path: str) -> list[tuple[str, Any]]:
    return [
        (join(path, f"streams.{name}"), stream) for name, stream in (streams.streams or {}).items()
    ]


def dataset_arguments(streams: StreamsConfig, batch_size: int) -> dict[str, Any]:
    """Keyword arguments of ``StreamingDataset`` (``TeachingDataset``): the keys that the YAML
    gives, streams made.
    """
    from streaming import Stream

    given = {entry.name: getattr(streams, entry.name) for entry in dataclasses.fields(streams)}
    arguments = {
        name: value
        for name, value in given.items()
        if value is not None and name not in ("streams", "max_seq_len")
    }
    if streams.streams is not None:
        arguments["streams"] = [
            Stream(
                **{
                    name: value
                    for name, value in dataclasses.asdict(stream).items()
                    if value is not None
                }
            )
            for stream in streams.streams.values()
        ]
    return {**arguments, "batch_size": batch_size}


def build_collate(
    loader: LoaderConfig, path: str, tokenizer: Any | None, seed: int, training: bool
) -> Callable[[list], Any]:
    """The collator of a loader's ``name`` with the arguments of its ``collate`` section."""
    from attent_stream.corpus.batches import ImageCollator, TokenCollator

    given, where = loader.collate, join(path, "collate")
    try:
        if loader.name == "image":
            supplied = {"seed": seed, "augment": training}
            return ImageCollator(**{**supplied, **checked_arguments(ImageCollator, given, where)})
        own = [entry.name for entry in dataclasses.fields(TokenCollator)]
        masked = loader.name == "masked_text"
        if masked:
            refuse_unknown(given, [*own, "probability", "seed"], where)
        of_tokens = {key: value for key, value in given.items() if key in own or not masked}
        reader = collate = TokenCollator(**checked_arguments(TokenCollator, of_tokens, where))
        if loader.dataset.max_seq_len is not None:
            collate = CutTokens(
                collate=reader,
                max_seq_len=loader.dataset.max_seq_len,
                column=reader.column,
                dtype=reader.dtype,
            )
        if masked:
            if tokenizer is None or tokenizer.mask_token_id is None:
                raise ConfigError(f"{path}.name: masked_text needs a tokenizer with a mask token")
            supplied = {
                "collate": collate,
                "mask_token_id": tokenizer.mask_token_id,
                "vocab_size": len(tokenizer),
            }
            of_masks = {key: value for key, value in given.items() if key not in own}
            collate = MaskTokens(
                **{
                    "seed": seed,
                    **supplied,
                    **checked_arguments(MaskTokens, of_masks, where, supplied),
                }
            )
        return collate
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def check_columns(collate: Any, dataset: Any, path: str) -> None:
    """Raise ConfigError if a data set's index says that its samples are nothing for a collator of
    ``build_collate``.
    """
    while isinstance(collate, (CutTokens, MaskTokens)):
        collate = collate.collate
    try:
        for columns in columns_of(dataset.shards):
            collate.check_columns(columns)
    except ValueError as error:
        raise ConfigError(f"{join(path, 'collate')}: {error}") from error


def loader_arguments(loader: LoaderConfig, on_gpu: bool) -> dict[str, Any]:
    """Keyword arguments of torch's DataLoader from a loader's section."""
    arguments = {
        "num_workers": loader.num_workers,
        "persistent_workers": loader.persistent_workers and loader.num_workers > 0,
        "pin_memory": on_gpu if loader.pin_memory is None else loader.pin_memory,
        "drop_last": loader.drop_last,
    }
    optional = {"prefetch_factor": loader.prefetch_factor}
    if loader.num_workers > 0:
        optional |= {
            "multiprocessing_context": loader.multiprocessing_context,
            "timeout": loader.timeout,
        }
    return {**arguments, **{name: value for name, value in optional.items() if value is not None}}


def build_train(
    loader: TrainLoaderConfig, batch_size: int, *, tokenizer: Any | None, seed: int, on_gpu: bool
) -> Any:
    """A ``DataSpec`` of a ``TeachingDataLoader`` with batches of ``batch_size`` samples
    per rank.
    """
    from composer import DataSpec

    from attent_stream.data.dataloader import TeachingDataLoader
    from attent_stream.data.dataset import TeachingDataset

    path = "train_loader"
    check_folders(loader.dataset, join(path, "dataset"))
    collate = build_collate(loader, path, tokenizer, seed, training=True)
    timeout = {} if loader.teacher_timeout is None else {"teacher_timeout": loader.teacher_timeout}
    try:
        dataset = TeachingDataset(**dataset_arguments(loader.dataset, batch_size))
        check_columns(collate, dataset, path)
        made = TeachingDataLoader(
            dataset,
            batch_size=batch_size,
            collate_fn=collate,
            **timeout,
            **loader_arguments(loader, on_gpu),
        )
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return DataSpec(made, get_num_tokens_in_batch=count_tokens)


def build_eval(
    loader: EvalLoaderConfig,
    batch_size: int,
    *,
    path: str,
    tokenizer: Any | None,
    seed: int,
    on_gpu: bool,
    metrics: list[str],
) -> Any:
    """An ``Evaluator`` on a stock ``StreamingDataset`` (its index checked): what is held out is
    never taught.
    """
    from composer import DataSpec, Evaluator
    from streaming import StreamingDataLoader

    from attent_stream.data.loader_arguments import check_has_batches
    from attent_stream.store.index_check import CheckedDataset

    check_folders(loader.dataset, join(path, "dataset"))
    collate = build_collate(loader, path, tokenizer, seed, training=False)
    try:
        dataset = CheckedDataset(**dataset_arguments(loader.dataset, batch_size))
        check_columns(collate, dataset, path)
        ranks = dataset._parallel_rank_world.num_ranks  # that read different samples
        check_has_batches(len(dataset), batch_size, loader.drop_last, ranks)
        made = StreamingDataLoader(
            dataset, batch_size=batch_size, collate_fn=collate, **loader_arguments(loader, on_gpu)
        )
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return Evaluator(
        label=loader.label,
        dataloader=DataSpec(made, get_num_tokens_in_batch=count_tokens),
        metric_names=metrics,
    )
