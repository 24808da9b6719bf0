"""A corpus and a model for runs of seconds."""

from pathlib import Path

import numpy as np
from streaming import MDSWriter


def write_corpus(folder: Path) -> str:
    """Samples ``{tokens}`` of 32 uint16 below 256: ``train`` 96 and ``eval`` 16."""
    rng = np.random.default_rng([1])
    for split, samples in (("train", 96), ("eval", 16)):
        with MDSWriter(out=str(folder / split), columns={"tokens": "ndarray:uint16"}) as writer:
            for index in range(samples):
                # Few symbols in some samples, many in others: what is easy differs from what is
                # hard.
                writer.write({"tokens": rng.integers(0, 2 + 7 * (index % 32), 32, dtype=np.uint16)})
    return str(folder)


def write_model(folder: Path) -> str:
    """A llama of 2 layers and a tokenizer of 256 words."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {f"t{i}": i for i in range(254)} | {"<pad>": 254, "<mask>": 255}
    fast = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", mask_token="<mask>"
    ).save_pretrained(folder)
    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    torch.manual_seed(5)
    LlamaForCausalLM(
        LlamaConfig(vocab_size=256, max_position_embeddings=64, **small)
    ).save_pretrained(folder)
    return str(folder)
