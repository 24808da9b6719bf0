"""The sections of a training YAML as frozen dataclasses, one field for each key."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Hugging Face model, built from a config or read from a local folder, never downloaded.

    ``architecture`` is a Hugging Face model type such as ``llama`` or ``vit``, and
    ``config_overrides`` sets fields of its config. ``pretrained`` is a folder with ``config.json``
    and safetensors weights. ``lora`` holds arguments of peft's ``LoraConfig``: only adapters of a
    causal LM are trained then, and checkpoints hold nothing else.
    """

    name: Literal["hf_causal_lm", "hf_masked_lm", "hf_image_classifier"]
    architecture: str | None = None
    pretrained: str | None = None
    config_overrides: dict[str, Any] = field(default_factory=dict)
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flex_attention"] | None = (
        None
    )
    lora: dict[str, Any] | None = None

    def __post_init__(self):
        if self.lora is not None and self.name != "hf_causal_lm":
            raise ValueError(f"expected lora with hf_causal_lm only, got {self.name}")
        if (self.architecture is None) == (self.pretrained is None):
            raise ValueError(
                "expected exactly one of architecture and pretrained, got "
                f"{'neither' if self.architecture is None else 'both'}"
            )


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """A tokenizer in a local folder (``path``) or in the local Hugging Face cache (``name``)."""

    path: str | None = None
    name: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if (self.path is None) == (self.name is None):
            got = "neither" if self.path is None else "both"
            raise ValueError(f"expected exactly one of path and name, got {got}")


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """The arguments of Streaming's ``Stream``."""

    remote: str | None = None
    local: str | None = None
    split: str | None = None
    proportion: float | None = None
    repeat: float | None = None
    choose: int | None = None
    download_retry: int | None = None
    download_timeout: float | None = None
    validate_hash: str | None = None
    keep_zip: bool | None = None

    def __post_init__(self):
        if self.remote is None and self.local is None:
            raise ValueError("expected remote, local or both, got neither")
        weights = [
            name for name in ("proportion", "repeat", "choose") if getattr(self, name) is not None
        ]
        if len(weights) > 1:
            raise ValueError(
                "expected at most one of proportion, repeat and choose, got "
                f"{' and '.join(weights)}"
            )


@dataclass(frozen=True, kw_only=True)
class StreamsConfig:
    """The arguments of ``StreamingDataset``, with Streaming's defaults for missing keys.

    ``batch_size`` follows from ``global_train_batch_size``. ``allow_unsafe_types`` is omitted
    because it unpickles data. Samples longer than ``max_seq_len`` (tokens) are cut.
    """

    streams: dict[str, StreamConfig] | None = None
    remote: str | None = None
    local: str | None = None
    split: str | None = None
    download_retry: int | None = None
    download_timeout: float | None = None
    validate_hash: str | None = None
    keep_zip: bool | None = None
    epoch_size: int | str | None = None
    predownload: int | None = None
    cache_limit: int | str | None = None
    sampling_method: Literal["balanced", "fixed"] | None = None
    sampling_granularity: int | None = None
    partition_algo: Literal["orig", "relaxed"] | None = None
    num_canonical_nodes: int | None = None
    shuffle: bool = False
    shuffle_algo: Literal["py1e", "py1br", "py1s", "py2s", "naive"] | None = None
    shuffle_seed: int | None = None
    shuffle_block_size: int | None = None
    batching_method: Literal["random", "stratified", "per_stream", "device_per_stream"] | None = (
        None
    )
    replication: int | None = None
    max_seq_len: int | None = None

    def __post_init__(self):
        single = self.remote is not None or self.local is not None
        if self.streams is not None and single:
            raise ValueError("expected either streams or remote/local, got both")
        if not self.streams and not single:
            raise ValueError("expected streams, remote or local, got none")
        if self.max_seq_len is not None and self.max_seq_len < 2:
            raise ValueError(f"expected max_seq_len of at least 2 tokens, got {self.max_seq_len}")


@dataclass(frozen=True, kw_only=True)
class TeachingConfig(StreamsConfig):
    """The arguments of ``TeachingDataset``; ``window`` and ``gap`` are in global batches."""

    window: int | None = None
    gap: int | None = None
    require_teacher: bool | None = None
    order: str | None = None


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """The kind of samples (``name``), and the arguments of the collator and torch's DataLoader.

    ``pin_memory`` defaults to true on a GPU. ``timeout`` limits the wait for a worker's batch
    (seconds, 0: no limit).
    """

    name: Literal["text", "masked_text", "chat", "image"]
    dataset: StreamsConfig
    collate: dict[str, Any] = field(default_factory=dict)
    num_workers: int = 2
    prefetch_factor: int | None = None
    persistent_workers: bool = True
    pin_memory: bool | None = None
    drop_last: bool = True
    timeout: float = 3600.0
    multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None = None

    def __post_init__(self):
        if self.num_workers < 0:
            raise ValueError(f"expected num_workers of 0 or more, got {self.num_workers}")
        if self.prefetch_factor is not None and (self.num_workers == 0 or self.prefetch_factor < 1):
            raise ValueError(
                "expected prefetch_factor of 1 or more with workers, got "
                f"{self.prefetch_factor} "
                f"with num_workers {self.num_workers}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainLoaderConfig(LoaderConfig):
    """The training loader; workers wait ``teacher_timeout`` seconds for a selection."""

    dataset: TeachingConfig
    teacher_timeout: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvalLoaderConfig(LoaderConfig):
    """An evaluation loader, never taught; its metrics are logged under ``label``."""

    label: str = "eval"
    drop_last: bool = False


@dataclass(frozen=True, kw_only=True)
class Part:
    """A component's name and the arguments of its constructor."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
