"""Entry points for a stock llm-foundry YAML (see pyproject.toml).

``algorithms: {attent: {...}}`` names ``AtteNT``. ``train_loader: {name: attent_text, dataset:
{...}, ...}`` names a ``TeachingDataLoader`` that otherwise equals llm-foundry's ``text`` loader.
This module imports llm-foundry only when a loader is built.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from attent_stream.fit.algorithm import AtteNT
from attent_stream.launch.config_check import ConfigError, typed
from attent_stream.launch.config_sections import TeachingConfig

__all__ = ["AtteNT", "FoundryTextConfig", "build_text_dataloader"]

# Keys of the `dataset` section that only llm-foundry's collator and checks read.
_NOT_OF_THE_DATASET = (
    "eos_token_id",
    "bos_token_id",
    "mlm_probability",
    "seq_parallel_replication",
    "override_eos_token_id_mismatch_error",
    "override_bos_token_id_mismatch_error",
)


@dataclass(frozen=True, kw_only=True)
class FoundryTextConfig(TeachingConfig):
    """The ``dataset`` section of llm-foundry's ``text`` loader, with the teaching keys added.

    The added keys are ``window``, ``gap``, ``order`` and ``require_teacher``. All others keep
    llm-foundry's meaning, but ``allow_unsafe_types`` must be false because it unpickles data.
    """

    max_seq_len: int = field()
    token_encoding_type: str | None = None
    eos_token_id: int | None = None
    bos_token_id: int | None = None
    mlm_probability: float | None = None
    override_eos_token_id_mismatch_error: bool | None = None
    override_bos_token_id_mismatch_error: bool | None = None
    seq_parallel_replication: int | None = None
    stream_name: str | None = None
    stream_config: dict[str, Any] | None = None
    allow_unsafe_types: bool | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.allow_unsafe_types:
            raise ValueError(
                "expected allow_unsafe_types false because it unpickles data, got true"
            )


def build_text_dataloader(
    tokenizer: Any,
    device_batch_size: int,
    dataset: Mapping[str, Any],
    num_workers: int,
    drop_last: bool = True,
    pin_memory: bool = True,
    prefetch_factor: int | None = 2,
    persistent_workers: bool = True,
    timeout: float = 3600.0,
    teacher_timeout: float = 3600.0,
    name: str = "attent_text",
) -> Any:
    """Build a ``DataSpec`` of a ``TeachingDataLoader``, with llm-foundry's loader signature.

    Samples, batches and token counts equal those of llm-foundry's ``text`` loader. Its dataset and
    its registered ``text_collator`` and ``data_spec`` make them.

    Args:
        tokenizer: llm-foundry's tokenizer.
        device_batch_size: Samples per rank and batch.
        dataset: The keys of ``FoundryTextConfig``.
        num_workers, drop_last, pin_memory, prefetch_factor, persistent_workers, timeout: As for
            torch's DataLoader; settings of workers are ignored without workers.
        teacher_timeout: Seconds that workers wait for the next selection.
        name: The loader's name in the YAML, which some versions pass.

    Raises:
        ConfigError: A key is unknown, a type is wrong, a folder is missing, or the dataset, the
            loader or llm-foundry rejects a setting.
    """
    from attent_stream.data.dataloader import TeachingDataLoader
    from attent_stream.launch.data import check_folders, dataset_arguments

    path = "train_loader.dataset"
    if isinstance(device_batch_size, bool) or not isinstance(device_batch_size, int):
        raise ConfigError(
            f"device_batch_size: expected a whole number of samples, got {device_batch_size!r}"
        )
    section = typed(_plain(dataset), FoundryTextConfig, path)
    check_folders(section, path)

    from llmfoundry import registry
    from llmfoundry.utils.registry_utils import construct_from_registry

    from attent_stream.launch.foundry_text import TeachingTextDataset

    def registered(part: str, group: Any, **arguments: Any) -> Any:
        return construct_from_registry(
            name=part, registry=group, partial_function=False, kwargs=arguments
        )

    loading = {
        "drop_last": drop_last,
        "num_workers": num_workers,
        "pin_memory": pin_memory,
        "timeout": timeout if num_workers else 0,
        "persistent_workers": persistent_workers and num_workers > 0,
        "prefetch_factor": prefetch_factor if num_workers else None,
    }
    # A copy, because llm-foundry writes into the section.
    theirs = {key.name: getattr(section, key.name) for key in fields(section)}
    theirs = {key: value for key, value in theirs.items() if value is not None}
    try:
        theirs["replication"], batch_size = registered(
            "dataset_replication_validator",
            registry.dataset_replication_validators,
            dataset_cfg=theirs,
            tokenizer=tokenizer,
            device_batch_size=device_batch_size,
        )
        arguments = dataset_arguments(section, batch_size)
        arguments = {
            key: value for key, value in arguments.items() if key not in _NOT_OF_THE_DATASET
        }
        arguments |= {"max_seq_len": section.max_seq_len, "replication": theirs["replication"]}
        taught = TeachingTextDataset(tokenizer=tokenizer, **arguments)
        collate, batch_size = registered(
            "text_collator",
            registry.collators,
            dataloader_cfg={"name": "text", "dataset": theirs, **loading},
            tokenizer=tokenizer,
            dataset_batch_size=batch_size,
        )
        loader = TeachingDataLoader(
            taught,
            batch_size=batch_size,
            collate_fn=collate,
            teacher_timeout=teacher_timeout,
            **loading,
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"train_loader: {error}") from error
    return registered("data_spec", registry.data_specs, dl=loader, dataset_cfg=theirs)


def _plain(section: Mapping[str, Any]) -> dict[str, Any]:
    from omegaconf import DictConfig, OmegaConf

    if isinstance(section, DictConfig):
        return OmegaConf.to_container(section, resolve=True)
    return dict(section)
