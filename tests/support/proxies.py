"""Settings of a proxy that is trained on lessons."""

from fits import LENGTH, VOCAB

MODEL = {
    "name": "hf_causal_lm",
    "architecture": "gpt2",
    "config_overrides": {
        "vocab_size": VOCAB,
        "n_positions": LENGTH,
        "n_embd": 8,
        "n_layer": 1,
        "n_head": 1,
    },
}
PROXY = {"model": MODEL, "train": True, "lr": 0.01}
