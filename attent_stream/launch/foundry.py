"""Entry points for a stock llm-foundry YAML (see pyproject.toml).

``algorithms: {attent: {...}}`` names ``AtteNT``. ``train_loader: {name: attent_text, dataset:
{...}, ...}`` names a ``TeachingDataLoader`` that otherwise equals llm-foundry's ``text`` loader,
and ``attent_finetuning`` one that equals its ``finetuning`` loader.
This module imports llm-foundry only when a loader is built.
"""

import inspect
import logging
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from attent_stream.corpus.columns import columns_of
from attent_stream.fit.algorithm import AtteNT
from attent_stream.launch.config_check import ConfigError, refuse_unknown, typed
from attent_stream.launch.config_sections import StreamsConfig, TeachingConfig
from attent_stream.launch.foundry_sections import (
    FoundryConfig,
    FoundryFinetuningConfig,
    FoundryTextConfig,
)

log = logging.getLogger("attent_stream")

__all__ = ["AtteNT", "build_finetuning_dataloader", "build_text_dataloader"]

# Keys that both loaders have and only llm-foundry's checks read.
_NOT_OF_THE_DATASET = {
    "seq_parallel_replication",
    "override_eos_token_id_mismatch_error",
    "override_bos_token_id_mismatch_error",
}


def build_text_dataloader(tokenizer: Any, name: str = "attent_text", **loader: Any) -> Any:
    """Build a ``DataSpec`` of a ``TeachingDataLoader``, as llm-foundry's ``text`` loader.

    Samples, batches and token counts equal those of llm-foundry's ``text`` loader. Its dataset and
    its registered ``text_collator`` and ``data_spec`` make them. Tokens that were packed when the
    corpus was written are known to be packed.

    Args:
        tokenizer: llm-foundry's tokenizer.
        name: The loader's name in the YAML, which some versions pass.
        loader: See ``_build``.

    Raises:
        ConfigError: A key is unknown, a type is wrong, a folder is missing, or the dataset, the
            loader or llm-foundry rejects a setting.
    """
    return _checked(tokenizer, "text", FoundryTextConfig, **loader)


def build_finetuning_dataloader(
    tokenizer: Any, name: str = "attent_finetuning", **loader: Any
) -> Any:
    """Build a ``DataSpec`` of a ``TeachingDataLoader``, as llm-foundry's ``finetuning`` loader.

    Samples, batches and token counts equal those of llm-foundry's loader of a streaming data set.

    Args:
        tokenizer: llm-foundry's tokenizer.
        name: The loader's name in the YAML, which some versions pass.
        loader: See ``_build``.

    Raises:
        ConfigError: As ``build_text_dataloader``; or the data set is one of Hugging Face's.
    """
    loader = {"drop_last": False, **loader}  # llm-foundry's default
    return _checked(tokenizer, "finetuning", FoundryFinetuningConfig, **loader)


def _checked(tokenizer: Any, kind: str, section_type: type[FoundryConfig], **loader: Any) -> Any:
    """``_build``, without keys that it does not have."""
    own = inspect.signature(_build).parameters.values()
    refuse_unknown(
        loader, [one.name for one in own if one.kind is one.KEYWORD_ONLY], "train_loader"
    )
    return _build(tokenizer, kind, section_type, **loader)


