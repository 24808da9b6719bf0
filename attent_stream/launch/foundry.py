"""What a stock llm-foundry YAML can name when both packages are installed (its entry-point groups,
see pyproject.toml).

``algorithms: {attent: {...}}`` gives ``AtteNT``; ``train_loader: {name: attent_text, dataset:
{...}, ...}`` a ``TeachingDataLoader`` that is llm-foundry's ``text`` loader in all else.
llm-foundry is imported only when it calls.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from attent_stream.fit.algorithm import AtteNT
from attent_stream.launch.config_check import ConfigError, typed
from attent_stream.launch.config_sections import TeachingConfig

__all__ = ["AtteNT", "FoundryTextConfig", "build_text_dataloader"]

# Keys of the `dataset` section that its collator and its checks read; the data set takes the rest.
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
    """The ``dataset`` section of llm-foundry's ``text`` loader, and ``window``, ``gap``,
    ``order`` and ``require_teacher``.

    All but these four mean what llm-foundry says of them. ``allow_unsafe_types`` must stay false:
    it unpickles.
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
                "expected allow_unsafe_types false, as it runs what the data says, received true"
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
    """A Composer ``DataSpec`` of a ``TeachingDataLoader``, called as llm-foundry calls its data
    loaders.

    Samples, batches and token counts are those of llm-foundry's ``text`` loader, made by its own
    data set and by whatever its registries hold as ``text_collator`` and ``data_spec``.

    Args:
        tokenizer: llm-foundry's tokenizer.
        device_batch_size: Samples per rank and batch.
        dataset: The keys of :class:`FoundryTextConfig`.
        num_workers: and the rest: as torch's DataLoader has them; without workers, what is theirs
            is ignored.
        teacher_timeout: Seconds that workers wait for the next selection.
        name: The name in the YAML, which some versions pass on.

    Raises:
        ConfigError: An unknown key, a wrong type or a missing folder, by the path of the key; or
            what the data set, the loader or llm-foundry's own checks refuse.
    """
    from attent_stream.data.dataloader import TeachingDataLoader
    from attent_stream.launch.data import check_folders, dataset_arguments

    path = "train_loader.dataset"
    if isinstance(device_batch_size, bool) or not isinstance(device_batch_size, int):
        raise ConfigError(
            f"device_batch_size: expected a whole number of samples, received {device_batch_size!r}"
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
    # llm-foundry's parts write into the section that they are given: this copy is theirs.
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
