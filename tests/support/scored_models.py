"""Models and batches for scores, and a float64 reference in plain loops."""

import functools

import numpy as np
import torch
import transformers
from composer.models import ComposerClassifier, HuggingFaceModel
from small_models import SMALL

SCORES = ("loss", "residual")  # for every kind of target


VOCAB, LENGTH = 50, 12


def brute_force(logits, labels, *, shift=False):
    """Scores by name in float64, token by token.

    Logits have shape (B, T, V) or (B, V), labels (B, T) or (B,).
    """
    logits, labels = logits.detach().double().numpy(), np.asarray(labels)
    if labels.ndim == 1:
        logits, labels = logits[:, None], labels[:, None]
    result = {"residual": [], "loss": []}
    for sample, targets in zip(logits, labels, strict=True):
        losses, squares = [], []
        for position in range(len(targets)):
            source = position - 1 if shift else position
            if targets[position] == -100 or source < 0:
                continue
            z = sample[source] - sample[source].max()
            p = np.exp(z) / np.exp(z).sum()
            losses.append(-np.log(p[targets[position]]))
            squares.append(((p - np.eye(len(p))[targets[position]]) ** 2).sum())
        result["loss"].append(np.mean(losses) if losses else -np.inf)
        result["residual"].append(np.sqrt(np.mean(squares)) if squares else -np.inf)
    return {name: np.array(values) for name, values in result.items()}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def hugging_face(model, **settings):
    return HuggingFaceModel(model, use_logits=True, **settings).eval()


@functools.cache
def language_model(name):
    torch.manual_seed(0)
    if name == "llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=VOCAB, **SMALL))
    elif name == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=2, n_positions=64
        )
        model = transformers.GPT2LMHeadModel(config)
    elif name == "bert":
        model = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=VOCAB, **SMALL))
    else:
        sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
        model = transformers.T5ForConditionalGeneration(
            transformers.T5Config(vocab_size=VOCAB, decoder_start_token_id=0, **sizes)
        )
    return hugging_face(model)


def text_batch(samples=6):
    """Right-padded text; sample 3 has no valid label at all."""
    ids = torch.randint(1, VOCAB, (samples, LENGTH), generator=generator(1))
    lengths = torch.tensor([12, 7, 3, 12, 5, 9])[:samples]
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    labels = torch.where(mask == 1, ids, -100)
    labels[3] = -100
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "labels": labels,
        "total_tokens": lengths.tolist(),
    }


def linear(outputs=5, **settings):
    torch.manual_seed(0)
    return ComposerClassifier(torch.nn.Linear(8, outputs), num_classes=outputs, **settings).eval()


INPUTS = torch.randn(6, 8, generator=generator(3))
