"""Jobs of text whose models are people's own: what Composer does not know."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from composer.models import ComposerModel
from field_jobs import BATCH, IGNORED, LENGTH, VOCAB, Job, class_scores, walk, written
from field_text import TEXT, gpt2, hugging, llama, next_tokens, padded
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

CLASSES = 3  # of tags


def shifted_loss(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    """Of a causal language model, over all tokens with a label."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), **options)


class Wrapped(ComposerModel):
    """Around a Hugging Face model, which returns its loss."""

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, batch):
        return self.lm(**batch)

    def loss(self, outputs, batch):
        return outputs.loss


class Body(nn.Module):
    """Hidden states of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(VOCAB, 16), nn.GRU(16, 16, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mix(self.embed(tokens))[0]


class Own(ComposerModel):
    """A language model whose loss is ``loss_of(logits, labels)``."""

    def __init__(
        self, loss_of: Callable[[Tensor, Tensor], Tensor] = shifted_loss, classes: int = VOCAB
    ) -> None:
        super().__init__()
        self.body, self.head, self.loss_of = Body(), nn.Linear(16, classes), loss_of

    def logits(self, batch):
        return self.head(self.body(batch["input_ids"]))

    def forward(self, batch):
        return {"logits": self.logits(batch)}

    def loss(self, outputs, batch):
        return self.loss_of(outputs["logits"], batch["labels"])


class LossFirst(Own):
    """Outputs are (loss, logits)."""

    def forward(self, batch):
        logits = self.logits(batch)
        return self.loss_of(logits, batch["labels"]), logits

    def loss(self, outputs, batch):
        return outputs[0]


class Fused(Own):
    """In training it returns its loss only, as heads do that are fused with it."""

    def forward(self, batch):
        logits = self.logits(batch)
        return (
            {"loss": self.loss_of(logits, batch["labels"])} if self.training else {"logits": logits}
        )

    def loss(self, outputs, batch):
        return outputs["loss"]


class MakesLabels(Own):
    """Its batches have no labels: they are the next tokens."""

    def loss(self, outputs, batch):
        return self.loss_of(outputs["logits"], batch["input_ids"])


class TimeMajor(ComposerModel):
    """Tags each token; its outputs are (T, B, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = (
            nn.Embedding(VOCAB, 16),
            nn.LSTM(16, 16),
            nn.Linear(16, CLASSES),
        )

    def forward(self, batch):
        return self.head(self.mix(self.embed(batch["input_ids"].T))[0])

    def loss(self, outputs, batch):
        return F.cross_entropy(outputs.flatten(0, 1), batch["labels"].T.flatten())


class KernelLoss(torch.autograd.Function):
    """A cross-entropy that autograd knows nothing of."""

    @staticmethod
    def forward(ctx, logits, labels):
        valid = labels != IGNORED
        right = F.one_hot(labels.clamp(min=0), logits.shape[-1])
        count = valid.sum()
        ctx.save_for_backward((logits.softmax(-1) - right) * valid[:, None] / count)
        return -((logits.log_softmax(-1) * right).sum(-1) * valid).sum() / count

    @staticmethod
    def backward(ctx, grad):
        return ctx.saved_tensors[0] * grad, None


def _kernel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return KernelLoss.apply(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def _aligned(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), **options)


def _summed(logits: Tensor, labels: Tensor) -> Tensor:
    return shifted_loss(logits, labels, reduction="sum") / len(logits)


def _over_constant(logits: Tensor, labels: Tensor) -> Tensor:
    return shifted_loss(logits, labels) / 4


def _mean_of_samples(logits: Tensor, labels: Tensor) -> Tensor:
    losses = shifted_loss(logits, labels, reduction="none").reshape(len(labels), -1)
    return (losses.sum(1) / (labels[:, 1:] != IGNORED).sum(1)).mean()


def _smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    return shifted_loss(logits, labels, label_smoothing=0.1)


def _with_penalty(logits: Tensor, labels: Tensor) -> Tensor:
    return shifted_loss(logits, labels) + 0.01 * logits.logsumexp(-1).square().mean()


class OwnConfig(PretrainedConfig):
    model_type = "own"


class OwnPretrained(PreTrainedModel):
    """A Hugging Face causal language model that no list of them has."""

    config_class = OwnConfig

    def __init__(self, config: OwnConfig) -> None:
        super().__init__(config)
        self.body, self.head = Body(), nn.Linear(16, VOCAB)

    def get_input_embeddings(self):
        return self.body.embed

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.head(self.body(input_ids))
        return CausalLMOutput(
            loss=None if labels is None else shifted_loss(logits, labels), logits=logits
        )


def seeded(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Builds it, the same each time."""

    def made() -> nn.Module:
        torch.manual_seed(0)
        return build()

    return made


def _no_head(lm: nn.Module) -> nn.Module:
    lm.lm_head.weight = nn.Parameter(torch.zeros_like(lm.lm_head.weight))
    return lm


_logits = next_tokens(lambda model, batch: model.logits(batch))
_wrapped = next_tokens(
    lambda model, batch: model.lm(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
)
_pretrained = next_tokens(
    lambda model, batch: model.model.head(model.model.body(batch["input_ids"]))
)
_UNPADDED = {"input_ids": "ndarray:int64"}


def _tokens(rng):
    return {"input_ids": walk(rng)}


def _tagged(length):
    def sample(rng):
        tokens = walk(rng, length)
        return {"input_ids": tokens, "labels": tokens % CLASSES}

    return sample


def _zero_is_none(rng):
    tokens, length = walk(rng), int(rng.integers(LENGTH // 2, LENGTH + 1))
    tokens[length:] = 0
    return {"input_ids": tokens, "labels": tokens % 7}


def _sum_scores() -> dict:
    means = class_scores(_logits)

    def losses(model, batch):
        return means["losses"](model, batch) * (batch["labels"][:, 1:] != IGNORED).sum(1)

    return means | {"losses": losses}


def _divided() -> dict:
    means = class_scores(_logits)
    return means | {"losses": lambda model, batch: means["losses"](model, batch) / 4}


def _penalised() -> dict:
    means = class_scores(_logits)

    def losses(model, batch):
        return means["losses"](model, batch) + 0.01 * model.logits(batch).logsumexp(
            -1
        ).square().mean(1)

    return means | {"losses": losses}


def _time_major(name: str, length: int) -> Job:
    columns = _UNPADDED | {"labels": "ndarray:int64"}
    reading = class_scores(
        lambda model, batch: (model.forward(batch).transpose(0, 1), batch["labels"])
    )
    return Job(
        name=name, model=seeded(TimeMajor), write=written(columns, _tagged(length)), **reading
    )


def _own(name: str, build: Callable[[], nn.Module], **options) -> Job:
    brute = options.pop("brute", None) or class_scores(_logits)
    return Job(
        name=name, **{"model": seeded(build), "write": written(TEXT, padded)} | options, **brute
    )


JOBS = [
    _own("plain module around LLaMA", lambda: Wrapped(llama()), brute=class_scores(_wrapped)),
    _own(
        "plain module around GPT-2, head all zeros",
        lambda: Wrapped(_no_head(gpt2(tie_word_embeddings=False))),
        brute=class_scores(_wrapped),
    ),
    _own(
        "causal LM that Composer does not know",
        None,
        model=hugging(lambda: OwnPretrained(OwnConfig())),
        brute=class_scores(_pretrained),
    ),
    _own("own causal LM", Own),
    _own("outputs (loss, logits)", LossFirst),
    _own("only a loss in training", Fused),
    _own("only a loss in training, by a kernel of its own", lambda: Fused(_kernel_loss)),
    _own("labels made in the model", MakesLabels, write=written(_UNPADDED, _tokens)),
    _own("loss averaged over samples", lambda: Own(_mean_of_samples)),
    _own("loss summed over tokens", lambda: Own(_summed), brute=_sum_scores()),
    _own("loss divided by a constant", lambda: Own(_over_constant), brute=_divided(), times=4.0),
    _own(
        "label smoothing", lambda: Own(_smoothed), brute=class_scores(_logits, label_smoothing=0.1)
    ),
    _own("penalty on logits added", lambda: Own(_with_penalty), brute=_penalised()),
    _time_major("outputs (T, B, C)", LENGTH),
    _time_major("outputs (T, B, C), T = B", BATCH),
    _own(
        "class 0 ignored",
        lambda: Own(partial(_aligned, ignore_index=0), 7),
        write=written(_UNPADDED | {"labels": "ndarray:int64"}, _zero_is_none),
        brute=class_scores(lambda model, batch: (model.logits(batch), batch["labels"]), ignored=0),
    ),
]
