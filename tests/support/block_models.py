"""Small models of equal blocks, whole and with the first blocks only, and batches for them."""

import torch
import transformers
from composer.models import ComposerClassifier, HuggingFaceModel

from attent_stream.launch.hf_model import wrapped
from attent_stream.launch.models import Logits
from attent_stream.score.build import build_scorer
from attent_stream.score.fidelity import FULL, Fidelity
from attent_stream.score.microbatches import score_batch

T = transformers


VOCAB, LENGTH, LAYERS = 61, 24, 4


SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


GROUPED = SIZES | {"num_key_value_heads": 2}


IMAGE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}


# name -> (model class, function from the number of blocks to the configuration)
TEXT = {
    "llama": (T.LlamaForCausalLM, lambda n: T.LlamaConfig(**GROUPED, num_hidden_layers=n)),
    "gpt2": (
        T.GPT2LMHeadModel,
        lambda n: T.GPT2Config(vocab_size=VOCAB, n_positions=64, n_embd=32, n_layer=n, n_head=2),
    ),
    "gpt_neox": (T.GPTNeoXForCausalLM, lambda n: T.GPTNeoXConfig(**SIZES, num_hidden_layers=n)),
    "mpt": (
        T.MptForCausalLM,
        lambda n: T.MptConfig(vocab_size=VOCAB, d_model=32, n_heads=2, n_layers=n, max_seq_len=64),
    ),
    "gemma2": (
        T.Gemma2ForCausalLM,
        lambda n: T.Gemma2Config(**GROUPED, head_dim=16, num_hidden_layers=n),
    ),
    "opt": (
        T.OPTForCausalLM,
        lambda n: T.OPTConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=n,
            num_attention_heads=2,
            max_position_embeddings=64,
            word_embed_proj_dim=16,
        ),
    ),
    "bert": (T.BertForMaskedLM, lambda n: T.BertConfig(**SIZES, num_hidden_layers=n)),
}


IMAGES = {
    "vit": (T.ViTForImageClassification, lambda n: T.ViTConfig(**IMAGE, num_hidden_layers=n)),
    "deit": (T.DeiTForImageClassification, lambda n: T.DeiTConfig(**IMAGE, num_hidden_layers=n)),
}


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """Set weights that are large enough for scores to differ."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=generator)
                * (0.3 if parameter.ndim > 1 else 1.0)
            )
    return model.eval()


def pair(
    name: str, count: int
) -> tuple[HuggingFaceModel | ComposerClassifier, HuggingFaceModel | ComposerClassifier]:
    """A model of ``LAYERS`` blocks, and one built with the first ``count`` of them."""
    kind, config = (TEXT | IMAGES)[name]
    whole, small = filled(kind(config(LAYERS))), kind(config(count)).eval()
    small.load_state_dict(
        {key: value for key, value in whole.state_dict().items() if key in small.state_dict()}
    )
    if name in IMAGES:
        return tuple(
            ComposerClassifier(Logits(model), num_classes=5).eval() for model in (whole, small)
        )
    shift = name != "bert"
    return tuple(
        wrapped(m, tokenizer=None, use_logits=True, shift_labels=shift).eval()
        for m in (whole, small)
    )


def text(samples: int = 5, length: int = LENGTH) -> dict:
    """Right-padded."""
    ids = torch.randint(1, VOCAB, (samples, length), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(length) < torch.tensor([24, 7, 3, 24, 15])[:samples, None]).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.where(mask == 1, ids, -100)}


def images(samples: int = 5, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(samples, 3, side, side, generator=generator), torch.arange(samples) % 5


def scores(
    model,
    batch,
    fidelity: Fidelity = FULL,
    *,
    head: str | None = "reference",
    draw=(),
    score="loss",
) -> torch.Tensor:
    return score_batch(
        build_scorer(score, model, head=head, fidelity=fidelity), model, batch, 2, draw
    )