def _build(
    tokenizer: Any,
    kind: str,
    section_type: type[FoundryConfig],
    *,
    device_batch_size: int,
    dataset: Mapping[str, Any],
    num_workers: int,
    drop_last: bool = True,
    pin_memory: bool = True,
    prefetch_factor: int | None = 2,
    persistent_workers: bool = True,
    timeout: float = 3600.0,
    teacher_timeout: float = 3600.0,
) -> Any:
    """Build a loader of a kind of llm-foundry's.

    Args:
        tokenizer: llm-foundry's tokenizer.
        kind: llm-foundry's name of the loader.
        section_type: Its ``dataset`` section.
        device_batch_size: Samples per rank and batch.
        dataset: The keys of the section.
        num_workers, drop_last, pin_memory, prefetch_factor, persistent_workers, timeout: As for
            torch's DataLoader; settings of workers are ignored without workers.
        teacher_timeout: Seconds that workers wait for the next selection.
    """
    from attent_stream.launch.data import check_folders

    path = "train_loader.dataset"
    if isinstance(device_batch_size, bool) or not isinstance(device_batch_size, int):
        raise ConfigError(
            f"device_batch_size: expected a whole number of samples, got {device_batch_size!r}"
        )
    given = _plain(dataset)
    section = typed(given, section_type, path)
    check_folders(section, path)
    if tokenizer is None:
        raise ConfigError("tokenizer: expected one, got none")

    from llmfoundry import registry

    from attent_stream.data.dataloader import TeachingDataLoader

    if log.level == logging.NOTSET:  # `python_log_level` is for our lines, too
        log.setLevel(logging.getLogger("llmfoundry").level)

    loading = {
        "drop_last": drop_last,
        "num_workers": num_workers,
        "pin_memory": pin_memory,
        "timeout": timeout if num_workers else 0,
        "persistent_workers": persistent_workers and num_workers > 0,
        "prefetch_factor": prefetch_factor if num_workers else None,
    }
    # What llm-foundry's own loader would be given; it also writes into it.
    ours = _names(TeachingConfig) - _names(StreamsConfig)
    theirs = {key: value for key, value in given.items() if value is not None and key not in ours}
    if kind == "finetuning" and "streams" not in theirs:
        theirs.setdefault("remote", theirs.get("local"))
    try:
        if kind == "finetuning" and tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token  # as llm-foundry does
        theirs["replication"], samples = _registered(
            "dataset_replication_validator",
            registry.dataset_replication_validators,
            dataset_cfg=theirs,
            tokenizer=tokenizer,
            device_batch_size=device_batch_size,
        )
        collate, batch_size = _registered(
            f"{kind}_collator",
            registry.collators,
            dataloader_cfg={"name": kind, "dataset": theirs, **loading},
            tokenizer=tokenizer,
            dataset_batch_size=samples,
        )
        taught = _dataset(section, kind, tokenizer, batch_size, theirs["replication"], samples)
        if kind == "text" and _is_packed(section, taught):
            from attent_stream.launch.foundry_collate import PackedText

            collate = PackedText(collate)
        loader = TeachingDataLoader(
            taught,
            batch_size=batch_size,
            collate_fn=collate,
            teacher_timeout=teacher_timeout,
            **loading,
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ConfigError(f"train_loader: {error}") from error
    return _registered("data_spec", registry.data_specs, dl=loader, dataset_cfg=theirs)


def _dataset(
    section: FoundryConfig,
    kind: str,
    tokenizer: Any,
    batch_size: int,
    replication: int,
    samples: int,
) -> Any:
    """The taught data set of a kind of loader.

    Args:
        section: Its settings.
        kind: llm-foundry's name of the loader.
        tokenizer: llm-foundry's tokenizer.
        batch_size: Samples per rank and batch that are read.
        replication: Ranks that get the same samples.
        samples: Rows per rank and batch that are trained on.
    """
    from attent_stream.launch.data import dataset_arguments
    from attent_stream.launch.foundry_datasets import TeachingFinetuningDataset, TeachingTextDataset

    names = _names(FoundryConfig) - _NOT_OF_THE_DATASET
    given = dataset_arguments(section, batch_size)
    arguments = {key: value for key, value in given.items() if key in names | {"batch_size"}}
    arguments |= {"max_seq_len": section.max_seq_len, "replication": replication}
    if kind == "text":
        return TeachingTextDataset(tokenizer=tokenizer, **arguments)
    ratio = batch_size / samples
    return TeachingFinetuningDataset(tokenizer=tokenizer, packing_ratio=ratio, **arguments)


def _is_packed(section: FoundryTextConfig, dataset: Any) -> bool:
    """Whether samples are tokens of a causal language model, not text or masked tokens."""
    columns = columns_of(dataset.shards.examples())
    tokens = all("tokens" in names and "text" not in names for names in columns)
    return bool(columns) and tokens and section.mlm_probability is None


def _names(section_type: type[StreamsConfig]) -> set[str]:
    return {key.name for key in fields(section_type)}


def _registered(part: str, group: Any, **arguments: Any) -> Any:
    from llmfoundry.utils.registry_utils import construct_from_registry

    return construct_from_registry(
        name=part, registry=group, partial_function=False, kwargs=arguments
    )


def _plain(section: Mapping[str, Any]) -> dict[str, Any]:
    from omegaconf import DictConfig, OmegaConf

    if isinstance(section, DictConfig):
        return OmegaConf.to_container(section, resolve=True)
    return dict(section)
