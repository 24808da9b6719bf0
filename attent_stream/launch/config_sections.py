"""The sections of a training YAML as frozen dataclasses, one field for each key."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A Hugging Face model, built from a config or read from a local folder, never downloaded.

    Args:
        name: The kind of model.
        architecture: Hugging Face model type, such as ``llama`` or ``vit``. Give it or
            ``pretrained``.
        pretrained: Folder with ``config.json`` and safetensors weights.
        config_overrides: Fields of the model's config.
        attn_implementation: Attention kernel. None: the one that transformers takes.
        lora: Arguments of peft's ``LoraConfig``. Only adapters of a causal LM are trained then,
            and checkpoints hold nothing else.
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
    """A tokenizer. Give ``path`` or ``name``.

    Args:
        path: Local folder.
        name: Name in the local Hugging Face cache. Nothing is downloaded.
        kwargs: Arguments of ``AutoTokenizer.from_pretrained``.
    """

    path: str | None = None
    name: str | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if (self.path is None) == (self.name is None):
            got = "neither" if self.path is None else "both"
            raise ValueError(f"expected exactly one of path and name, got {got}")


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """The arguments of Streaming's ``Stream``. Missing ones are those of the data set.

    Args:
        remote: Folder of MDS shards, or a URL of an object store.
        local: Folder in which shards are cached, or which holds them if there is no ``remote``.
        split: Sub-folder of both.
        proportion: Share of all samples that come from this stream.
        repeat: How often an epoch reads each sample of this stream.
        choose: Samples of this stream in an epoch.
        download_retry: How often a failed download is tried again.
        download_timeout: Seconds for one file.
        validate_hash: Hash by which files are checked, such as ``xxh64``. None: any that the index
            has.
        keep_zip: Whether compressed shards stay in the cache.
    """

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
    because it unpickles data.

    Args:
        streams: Streams by name. Give these, or ``remote`` or ``local`` of the only one.
        remote: Folder of MDS shards, or a URL of an object store.
        local: Folder in which shards are cached, or which holds them if there is no ``remote``.
        split: Sub-folder of both.
        download_retry: How often a failed download is tried again.
        download_timeout: Seconds for one file.
        validate_hash: Hash by which files are checked, such as ``xxh64``. None: any that the index
            has.
        keep_zip: Whether compressed shards stay in the cache.
        epoch_size: Samples of an epoch. None: as the streams' weights give it.
        predownload: Samples that a worker fetches ahead.
        cache_limit: Bytes of the node's cache, such as ``100gb``. None: no limit.
        sampling_method: Whether an epoch's samples of a weighted stream are drawn anew each epoch
            (``balanced``) or are the same (``fixed``).
        sampling_granularity: Samples of a shard that are drawn together.
        partition_algo: How samples are dealt out to nodes, ranks and workers.
        num_canonical_nodes: Nodes for which the order is made. A run can resume on other numbers.
        shuffle: Whether samples are shuffled.
        shuffle_algo: How they are shuffled.
        shuffle_seed: Seed of the shuffle.
        shuffle_block_size: Samples that are shuffled together, for the algorithms with blocks.
        batching_method: How streams are mixed into batches.
        replication: Ranks that get the same samples, for models that are split over ranks.
        max_seq_len: Longer samples are cut to so many tokens.
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
    """The arguments of ``TeachingDataset``. See docs/settings.md.

    Args:
        window: Global batches of a window, in which samples are chosen and ordered.
        gap: Global batches at a window's end in which the next window's lessons are read ahead.
        require_teacher: Whether to refuse to be read without a teacher.
        order: ``streaming`` (Streaming's own, built whole), ``lazy`` or ``auto``.
    """

    window: int | None = None
    gap: int | None = None
    require_teacher: bool | None = None
    order: str | None = None


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """The kind of samples, and the arguments of the collator and torch's DataLoader.

    Args:
        name: The kind of samples.
        dataset: The data set.
        collate: Arguments of the collate function. Text: ``column``, ``dtype``. Images:
            ``image_column``, ``label_column``.
        num_workers: Worker processes of a rank.
        prefetch_factor: Batches that each worker reads ahead. None: torch's default.
        persistent_workers: Whether workers stay between epochs.
        pin_memory: Whether batches are copied to pinned memory. None: on a GPU.
        drop_last: Whether an incomplete last batch is dropped.
        timeout: Seconds that training waits for a worker's batch. 0: no limit.
        multiprocessing_context: How workers are started. None: torch's default.
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
    """The training loader.

    Args:
        dataset: The data set.
        teacher_timeout: Seconds that a worker waits for a window to be chosen. None: 3,600.
    """

    dataset: TeachingConfig
    teacher_timeout: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvalLoaderConfig(LoaderConfig):
    """An evaluation loader, which is never taught.

    Args:
        label: Its metrics are logged under this name.
        drop_last: Whether an incomplete last batch is dropped.
    """

    label: str = "eval"
    drop_last: bool = False


@dataclass(frozen=True, kw_only=True)
class Part:
    """A component's name and the arguments of its constructor."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
