"""What a stock llm-foundry YAML can name when both packages are installed (its entry-point groups, see
pyproject.toml).

``algorithms: {attent: {...}}`` gives ``AtteNT``; ``train_loader: {name: attent_text, dataset: {...}, ...}`` a
``TeachingDataLoader`` on packed tokens. llm-foundry itself is never imported.
"""

from collections.abc import Mapping
from typing import Any

from attent_stream.algorithm import AtteNT
from attent_stream.config_check import ConfigError, typed
from attent_stream.config_sections import TrainLoaderConfig

__all__ = ["AtteNT", "build_text_dataloader"]

# Keys of llm-foundry's text data set that mean nothing for samples that are tokens already.
_FOUNDRY_ONLY = ("eos_token_id", "bos_token_id", "token_encoding_type")


def build_text_dataloader(
    tokenizer: Any,
    device_batch_size: int,
    dataset: Mapping[str, Any],
    num_workers: int,
    drop_last: bool = True,
    pin_memory: bool = True,
    prefetch_factor: int | None = None,
    persistent_workers: bool = True,
    timeout: float = 0,
    teacher_timeout: float | None = None,
    name: str = "attent_text",
) -> Any:
    """A Composer ``DataSpec`` of a ``TeachingDataLoader``, called as llm-foundry calls its data loaders.

    Args:
        tokenizer: llm-foundry's tokenizer; the samples hold token ids, so it is not needed.
        device_batch_size: Samples per rank and batch.
        dataset: Keys of llm-foundry's ``text`` data set, and ``window``, ``gap`` and ``require_teacher``.
        num_workers: and the rest: as torch's DataLoader has them.
        teacher_timeout: Seconds that workers wait for the next selection.
        name: The name in the YAML, which some versions pass on.

    Raises:
        ConfigError: An unknown key, a wrong type or a missing folder, by the path of the key.
    """
    from omegaconf import DictConfig, OmegaConf

    from attent_stream.data import build_train

    plain = (
        OmegaConf.to_container(dataset, resolve=True) if isinstance(dataset, DictConfig) else dict(dataset)
    )
    batch_size = device_batch_size
    if isinstance(batch_size, float):
        raise ConfigError(f"device_batch_size: expected a whole number of samples, received {batch_size}")
    section = {
        "name": "text",
        "dataset": {key: value for key, value in plain.items() if key not in _FOUNDRY_ONLY},
        "num_workers": num_workers,
        "drop_last": drop_last,
        "pin_memory": pin_memory,
        "prefetch_factor": prefetch_factor if num_workers else None,
        "persistent_workers": persistent_workers,
        "timeout": timeout,
        "teacher_timeout": teacher_timeout,
    }
    loader = typed(section, TrainLoaderConfig, "train_loader")
    return build_train(loader, batch_size, tokenizer=tokenizer, seed=0, on_gpu=pin_memory)
