"""Build loaders from the ``train_loader`` and ``eval_loader`` sections of a run."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from attent_stream.base.remote import is_remote
from attent_stream.corpus.batches import ImageCollator, TokenCollator
from attent_stream.corpus.chat_batches import ChatCollator
from attent_stream.corpus.columns import columns_of
from attent_stream.corpus.conversation import IGNORED
from attent_stream.launch.collators import CutTokens, MaskTokens
from attent_stream.launch.config_check import ConfigError, checked_arguments, join, refuse_unknown
from attent_stream.launch.config_sections import (
    EvalLoaderConfig,
    LoaderConfig,
    StreamsConfig,
    TrainLoaderConfig,
)


def count_tokens(batch: Any) -> int | dict[str, int]:
    """Count a batch's attended tokens (``total``) and tokens with a target (``loss_generating``).

    The names are Composer's. A batch without ``input_ids``, such as images, has 0 tokens.
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
    """Return the samples per rank, or raise ConfigError if the ranks cannot share them evenly."""
    if samples % ranks:
        raise ConfigError(f"{key}: expected a multiple of the {ranks} ranks, got {samples}")
    return samples // ranks


def check_folders(streams: StreamsConfig, path: str) -> None:
    """Raise ConfigError if a local folder or its ``index.json`` is missing."""
    for where, source in [(path, streams), *_named_streams(streams, path)]:
        split = source.split or streams.split or ""
        key, folder = (
            ("local", source.local) if source.remote is None else ("remote", source.remote)
        )
        if folder is None or is_remote(folder):
            continue
        folder = os.path.join(folder, split) if split else folder
        if not os.path.isdir(folder):
            raise ConfigError(f"{join(where, key)}: folder {folder!r} does not exist")
        if not os.path.isfile(os.path.join(folder, "index.json")):
            raise ConfigError(
                f"{join(where, key)}: expected an MDS dataset, but folder {folder!r} has no "
                "index.json"
            )


def _named_streams(streams: StreamsConfig, path: str) -> list[tuple[str, Any]]:
    return [
        (join(path, f"streams.{name}"), stream) for name, stream in (streams.streams or {}).items()
    ]


def dataset_arguments(streams: StreamsConfig, batch_size: int) -> dict[str, Any]:
    """Return the given keys as arguments of ``StreamingDataset`` or ``TeachingDataset``."""
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
    """Build the collator of a loader's ``name`` with its ``collate`` section."""
    given, where = loader.collate, join(path, "collate")
    try:
        if loader.name == "image":
            supplied = {"seed": seed, "augment": training}
            return ImageCollator(**{**supplied, **checked_arguments(ImageCollator, given, where)})
        if loader.name == "chat":
            pad = None if tokenizer is None else _pad_id(tokenizer)
            supplied = {} if pad is None else {"pad_id": pad}
            if loader.dataset.max_seq_len is not None:
                supplied["max_seq_len"] = loader.dataset.max_seq_len
            return ChatCollator(**{**supplied, **checked_arguments(ChatCollator, given, where)})
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


def _pad_id(tokenizer: Any) -> int | None:
    pad = tokenizer.pad_token_id
    return tokenizer.eos_token_id if pad is None else pad


def check_columns(collate: Any, dataset: Any, path: str) -> None:
    """Raise ConfigError if the collator cannot read the columns in the dataset's index."""
    while isinstance(collate, (CutTokens, MaskTokens)):
        collate = collate.collate
    try:
        for columns in columns_of(dataset.shards.examples()):
            collate.check_columns(columns)
    except ValueError as error:
        raise ConfigError(f"{join(path, 'collate')}: {error}") from error


def loader_arguments(loader: LoaderConfig, on_gpu: bool) -> dict[str, Any]:
    """Return a loader section as arguments of torch's DataLoader."""
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
    """Build the ``DataSpec`` of a ``TeachingDataLoader``; ``batch_size`` is per rank."""
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
    """Build an ``Evaluator`` on a ``StreamingDataset`` that checks its index."""
    from composer import DataSpec, Evaluator
    from streaming import StreamingDataLoader

    from attent_stream.data.loader_arguments import check_has_batches
    from attent_stream.store.index_check import CheckedDataset

    check_folders(loader.dataset, join(path, "dataset"))
    collate = build_collate(loader, path, tokenizer, seed, training=False)
    try:
        dataset = CheckedDataset(**dataset_arguments(loader.dataset, batch_size))
        check_columns(collate, dataset, path)
        ranks = dataset._parallel_rank_world.num_ranks  # Replicas read the same samples.
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
