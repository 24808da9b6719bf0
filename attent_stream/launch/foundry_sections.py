"""The ``dataset`` sections of llm-foundry's loaders, with the teaching keys added."""

from dataclasses import dataclass, field
from typing import Any, Literal

from attent_stream.launch.config_sections import TeachingConfig


@dataclass(frozen=True, kw_only=True)
class FoundryConfig(TeachingConfig):
    """Keys that llm-foundry's ``text`` and ``finetuning`` loaders share, with the teaching keys.

    The added keys are ``window``, ``gap``, ``order`` and ``require_teacher``. All others keep
    llm-foundry's meaning, but ``allow_unsafe_types`` must be false because it unpickles data.
    """

    max_seq_len: int = field()
    token_encoding_type: str | None = None
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


@dataclass(frozen=True, kw_only=True)
class FoundryTextConfig(FoundryConfig):
    """The ``dataset`` section of ``attent_text``; see llm-foundry's ``text`` loader."""

    eos_token_id: int | None = None
    bos_token_id: int | None = None
    mlm_probability: float | None = None


_CONVERT = "write it as MDS (llmfoundry data_prep convert_finetuning_dataset), and give its folder"


@dataclass(frozen=True, kw_only=True)
class FoundryFinetuningConfig(FoundryConfig):
    """The ``dataset`` section of ``attent_finetuning``; see llm-foundry's ``finetuning`` loader.

    Only data sets in Streaming's format are taught, so its keys for Hugging Face data sets are
    refused.
    """

    decoder_only_format: bool = field()
    target_prompts: str | None = None
    target_responses: str | None = None
    allow_pad_trimming: bool | None = None
    pad_to_longest: bool | None = None
    packing_ratio: float | Literal["auto"] | None = None
    auto_packing_replication: int | None = None
    max_leftover_bins_to_keep: int | None = None
    hf_name: str | None = None
    hf_kwargs: dict[str, Any] | None = None
    preprocessing_fn: Any = None
    safe_load: bool | None = None

    def __post_init__(self):
        theirs = ("hf_name", "hf_kwargs", "preprocessing_fn", "safe_load")
        for name in theirs:
            if getattr(self, name) is not None:
                raise ValueError(
                    f"expected a streaming data set, got {name}: {_CONVERT} as remote or local"
                )
        super().__post_init__()
