"""llm-foundry's loaders and a tokenizer for them."""

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

EOS = 1


def make_tokenizer() -> PreTrainedTokenizerFast:
    """40 words, with padding and both ends."""
    vocabulary = {"<pad>": 0, "<eos>": EOS, "<bos>": 2} | {f"t{i}": i for i in range(3, 40)}
    fast = Tokenizer(models.WordLevel(vocabulary, unk_token="t3"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>"
    )


def built(cfg: dict, tokenizer: Any, device_batch_size: int = 4) -> Any:
    """The ``DataSpec`` that llm-foundry makes of a loader's section."""
    from llmfoundry.data.dataloader import build_dataloader

    return build_dataloader(cfg, tokenizer, device_batch_size)


def check_equal(batches: list, expected: list) -> None:
    """Check that batches are the same, lists of counts among them."""
    for mine, batch in zip(batches, expected, strict=True):
        assert mine.keys() == batch.keys()
        for key, value in batch.items():
            same = torch.equal if isinstance(value, torch.Tensor) else list.__eq__
            assert same(mine[key], value), key
